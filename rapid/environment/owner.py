"""The notifications that an environment sends to its owner, the scheduler."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from lambda_protocol.errors import LambdaApiError
from lambda_protocol.invocation import Outcome
from rapid.call import Call

if TYPE_CHECKING:
    from rapid.environment.environment import ExecutionEnvironment


class EnvironmentOwner(Protocol):
    """The port; methods that end in ``_locked`` are called with the lock that both share."""

    def on_available_locked(self, environment: ExecutionEnvironment) -> None:
        """The environment can take a call."""

    def on_init_done_locked(self, environment: ExecutionEnvironment, init_s: float) -> None:
        """The init phase has succeeded."""

    def on_init_failed_locked(self, started_at: float) -> list[Call]:
        """The init phase has failed; return the calls that this ends."""

    def on_gone_locked(self, environment: ExecutionEnvironment) -> None:
        """Nothing is left of the environment."""

    def requeue_locked(self, call: Call) -> None:
        """The call was never delivered: it is first in line again."""

    def note_deadline_locked(self, when: float) -> None:
        """Something falls due then, monotonic seconds."""

    def finish(self, call: Call, outcome: Outcome | LambdaApiError, status: str) -> None:
        """The call is done."""

    def dispatch(self) -> None:
        """Something changed: match what waits to idle environments. Called without the lock."""
