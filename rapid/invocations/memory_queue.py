"""Events without a broker: the same policy, in memory, so that a crash loses what waits."""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from lambda_protocol.errors import LambdaApiError, ServiceException, TooManyRequestsException
from lambda_protocol.invocation import Event, Invocation, Outcome
from rapid.call import Call
from rapid.invocations.destinations import HttpDestination, SendByHttp
from rapid.invocations.retry_policy import (
    Condition,
    Discard,
    Done,
    Retry,
    RetryPolicy,
    destination_record,
)
from rapid.metrics import Metrics

logger = logging.getLogger(__name__)

#: Events in hand beyond these are refused: how many, and the bytes of their payloads.
MAX_EVENTS: Final = 10_000
MAX_BYTES: Final = 256 * 1_048_576


class EventQueue:
    """The events of one rapid. Thread-safe.

    Those that can run wait in the scheduler, behind every call; those that are put off wait here.
    """

    def __init__(
        self,
        *,
        policy: RetryPolicy,
        on_success: HttpDestination | None,
        on_failure: HttpDestination | None,
        submit: Callable[[Call], None],
        metrics: Metrics,
        send_by_http: SendByHttp,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        """Nothing runs before :meth:`start`; payloads of ``max_bytes`` are held at most."""
        self._max_bytes = min(MAX_BYTES, max_bytes)
        self._policy = policy
        self._on_success = on_success
        self._on_failure = on_failure
        self._submit = submit
        self._metrics = metrics
        self._send_by_http = send_by_http
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._order = itertools.count()
        # guarded by _lock:
        self._events = 0  # in hand, wherever they are
        self._bytes = 0
        self._later: list[tuple[float, int, Event]] = []  # a heap: when, monotonic seconds
        self._is_draining = False
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="events", daemon=True)

    def start(self) -> None:
        """Try again what is put off, from now on."""
        self._thread.start()

    def accept(self, invocation: Invocation) -> None:
        """Take an event; raises ``LambdaApiError`` when there is no room or we are stopping."""
        size = len(invocation.payload)
        with self._lock:
            if self._events >= MAX_EVENTS or self._bytes + size > self._max_bytes:
                raise TooManyRequestsException()
            self._events += 1
            self._bytes += size
        self._metrics.on_event_received()
        try:
            self._try(Event.accepted(invocation))
        except LambdaApiError:
            self._forget(invocation)
            raise

    def drain(self, limit_s: float) -> bool:
        """Run what is put off at once; True if all are done within ``limit_s``. Idempotent."""
        with self._lock:
            if not self._is_draining:
                self._is_draining = True
                self._later = [(0.0, order, event) for _, order, event in self._later]
                heapq.heapify(self._later)
                self._changed.notify_all()
            return self._changed.wait_for(lambda: self._events == 0, limit_s)

    def stop_retries(self) -> None:
        """Try nothing again from now on."""
        with self._lock:
            self._is_closed = True

    def tell_losses(self) -> None:
        """Log how many events are still not done with, at the end of a stop."""
        with self._lock:
            left = self._events
        if left:
            logger.error("events lost: they were not done in time", extra={"events": left})

    def _try(self, event: Event) -> None:
        self._metrics.on_event_age(event.age_s(_now_ms()))
        self._submit(Call(event.invocation, lambda outcome: self._settle(event, outcome)))

    def _settle(self, event: Event, outcome: Outcome | LambdaApiError) -> None:
        """Do what follows an attempt; from any thread."""
        answer = outcome if isinstance(outcome, Outcome) else None
        attempts = event.attempt if answer is not None else event.attempt - 1
        match self._policy.next_step(event, outcome, _now_ms()):
            case Done():
                self._finish(event, self._on_success, Condition.SUCCESS, answer, attempts)
            case Retry(again, delay_s):
                self._metrics.on_event_retried()
                self._put_off(again, delay_s)
            case Discard(condition):
                self._metrics.on_event_dropped(condition)
                # There is no queue for dead letters: this line is what is left of the event.
                logger.error(
                    "event given up",
                    extra={
                        "function": event.invocation.function.name,
                        "request_id": event.invocation.request_id,
                        "condition": str(condition),
                        "attempts": attempts,
                    },
                )
                self._finish(event, self._on_failure, condition, answer, attempts)

    def _finish(
        self,
        event: Event,
        destination: HttpDestination | None,
        condition: Condition,
        outcome: Outcome | None,
        attempts: int,
    ) -> None:
        if destination is None:
            self._forget(event.invocation)
            return

        def on_delivered(is_delivered: bool) -> None:
            if not is_delivered:
                self._metrics.on_destination_failed()
            self._forget(event.invocation)

        record = destination_record(event, condition, outcome, attempts=attempts, now_s=time.time())
        self._send_by_http(destination, record, on_delivered)

    def _forget(self, invocation: Invocation) -> None:
        with self._lock:
            self._events -= 1
            self._bytes -= len(invocation.payload)
            self._changed.notify_all()

    def _put_off(self, event: Event, delay_s: float) -> None:
        with self._lock:
            if self._is_closed:
                return
            if self._is_draining:
                delay_s = min(delay_s, _DRAINING_DELAY_S)
            when = time.monotonic() + delay_s
            heapq.heappush(self._later, (when, next(self._order), event))
            self._changed.notify_all()

    def _run(self) -> None:
        """Try again what is due."""
        while True:
            with self._lock:
                while (wait_s := self._wait_s_locked()) > 0:
                    self._changed.wait(wait_s)
                event = heapq.heappop(self._later)[2]
            try:
                self._try(event)
            except LambdaApiError as error:
                self._settle(event, error)
            except Exception:
                logger.exception("event failed")
                self._settle(event, ServiceException("An internal error occurred."))

    def _wait_s_locked(self) -> float:
        """Return how long nothing is due."""
        return self._later[0][0] - time.monotonic() if self._later else _IDLE_S


#: The longest delay before a retry while a stop waits for it, seconds.
_DRAINING_DELAY_S: Final = 0.05
#: The longest sleep of the thread, seconds.
_IDLE_S: Final = 3600.0


def _now_ms() -> int:
    return int(time.time() * 1000)
