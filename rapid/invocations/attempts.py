"""What follows an attempt of an asynchronous invocation: a retry, a record, or a dead letter.

The retry policy decides, and a transport carries the decision out. There are two transports:
RabbitMQ and the queue in memory.
"""

from __future__ import annotations

import logging
import time
from typing import Generic, Protocol, TypeVar

from lambda_protocol.clock import now_ms
from lambda_protocol.errors import LambdaApiError
from lambda_protocol.invocation import AsyncInvocation, Outcome
from rapid.call import Call, OnOutcome
from rapid.invocations.destinations import Destination, OnDelivered
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


class Attempt(Call):
    """A call that is one attempt of an asynchronous invocation."""

    __slots__ = ("async_invocation",)

    def __init__(self, async_invocation: AsyncInvocation, on_outcome: OnOutcome) -> None:
        """Run ``async_invocation`` once; ``on_outcome`` gets the result."""
        self.async_invocation = async_invocation
        super().__init__(async_invocation.invocation, on_outcome)


A = TypeVar("A", bound=Attempt)
A_contra = TypeVar("A_contra", bound=Attempt, contravariant=True)


class Transport(Protocol[A_contra]):
    """The port: what the two queues of asynchronous invocations do differently."""

    def retry(self, attempt: A_contra, step: Retry) -> None:
        """Queue the next attempt for after ``step.delay_s``, and finish this one."""

    def send_record(
        self,
        attempt: A_contra,
        destination: Destination,
        record: bytes,
        on_delivered: OnDelivered,
    ) -> None:
        """Deliver a record; ``on_delivered`` is called once."""

    def dead_letter(self, attempt: A_contra, condition: Condition, outcome: Outcome | None) -> None:
        """Keep a discarded invocation as a dead letter, and finish it."""

    def finish(self, attempt: A_contra) -> None:
        """Forget an invocation that needs no further attempt."""


class Attempts(Generic[A]):
    """Ends attempts as the retry policy says. Runs in the thread of the transport."""

    def __init__(
        self,
        transport: Transport[A],
        *,
        policy: RetryPolicy,
        on_success: Destination | None,
        on_failure: Destination | None,
        metrics: Metrics,
    ) -> None:
        """Send records to ``on_success`` and ``on_failure``, if they are set."""
        self.policy = policy
        self.on_success = on_success
        self._on_failure = on_failure
        self._transport = transport
        self._metrics = metrics

    def end(self, attempt: A, outcome: Outcome | LambdaApiError) -> None:
        """Do what follows an attempt that has ended with ``outcome``.

        An error of the service made no attempt, so it does not count as one.
        """
        answer = outcome if isinstance(outcome, Outcome) else None
        made = attempt.async_invocation.attempt
        if answer is None:
            made -= 1
        match self.policy.next_step(attempt.async_invocation, outcome, now_ms()):
            case Done():
                self._record(attempt, self.on_success, Condition.SUCCESS, answer, made)
            case Retry() as step:
                self._metrics.on_async_retried()
                logger.info(
                    "asynchronous invocation is retried",
                    extra={
                        "request_id": attempt.invocation.request_id,
                        "attempt": step.async_invocation.attempt,
                        "delay_s": step.delay_s,
                    },
                )
                self._transport.retry(attempt, step)
            case Discard(condition):
                self._discard(attempt, condition, answer, made)

    def expire(self, attempt: A) -> None:
        """Discard an invocation that is too old for another attempt."""
        made = attempt.async_invocation.attempt - 1
        self._discard(attempt, Condition.EVENT_AGE_EXCEEDED, None, made)

    def _discard(
        self, attempt: A, condition: Condition, outcome: Outcome | None, made: int
    ) -> None:
        self._metrics.on_async_discarded(condition)
        logger.warning(
            "asynchronous invocation discarded",
            extra={
                "function": attempt.invocation.function.name,
                "request_id": attempt.invocation.request_id,
                "condition": str(condition),
                "attempts": made,
            },
        )
        if self._on_failure is None:
            self._transport.dead_letter(attempt, condition, outcome)
        else:
            self._record(attempt, self._on_failure, condition, outcome, made)

    def _record(
        self,
        attempt: A,
        destination: Destination | None,
        condition: Condition,
        outcome: Outcome | None,
        made: int,
    ) -> None:
        """Send the record; an invocation that failed is a dead letter if that is impossible."""
        if destination is None:
            self._transport.finish(attempt)
            return

        def on_delivered(is_delivered: bool) -> None:
            if not is_delivered:
                self._metrics.on_destination_failed()
                logger.error(
                    "record not delivered",
                    extra={
                        "request_id": attempt.invocation.request_id,
                        "condition": str(condition),
                    },
                )
            if is_delivered or condition is Condition.SUCCESS:
                self._transport.finish(attempt)
            else:
                self._transport.dead_letter(attempt, condition, outcome)

        record = destination_record(
            attempt.async_invocation, condition, outcome, attempts=made, now_s=time.time()
        )
        self._transport.send_record(attempt, destination, record, on_delivered)
