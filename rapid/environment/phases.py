"""The phases of an environment and its runtime, and the refusal of a request out of order."""

from __future__ import annotations

from collections import OrderedDict
from enum import StrEnum
from typing import Final, NamedTuple

from rapid.environment.api_error import ApiError

#: Late answers remembered, to tell them from wrong ones.
MAX_TIMED_OUT: Final = 1024


class Phase(StrEnum):
    """The life of an environment."""

    INIT = "init"
    IDLE = "idle"
    INVOKE = "invoke"
    SHUTDOWN = "shutdown"
    GONE = "gone"


#: The only moves there are.
MOVES: Final = {
    Phase.INIT: {Phase.IDLE, Phase.SHUTDOWN},
    Phase.IDLE: {Phase.INVOKE, Phase.SHUTDOWN},
    Phase.INVOKE: {Phase.IDLE, Phase.SHUTDOWN},
    Phase.SHUTDOWN: {Phase.GONE},
    Phase.GONE: set[Phase](),
}


class RuntimeState(StrEnum):
    """Where the runtime stands in its API; the names show in error messages.

    Source: aws-lambda-rie, core/states.
    """

    STARTED = "Started"
    INIT_ERROR = "InitError"
    RESTORING = "Restoring"
    RESTORE_ERROR = "RestoreError"
    READY = "Ready"
    RUNNING = "Running"
    INVOCATION_RESPONSE = "InvocationResponse"
    INVOCATION_ERROR_RESPONSE = "InvocationErrorResponse"


#: Those in which it has said itself that it cannot go on.
FAILED_STATES: Final = (RuntimeState.INIT_ERROR, RuntimeState.RESTORE_ERROR)


class RuntimeApiError(ApiError):
    """A request that the Runtime API refuses."""


class PostedId(NamedTuple):
    """Which invocation a response or an error is for, as the runtime says."""

    request_id: str  #: the same for every attempt of an asynchronous invocation
    invocation_id: str | None  #: of one attempt; None: the runtime does not echo it

    def is_stale(self, invocation_id: str) -> bool:
        """Whether it is for another attempt than ``invocation_id``."""
        return self.invocation_id not in (None, invocation_id)


def invoke_timeout() -> RuntimeApiError:
    """Return the refusal of an answer to an attempt that has timed out."""
    return RuntimeApiError(410, "InvokeTimeout", "Invoke timeout")


class RuntimeProgress:
    """Where one runtime stands, and what it may do next. Guarded by the scheduler's lock."""

    def __init__(self) -> None:
        """The runtime is about to start."""
        self.state = RuntimeState.STARTED
        self.answered: PostedId | None = None  #: the last invocation it has answered
        self._timed_out: OrderedDict[str, None] = OrderedDict()

    def on_next(self) -> None:
        """It waits for an event."""
        self.state = RuntimeState.READY
        self.answered = None

    def on_init_error(self) -> None:
        """It says that its init, or a restore, failed; raises ``RuntimeApiError``."""
        is_restoring = self.state is RuntimeState.RESTORING
        to = RuntimeState.RESTORE_ERROR if is_restoring else RuntimeState.INIT_ERROR
        if self.state is not RuntimeState.STARTED and not is_restoring:
            raise self.invalid_transition(to)
        self.state = to

    def on_restore(self) -> None:
        """It asks for a restore; raises ``RuntimeApiError``."""
        if self.state is not RuntimeState.STARTED:
            raise self.invalid_transition(RuntimeState.RESTORING)
        self.state = RuntimeState.RESTORING

    def on_timeout(self, request_id: str) -> None:
        """An invocation has ended without its answer, which may still come."""
        self._timed_out[request_id] = None
        if len(self._timed_out) > MAX_TIMED_OUT:
            self._timed_out.popitem(last=False)

    def refusal(self, posted: PostedId, to: RuntimeState) -> RuntimeApiError:
        """Return why an answer is not due; a late one is called so once."""
        if posted.request_id in self._timed_out:
            del self._timed_out[posted.request_id]
            return invoke_timeout()
        answered = self.answered
        if answered is not None and posted.request_id == answered.request_id:
            if answered.invocation_id is not None and posted.is_stale(answered.invocation_id):
                return invoke_timeout()
            return self.invalid_transition(to)
        return RuntimeApiError(400, "InvalidRequestID", "Invalid request ID")

    def invalid_transition(self, to: RuntimeState) -> RuntimeApiError:
        """Return the refusal of a request that the phase does not allow."""
        return RuntimeApiError(
            403,
            "InvalidStateTransition",
            f"State transition from {self.state} to {to} failed for runtime. "
            "Error: State transition is not allowed",
        )
