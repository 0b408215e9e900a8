"""What is logged around an invocation: START before it, END and REPORT after it, and the tail."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from lambda_protocol.invocation import Outcome
from lambda_protocol.limits import LOG_TAIL_BYTES
from rapid.call import Call, Failure
from rapid.environment.sandbox import RUNTIME, Sandbox
from rapid.logs.output import LineOutput, LineWriter
from rapid.logs.platform_lines import PlatformLines
from rapid.settings.environment import EnvironmentSettings
from rapid.telemetry import records
from rapid.telemetry.records import Ending, InitRef, InvocationRef, TelemetryRecord


class InvocationLog:
    """The platform's lines of one environment. Thread-safe.

    They are made only for a call that wants its tail, or when RAPID_PRINT_REPORTS asks for them:
    measuring memory costs more than a fast function. They end with the answer, which the tail goes
    with; what comes after it is for telemetry.
    """

    def __init__(
        self,
        settings: EnvironmentSettings,
        sandbox: Sandbox,
        platform_lines: PlatformLines,
        output: LineOutput,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Log what runs in ``sandbox`` on ``output``."""
        self._settings = settings
        self._sandbox = sandbox
        self._platform_lines = platform_lines
        self._writer = LineWriter(output)
        self._clock = clock

    def is_wanted(self, call: Call) -> bool:
        """Whether the lines of ``call`` are printed or kept for a log tail."""
        return self._settings.prints_reports or call.invocation.wants_log_tail

    def begin(self, call: Call) -> None:
        """Note where the output of ``call`` starts."""
        call.log_mark = self._sandbox.capture.total_bytes
        call.start_line = self._start(call)
        self._print(call.start_line)

    def end(
        self,
        call: Call,
        outcome: Outcome,
        status: str,
        error_type: str | None,
        *,
        init_s: float | None,
    ) -> Outcome:
        """Report on ``call``; return its outcome, with the log's tail if that is wanted.

        ``init_s`` is given for the first invocation after an init.
        """
        capture = self._sandbox.capture
        capture.flush(ends_lines=not self._settings.is_multi_concurrency)
        end = self._end(call, outcome, Ending(status=status, error_type=error_type), init_s)
        self._print(end)
        if not call.invocation.wants_log_tail:
            return outcome
        # A call that a failed init ended never began.
        start = call.start_line or self._start(call)
        output = capture.tail_since(call.log_mark)
        if output and not output.endswith(b"\n"):
            output += b"\n"
        tail = start + output + end
        return replace(outcome, log_tail=tail[-LOG_TAIL_BYTES:])

    def init_failed(self, failure: Failure, *, init_s: float, phase: str, status: str) -> None:
        """Report a failed init. A successful init is part of the first REPORT line."""
        error_type = None if status == "timeout" else failure.error_type
        self.print(
            records.init_report(
                InitRef(initialization_type=self._settings.initialization_type, phase=phase),
                Ending(status=status, error_type=error_type),
                duration_ms=init_s * 1000,
                at=time.time(),
            )
        )

    def print(self, record: TelemetryRecord) -> None:
        """Log an event of the platform's, if RAPID_PRINT_REPORTS asks for them."""
        if self._settings.prints_reports:
            self._print(self._platform_lines.render(record))

    def _start(self, call: Call) -> bytes:
        record = records.start(ref_of(call), version=self._settings.version, at=time.time())
        return self._platform_lines.render(record)

    def _end(self, call: Call, outcome: Outcome, ending: Ending, init_s: float | None) -> bytes:
        """Return the last lines; only a JSON log has one of the runtime's own end."""
        now, ref = time.time(), ref_of(call)
        duration_ms = (self._clock() - call.started_at) * 1000
        report = records.report(
            ref,
            ending,
            duration_ms=duration_ms,
            init_ms=None if init_s is None else init_s * 1000,
            memory_mb=self._settings.memory_mb,
            peak_memory_bytes=self._sandbox.peak_memory_bytes(RUNTIME),
            at=now,
        )
        line = self._platform_lines.render(report)
        if self._platform_lines.as_json and not self._settings.is_multi_concurrency:
            size = (
                (call.streamed_bytes or len(outcome.payload))
                if ending.status == "success"
                else None
            )
            done = records.runtime_done(
                ref, ending, duration_ms=duration_ms, produced_bytes=size, spans=(), at=now
            )
            line = self._platform_lines.render(done) + line
        return line

    def _print(self, lines: bytes) -> None:
        if lines and self._settings.prints_reports:
            self._writer.offer(lines)


class NoLog:
    """The log of an environment whose processes have not begun."""

    def is_wanted(self, _call: Call) -> bool:
        """Return False: lines of a call are not printed."""
        return False

    def begin(self, call: Call) -> None:
        """Log nothing."""

    def end(
        self,
        _call: Call,
        outcome: Outcome,
        _status: str,
        _error_type: str | None,
        *,
        init_s: float | None,
    ) -> Outcome:
        """Return ``outcome`` as it is."""
        del init_s
        return outcome

    def init_failed(self, failure: Failure, *, init_s: float, phase: str, status: str) -> None:
        """Log nothing."""


def ref_of(call: Call) -> InvocationRef:
    """Return how events name ``call``."""
    invocation = call.invocation
    return InvocationRef(
        request_id=invocation.request_id,
        trace_id=invocation.trace_id,
        tenant_id=invocation.tenant_id,
    )
