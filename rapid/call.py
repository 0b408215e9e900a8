"""A :class:`Call`: one invocation on its way through rapid, with the receiver of its outcome."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from lambda_protocol.errors import ErrorType, LambdaApiError, error_payload
from lambda_protocol.invocation import (
    UNHANDLED,
    Invocation,
    InvocationType,
    Outcome,
    new_request_id,
)
from rapid.response_sink import ResponseSink

#: If it is not known for so long that a caller still waits, it is asked before its call starts,
#: seconds.
CONFIRM_AFTER_S: Final = 1.0
#: A caller that has not answered after this is taken for one that waits, seconds.
CONFIRM_LIMIT_S: Final = 0.5

#: Gets the outcome of a call, or why it could not be run; must not block.
OnOutcome = Callable[[Outcome | LambdaApiError], None]
#: Gets the time, monotonic seconds, by which a call that takes long is answered.
OnStarted = Callable[[float, bool], None]


class Call:
    """One invocation in hand. Guarded by the scheduler's lock, but for what never changes.

    A call is in one place at a time: the scheduler's queue, or an environment. The code that takes
    a call out of its place finishes the call, so a call is finished once.
    """

    __slots__ = (
        "ask_caller",
        "asked_at",
        "deadline",
        "deadline_ms",
        "first_byte_at",
        "invocation",
        "invocation_id",
        "is_announced",
        "is_asynchronous",
        "is_cold",
        "is_responding",
        "log_mark",
        "on_outcome",
        "on_started",
        "received_at",
        "sink",
        "start_line",
        "started_at",
        "streamed_bytes",
        "wait_deadline",
        "wanted_at",
    )

    def __init__(
        self,
        invocation: Invocation,
        on_outcome: OnOutcome,
        on_started: OnStarted | None = None,
        *,
        sink: ResponseSink | None = None,
    ) -> None:
        """``on_started`` is for a caller who wants to hear of a call that takes long.

        ``sink`` is for one who wants the response while it is written: it gets all but what the
        outcome has, and ``on_outcome`` ends it.
        """
        self.invocation = invocation
        #: Whether the invocation is asynchronous: no caller waits for the answer.
        self.is_asynchronous = invocation.type is InvocationType.EVENT
        self.on_outcome = on_outcome
        self.on_started = on_started
        self.sink = sink
        self.is_announced = False  #: the caller was told of it while it waited
        # Monotonic seconds, set by the scheduler and the environment:
        self.received_at = 0.0
        self.wait_deadline = 0.0
        self.started_at = 0.0
        self.deadline = 0.0
        self.deadline_ms = 0  #: the same on the wall clock, epoch milliseconds
        self.invocation_id = ""  #: of this attempt; the request id is that of all attempts
        self.is_cold = False  #: whether an init was done for it
        # Of a response that goes to the sink:
        self.is_responding = False  #: the runtime has begun it
        self.first_byte_at = 0.0  #: monotonic seconds
        self.streamed_bytes = 0
        #: Asks whether the caller still waits; the answer goes to the scheduler. Must not block.
        #: None for a caller that cannot be asked, or tells of itself when it leaves.
        self.ask_caller: Callable[[], None] | None = None
        self.wanted_at = 0.0  #: when the caller waited for all that is known, monotonic seconds
        self.asked_at = 0.0  #: when it was asked; 0: it is not
        self.start_line = b""  #: its START line, once it is made
        self.log_mark = 0  #: where the log capture stood at its start

    @property
    def tenant(self) -> str:
        """Whose call it is: an environment serves one tenant; empty: calls without a tenant id."""
        return self.invocation.tenant_id or ""

    def begin(self, now: float, timeout_s: float) -> None:
        """Note that an environment takes it: a new attempt, which ends ``timeout_s`` from now."""
        self.started_at = now
        self.deadline = now + timeout_s
        self.deadline_ms = int((time.time() + timeout_s) * 1000)
        self.invocation_id = new_request_id()

    def may_start(self, now: float) -> bool:
        """Whether the caller is known to wait still, or was asked and has not answered."""
        if self.ask_caller is None or now - self.wanted_at <= CONFIRM_AFTER_S:
            return True
        return self.asked_at > 0.0 and now >= self.asked_at + CONFIRM_LIMIT_S


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an environment failed; becomes the outcome of whatever it had in hand."""

    error_type: str
    message: str = ""  #: what follows ``Error:`` in AWS's message
    payload: bytes | None = None  #: the runtime's own words, which go out as they came
    is_logged: bool = False  #: whether the log tells of it already
    #: What ended the environment or the invocation, in the log's words; empty: the runtime says.
    cause: str = ""
    memory_limit_bytes: int | None = None  #: what it was out of

    def outcome(self, request_id: str, version: str) -> Outcome:
        """Return what the caller of ``request_id`` gets: HTTP 200, Unhandled."""
        payload = self.payload
        if payload is None:
            payload = error_payload(
                self.error_type, f"RequestId: {request_id} Error: {self.message}"
            )
        return Outcome(payload=payload, function_error=UNHANDLED, executed_version=version)


def timed_out(timeout_s: float) -> Failure:
    """Return the failure of an invocation that ran longer than ``timeout_s``."""
    message = f"Task timed out after {timeout_s:.2f} seconds"
    return Failure(ErrorType.TIMED_OUT, message, cause="timeout")
