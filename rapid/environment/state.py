"""The state of one execution environment, and what follows from it alone."""

from __future__ import annotations

import math
import threading
from typing import Protocol

from rapid.call import Call
from rapid.environment.context import EnvironmentContext
from rapid.environment.extensions import Extensions
from rapid.environment.phases import MOVES, Phase, RuntimeProgress
from rapid.environment.runtime_calls import OneCall, RuntimeCalls, SeveralCalls


class ParkedNext(Protocol):
    """A runtime's ``next`` that waits for an event."""

    def deliver(self, call: Call) -> bool:
        """Answer it with the event of ``call``; False if the runtime is gone. Never blocks."""


class EnvironmentState:
    """Phase, calls, parked ``next`` and times. Guarded by the scheduler's lock.

    All times are monotonic seconds.
    """

    def __init__(self, context: EnvironmentContext) -> None:
        """Begin the init phase."""
        settings = context.settings
        is_shared = settings.is_multi_concurrency
        #: Notified when an extension may have registered, or the init has failed.
        self.registered = threading.Condition(context.lock)
        self.phase = Phase.INIT
        self.runtime = RuntimeProgress()
        self.calls: RuntimeCalls = SeveralCalls() if is_shared else OneCall()
        self.extensions = Extensions(hear_invoke=not is_shared)
        self.parked: list[ParkedNext] = []
        self.tenant: str | None = None  #: of every call it serves; None: it has served none
        self.is_replaced = False
        self.created_at = context.clock()
        self.init_deadline = self.created_at + context.init_limit_s
        self.init_s: float | None = None  #: how long the init took
        self.idle_since = 0.0
        self.answered_at = 0.0
        self._slots = settings.runtime_concurrency
        self._idle_timeout_s = settings.idle_timeout_s

    def move(self, to: Phase) -> None:
        """Enter another phase."""
        if to not in MOVES[self.phase]:
            raise AssertionError(f"{self.phase} to {to}")
        self.phase = to

    @property
    def is_ending(self) -> bool:
        """Whether it is shutting down or gone."""
        return self.phase in (Phase.SHUTDOWN, Phase.GONE)

    @property
    def can_take(self) -> bool:
        """Whether a call of its tenant could be delivered now."""
        return bool(self.parked) and not self.is_replaced and self.calls.can_take(self.phase)

    @property
    def is_due_to_go(self) -> bool:
        """Whether it is being replaced, and no invocation or its aftermath is under way."""
        if self.phase is Phase.INVOKE:
            return self.is_replaced and self.calls.is_shared and not self.calls.by_id
        return self.is_replaced and self.phase in (Phase.INIT, Phase.IDLE)

    @property
    def next_deadline(self) -> float:
        """When the next of its deadlines passes."""
        if self.is_due_to_go:
            return 0.0
        if self.phase is Phase.INIT:
            return self.init_deadline
        if self.phase is Phase.IDLE:
            return self.idle_since + self._idle_timeout_s
        return self.calls.deadline if self.phase is Phase.INVOKE else math.inf

    def coming_slots(self, now: float, patience_s: float) -> int:
        """How many calls will be taken soon, without anyone doing anything, by it or its successor.

        It is in its init, between two calls, or being replaced.
        """
        if self.phase is Phase.INIT or (self.is_replaced and not self.calls.by_id):
            return self._slots
        if self.phase is Phase.INVOKE and not self.calls.by_id:
            return 1 if now - self.answered_at < patience_s else 0
        return 0

    def replace(self) -> None:
        """Take no more calls."""
        self.is_replaced = True
        self.tenant = None  # its place is for anyone
