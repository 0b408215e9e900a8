"""One pod without a container: a rapid on this machine, lived through as a kubelet would."""

from __future__ import annotations

import base64
import contextlib
import http.client
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from bench.autoscale.lab.kube import Kube, KubeError, Object
from devtools.ports import LOOPBACK

_CHECKOUT = Path(__file__).parents[3]
_SLEEPER = Path(__file__).with_name("sleeper.py")
_PROBE_S = 1.0
_LOG_CHARACTERS = 1000
_POLL_S = 0.05
_INHERITED = ("HOME", "LANG", "PATH", "TMPDIR")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What the lab knows of a pod's life; times are monotonic seconds."""

    pod: str
    at: float


@dataclass(slots=True, kw_only=True)
class PodLog:
    """What happened to pods. Appended to by their threads, read by the measuring one."""

    scheduled: list[Seen] = field(default_factory=list)
    ready: list[Seen] = field(default_factory=list)
    terminating: list[Seen] = field(default_factory=list)
    gone: list[Seen] = field(default_factory=list)
    crashed: list[Seen] = field(default_factory=list)  #: ended without being asked
    killed: list[Seen] = field(default_factory=list)  #: still there when the grace was over
    is_closed: threading.Event = field(default_factory=threading.Event)

    def running(self) -> int:
        """Return how many pods are ready and not asked to end."""
        ended = {entry.pod for entry in [*self.terminating, *self.gone]}
        return len({entry.pod for entry in self.ready} - ended)

    def present(self) -> int:
        """Return how many pods exist, whatever their state."""
        return len({e.pod for e in self.scheduled}) - len({e.pod for e in self.gone})


class Pod:
    """One pod from its binding to its end. One thread, its own; the watch sets ``asked_to_end``."""

    def __init__(
        self, kube: Kube, pod: Object, log: PodLog, logs: Path, number: int, ports: tuple[int, int]
    ) -> None:
        self.asked_to_end = threading.Event()
        self._kube = kube
        self._pod = pod
        self._log = log
        self._number = number
        self._port, self._runtime_port = ports
        metadata = pod["metadata"]
        self._uid = metadata["uid"]
        self._output = logs / f"{metadata['name']}.log"
        self._path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"

    def start(self, container_start_s: float) -> None:
        """Live the pod's life, in a thread."""
        name = f"pod-{self._number}"
        self.thread = threading.Thread(
            target=self._run, args=(container_start_s,), name=name, daemon=True
        )
        self.thread.start()

    def _run(self, container_start_s: float) -> None:
        process = None
        try:
            if not self.asked_to_end.wait(container_start_s):
                process = self._spawn()
                self._serve(process)
                self._end(process)
        finally:
            if process is not None:
                with contextlib.suppress(ProcessLookupError):  # and whatever it left behind
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            self._record(self._log.gone)
            with contextlib.suppress(KubeError, OSError):
                self._kube.delete(self._path, grace_s=0)

    def _serve(self, process: subprocess.Popen[bytes]) -> None:
        """Probe it each second until it is ready, then wait until it is to end."""
        while not _is_ready(self._port):
            if process.poll() is not None or self.asked_to_end.wait(_PROBE_S):
                return
        self._record(self._log.ready)
        self._report_ready()
        while process.poll() is None and not self.asked_to_end.wait(_PROBE_S):
            pass

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        if process.poll() is not None:
            self._record(self._log.crashed)
            output = self._output.read_text(errors="replace")[-_LOG_CHARACTERS:]
            logger.warning("a pod ended by itself: %s", output)
            return
        if self._log.is_closed.is_set():
            return
        self._record(self._log.terminating)
        process.terminate()
        until = time.monotonic() + self._pod["spec"]["terminationGracePeriodSeconds"]
        while process.poll() is None and not self._log.is_closed.is_set():
            if time.monotonic() >= until:
                self._record(self._log.killed)
                return
            time.sleep(_POLL_S)

    def _record(self, entries: list[Seen]) -> None:
        entries.append(Seen(pod=self._uid, at=time.monotonic()))

    def _report_ready(self) -> None:
        conditions = [
            {"type": kind, "status": "True"}
            for kind in ("Initialized", "ContainersReady", "Ready", "PodScheduled")
        ]
        address = f"10.244.{self._number // 250}.{self._number % 250 + 1}"
        status = {
            "phase": "Running",
            "conditions": conditions,
            "podIP": address,
            "podIPs": [{"ip": address}],
        }
        with contextlib.suppress(KubeError, OSError):
            self._kube.merge(f"{self._path}/status", {"status": status})

    def _spawn(self) -> subprocess.Popen[bytes]:
        (container, *_) = self._pod["spec"]["containers"]
        environ = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        environ |= self._environ(container)
        environ |= {
            "RAPID_INVOKE_API_HOST": LOOPBACK,
            "RAPID_PORT": str(self._port),
            "RAPID_RUNTIME_API_PORT": str(self._runtime_port),
        }
        with self._output.open("ab") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "rapid", sys.executable, "-SE", str(_SLEEPER)],
                env=environ,
                cwd=_CHECKOUT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                process_group=0,
            )

    def _environ(self, container: Object) -> dict[str, str]:
        environ = {}
        for entry in container.get("env", []):
            value = entry.get("value") if "valueFrom" not in entry else self._look_up(entry)
            if value is not None:
                environ[entry["name"]] = value
        return environ

    def _look_up(self, entry: Object) -> str | None:
        source = entry["valueFrom"]
        namespace = f"/api/v1/namespaces/{self._pod['metadata']['namespace']}"
        if "configMapKeyRef" in source:
            reference = source["configMapKeyRef"]
            found = self._kube.get(f"{namespace}/configmaps/{reference['name']}")["data"]
            return str(found[reference["key"]])
        if "secretKeyRef" in source:
            reference = source["secretKeyRef"]
            found = self._kube.get(f"{namespace}/secrets/{reference['name']}")["data"]
            return base64.b64decode(found[reference["key"]]).decode()
        path = source.get("fieldRef", {}).get("fieldPath", "")
        return look_up_field(self._pod, path)


def look_up_field(pod: Object, path: str) -> str | None:
    """Return what a ``fieldRef`` names: ``metadata.name``, ``metadata.labels['key']``."""
    name, _, key = path.partition("['")
    found: object = pod
    for part in name.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    if key and isinstance(found, dict):
        found = found.get(key.removesuffix("']"))
    return found if isinstance(found, str) else None


def _is_ready(port: int) -> bool:
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=2)
    with contextlib.closing(connection):
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
