"""What happens in one environment, told to those who listen to its telemetry, with true figures."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from lambda_protocol.invocation import new_request_id
from rapid.call import Call, Failure
from rapid.environment.extensions import Extension
from rapid.environment.invocation_log import InvocationLog, ref_of
from rapid.environment.sandbox import RUNTIME, Sandbox
from rapid.logs.level import is_kept
from rapid.logs.lines import LogMessage
from rapid.settings.environment import EnvironmentSettings
from rapid.telemetry import records
from rapid.telemetry.hub import Telemetry
from rapid.telemetry.records import Ending, InitRef, Span, TelemetryRecord
from rapid.telemetry.subscription import Subscription

_SUCCESS: Final = Ending()


@dataclass(slots=True)
class _Turn:
    """An invocation from its start to the end of its phase. Monotonic seconds."""

    call: Call
    init_ms: float | None = None
    response_began_at: float | None = None
    response_ended_at: float | None = None
    ending: Ending = _SUCCESS
    produced_bytes: int | None = None
    runtime_done_at: float | None = None
    peak_memory_bytes: int = 0


class TelemetryEmitter:
    """The platform's side of one environment's telemetry. Thread-safe.

    It exists until init ends, and afterwards only if an extension subscribed: then
    :class:`NoTelemetry` takes its place. Methods that end in ``_locked`` are called with
    the scheduler's lock, which puts events in order; they only fill buffers. The others first read
    what the function has printed, so that its lines come before the event.
    """

    def __init__(
        self,
        *,
        settings: EnvironmentSettings,
        telemetry: Telemetry,
        sandbox: Sandbox,
        log: InvocationLog,
        init_phase: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Tell ``telemetry`` of what happens in ``sandbox``, and from now on what is printed."""
        self._settings = settings
        self._telemetry = telemetry
        self._sandbox = sandbox
        self._log = log
        self._clock = clock
        self._init = InitRef(initialization_type=settings.initialization_type, phase=init_phase)
        self._turns: dict[str, _Turn] = {}  # by request id; each step is one of the interpreter's
        self._is_runtime_done = False  # with its init
        self._unprinted: deque[TelemetryRecord] = (
            deque()
        )  # events of the init that the log has yet to have
        sandbox.capture.listen(self._on_record)

    # --- init

    def begin_init(self) -> None:
        """Tell that the environment starts."""
        function = self._settings.function
        record = records.init_start(
            self._init,
            function_name=function.name,
            function_arn=function.arn,
            version=self._settings.version,
            instance_id=new_request_id().replace("-", ""),
            memory_mb=self._settings.memory_mb,
            at=time.time(),
        )
        self._telemetry.publish(record)
        self._log.print(record)

    def subscribe(self, extension: Extension, subscription: Subscription) -> bool:
        """Begin a subscription; False when it is too late for one."""
        if not self._telemetry.subscribe(extension.id, extension.name, subscription):
            return False
        self._tell_init(
            records.subscription(
                extension.name,
                subscription.types,
                is_logs_api=subscription.schema.is_logs_api,
                at=time.time(),
            )
        )
        return True

    def end_init_locked(self, extensions: Iterable[Extension], init_s: float) -> bool:
        """Emit the end of init. Return whether telemetry has subscribers from now on."""
        now = time.time()
        for extension in extensions:
            self._tell_init(_extension_event(extension, now, None))
        self._tell_init(
            records.init_report(self._init, _SUCCESS, duration_ms=init_s * 1000, at=now)
        )
        return self._telemetry.close_subscription()

    def fail_init(
        self, extensions: Iterable[Extension], failure: Failure, *, init_s: float, status: str
    ) -> None:
        """Tell that init has failed; the log has its own way to say so."""
        self._sandbox.capture.flush(ends_lines=True)
        ending = Ending(
            status=status, error_type=None if status == "timeout" else failure.error_type
        )
        now = time.time()
        if not self._is_runtime_done:
            self._telemetry.publish(records.init_runtime_done(self._init, ending, at=now))
        for extension in extensions:
            self._telemetry.publish(_extension_event(extension, now, failure.error_type))
        self._telemetry.publish(
            records.init_report(self._init, ending, duration_ms=init_s * 1000, at=now)
        )

    def print_init(self) -> None:
        """Log what has been told of the init so far; when it is over and nobody listens, close."""
        while self._unprinted:
            self._log.print(self._unprinted.popleft())
        if not (self._telemetry.is_open or self._telemetry.has_subscribers):
            self._sandbox.capture.listen(None)

    # --- invocations

    def begin(self, call: Call, init_s: float | None) -> None:
        """Tell that ``call`` starts; what was printed before is not its own."""
        self._sandbox.capture.flush()
        init_ms = init_s * 1000 if init_s is not None and call.is_cold else None
        self._turns[call.invocation.request_id] = _Turn(call, init_ms)
        self._telemetry.publish(
            records.start(
                ref_of(call), version=self._settings.version, at=self._wall(call.started_at)
            )
        )

    def forget_locked(self, call: Call) -> None:
        """Know no more of a call that was never delivered."""
        self._turns.pop(call.invocation.request_id, None)

    def note_answer_locked(self, call: Call, began_at: float, size: int, ending: Ending) -> None:
        """Keep when and with what the runtime answered."""
        turn = self._turns.get(call.invocation.request_id)
        if turn is not None:
            turn.response_began_at = began_at
            turn.response_ended_at = self._clock()
            turn.produced_bytes = size
            turn.ending = ending

    def measure(self) -> int:
        """Take in the last lines of the runtime's turn; return its peak memory, bytes."""
        self._sandbox.capture.flush(ends_lines=not self._settings.is_multi_concurrency)
        if "platform" not in self._telemetry.streams:
            return 0
        return self._sandbox.peak_memory_bytes(RUNTIME)

    def end_runtime_locked(self, peak_memory_bytes: int) -> None:
        """Tell that the runtime is in ``next``: its init, or what it has answered, is done."""
        if not self._is_runtime_done:
            self._is_runtime_done = True
            self._tell_init(records.init_runtime_done(self._init, _SUCCESS, at=time.time()))
        if self._settings.is_multi_concurrency:
            return
        for turn in self._turns.values():
            if turn.response_ended_at is not None and turn.runtime_done_at is None:
                self._tell_runtime_done(turn, turn.ending, peak_memory_bytes)

    def end_phase_locked(self) -> None:
        """Tell that the invoke phase is over: the extensions are done too."""
        for turn in list(self._turns.values()):
            if turn.runtime_done_at is not None:
                self._tell_report(turn, turn.ending, has_extensions=True)

    def end_one_of_many(self, call: Call, ending: Ending) -> None:
        """Tell that one of several invocations at once is over."""
        turn = self._turns.pop(call.invocation.request_id, None)
        if turn is None:
            return
        self._sandbox.capture.flush()
        now = self._clock()
        self._telemetry.publish(
            records.report_of_one_of_many(
                ref_of(call),
                ending,
                duration_ms=_ms(call.started_at, now),
                spans=self._response_spans(turn),
                at=self._wall(now),
            )
        )

    def fail(
        self, calls: Iterable[Call], failure: Failure, status: str, *, is_failure: bool
    ) -> None:
        """Tell how everything ended that is not over yet, and ``calls``, which may not have begun.

        Without ``is_failure`` an invocation that was answered has ended as it was.
        """
        for call in calls:
            if call.invocation.request_id not in self._turns:
                self.begin(call, None)
        peak = self.measure()
        for turn in list(self._turns.values()):
            ending = Ending(status=status, error_type=failure.error_type)
            if not is_failure and turn.response_ended_at is not None:
                ending = turn.ending
            if self._settings.is_multi_concurrency:
                self.end_one_of_many(turn.call, ending)
                continue
            if turn.runtime_done_at is None:
                self._tell_runtime_done(turn, ending, peak)
            if ending.status == "failure":
                request_id = turn.call.invocation.request_id
                message = failure.message or "Process exited before completing request"
                self._telemetry.publish(
                    records.fault(request_id, failure.error_type, message, at=time.time())
                )
            self._tell_report(turn, ending, has_extensions=False)

    # --- inside

    def _on_record(self, stream: str, message: LogMessage) -> None:
        if stream == "function" and not is_kept(message, self._settings.least_level_kept):
            return
        at = time.time() if message.time_us is None else message.time_us / 1e6
        self._telemetry.publish(
            TelemetryRecord(stream, message.text.decode("utf-8", "replace"), at)
        )

    def _tell_init(self, record: TelemetryRecord) -> None:
        self._telemetry.publish(record)
        if self._settings.prints_reports:
            self._unprinted.append(record)

    def _tell_runtime_done(self, turn: _Turn, ending: Ending, peak_memory_bytes: int) -> None:
        now = self._clock()
        turn.runtime_done_at = now
        turn.peak_memory_bytes = peak_memory_bytes
        spans = self._response_spans(turn)
        if turn.response_ended_at is not None:
            ended_at = turn.response_ended_at
            spans.append(Span("runtimeOverhead", self._wall(ended_at), _ms(ended_at, now)))
        self._telemetry.publish(
            records.runtime_done(
                ref_of(turn.call),
                ending,
                duration_ms=_ms(turn.call.started_at, now),
                produced_bytes=turn.produced_bytes,
                spans=spans,
                at=self._wall(now),
            )
        )

    def _tell_report(self, turn: _Turn, ending: Ending, *, has_extensions: bool) -> None:
        now = self._clock()
        del self._turns[turn.call.invocation.request_id]
        spans = self._response_spans(turn)
        if has_extensions and turn.runtime_done_at is not None:
            done_at = turn.runtime_done_at
            spans.append(Span("extensionOverhead", self._wall(done_at), _ms(done_at, now)))
        self._telemetry.publish(
            records.report(
                ref_of(turn.call),
                ending,
                duration_ms=_ms(turn.call.started_at, now),
                init_ms=turn.init_ms,
                memory_mb=self._settings.memory_mb,
                peak_memory_bytes=turn.peak_memory_bytes,
                spans=spans,
                at=self._wall(now),
            )
        )

    def _response_spans(self, turn: _Turn) -> list[Span]:
        began_at, ended_at = turn.response_began_at, turn.response_ended_at
        if began_at is None or ended_at is None:
            return []
        started_at = turn.call.started_at
        return [
            Span("responseLatency", self._wall(started_at), _ms(started_at, began_at)),
            Span("responseDuration", self._wall(began_at), _ms(began_at, ended_at)),
        ]

    def _wall(self, when: float) -> float:
        """Return a monotonic time as epoch seconds."""
        return time.time() - (self._clock() - when)


