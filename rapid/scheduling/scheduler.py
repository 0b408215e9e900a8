"""The scheduler: takes each call of rapid, has it matched to an environment, and ends it."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final, Protocol

from lambda_protocol.errors import (
    InvalidParameterValueException,
    LambdaApiError,
    ServiceException,
    TooManyRequestsException,
)
from lambda_protocol.invocation import Outcome
from lambda_protocol.limits import STARTED_FRAME_AFTER_S
from rapid.call import Call
from rapid.environment.environment import ExecutionEnvironment
from rapid.metrics import Metrics
from rapid.scheduling.call_queue import CallQueue
from rapid.scheduling.deadline_clock import DeadlineClock
from rapid.scheduling.matching import Matching
from rapid.scheduling.wait_limits import WaitLimits

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


class Scheduler:
    """Matches the calls of every API and of RabbitMQ to execution environments. Thread-safe.

    Decides under its lock and acts outside it. The thread ``clock`` owns every deadline.
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
        self._queue_timeout_s = queue_timeout_s
        self._metrics = metrics
        self._clock = clock
        self._changed = threading.Condition(self.lock)
        self._deadlines = DeadlineClock(
            self.lock,
            on_tick_locked=self._on_tick_locked,
            is_over_locked=lambda: self._is_stopping and not self._matching.environments,
            clock=clock,
        )
        #: Makes sure the clock looks at a time; the clock's own method, used several times a call.
        self.note_deadline_locked = self._deadlines.note_locked
        # guarded by lock:
        self._waiting = CallQueue()
        self._matching = Matching(
            self._waiting,
            max_concurrency=max_concurrency,
            make=lambda index: make_environment(
                self, index, init_limit_s=timeout_s if self._failed_inits else None
            ),
            note_deadline=self.note_deadline_locked,
            metrics=metrics,
        )
        self._limits = WaitLimits(
            self._waiting,
            self._matching,
            queue_timeout_s=queue_timeout_s,
            timeout_s=timeout_s,
            note_deadline=self.note_deadline_locked,
        )
        self._failed_inits = 0  # in a row
        self._has_initialised = False
        self._request_ids: set[str] = set()  # of all calls in hand
        self._is_eager = False
        self._is_init_due = False  # one environment is to start without a call
        self._is_stopping = False

    def __repr__(self) -> str:
        """Show what a test wants to know."""
        return (
            f"<Scheduler waiting={len(self._waiting)} {list(self._matching.environments.values())}>"
        )

    # --- life

    def start(self, *, eager: bool) -> None:
        """Start the clock and, when ``eager``, the first environment."""
        self._deadlines.start()
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
            for environment in self._matching.environments.values():
                environment.outdate_locked()
        self.dispatch()

    def drain(self, limit_s: float) -> bool:
        """Take no more; True if all that is in hand has ended within ``limit_s``. Idempotent."""
        with self.lock:
            self._is_stopping = True
            return self._changed.wait_for(
                lambda: self._waiting.is_empty and not self._matching.running, limit_s
            )

    def stop(self, limit_s: float) -> bool:
        """End what is in hand; True if every environment is gone within ``limit_s``. Idempotent."""
        with self.lock:
            self._is_stopping = True
            refused = list(self._waiting)
            self._waiting.clear()
            environments = list(self._matching.environments.values())
        for call in refused:
            with _logged():
                self._refuse(call, ServiceException("The function's instance is shutting down."))
        for environment in environments:
            with _logged():
                environment.retire()
        with self.lock:
            is_over = self._changed.wait_for(lambda: not self._matching.environments, limit_s)
            self.note_deadline_locked(0.0)
            return is_over

    # --- for the Invoke API and the consumers

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
            actions = self._matching.match(now)
            is_refused = False
            if call.started_at == 0.0 and not self._limits.may_wait(call, now):
                self._forget_locked(call)
                is_refused = True
            if call.on_started is not None:
                self.note_deadline_locked(now + STARTED_FRAME_AFTER_S)
        actions.carry_out()
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
        return self._matching.running

    # --- what environments tell (EnvironmentOwner)

    def on_available_locked(self, environment: ExecutionEnvironment) -> None:
        """Note that ``environment`` can take a call."""
        idle = self._matching.idle
        if environment not in idle:
            idle.append(environment)
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
        if self._failed_inits < INIT_ATTEMPTS or self._waiting.is_empty:
            return []
        call = self._waiting.popleft()
        call.started_at = started_at  # it ends like one that ran
        self._matching.running += 1
        return [call]

    def on_gone_locked(self, environment: ExecutionEnvironment) -> None:
        """Forget ``environment``; its number is free again."""
        self._matching.remove(environment)
        self._changed.notify_all()

    def requeue_locked(self, call: Call) -> None:
        """Put a call that was never delivered first in line again."""
        call.started_at = 0.0
        self._matching.running -= 1
        self._waiting.appendleft(call)
        self.note_deadline_locked(call.wait_deadline)

    def finish(self, call: Call, outcome: Outcome | LambdaApiError, status: str) -> None:
        """Count a call that ran, and hand its outcome over."""
        now = self._clock()
        with self.lock:
            self._matching.running -= 1
            self._request_ids.discard(call.invocation.request_id)
            if self._is_stopping:
                self._changed.notify_all()
        self._metrics.on_finished(status, now - call.started_at if call.started_at else 0.0)
        if call.streamed_bytes:
            self._metrics.on_streamed(call.first_byte_at - call.started_at, call.streamed_bytes)
        logger.debug(
            "invocation done", extra={"request_id": call.invocation.request_id, "status": status}
        )
        _answer(call, outcome)

    def dispatch(self) -> None:
        """Match waiting calls to idle environments, and start what is due."""
        with self.lock:
            if self._waiting.is_empty and not self._is_init_due:
                return
            actions = self._matching.match(self._clock())
            if self._is_init_due and not self._matching.environments and not self._is_stopping:
                actions.start.append(self._matching.start())
            self._is_init_due = self._is_init_due and not actions.start
        actions.carry_out()

    # --- inside

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

    def _on_tick_locked(self, now: float) -> None:
        """Do what is due and find out when to look again; leaves the lock to act."""
        throttled = self._limits.take_throttled(now)
        self._request_ids.difference_update(call.invocation.request_id for call in throttled)
        if throttled and self._is_stopping:
            self._changed.notify_all()
        environments = list(self._matching.environments.values())
        due = [action for env in environments if (action := env.due_locked(now)) is not None]
        announce = self._limits.take_announcements(now)
        actions = self._matching.match(now)
        for environment in environments:
            self.note_deadline_locked(max(now + _TICK_S, environment.next_deadline_locked()))
        self._limits.note_deadlines(now)
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
            actions.carry_out()
        finally:
            self.lock.acquire()


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


#: A deadline that has passed but is not acted on yet is looked at again after this, seconds.
_TICK_S: Final = 0.01
