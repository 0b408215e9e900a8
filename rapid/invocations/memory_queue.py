"""The queue of asynchronous invocations without RabbitMQ: in memory, so a crash loses it."""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from lambda_protocol.clock import now_ms
from lambda_protocol.errors import LambdaApiError, ServiceException, TooManyRequestsException
from lambda_protocol.invocation import AsyncInvocation, Invocation, Outcome
from rapid.call import Call
from rapid.invocations.attempts import Attempt, Attempts
from rapid.invocations.destinations import (
    Destination,
    HttpDestination,
    OnDelivered,
    SendByHttp,
)
from rapid.invocations.retry_policy import Condition, Retry, RetryPolicy
from rapid.metrics import Metrics

logger = logging.getLogger(__name__)

#: Asynchronous invocations in hand beyond these are refused: how many, and the bytes of their
#: payloads.
MAX_WAITING: Final = 10_000
MAX_BYTES: Final = 256 * 1_048_576


class MemoryQueue:
    """The asynchronous invocations of one rapid. Thread-safe.

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
        self._attempts = Attempts(
            self, policy=policy, on_success=on_success, on_failure=on_failure, metrics=metrics
        )
        self._submit = submit
        self._metrics = metrics
        self._send_by_http = send_by_http
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._order = itertools.count()
        # guarded by _lock:
        self._in_hand = 0  # invocations, wherever they are
        self._bytes = 0
        # A heap: when an attempt is due, monotonic seconds.
        self._later: list[tuple[float, int, AsyncInvocation]] = []
        self._is_draining = False
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="async-retries", daemon=True)

    def start(self) -> None:
        """Try again what is put off, from now on."""
        self._thread.start()

    def accept(self, invocation: Invocation) -> None:
        """Queue ``invocation``.

        Raises ``LambdaApiError`` if the queue is full or rapid is stopping.
        """
        size = len(invocation.payload)
        with self._lock:
            if self._in_hand >= MAX_WAITING or self._bytes + size > self._max_bytes:
                raise TooManyRequestsException()
            self._in_hand += 1
            self._bytes += size
        self._metrics.on_async_received()
        try:
            self._run_attempt(AsyncInvocation.accepted(invocation))
        except LambdaApiError:
            self._forget(invocation)
            raise

    def drain(self, limit_s: float) -> bool:
        """Run what is put off at once; True if all are done within ``limit_s``. Idempotent."""
        with self._lock:
            if not self._is_draining:
                self._is_draining = True
                self._later = [(0.0, order, waiting) for _, order, waiting in self._later]
                heapq.heapify(self._later)
                self._changed.notify_all()
            return self._changed.wait_for(lambda: self._in_hand == 0, limit_s)

    def stop_retries(self) -> None:
        """Try nothing again from now on."""
        with self._lock:
            self._is_closed = True

    def tell_losses(self) -> None:
        """Log how many asynchronous invocations a stop has lost."""
        with self._lock:
            left = self._in_hand
        if left:
            logger.error(
                "asynchronous invocations lost: the drain was over", extra={"invocations": left}
            )

    # --- the transport of attempts; any thread

    def retry(self, attempt: Attempt, step: Retry) -> None:
        """Keep the next attempt for after ``step.delay_s``."""
        delay_s = step.delay_s
        with self._lock:
            if self._is_closed:
                return
            if self._is_draining:
                delay_s = min(delay_s, _DRAINING_DELAY_S)
            due = time.monotonic() + delay_s
            heapq.heappush(self._later, (due, next(self._order), step.async_invocation))
            self._changed.notify_all()

    def send_record(
        self,
        attempt: Attempt,
        destination: Destination,
        record: bytes,
        on_delivered: OnDelivered,
    ) -> None:
        """Post a record: without RabbitMQ every destination is an HTTP address."""
        assert isinstance(destination, HttpDestination)
        self._send_by_http(destination, record, on_delivered)

    def dead_letter(self, attempt: Attempt, condition: Condition, outcome: Outcome | None) -> None:
        """Log that the invocation is lost: without RabbitMQ there is no dead-letter queue."""
        logger.error(
            "asynchronous invocation lost: there is no dead-letter queue without RabbitMQ",
            extra={"request_id": attempt.invocation.request_id, "condition": str(condition)},
        )
        self.finish(attempt)

    def finish(self, attempt: Attempt) -> None:
        """Forget an invocation that needs no further attempt."""
        self._forget(attempt.invocation)

    # --- inside

    def _run_attempt(self, async_invocation: AsyncInvocation) -> None:
        self._metrics.on_async_age(async_invocation.age_s(now_ms()))
        self._submit(self._attempt(async_invocation))

    def _attempt(self, async_invocation: AsyncInvocation) -> Attempt:
        attempt = Attempt(async_invocation, lambda outcome: self._attempts.end(attempt, outcome))
        return attempt

    def _forget(self, invocation: Invocation) -> None:
        with self._lock:
            self._in_hand -= 1
            self._bytes -= len(invocation.payload)
            self._changed.notify_all()

    def _run(self) -> None:
        """Run the attempts that are due."""
        while True:
            with self._lock:
                while (wait_s := self._wait_s_locked()) > 0:
                    self._changed.wait(wait_s)
                async_invocation = heapq.heappop(self._later)[2]
            try:
                self._run_attempt(async_invocation)
            except LambdaApiError as error:
                self._attempts.end(self._attempt(async_invocation), error)
            except Exception:
                logger.exception("asynchronous invocation failed")
                fault = ServiceException("An internal error occurred.")
                self._attempts.end(self._attempt(async_invocation), fault)

    def _wait_s_locked(self) -> float:
        """Return how long nothing is due."""
        return self._later[0][0] - time.monotonic() if self._later else _IDLE_S


#: The longest delay before a retry while a stop waits for it, seconds.
_DRAINING_DELAY_S: Final = 0.05
#: The longest sleep of the thread, seconds.
_IDLE_S: Final = 3600.0
