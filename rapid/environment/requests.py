"""The requests of one environment's processes: Runtime, Extensions and Telemetry APIs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from lambda_protocol.invocation import Outcome
from rapid.call import Call, Failure
from rapid.environment.context import EnvironmentContext
from rapid.environment.core import Core
from rapid.environment.extensions import Extensions
from rapid.environment.outcomes import Outcomes
from rapid.environment.phases import (
    FAILED_STATES,
    PostedId,
    RuntimeState,
    invoke_timeout,
)
from rapid.environment.process_life import EnvironmentProcesses
from rapid.environment.state import EnvironmentState, ParkedNext
from rapid.environment.streamed_response import StreamedResponse
from rapid.exchange import Exchange
from rapid.telemetry.records import Ending
from rapid.telemetry.subscription import Subscription

#: A process that reported its own failure may print and exit by itself for this long, seconds.
ERROR_LINGER_S: Final = 0.5
_SUCCESS: Final = Ending()

T = TypeVar("T")


class EnvironmentRequests:
    """The requests. Thread-safe: connections of the processes call it."""

    def __init__(
        self,
        core: Core,
        context: EnvironmentContext,
        state: EnvironmentState,
        *,
        processes: EnvironmentProcesses,
        outcomes: Outcomes,
    ) -> None:
        """Serve ``core``."""
        #: What its processes show the metadata endpoint.
        self.metadata_token = processes.metadata_token
        self.runtime_api_port = 0  #: of the APIs that its processes call
        self._core = core
        self._state = state
        self._lock = context.lock
        self._owner = context.owner
        self._processes = processes
        self._outcomes = outcomes
        self._version = context.settings.version
        self._stream_rate = context.settings.stream_rate
        self._clock = context.clock

    def fail_unexpectedly(self, error: Exception) -> None:
        """End the environment after an unexpected error of a request."""
        self._core.fail_unexpectedly(error)

    # --- the Runtime API

    def park(self, parked: ParkedNext) -> None:
        """Take a ``next``: delivered to when there is an event for it. Raises ``ApiError``."""
        state, emitter = self._state, self._outcomes.emitter
        self._core.end_lines()
        peak_memory_bytes = emitter.measure()
        with self._lock:
            if state.is_ending:
                return  # it stays open until its process is gone
            if state.runtime.state in FAILED_STATES:
                raise state.runtime.invalid_transition(RuntimeState.READY)
            again = None
            if state.runtime.state is RuntimeState.RUNNING:
                again = state.calls.delivered_again()
            if again is None:
                state.parked.append(parked)
                state.runtime.on_next()
                state.extensions.is_open = False
                emitter.end_runtime_locked(peak_memory_bytes)
                self._core.advance_locked()
        if again is not None:
            parked.deliver(again)
        else:
            self._owner.dispatch()
        emitter.print_init()

    def unpark(self, parked: ParkedNext) -> None:
        """Forget a ``next`` whose connection is gone."""
        with self._lock:
            if parked in self._state.parked:
                self._state.parked.remove(parked)

    def respond(
        self,
        posted: PostedId,
        payload: bytes,
        began_at: float,
        *,
        streamed: Call | None = None,
    ) -> None:
        """Take the runtime's answer; raises ``ApiError`` when it is not due one.

        ``began_at`` is when the answer began to arrive, monotonic seconds. ``streamed`` is the call
        if the sink has its answer already, but for the payload.
        """
        to = RuntimeState.INVOCATION_RESPONSE
        size = len(payload) if streamed is None else streamed.streamed_bytes
        call = self._take_answered(posted, to, began_at, size, _SUCCESS, streamed)
        outcome = Outcome(payload=payload, executed_version=self._version)
        self._outcomes.complete(call, outcome, "success", init_s=self._state.init_s)

    def wants_stream(self, request_id: str) -> bool:
        """Whether the caller of an invocation wants its response while it is written."""
        call = self._state.calls.by_id.get(request_id)
        return call is not None and call.sink is not None

    def begin_response(self, posted: PostedId, content_type: str) -> StreamedResponse:
        """Take the beginning of an answer that is passed on as it comes.

        Raises ``ApiError`` when it is not due one.
        """
        state = self._state
        with self._lock:
            call = self._find(posted, RuntimeState.INVOCATION_RESPONSE)
            call.is_responding = True
            state.runtime.answered = PostedId(posted.request_id, call.invocation_id)
            if not state.calls.is_shared:
                state.runtime.state = RuntimeState.INVOCATION_RESPONSE
        assert call.sink is not None
        call.sink.begin(content_type)
        by_id = state.calls.by_id
        return StreamedResponse(
            call,
            posted,
            call.sink,
            rate=self._stream_rate,
            is_over=lambda: by_id.get(posted.request_id) is not call,
            end=self._end_response,
        )

    def _end_response(
        self, response: StreamedResponse, failure: Failure | None, rest: bytes
    ) -> None:
        call = response.call
        began_at = call.first_byte_at or self._clock()  # an empty one begins with its end
        if failure is None:
            self.respond(response.posted, rest, began_at, streamed=call)
        else:
            self.respond_error(response.posted, failure, began_at, streamed=call)
        self._owner.dispatch()  # the runtime may have asked for the next event meanwhile

    def respond_error(
        self,
        posted: PostedId,
        failure: Failure,
        began_at: float,
        *,
        streamed: Call | None = None,
    ) -> None:
        """Take the error of a handler, or of an answer that is none; raises ``ApiError``."""
        to = RuntimeState.INVOCATION_ERROR_RESPONSE
        ending = Ending(status="error", error_type=failure.error_type)
        size = len(failure.payload or b"") if streamed is None else streamed.streamed_bytes
        call = self._take_answered(posted, to, began_at, size, ending, streamed)
        outcome = failure.outcome(posted.request_id, self._version)
        self._outcomes.complete(
            call, outcome, "error", failure.error_type, init_s=self._state.init_s
        )
        if failure.cause:
            self._outcomes.log_failed([call], failure)

    def fail_init(self, failure: Failure) -> None:
        """Take the runtime's own report that its init failed; raises ``ApiError``."""
        with self._lock:
            self._state.runtime.on_init_error()
        self._core.fail(failure, "FAILURE", linger_s=ERROR_LINGER_S)

    def restore(self) -> None:
        """Take ``restore/next``: a restore is done at once; raises ``ApiError``."""
        with self._lock:
            self._state.runtime.on_restore()

    def _find(self, posted: PostedId, to: RuntimeState, streamed: Call | None = None) -> Call:
        """Return the call that an answer is due for; raises ``ApiError``. The lock is held.

        An answer that is passed on already is ended by the request that has begun it.
        """
        state = self._state
        call = state.calls.by_id.get(posted.request_id)
        if call is None:
            raise state.runtime.refusal(posted, to)
        if posted.is_stale(call.invocation_id):
            raise invoke_timeout()
        if call.is_responding and streamed is not call:
            raise state.runtime.invalid_transition(to)
        return call

    def _take_answered(
        self,
        posted: PostedId,
        to: RuntimeState,
        began_at: float,
        size: int,
        ending: Ending,
        streamed: Call | None,
    ) -> Call:
        state = self._state
        with self._lock:
            call = self._find(posted, to, streamed)
            try:
                del state.calls.by_id[posted.request_id]
                state.answered_at = self._clock()
                self._outcomes.emitter.note_answer_locked(call, began_at, size, ending)
                state.runtime.answered = PostedId(posted.request_id, call.invocation_id)
                if state.calls.is_shared or state.parked:
                    self._core.advance_locked()
                else:
                    state.runtime.state = to
            except Exception:
                state.calls.by_id[posted.request_id] = call  # the environment's end answers it
                raise
            return call

    # --- the Extensions API

    def change_extensions(self, change: Callable[[Extensions], T]) -> T:
        """Run ``change`` on the registry under the lock, then go on if that made it possible."""
        with self._lock:
            emitter = self._outcomes.emitter
            result = change(self._state.extensions)
            self._state.registered.notify_all()
            self._core.advance_locked()
        self._owner.dispatch()
        emitter.print_init()
        return result

    def park_extension(self, identifier: str | None, exchange: Exchange) -> bytes | None:
        """Take an extension's ``next``; return the lifecycle event that waits for it, or None.

        Raises ``ApiError``. A half line that it has printed ends here.
        """
        with self._lock:
            name = self._state.extensions.find(identifier).name
        self._processes.end_lines(name)
        exchange.on_disconnect = lambda: self._unpark_extension(exchange)
        return self.change_extensions(lambda known: known.park(identifier, exchange))

    def _unpark_extension(self, exchange: Exchange) -> None:
        with self._lock:
            self._state.extensions.unpark(exchange)

    def fail_extension(self, failure: Failure) -> None:
        """Take an extension's own report that it failed; it may exit by itself."""
        self._core.fail(failure, "FAILURE", linger_s=ERROR_LINGER_S)

    # --- the Telemetry API

    def subscription_of(self, identifier: str | None) -> Subscription | None:
        """Return what an extension has subscribed to; raises ``ApiError`` if it is none."""
        with self._lock:
            extension = self._state.extensions.find(identifier)
        return self._outcomes.telemetry.subscription_of(extension.id)

    def subscribe(self, identifier: str | None, subscription: Subscription) -> bool:
        """Begin an extension's subscription; False when it is too late for that.

        Raises ``ApiError`` for an identifier of no extension.
        """
        with self._lock:
            extension = self._state.extensions.find(identifier)
            emitter = self._outcomes.emitter
        if not emitter.subscribe(extension, subscription):
            return False
        emitter.print_init()
        return True
