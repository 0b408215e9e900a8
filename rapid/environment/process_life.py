"""The processes of one environment, from the start of the first to the end of the last."""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from lambda_protocol.address import Address
from lambda_protocol.invocation import new_request_id
from rapid.call import Failure
from rapid.environment.context import EnvironmentContext
from rapid.environment.control_groups import EnvironmentGroup
from rapid.environment.extensions import Extensions, discover
from rapid.environment.launch import Launch, OnExit
from rapid.environment.sandbox import RUNTIME, Sandbox
from rapid.environment.shutdown import shut_down
from rapid.logs.capture import OnError
from rapid.logs.level import is_kept
from rapid.logs.output import Outputs
from rapid.processes import ExitStatus, Reaper
from rapid.telemetry.hub import Telemetry

logger = logging.getLogger(__name__)

#: How long a killed process may take to be reaped before rapid goes on without it, seconds.
KILL_LIMIT_S: Final = 5.0
#: The same of what left its process group.
ORPHAN_LIMIT_S: Final = 2.0
#: How long the last telemetry of an environment is still delivered for, seconds.
TELEMETRY_STOP_S: Final = 0.2


class EnvironmentProcesses:
    """Starts and ends them. One thread, ``env-N``, but for what says otherwise."""

    def __init__(
        self,
        context: EnvironmentContext,
        reaper: Reaper,
        outputs: Outputs,
        *,
        open_group: Callable[[], EnvironmentGroup],
        on_error: OnError,
    ) -> None:
        """Start nothing; ``on_error`` gets what goes wrong in the thread that reads the output."""
        self.metadata_token = new_request_id()  #: what they show the metadata endpoint
        self._settings = context.settings
        self._reaper = reaper
        self._outputs = outputs
        self._index = context.index
        self._open_group = open_group
        self._on_error = on_error
        self._sandbox: Sandbox | None = None
        self._launch: Launch | None = None
        self._extensions: list[Path] = []

    def open(self, runtime_api: Address) -> Sandbox:
        """Open the pipes and the control group; ``runtime_api`` is what the processes call."""
        self._extensions = discover(self._settings.extensions_dir)
        self._sandbox = Sandbox(
            f"env-{self._index}",
            self._reaper,
            self._outputs,
            self._open_group(),
            runtime_api=str(runtime_api),
            extensions=[path.name for path in self._extensions],
            keeps=functools.partial(is_kept, least=self._settings.least_level_kept),
            on_error=self._on_error,
        )
        self._launch = Launch(
            self._settings,
            self._sandbox,
            index=self._index,
            runtime_api=str(runtime_api),
            metadata_token=self.metadata_token,
        )
        return self._sandbox

    def start_extensions(
        self, on_start: Callable[[str], None], on_exit: Callable[[str, ExitStatus], None]
    ) -> None:
        """Start every external extension; ``on_start`` gets its name before. Raises LaunchError."""
        assert self._launch is not None
        environ = self._launch.prepare_extensions(self._extensions)
        for path in self._extensions:
            on_start(path.name)
            self._launch.start_extension(path, environ, functools.partial(on_exit, path.name))

    def start_runtime(self, on_exit: OnExit) -> None:
        """Start the runtime; raises ``LaunchError``."""
        assert self._launch is not None
        self._launch.start_runtime(on_exit)

    def close_writers(self) -> None:
        """Leave the pipes to the processes: nothing more is started."""
        if self._sandbox is not None:
            self._sandbox.capture.close_writers()

    def end_lines(self, extension: str | None = None) -> None:
        """Pass on half lines of the runtime, or of an extension. Any thread."""
        if self._sandbox is not None:
            self._sandbox.capture.flush(ends_lines=True, extension=extension)

    def printed(self) -> bytes:
        """Return the end of what the processes have printed. Any thread."""
        if self._sandbox is None:
            return b""
        self._sandbox.capture.flush(ends_lines=True)
        return self._sandbox.capture.tail_since(0)

    @property
    def peak_memory_bytes(self) -> int:
        """The peak memory of the runtime; 0 if unknown. Any thread."""
        return 0 if self._sandbox is None else self._sandbox.peak_memory_bytes(RUNTIME)

    def with_cause(self, failure: Failure, status: ExitStatus) -> Failure:
        """Return the failure of a process that has ended, with the reason. Any thread."""
        assert self._sandbox is not None
        watch = self._sandbox.control_group.watch
        if not watch.is_out_of_memory(status):
            return replace(failure, cause=str(status))
        return replace(failure, cause="out of memory", memory_limit_bytes=watch.limit_bytes)

    def shut_down(
        self,
        extensions: Extensions,
        lock: threading.Lock,
        telemetry: Telemetry,
        *,
        reason: str,
        linger_s: float,
    ) -> None:
        """Go through the shutdown phase; see :func:`shut_down`."""
        sandbox = self._sandbox
        if sandbox is None:
            return
        try:
            shut_down(
                sandbox,
                extensions,
                lock,
                reason=reason,
                linger_s=linger_s,
                flush=telemetry.flush if telemetry.has_subscribers else None,
            )
        except Exception:
            sandbox.kill()
            raise

    def end(self, telemetry: Telemetry) -> None:
        """See to it that no process, pipe or subscriber is left."""
        sandbox = self._sandbox
        if sandbox is None:
            return
        if not sandbox.wait_for_exit(KILL_LIMIT_S):
            logger.error("processes not reaped", extra={"env": self._index})
        try:
            sandbox.kill_orphans(ORPHAN_LIMIT_S)
        finally:
            sandbox.close()
            telemetry.stop(TELEMETRY_STOP_S)
