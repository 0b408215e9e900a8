"""The processes of one execution environment: the runtime, its extensions, and their pipes."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from rapid.environment.control_groups import EnvironmentGroup
from rapid.environment.orphans import kill_orphans
from rapid.logs.capture import LogCapture, OnError
from rapid.logs.lines import LogMessage
from rapid.logs.output import Outputs
from rapid.processes import ExitStatus, ProcessGroup, Reaper

#: The runtime's name among the processes; no file in /opt/extensions has it.
RUNTIME: Final = "\0runtime"


class Sandbox:
    """Processes by name. Thread-safe; its lock is a leaf."""

    def __init__(
        self,
        name: str,
        reaper: Reaper,
        outputs: Outputs,
        control_group: EnvironmentGroup,
        *,
        runtime_api: str,
        extensions: Sequence[str] = (),
        keeps: Callable[[LogMessage], bool] = lambda message: True,
        on_error: OnError,
    ) -> None:
        """Open the pipes that the processes of this sandbox write to; see ``LogCapture``."""
        self.capture = LogCapture(
            name, outputs, extensions=extensions, keeps=keeps, on_error=on_error
        )
        self.control_group = control_group
        self._reaper = reaper
        self._runtime_api = runtime_api
        self._lock = threading.Lock()
        self._exited = threading.Condition(self._lock)
        # guarded by _lock:
        self._groups: dict[str, ProcessGroup] = {}
        self._alive: set[str] = set()  # not yet reaped
        self._peak_memory_bytes: dict[str, int] = {}  # of those that have ended

    def start(
        self,
        name: str,
        argv: Sequence[str],
        *,
        environ: Mapping[str, str],
        cwd: str | None,
        on_exit: Callable[[ExitStatus], None],
    ) -> None:
        """Start a process group called ``name``; raises ``OSError``.

        ``on_exit`` runs in the reaper's thread.
        """

        def on_reaped(status: ExitStatus) -> None:
            with self._lock:
                self._alive.discard(name)
                self._peak_memory_bytes[name] = status.peak_memory_bytes
                self._exited.notify_all()
            on_exit(status)

        with self._lock:
            self._alive.add(name)
        capture = self.capture
        is_runtime = name == RUNTIME
        inherited = capture.log_descriptor if is_runtime else None
        stdout, stderr = capture.descriptors_of(None if is_runtime else name)
        try:
            group = self._reaper.spawn(
                argv,
                environ=environ,
                cwd=cwd,
                stdout=stdout,
                stderr=stderr,
                owner=self._runtime_api,
                pass_fds=() if inherited is None else (inherited,),
                on_exit=on_reaped,
            )
        except BaseException:
            with self._lock:
                self._alive.discard(name)
                self._exited.notify_all()
            raise
        with self._lock:
            self._groups[name] = group
        self.control_group.add(group)

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to the group called ``name``, if it was ever started."""
        with self._lock:
            group = self._groups.get(name)
        if group is not None:
            group.signal(number)

    def wait_for_exit(self, limit_s: float, name: str | None = None) -> bool:
        """Wait until one process, or every one, is reaped; False when the limit came first."""
        with self._lock:
            return self._exited.wait_for(
                lambda: name not in self._alive if name else not self._alive, limit_s
            )

    def kill(self) -> None:
        """Send SIGKILL to every group."""
        with self._lock:
            groups = list(self._groups.values())
        for group in groups:
            group.signal(signal.SIGKILL)

    def kill_orphans(self, limit_s: float) -> None:
        """Kill what left its process group, and wait until it is dead."""
        self.control_group.kill()
        kill_orphans(self._reaper, self._runtime_api, self.control_group.is_anothers, limit_s)

    def peak_memory_bytes(self, name: str) -> int:
        """Return the peak memory of a process, with its children while it lives; 0 if unknown."""
        with self._lock:
            group = self._groups.get(name)
            ended = self._peak_memory_bytes.get(name)
        if ended is not None:
            return ended
        return 0 if group is None else group.peak_memory_bytes()

    def close(self) -> None:
        """Pass on what is left in the pipes and close them."""
        self.capture.close()
        self.control_group.close()
