"""Hands over the outcomes of an environment's calls; logs and telemetry say how they ended."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator

from lambda_protocol.errors import ErrorType
from lambda_protocol.invocation import Outcome
from rapid.call import Call, Failure
from rapid.environment.context import EnvironmentContext
from rapid.environment.core import Core
from rapid.environment.diagnosis import failed_init
from rapid.environment.extensions import Extension
from rapid.environment.failure_log import log_failed_calls, log_failed_environment, memory_facts
from rapid.environment.invocation_log import InvocationLog, NoLog
from rapid.environment.process_life import EnvironmentProcesses
from rapid.environment.sandbox import Sandbox
from rapid.environment.telemetry_emitter import NoTelemetry, TelemetryEmitter
from rapid.logs.output import LineOutput
from rapid.logs.platform_lines import PlatformLines
from rapid.telemetry.hub import Telemetry
from rapid.telemetry.records import Ending

logger = logging.getLogger(__name__)


class Outcomes:
    """The end of every call of one environment. Thread-safe."""

    def __init__(
        self,
        core: Core,
        context: EnvironmentContext,
        processes: EnvironmentProcesses,
        platform_lines: PlatformLines,
        output: LineOutput,
    ) -> None:
        """Give outcomes to the owner, and log on ``output`` once there is a sandbox.

        If several calls share the runtime, half lines end with each call.
        """
        self._settings = context.settings
        self._owner = context.owner
        self._processes = processes
        self._platform_lines = platform_lines
        self._output = output
        self._index = context.index
        self._init_phase = context.init_phase
        self._is_shared = context.settings.is_multi_concurrency
        self._end_lines = core.end_lines
        self._clock = context.clock
        self.telemetry = Telemetry(
            logs_json=self._settings.logs_json, on_error=core.fail_unexpectedly
        )
        self.log: InvocationLog | NoLog = NoLog()
        self.emitter: TelemetryEmitter | NoTelemetry = NoTelemetry()

    def open(self, sandbox: Sandbox) -> None:
        """Say what happens in ``sandbox`` from now on: its init begins."""
        log = InvocationLog(
            self._settings, sandbox, self._platform_lines, self._output, self._clock
        )
        emitter = TelemetryEmitter(
            settings=self._settings,
            telemetry=self.telemetry,
            sandbox=sandbox,
            log=log,
            init_phase=self._init_phase,
            clock=self._clock,
        )
        self.log, self.emitter = log, emitter
        emitter.begin_init()

    def begin(self, call: Call, init_s: float | None) -> None:
        """Say that ``call`` starts; ``init_s`` is how long the environment's init took."""
        self.emitter.begin(call, init_s)
        if self.log.is_wanted(call):
            self.log.begin(call)

    def complete(
        self,
        call: Call,
        outcome: Outcome,
        status: str,
        error_type: str | None = None,
        *,
        init_s: float | None = None,
    ) -> None:
        """Log the end of the invocation and hand its outcome over."""
        try:
            if self.log.is_wanted(call):
                init_s = init_s if call.is_cold else None
                outcome = self.log.end(call, outcome, status, error_type, init_s=init_s)
        finally:
            self._owner.finish(call, outcome, status)
        if self._is_shared:
            self._end_lines()
            self.emitter.end_one_of_many(call, Ending(status=status, error_type=error_type))

    def complete_failed(
        self, calls: Iterable[Call], failure: Failure, *, init_s: float | None
    ) -> None:
        """End ``calls`` with ``failure``."""
        for call in calls:
            with self.errors_logged():
                outcome = failure.outcome(call.invocation.request_id, self._settings.version)
                self.complete(call, outcome, status_of(failure), failure.error_type, init_s=init_s)

    def log_failed(self, calls: Iterable[Call], failure: Failure, *, is_init: bool = False) -> None:
        """Warn of calls that rapid ended, or that the function's init kept from starting."""
        log_failed_calls(
            calls,
            failure,
            function=self._settings.function.name,
            now=self._clock(),
            peak_memory_bytes=self._processes.peak_memory_bytes,
            is_init=is_init,
        )

    def say_failed(
        self,
        victims: list[Call],
        failure: Failure,
        extensions: Iterable[Extension],
        *,
        init_s: float | None,
        init_status: str,
        is_failure: bool,
    ) -> None:
        """Say that the environment ends with ``failure``, which ended ``victims``.

        ``init_s`` is given if the init was not done. Without ``is_failure`` it was wanted.
        """
        with self.errors_logged():
            self._log_end(victims, failure, was_init=init_s is not None, is_failure=is_failure)
        with self.errors_logged():
            if init_s is not None and is_failure:
                self.emitter.fail_init(extensions, failure, init_s=init_s, status=init_status)
            self.emitter.fail(victims, failure, status_of(failure), is_failure=is_failure)

    def say_init_failed(self, failure: Failure, init_s: float, status: str) -> None:
        """Log that the init failed, with a diagnosis of what the processes printed."""
        output = self._processes.printed()
        if not failure.is_logged:
            said = failed_init(failure, self._settings.command, self._settings.handler, output)
            about = {
                "env": self._index,
                "function": self._settings.function.name,
                "after_ms": round(init_s * 1000, 1),
                **memory_facts(failure, self._processes.peak_memory_bytes),
            }
            if failure.cause:
                about["cause"] = failure.cause
            logger.error("init failed", extra={**about, **said})
        self.log.init_failed(failure, init_s=init_s, phase=self._init_phase, status=status)

    def _log_end(
        self, victims: list[Call], failure: Failure, *, was_init: bool, is_failure: bool
    ) -> None:
        if failure.is_logged:
            return
        if victims:
            self.log_failed(victims, failure, is_init=was_init)
        elif is_failure and not was_init:
            log_failed_environment(
                failure,
                function=self._settings.function.name,
                peak_memory_bytes=self._processes.peak_memory_bytes,
            )

    @contextlib.contextmanager
    def errors_logged(self) -> Iterator[None]:
        """Log what the block raises, in an environment that is ending already."""
        try:
            yield
        except Exception:
            logger.exception("environment failed", extra={"env": self._index})


def status_of(failure: Failure) -> str:
    """Return the status of an invocation that ended with ``failure``."""
    return "timeout" if failure.error_type == ErrorType.TIMED_OUT else "failure"
