"""The calls that one runtime works on: one at a time, or several. Guarded by the scheduler's lock.

Which of the two it is, AWS_LAMBDA_MAX_CONCURRENCY says. Source: Lambda developer guide, "Lambda
Managed Instances", multi-concurrency.
"""

from __future__ import annotations

import math

from rapid.call import Call
from rapid.environment.phases import Phase


class OneCall:
    """A runtime that takes the next call when the one before and its extensions are done."""

    is_shared = False  #: whether other calls go on when one ends

    def __init__(self) -> None:
        """The runtime has none."""
        self.by_id: dict[str, Call] = {}
        #: When the invoke phase is over, monotonic seconds; extensions have until then, too.
        self.deadline = math.inf

    def can_take(self, phase: Phase) -> bool:
        """Whether a call may be delivered in ``phase``."""
        return phase is Phase.IDLE

    def add(self, call: Call) -> None:
        """Note a call that is delivered; its deadline is known."""
        self.by_id[call.invocation.request_id] = call
        self.deadline = call.deadline

    def delivered_again(self) -> Call | None:
        """Return the call for a runtime that asks for the next one without answering."""
        return next(iter(self.by_id.values()), None)

    def take_late(self, _now: float) -> list[Call] | None:
        """Return None: a call that is late ends its environment."""
        return None

    def end_phase(self) -> None:
        """Note that the invoke phase is over."""
        self.deadline = math.inf


class SeveralCalls:
    """A runtime that takes calls while others run; each has its own deadline."""

    is_shared = True

    def __init__(self) -> None:
        """The runtime has none."""
        self.by_id: dict[str, Call] = {}

    @property
    def deadline(self) -> float:
        """When the first of the calls is late, monotonic seconds."""
        return min((call.deadline for call in self.by_id.values()), default=math.inf)

    def can_take(self, phase: Phase) -> bool:
        """Whether a call may be delivered in ``phase``."""
        return phase in (Phase.IDLE, Phase.INVOKE)

    def add(self, call: Call) -> None:
        """Note a call that is delivered; its deadline is known."""
        self.by_id[call.invocation.request_id] = call

    def delivered_again(self) -> Call | None:
        """Return None: each ``next`` is for another call."""
        return None

    def take_late(self, now: float) -> list[Call] | None:
        """Take out and return the calls that are late; the runtime goes on with the others."""
        late = [call for call in self.by_id.values() if call.deadline <= now]
        for call in late:
            del self.by_id[call.invocation.request_id]
        return late

    def end_phase(self) -> None:
        """Do nothing: no deadline outlives its call."""


RuntimeCalls = OneCall | SeveralCalls
