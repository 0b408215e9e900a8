"""What is logged around an invocation: START before it, END and REPORT after it, and the tail."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

from lambda_protocol.invocation import Outcome
from lambda_protocol.limits import LOG_TAIL_BYTES
from rapid.call import Call, Failure
from rapid.config import Config
from rapid.log_capture import write_all
from rapid.report import Report, Reporter
from rapid.sandbox import RUNTIME, Sandbox

_STDOUT = 1


class InvocationLog:
    """The platform's lines of one environment. Thread-safe.

    They are made only for a call that wants its tail, or when PRINT_REPORTS asks for them:
    measuring memory costs more than a fast function.
    """

    def __init__(
        self,
        config: Config,
        sandbox: Sandbox,
        reporter: Reporter,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Log what runs in ``sandbox``."""
        self._config = config
        self._sandbox = sandbox
        self._reporter = reporter
        self._clock = clock

    def is_wanted(self, call: Call) -> bool:
        """Whether anybody will see the lines of ``call``."""
        return self._config.prints_reports or call.invocation.wants_log_tail

    def begin(self, call: Call) -> None:
        """Note where the output of ``call`` starts."""
        call.log_mark = self._sandbox.capture.total_bytes
        call.start_line = self._reporter.start(call.invocation.request_id)
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
        capture.flush()
        end = self._reporter.end(
            Report(
                request_id=call.invocation.request_id,
                duration_ms=(self._clock() - call.started_at) * 1000,
                init_ms=None if init_s is None else init_s * 1000,
                memory_mb=self._config.memory_mb,
                peak_memory_bytes=self._sandbox.peak_memory_bytes(RUNTIME),
                status=status,
                error_type=error_type,
            )
        )
        self._print(end)
        if not call.invocation.wants_log_tail:
            return outcome
        # A call that a failed init ended never began.
        start = call.start_line or self._reporter.start(call.invocation.request_id)
        tail = start + capture.tail_since(call.log_mark) + end
        return dataclasses.replace(outcome, log_tail=tail[-LOG_TAIL_BYTES:])

    def init_failed(self, failure: Failure, *, init_s: float, phase: str, status: str) -> None:
        """Report on an init that failed; one that succeeded is in its first REPORT."""
        self._print(
            self._reporter.init_report(
                init_ms=init_s * 1000,
                phase=phase,
                status=status,
                error_type=None if status == "timeout" else failure.error_type,
            )
        )

    def _print(self, lines: bytes) -> None:
        if self._config.prints_reports:
            write_all(_STDOUT, lines)
