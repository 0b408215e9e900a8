"""Where an environment and its runtime stand, and what one out of turn is told."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


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


class RuntimeApiError(Exception):
    """A request the Runtime API refuses."""

    def __init__(self, status: int, error_type: str, message: str) -> None:
        """All three are AWS's."""
        super().__init__(message)
        self.status = status
        self.error_type = error_type
