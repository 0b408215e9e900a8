"""Who waits for an environment: calls first, then events."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from rapid.call import Call


class WaitingLine:
    """Calls and events, each first in, first out. Guarded by the scheduler's lock.

    Somebody waits for the answer to a call and nobody for that to an event, so an event goes only
    when no call waits.
    """

    __slots__ = ("calls", "events")

    def __init__(self) -> None:
        """Nobody waits yet."""
        self.calls: deque[Call] = deque()
        self.events: deque[Call] = deque()

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self.calls) + len(self.events)

    def __iter__(self) -> Iterator[Call]:
        """Yield them in their order."""
        yield from self.calls
        yield from self.events

    def append(self, call: Call) -> None:
        """Put one at the end of its kind."""
        self.line_of(call).append(call)

    def appendleft(self, call: Call) -> None:
        """Put one first of its kind."""
        self.line_of(call).appendleft(call)

    def popleft(self) -> Call:
        """Take the first out."""
        return (self.calls or self.events).popleft()

    def remove(self, call: Call) -> None:
        """Take one out."""
        self.line_of(call).remove(call)

    def clear(self) -> None:
        """Take all out."""
        self.calls.clear()
        self.events.clear()

    def line_of(self, call: Call) -> deque[Call]:
        """Return the line in which one of its kind waits."""
        return self.events if call.is_event else self.calls
