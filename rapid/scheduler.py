"""Waiting calls × idle environments: who gets what, and what happens when nobody does in time."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple, Protocol

from lambda_protocol.errors import (
    InvalidParameterValueException,
    LambdaApiError,
    ServiceException,
    TooManyRequestsException,
)
from lambda_protocol.invocation import Outcome
from lambda_protocol.limits import STARTED_FRAME_AFTER_S
from rapid.call import CONFIRM_LIMIT_S, Call, OnStarted
from rapid.call_queue import CallQueue
from rapid.coming_slots import PATIENCE_S, ComingSlots
from rapid.environment.environment import ExecutionEnvironment
from rapid.environment.state import ParkedNext
from rapid.metrics import Metrics

logger = logging.getLogger(__name__)

#: Calls that wait in one rapid beyond this are refused; asynchronous invocations likewise.
MAX_WAITING: Final = 10_000
#: Inits that may fail in a row before the failure is the caller's.
#: Source: Lambda developer guide: a failed init is done again at the first invocation.
INIT_ATTEMPTS: Final = 2


class MakeEnvironment(Protocol):
    """Makes the environment with a number; it is started later."""

    def __call__(
        self, scheduler: Scheduler, index: int, *, init_limit_s: float | None
    ) -> ExecutionEnvironment:
        """``init_limit_s`` is None for an init under the function timeout, inside an invoke."""


class Delivery(NamedTuple):
    """A match: this call goes to that environment, by its parked ``next``."""

    call: Call
    environment: ExecutionEnvironment
    parked: ParkedNext


class Actions(NamedTuple):
    """What a match asks for, to be done without the lock."""

    deliver: list[Delivery]
    start: list[ExecutionEnvironment]
    replace: list[ExecutionEnvironment]  #: idle ones, whose places calls of other tenants need
    ask: list[Call]  #: whose callers are asked whether they still wait


class Scheduler:
    """Where every call of rapid goes through, whatever door it came by. Thread-safe.

    Decides under its lock and acts outside it. One thread, ``clock``, owns every deadline: it
    sleeps until the earliest and is woken only for an earlier one, so a call costs it nothing.
    """

    def __init__(
        self,
        *,
        max_concurrency: int,
        queue_timeout_s: float,
        timeout_s: float,
        make_environment: MakeEnvironment,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Nothing runs before :meth:`start`."""
        self.lock = threading.Lock()
        self._max_concurrency = max_concurrency
        self._queue_timeout_s = queue_timeout_s
        self._timeout_s = timeout_s
        self._make_environment = make_environment
        self._metrics = metrics
        self._clock = clock
        self._tick = threading.Condition(self.lock)
        self._changed = threading.Condition(self.lock)
        # guarded by lock:
        self._waiting = CallQueue()
        self._environments: dict[int, ExecutionEnvironment] = {}
        self._idle: list[ExecutionEnvironment] = []  # last in, first out: surplus ones idle out
        self._failed_inits = 0  # in a row
        self._has_initialised = False
        self._running = 0
        self._request_ids: set[str] = set()  # of all calls in hand
        self._is_eager = False
        self._is_init_due = False  # one environment is to start without a call
        self._is_stopping = False
        self._wake_at = float("inf")
        self._thread = threading.Thread(target=self._run_clock, name="clock", daemon=True)

    def __repr__(self) -> str:
        """Show what a test wants to know."""
        return f"<Scheduler waiting={len(self._waiting)} {list(self._environments.values())}>"

    # --- life

    def start(self, *, eager: bool) -> None:
        """Start the clock and, when ``eager``, the first environment."""
        self._thread.start()
        with self.lock:
            self._is_eager = self._is_init_due = eager
        self.dispatch()

    def renew(self) -> None:
        """Replace every environment, for there is new code: those at work when they are done.

        The next call starts a fresh one. Only if no init has succeeded yet, one starts at once.
        """
        with self.lock:
            self._failed_inits = 0
            self._is_init_due = self._is_eager and not self._has_initialised
            for environment in self._environments.values():
                environment.outdate_locked()
        self.dispatch()

    def drain(self, limit_s: float) -> bool:
        """Take no more; True if all that is in hand has ended within ``limit_s``. Idempotent."""
        with self.lock:
            self._is_stopping = True
            return self._changed.wait_for(lambda: not (self._waiting or self._running), limit_s)

    def stop(self, limit_s: float) -> bool:
        """End what is in hand; True if every environment is gone within ``limit_s``. Idempotent."""
        with self.lock:
            self._is_stopping = True
            refused = list(self._waiting)
            self._waiting.clear()
            environments = list(self._environments.values())
        for call in refused:
            with _logged():
                self._refuse(call, ServiceException("The function's instance is shutting down."))
        for environment in environments:
            with _logged():
                environment.retire()
        with self.lock:
            is_over = self._changed.wait_for(lambda: not self._environments, limit_s)
            self._wake_at = 0.0
            self._tick.notify()
            return is_over

    # --- for the doors

    def submit(self, call: Call) -> None:
        """Take a call; its ``on_outcome`` is called once, from any thread, maybe before this ends.

        Raises ``LambdaApiError`` when the call cannot be taken.
        """
        now = self._clock()
        is_asynchronous = call.is_asynchronous
        with self.lock:
            if self._is_stopping:
                raise ServiceException("The function's instance is shutting down.")
            if len(self._waiting.line_of(call)) >= MAX_WAITING:
                raise self._throttled()
            if call.invocation.request_id in self._request_ids:
                raise InvalidParameterValueException(
                    f"The request id {call.invocation.request_id} is in use."
                )
            self._request_ids.add(call.invocation.request_id)
            call.received_at = now
            # The retry policy bounds how long an asynchronous invocation waits, not the scheduler.
            call.wait_deadline = float("inf") if is_asynchronous else now + self._queue_timeout_s
            self._waiting.append(call)
            actions = self._match_locked(now)
            is_refused = False
            if call.started_at == 0.0:
                if self._queue_timeout_s == 0 and not is_asynchronous and not call.asked_at:
                    is_refused = not self._is_coming_locked(call, now)
                    call.wait_deadline = now + self._timeout_s  # for what is coming for it
                if is_refused:
                    self._forget_locked(call)
                else:
                    self.note_deadline_locked(call.wait_deadline)
            if call.on_started is not None:
                self.note_deadline_locked(now + STARTED_FRAME_AFTER_S)
        self._act(actions)
        if is_refused:
            raise self._throttled()

    def withdraw(self, wanted: Callable[[Call], bool]) -> list[Call]:
        """Take the unstarted calls that are ``wanted`` out of the queue; the taker answers them."""
        with self.lock:
            taken = [call for call in self._waiting if wanted(call)]
            for call in taken:
                self._forget_locked(call)
            return taken

    def confirm(self, call: Call) -> None:
        """Note that the caller of a call that may wait here still waits for it."""
        with self.lock:
            call.wanted_at, call.asked_at = self._clock(), 0.0
        self.dispatch()

    def abandon(self, call: Call) -> bool:
        """Take out a call whose caller is gone; False when it has started or has been answered."""
        with self.lock:
            if call not in self._waiting.line_of(call):
                return False
            self._forget_locked(call)
            if self._is_stopping:
                self._changed.notify_all()
        self._metrics.on_abandoned()
        return True

    @property
    def is_ready(self) -> bool:
        """Whether the function's init has succeeded and calls are taken."""
        return self._has_initialised and not self._is_stopping

    @property
    def has_failed(self) -> bool:
        """Whether no init has succeeded, and the last one failed."""
        return self._failed_inits > 0 and not self._has_initialised

    @property
    def running(self) -> int:
        """How many invocations run now."""
        return self._running

    # --- what environments tell (EnvironmentOwner)

    def on_available_locked(self, environment: ExecutionEnvironment) -> None:
        """Note that ``environment`` can take a call."""
        if environment not in self._idle:
            self._idle.append(environment)
        self.note_deadline_locked(environment.next_deadline_locked())

    def on_init_done_locked(self, environment: ExecutionEnvironment, init_s: float) -> None:
        """Count the cold start; the function's image works."""
        self._failed_inits = 0
        self._has_initialised = True
        self._metrics.on_init(init_s)
        logger.info(
            "environment ready",
            extra={"env": environment.index, "init_ms": round(init_s * 1000, 1)},
        )

    def on_init_failed_locked(self, started_at: float) -> list[Call]:
        """Charge a failed init to the call it was for, from the second in a row on."""
        self._failed_inits += 1
        if self._failed_inits < INIT_ATTEMPTS or not self._waiting:
            return []
        call = self._waiting.popleft()
        call.started_at = started_at  # it ends like one that ran
        self._running += 1
        return [call]

    def on_gone_locked(self, environment: ExecutionEnvironment) -> None:
        """Forget ``environment``; its number is free again."""
        del self._environments[environment.index]
        if environment in self._idle:
            self._idle.remove(environment)
        self._changed.notify_all()

    def requeue_locked(self, call: Call) -> None:
        """Put a call that was never delivered first in line again."""
        call.started_at = 0.0
        self._running -= 1
        self._waiting.appendleft(call)
        self.note_deadline_locked(call.wait_deadline)

    def note_deadline_locked(self, when: float) -> None:
        """Make sure the clock looks at ``when``."""
        if when < self._wake_at:
            self._wake_at = when
            self._tick.notify()

    def finish(self, call: Call, outcome: Outcome | LambdaApiError, status: str) -> None:
        """Count a call that ran, and hand its outcome over."""
        now = self._clock()
        with self.lock:
            self._running -= 1
            self._request_ids.discard(call.invocation.request_id)
            if self._is_stopping:
                self._changed.notify_all()
        self._metrics.on_finished(status, now - call.started_at if call.started_at else 0.0)
        logger.debug(
            "invocation done", extra={"request_id": call.invocation.request_id, "status": status}
        )
        _answer(call, outcome)

    def dispatch(self) -> None:
        """Match waiting calls to idle environments, and start what is due."""
        with self.lock:
            if not (self._waiting or self._is_init_due):
                return
            actions = self._match_locked(self._clock())
            if self._is_init_due and not self._environments and not self._is_stopping:
                actions.start.append(self._start_locked())
            self._is_init_due = self._is_init_due and not actions.start
        self._act(actions)

    # --- inside

    def _match_locked(self, now: float) -> Actions:
        """Match waiting calls to environments, each of which serves one tenant.

        1. A call goes to the environment of its tenant that became idle last, or to one that has
           served nobody. An asynchronous invocation does so when no call waits. A call whose caller
           may be gone waits until the caller has been asked.
        2. For a call that is left an environment is started, unless a slot is coming for it.
        3. Where no more can be started, an idle environment of another tenant is replaced.
        4. What is left waits; the clock ends its wait.
        """
        actions = Actions([], [], [], [])
        left: list[Call] = []
        coming: ComingSlots | None = None
        while self._waiting and (self._idle or self._has_room_locked):
            call = self._waiting.popleft()
            environment = self._idle_for_locked(call.tenant)
            if environment is not None and call.may_start(now):
                if call.is_asynchronous and any(waiting.asked_at for waiting in left):
                    left.append(call)
                    break
                actions.deliver.append(self._assign_locked(call, environment, now))
                continue
            left.append(call)
            if environment is not None:
                self._ask_locked(call, actions, now)
                continue
            if coming is None:
                coming = ComingSlots(self._environments.values(), now)
            if coming.take(call.tenant):
                continue
            environment = self._make_room_locked(actions)
            if environment is None:
                break
            coming.add(environment)
            coming.take(call.tenant)
        for call in reversed(left):
            self._waiting.appendleft(call)
        if self._waiting and (self._idle or self._has_room_locked):
            self.note_deadline_locked(now + PATIENCE_S)
        return actions

    def _idle_for_locked(self, tenant: str) -> ExecutionEnvironment | None:
        """Return the idle environment for a call of ``tenant``: its own before a fresh one."""
        for wanted in (tenant, None):
            for position in range(len(self._idle) - 1, -1, -1):
                environment = self._idle[position]
                if not environment.can_take_locked:
                    del self._idle[position]
                elif environment.tenant == wanted:
                    return environment
        return None

    def _assign_locked(self, call: Call, environment: ExecutionEnvironment, now: float) -> Delivery:
        parked = environment.assign_locked(call, now)
        if not environment.can_take_locked:
            self._idle.remove(environment)
        self._running += 1
        if call.is_announced:
            self.note_deadline_locked(now)  # its caller is told that it runs
        self._metrics.on_started(now - call.received_at, is_cold=call.is_cold)
        return Delivery(call, environment, parked)

    def _ask_locked(self, call: Call, actions: Actions, now: float) -> None:
        """Have a call's caller asked whether it still waits, unless that is under way."""
        if not call.asked_at:
            call.asked_at = now
            actions.ask.append(call)
            self.note_deadline_locked(now + CONFIRM_LIMIT_S)

    def _make_room_locked(self, actions: Actions) -> ExecutionEnvironment | None:
        """Start an environment or replace an idle one, the one that is idle longest."""
        if self._has_room_locked:
            environment = self._start_locked()
            actions.start.append(environment)
            return environment
        for environment in self._idle:
            if environment.replace_locked():
                self._idle.remove(environment)
                actions.replace.append(environment)
                return environment
        return None

    @property
    def _has_room_locked(self) -> bool:
        return len(self._environments) < self._max_concurrency

    def _is_coming_locked(self, call: Call, now: float) -> bool:
        """Whether ``call``, which waits, gets a slot soon without anyone doing anything."""
        coming = ComingSlots(self._environments.values(), now)
        return any(coming.take(other.tenant) and other is call for other in self._waiting)

    def _start_locked(self) -> ExecutionEnvironment:
        index = next(n for n in range(self._max_concurrency) if n not in self._environments)
        again = self._failed_inits > 0
        environment = self._make_environment(
            self, index, init_limit_s=self._timeout_s if again else None
        )
        self._environments[index] = environment
        self.note_deadline_locked(environment.next_deadline_locked())
        return environment

    def _act(self, actions: Actions) -> None:
        for environment in actions.start:
            environment.start()
        for environment in actions.replace:
            logger.info("replaced for another tenant", extra={"env": environment.index})
            environment.retire()
        for call, environment, parked in actions.deliver:
            environment.deliver(call, parked)
        for call in actions.ask:
            assert call.ask_caller is not None
            call.ask_caller()

    def _forget_locked(self, call: Call) -> None:
        """Take an unstarted call out."""
        self._waiting.remove(call)
        self._request_ids.discard(call.invocation.request_id)

    def _refuse(self, call: Call, error: LambdaApiError) -> None:
        self._metrics.on_refused(error)
        _answer(call, error)

    def _throttled(self) -> TooManyRequestsException:
        error = TooManyRequestsException()
        self._metrics.on_refused(error)
        return error

    def _run_clock(self) -> None:
        with self.lock:
            while not (self._is_stopping and not self._environments):
                now = self._clock()
                if self._wake_at > now:
                    left = self._wake_at - now
                    self._tick.wait(min(left, _CLOCK_LIMIT_S))
                    continue
                self._wake_at = float("inf")
                try:
                    self._on_tick_locked(now)
                except Exception:
                    logger.exception("clock failed")
                    self.note_deadline_locked(now + _AFTER_ERROR_S)

    def _on_tick_locked(self, now: float) -> None:
        """Do what is due and find out when to look again; leaves the lock to act."""
        throttled = self._take_throttled_locked(now)
        if throttled and self._is_stopping:
            self._changed.notify_all()
        environments = list(self._environments.values())
        due = [action for env in environments if (action := env.due_locked(now)) is not None]
        announce = self._take_announcements_locked(environments, now)
        actions = self._match_locked(now)
        for environment in environments:
            self.note_deadline_locked(max(now + _TICK_S, environment.next_deadline_locked()))
        for call in self._waiting.calls:
            self.note_deadline_locked(call.wait_deadline)
            if call.asked_at + CONFIRM_LIMIT_S > now:
                self.note_deadline_locked(call.asked_at + CONFIRM_LIMIT_S)
        self.lock.release()
        try:
            for call in throttled:
                with _logged():
                    self._refuse(call, TooManyRequestsException())
            for on_started, answered_by, is_running in announce:
                with _logged():  # before the answer that may be due: nothing follows that
                    on_started(answered_by, is_running)
            for act in due:
                with _logged():
                    act()
            self._act(actions)
        finally:
            self.lock.acquire()

    def _take_throttled_locked(self, now: float) -> list[Call]:
        """Forget the calls that have waited too long, and return them.

        One that an environment is starting for has until the end of that, which may take as long
        as the function may.
        """
        throttled = []
        for call in [call for call in self._waiting.calls if call.wait_deadline <= now]:
            is_first = call.wait_deadline <= call.received_at + self._queue_timeout_s
            if is_first and self._is_coming_locked(call, now):
                call.wait_deadline += self._timeout_s
            else:
                self._forget_locked(call)
                throttled.append(call)
        return throttled

    def _take_announcements_locked(
        self, environments: Iterable[ExecutionEnvironment], now: float
    ) -> list[tuple[OnStarted, float, bool]]:
        """Return whom to tell that a call takes long, when it is answered, and whether it runs.

        Each is told once, or a second time when a call that was said to wait runs.
        """
        announce = []
        held = [call for environment in environments for call in environment.running_locked()]
        for call in (*held, *self._waiting.calls):
            is_running = call.started_at > 0.0
            if call.on_started is None or (call.is_announced and not is_running):
                continue
            due = call.received_at + STARTED_FRAME_AFTER_S
            if due > now:
                self.note_deadline_locked(due)
                continue
            answered_by = call.deadline if is_running else call.wait_deadline + self._timeout_s
            announce.append((call.on_started, answered_by, is_running))
            call.is_announced = True
            if is_running:
                call.on_started = None
        return announce


def _answer(call: Call, outcome: Outcome | LambdaApiError) -> None:
    """Hand the outcome over; if that fails, at least that it has failed."""
    try:
        call.on_outcome(outcome)
    except Exception:
        logger.exception("answer failed", extra={"request_id": call.invocation.request_id})
        call.on_outcome(ServiceException("An internal error occurred."))


@contextlib.contextmanager
def _logged() -> Iterator[None]:
    """Log what the block raises: what follows it concerns others."""
    try:
        yield
    except Exception:
        logger.exception("scheduler failed")


#: How soon the clock looks again after an unexpected error, seconds.
_AFTER_ERROR_S: Final = 1.0
#: A deadline that has passed but is not acted on yet is looked at again after this, seconds.
_TICK_S: Final = 0.01
#: The longest sleep of the clock, seconds: what a platform's wait can take.
_CLOCK_LIMIT_S: Final = 3600.0
