"""The port of an execution environment to its parts."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from rapid.call import Failure
from rapid.processes import ExitStatus


class Core(Protocol):
    """What the parts ask for; methods that end in ``_locked`` need the scheduler's lock."""

    def advance_locked(self) -> None:
        """Enter the next phase if the runtime and every extension wait for it."""

    def end_lines(self) -> None:
        """Pass on half lines of the runtime, unless it has other invocations that go on."""

    def fail(self, failure: Failure, reason: str, *, linger_s: float = 0.0) -> None:
        """Begin the shutdown; ``reason`` is the ``shutdownReason`` for extensions."""

    def fail_unexpectedly(self, error: Exception) -> None:
        """End the environment after an unexpected error."""

    def on_runtime_exit(self, status: ExitStatus) -> None:
        """Note that the runtime has ended."""

    def on_extension_exit(self, name: str, status: ExitStatus) -> None:
        """Note that an extension has ended."""

    def ends_on_error(self) -> AbstractContextManager[None]:
        """End the environment if the block raises."""

    def on_gone_locked(self) -> None:
        """Note that nothing is left of the environment."""
