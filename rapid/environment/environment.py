"""One execution environment: a runtime, its extensions and its logs, from start to gone."""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

from lambda_protocol.address import Address
from lambda_protocol.errors import ErrorType
from rapid.call import Call, Failure, timed_out
from rapid.environment.context import EnvironmentContext
from rapid.environment.control_groups import EnvironmentGroup
from rapid.environment.extensions import answer_event, invoke_event
from rapid.environment.outcomes import Outcomes
from rapid.environment.phases import Phase, RuntimeState
from rapid.environment.process_life import EnvironmentProcesses
from rapid.environment.requests import EnvironmentRequests
from rapid.environment.state import EnvironmentState, ParkedNext
from rapid.environment.telemetry_emitter import NoTelemetry
from rapid.environment.thread import EnvironmentThread
from rapid.logs.output import Outputs
from rapid.logs.platform_lines import PlatformLines
from rapid.processes import ExitStatus, Reaper

logger = logging.getLogger(__name__)

#: The longest text of an unexpected error that its caller gets, characters.
_ERROR_TEXT: Final = 300


class ExecutionEnvironment:
    """One sandbox. Thread-safe; its state is guarded by the lock it shares with the scheduler.

    It never waits under that lock: state changes under it, processes, sockets and callbacks
    come after. An unexpected exception in any thread that serves it ends it.
    """

    def __init__(
        self,
        context: EnvironmentContext,
        *,
        reaper: Reaper,
        listen: Callable[[EnvironmentRequests], Address],
        platform_lines: PlatformLines,
        outputs: Outputs,
        open_group: Callable[[], EnvironmentGroup],
    ) -> None:
        """``listen`` opens the Runtime API for this environment and returns its address."""
        self.index = context.index
        self._context = context
        self._settings = context.settings
        self._lock = context.lock
        self._owner = context.owner
        self._clock = context.clock
        self._state = EnvironmentState(context)  # guarded by _lock
        self._processes = EnvironmentProcesses(
            context, reaper, outputs, open_group=open_group, on_error=self.fail_unexpectedly
        )
        self._outcomes = Outcomes(self, context, self._processes, platform_lines, outputs.stdout)
        self._thread = EnvironmentThread(
            self,
            context,
            self._state,
            processes=self._processes,
            outcomes=self._outcomes,
            requests=EnvironmentRequests(
                self, context, self._state, processes=self._processes, outcomes=self._outcomes
            ),
            listen=listen,
        )

    def __repr__(self) -> str:
        """Show what a test wants to know."""
        state = self._state
        return (
            f"<Environment {self.index} {state.phase} runtime={state.runtime.state} "
            f"parked={len(state.parked)} running={len(state.calls.by_id)}>"
        )

    # --- for the scheduler

    def start(self) -> None:
        """Start extensions and runtime from the environment's own thread; never raises."""
        self._thread.start()

    @property
    def can_take_locked(self) -> bool:
        """Whether a call of its tenant could be handed over now."""
        return self._state.can_take

    @property
    def tenant(self) -> str | None:
        """Whose calls it serves; None: it has served none."""
        return self._state.tenant

    def coming_slots_locked(self, now: float, patience_s: float) -> int:
        """How many calls will be taken soon, without anyone doing anything."""
        return self._state.coming_slots(now, patience_s)

    def assign_locked(self, call: Call, now: float) -> ParkedNext:
        """Take ``call``; return the parked ``next`` that :meth:`deliver` is to answer."""
        state = self._state
        parked = state.parked.pop()  # the newest: an older one may be of a lost connection
        call.begin(now, self._settings.timeout_s)
        call.is_cold = state.tenant is None
        state.tenant = call.tenant
        state.calls.add(call)
        state.runtime.state = RuntimeState.RUNNING
        if state.phase is Phase.IDLE:
            state.move(Phase.INVOKE)
        self._owner.note_deadline_locked(call.deadline)
        return parked

    def deliver(self, call: Call, parked: ParkedNext) -> None:
        """Send the event to the runtime; a call that cannot be sent goes back to the queue."""
        try:
            self._outcomes.begin(call, self._state.init_s)
            if not (self._state.extensions.is_empty or self._state.calls.is_shared):
                self._tell_extensions(call)
            if not parked.deliver(call):
                self._on_undelivered(call)
        except Exception as error:  # a context manager costs each call 1 % more
            self.fail_unexpectedly(error)

    def due_locked(self, now: float) -> Callable[[], None] | None:
        """Return what to do, without the lock, about a deadline that has passed; None if none."""
        act = self._due_locked(now)
        return None if act is None else functools.partial(self._act, act)

    def _due_locked(self, now: float) -> Callable[[], None] | None:
        state = self._state
        if self._thread.is_missing:
            return self._thread.end_processes
        if state.is_due_to_go:
            return self.retire
        if now < state.next_deadline:
            return None
        if state.phase is Phase.INIT:
            return self._on_init_timeout
        if state.phase is Phase.IDLE:
            return self._on_idle_timeout
        return self._on_timeout if state.phase is Phase.INVOKE else None

    def next_deadline_locked(self) -> float:
        """Return when :meth:`due_locked` may next have something, monotonic seconds."""
        return 0.0 if self._thread.is_missing else self._state.next_deadline

    def running_locked(self) -> list[Call]:
        """Return the calls the runtime works on."""
        return list(self._state.calls.by_id.values())

    def replace_locked(self) -> bool:
        """Take no more calls, for :meth:`retire` follows; False while it runs one."""
        if self._state.phase is not Phase.IDLE:
            return False
        self._state.replace()
        return True

    def outdate_locked(self) -> None:
        """Take no more calls; the clock retires it when none runs."""
        self._state.replace()
        self._owner.note_deadline_locked(self.next_deadline_locked())

    def retire(self) -> None:
        """Shut down an environment that is no longer wanted; ends what still runs."""
        self.fail(_RETIRED, "SPINDOWN", is_failure=False)

    # --- what happens to it

    def advance_locked(self) -> None:
        """Enter the next phase if the runtime and every extension wait for it."""
        state = self._state
        if state.parked and state.extensions.all_ready:
            now = self._clock()
            is_over = not state.calls.by_id
            if state.phase is Phase.INIT:
                state.init_s = now - state.created_at
                self._owner.on_init_done_locked(self, state.init_s)
                if not self._outcomes.emitter.end_init_locked(state.extensions, state.init_s):
                    self._outcomes.emitter = NoTelemetry()
            elif state.phase is Phase.INVOKE and is_over:
                self._outcomes.emitter.end_phase_locked()
            if state.phase is Phase.INIT or (state.phase is Phase.INVOKE and is_over):
                state.move(Phase.IDLE)
                state.idle_since = now
                state.calls.end_phase()
        if state.is_due_to_go:
            self._owner.note_deadline_locked(0.0)
        if state.can_take:
            self._owner.on_available_locked(self)

    def end_lines(self) -> None:
        """Pass on half lines of the runtime, unless it has other invocations that go on."""
        if not self._state.calls.by_id:
            self._processes.end_lines()

    def fail_unexpectedly(self, error: Exception) -> None:
        """End the environment after an unexpected error, and log the error."""
        logger.error("environment failed", extra={"env": self.index}, exc_info=error)
        text = f"{type(error).__name__}: {error}"[:_ERROR_TEXT]
        failure = Failure(ErrorType.UNKNOWN, f"rapid failed: {text}", is_logged=True)
        self.fail(failure, "FAILURE")

    def fail(
        self,
        failure: Failure,
        reason: str,
        *,
        is_failure: bool = True,
        linger_s: float = 0.0,
        init_status: str = "error",
        only_if_due: bool = False,
    ) -> None:
        """Begin the shutdown and answer what was in hand; the first to fail an environment does.

        ``reason`` is what extensions are told; ``linger_s`` is how long the runtime may go on;
        ``only_if_due`` is for the clock, whose look at the deadline was under an earlier lock.
        """
        state = self._state
        with self._lock:
            if state.is_ending or (only_if_due and self.due_locked(self._clock()) is None):
                return
            failed_init = state.phase is Phase.INIT and is_failure
            was_init = state.phase is Phase.INIT
            state.move(Phase.SHUTDOWN)
            state.registered.notify_all()
            victims = list(state.calls.by_id.values())
            state.calls.by_id.clear()
            state.parked.clear()
            if failed_init:
                victims += self._owner.on_init_failed_locked(state.created_at)
            init_s = self._clock() - state.created_at
        try:
            if failed_init:
                with self._outcomes.errors_logged():
                    self._outcomes.say_init_failed(failure, init_s, init_status)
            self._outcomes.complete_failed(victims, failure, init_s=state.init_s)
            self._outcomes.say_failed(
                victims,
                failure,
                state.extensions,
                init_s=init_s if was_init else None,
                init_status=init_status,
                is_failure=is_failure,
            )
        finally:
            self._thread.end(reason, linger_s)

    def on_runtime_exit(self, status: ExitStatus) -> None:
        """End with the runtime."""
        with self.ends_on_error():
            self.fail(self._processes.with_cause(_runtime_exit(status), status), "FAILURE")

    def on_extension_exit(self, name: str, status: ExitStatus) -> None:
        """End with an extension."""
        message = "exit code 0" if status.code == 0 else str(status)
        with self.ends_on_error():
            with self._lock:
                self._state.extensions.on_exit(name)
            failure = Failure(ErrorType.EXTENSION_CRASH, message)
            failure = self._processes.with_cause(failure, status)
            self.fail(replace(failure, cause=f"extension {name}: {failure.cause}"), "FAILURE")

    def on_gone_locked(self) -> None:
        """Note that nothing is left of it."""
        self._state.move(Phase.GONE)
        self._owner.on_gone_locked(self)

    @contextlib.contextmanager
    def ends_on_error(self) -> Iterator[None]:
        """End the environment if the block raises."""
        try:
            yield
        except Exception as error:
            self.fail_unexpectedly(error)

    def _on_undelivered(self, call: Call) -> None:
        with self._lock:
            if self._state.calls.by_id.pop(call.invocation.request_id, None) is None:
                return
            self._outcomes.emitter.forget_locked(call)
            self._owner.requeue_locked(call)
        self.fail(Failure(ErrorType.EXIT_ERROR, "Runtime is gone"), "FAILURE")

    def _on_init_timeout(self) -> None:
        failure = timed_out(self._context.init_limit_s)
        if self._context.init_phase == "init":
            message = f"Init timed out after {self._context.init_limit_s:g} s"
            failure = Failure(ErrorType.EXIT_ERROR, message, cause="timeout")
        self.fail(failure, "TIMEOUT", init_status="timeout", only_if_due=True)

    def _on_idle_timeout(self) -> None:
        self.fail(_RETIRED, "SPINDOWN", is_failure=False, only_if_due=True)

    def _on_timeout(self) -> None:
        """End the calls that are late; without others the environment ends with them."""
        failure = timed_out(self._settings.timeout_s)
        with self._lock:
            late = self._state.calls.take_late(self._clock())
            if late is not None:
                for call in late:
                    self._state.runtime.on_timeout(call.invocation.request_id)
                self.advance_locked()
        if late is None:
            self.fail(failure, "TIMEOUT", only_if_due=True)
            return
        self._outcomes.complete_failed(late, failure, init_s=self._state.init_s)
        self._outcomes.log_failed(late, failure)
        self._owner.dispatch()

    def _tell_extensions(self, call: Call) -> None:
        invocation = call.invocation
        event = invoke_event(
            deadline_ms=call.deadline_ms,
            request_id=invocation.request_id,
            invoked_arn=invocation.function.invoked_arn,
            trace_id=invocation.trace_id,
        )
        with self._lock:
            deliveries = self._state.extensions.broadcast("INVOKE", event)
        for exchange, body in deliveries:
            answer_event(exchange, body)

    def _act(self, act: Callable[[], None]) -> None:
        with self.ends_on_error():
            act()


_RETIRED: Final = Failure(
    ErrorType.EXIT_ERROR, "The function's instance was shut down", cause="shut down"
)


def _runtime_exit(status: ExitStatus) -> Failure:
    if status.code == 0:
        message = "Runtime exited without providing a reason"
    else:
        message = f"Runtime exited with error: {status}"
    return Failure(ErrorType.EXIT_ERROR, message)
