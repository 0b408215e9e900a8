"""The lab's nodes: what the scheduler binds pods to, and who starts and ends those."""

from __future__ import annotations

import contextlib
import http.client
import threading
import time
from pathlib import Path

from bench.autoscale.lab.kube import Kube, KubeError, Object
from bench.autoscale.lab.pods import Pod, PodLog, Seen
from devtools.ports import free_ports

_NODES = 4
_NAME_LABEL = "app.kubernetes.io/name"
_POLL_S = 0.05
_JOIN_S = 10.0


class Nodes:
    """The kubelets of four nodes in one, for one function's pods.

    Threads: one watches, and each pod has its own.
    """

    def __init__(
        self, kube: Kube, logs: Path, function: str, *, container_start_s: float = 1.5
    ) -> None:
        self.log = PodLog()
        self._kube = kube
        self._logs = logs
        self._container_start_s = container_start_s
        self._collection = (
            f"/api/v1/namespaces/lambda/pods?labelSelector={_NAME_LABEL}%3D{function}"
        )
        self._pods: dict[str, Pod] = {}
        self._drawn: set[int] = set()  #: ports given to pods, some of which do not listen yet

    def start(self) -> None:
        """Register the nodes and begin to run what is scheduled on them."""
        for number in range(_NODES):
            name = f"lab-worker-{number}"
            self._kube.create("/api/v1/nodes", _node(name))
            self._kube.merge(f"/api/v1/nodes/{name}/status", {"status": _node_status()})
            # Admission taints a new node until its controller, which does not run, has seen it.
            self._kube.merge(f"/api/v1/nodes/{name}", {"spec": {"taints": None}})
        threading.Thread(target=self._watch, name="kubelet", daemon=True).start()

    def stop(self) -> None:
        """End every pod's process at once."""
        self.log.is_closed.set()
        for pod in list(self._pods.values()):
            pod.asked_to_end.set()
            pod.thread.join(timeout=_JOIN_S)

    def _watch(self) -> None:
        while not self.log.is_closed.is_set():
            with contextlib.suppress(OSError, http.client.HTTPException, KubeError):
                for kind, pod in self._kube.watch(self._collection):
                    self._see(kind, pod)
            time.sleep(_POLL_S)

    def _see(self, kind: str, pod: Object) -> None:
        uid = pod["metadata"]["uid"]
        is_ending = kind == "DELETED" or "deletionTimestamp" in pod["metadata"]
        if uid in self._pods:
            if is_ending:
                self._pods[uid].asked_to_end.set()
        elif not is_ending and pod["spec"].get("nodeName") and not self.log.is_closed.is_set():
            self.log.scheduled.append(Seen(pod=uid, at=time.monotonic()))
            self._pods[uid] = Pod(
                self._kube, pod, self.log, self._logs, len(self._pods), self._draw_ports()
            )
            self._pods[uid].start(self._container_start_s)

    def _draw_ports(self) -> tuple[int, int]:
        """Return two ports that no pod was given before: dozens start at the same moment."""
        while not self._drawn.isdisjoint(ports := free_ports(2)):
            pass
        self._drawn.update(ports)
        return ports[0], ports[1]


def _node(name: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux"},
        },
    }


def _node_status() -> Object:
    room = {"cpu": "16", "memory": "32Gi", "pods": "110", "ephemeral-storage": "200Gi"}
    return {
        "capacity": room,
        "allocatable": room,
        "conditions": [{"type": "Ready", "status": "True", "reason": "Lab"}],
    }
