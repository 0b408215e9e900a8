"""The retry policy of asynchronous invocations, and the record for a destination.

Source: Lambda developer guide, "How Lambda handles errors and retries with asynchronous
invocation" and "Capturing records of Lambda asynchronous invocations".
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from enum import StrEnum

from lambda_protocol.errors import LambdaApiError
from lambda_protocol.invocation import AsyncInvocation, Outcome
from lambda_protocol.validation import require_json


class Condition(StrEnum):
    """Why an asynchronous invocation is done with, as a destination's record names it."""

    SUCCESS = "Success"
    RETRIES_EXHAUSTED = "RetriesExhausted"
    EVENT_AGE_EXCEEDED = "EventAgeExceeded"


@dataclass(frozen=True, slots=True)
class Done:
    """The function has succeeded."""

    condition = Condition.SUCCESS


@dataclass(frozen=True, slots=True)
class Retry:
    """``event`` is to be tried again, after ``delay_s``."""

    async_invocation: AsyncInvocation
    delay_s: float


@dataclass(frozen=True, slots=True)
class Discard:
    """The asynchronous invocation is discarded."""

    condition: Condition


Step = Done | Retry | Discard


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """When an asynchronous invocation is tried again."""

    max_retries: int  #: attempts after the first, for errors of the function
    delays_s: tuple[float, ...]  #: before each of them; the last one goes on
    backoff_s: tuple[float, float]  #: after a throttle or fault of the service: first and longest
    max_age_s: float  #: an attempt that would begin later is not made

    def next_step(
        self, async_invocation: AsyncInvocation, outcome: Outcome | LambdaApiError, now_ms: int
    ) -> Step:
        """Return what to do after an attempt that has ended with ``outcome``.

        An error of the function uses up an attempt. A throttle or a fault of the service does not:
        it puts the asynchronous invocation off, longer each time.
        """
        if isinstance(outcome, LambdaApiError):
            again = replace(async_invocation, backoffs=async_invocation.backoffs + 1)
            first_s, longest_s = self.backoff_s
            # The exponent is bounded: beyond it the delay is the longest for any sensible first.
            delay_s = min(first_s * 2 ** min(async_invocation.backoffs, 32), longest_s)
            return self._retry(again, delay_s, now_ms)
        if outcome.function_error is None:
            return Done()
        if async_invocation.attempt > self.max_retries:
            return Discard(Condition.RETRIES_EXHAUSTED)
        again = replace(async_invocation, attempt=async_invocation.attempt + 1)
        delay_s = self.delays_s[min(async_invocation.attempt, len(self.delays_s)) - 1]
        return self._retry(again, delay_s, now_ms)

    def is_too_old(self, async_invocation: AsyncInvocation, now_ms: int) -> bool:
        """Whether no attempt may begin any more."""
        return async_invocation.age_s(now_ms) > self.max_age_s

    def _retry(self, again: AsyncInvocation, delay_s: float, now_ms: int) -> Step:
        if again.age_s(now_ms) + delay_s > self.max_age_s:  # AWS looks ahead, too
            return Discard(Condition.EVENT_AGE_EXCEEDED)
        return Retry(again, delay_s)


def destination_record(
    async_invocation: AsyncInvocation,
    condition: Condition,
    outcome: Outcome | None,
    *,
    attempts: int,
    now_s: float,
) -> bytes:
    """Return the record of an asynchronous invocation for a destination, as JSON.

    ``outcome`` is that of the last attempt. None: no attempt reached the function. ``now_s`` is
    epoch seconds.
    """
    invocation = async_invocation.invocation
    when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now_s))
    context = {
        "requestId": invocation.request_id,
        "functionArn": invocation.function.qualified_arn,
        "condition": condition,
        "approximateInvokeCount": attempts,
    }
    record = {
        "version": _encode("1.0"),
        "timestamp": _encode(f"{when}.{int(now_s * 1000) % 1000:03d}Z"),
        "requestContext": _encode(context),
        "requestPayload": _as_json(invocation.payload),
    }
    if outcome is not None:
        response: dict[str, object] = {
            "statusCode": 200,
            "executedVersion": outcome.executed_version,
        }
        if outcome.function_error is not None:
            response["functionError"] = outcome.function_error
        record["responseContext"] = _encode(response)
        record["responsePayload"] = _as_json(outcome.payload)
    return b"{" + b", ".join(_encode(name) + b": " + record[name] for name in record) + b"}"


def error_message(condition: Condition, outcome: Outcome | None) -> str:
    """Return the message of a dead letter: the function's own, or why nothing was tried."""
    if outcome is not None:
        try:
            answer = json.loads(outcome.payload)
        except (ValueError, RecursionError):
            answer = None
        if isinstance(answer, dict) and isinstance(answer.get("errorMessage"), str):
            return str(answer["errorMessage"])
    return str(condition)


def _as_json(payload: bytes) -> bytes:
    """Return a payload for a record: JSON unchanged, other bytes as a JSON string.

    The JSON is not parsed into objects: nested in a record it could be too deep to be written.
    """
    try:
        require_json(payload)
    except LambdaApiError:
        return _encode(payload.decode(errors="replace"))
    return payload


def _encode(value: object) -> bytes:
    return json.dumps(value).encode()