class NoTelemetry:
    """The emitter of an environment without subscribers of telemetry."""

    def subscribe(self, _extension: Extension, _subscription: Subscription) -> bool:
        """Return False: it is too late for a subscription, or too early."""
        return False

    def end_init_locked(self, _extensions: Iterable[Extension], _init_s: float) -> bool:
        """Return False: telemetry has no subscribers."""
        return False

    def measure(self) -> int:
        """Return 0: no record has it."""
        return 0

    def begin(self, call: Call, init_s: float | None) -> None:
        """Emit nothing."""

    def forget_locked(self, call: Call) -> None:
        """Emit nothing."""

    def note_answer_locked(self, call: Call, began_at: float, size: int, ending: Ending) -> None:
        """Emit nothing."""

    def end_runtime_locked(self, peak_memory_bytes: int) -> None:
        """Emit nothing."""

    def end_phase_locked(self) -> None:
        """Emit nothing."""

    def end_one_of_many(self, call: Call, ending: Ending) -> None:
        """Emit nothing."""

    def fail_init(
        self, extensions: Iterable[Extension], failure: Failure, *, init_s: float, status: str
    ) -> None:
        """Emit nothing."""

    def fail(
        self, calls: Iterable[Call], failure: Failure, status: str, *, is_failure: bool
    ) -> None:
        """Emit nothing."""

    def print_init(self) -> None:
        """Log nothing."""


def _extension_event(extension: Extension, at: float, error_type: str | None) -> TelemetryRecord:
    return records.extension(
        extension.name, extension.state, extension.events, error_type=error_type, at=at
    )


def _ms(begin: float, end: float) -> float:
    return (end - begin) * 1000
