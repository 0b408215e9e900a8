"""The queue of invocations that wait for an environment: calls before asynchronous invocations."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from rapid.call import Call


class CallQueue:
    """Two queues, each first in, first out. Guarded by the scheduler's lock.

    Only a call has a caller that waits for the answer. So an asynchronous invocation starts only
    when no call waits.
    """

    __slots__ = ("asynchronous", "calls")

    def __init__(self) -> None:
        """Hold nothing."""
        self.calls: deque[Call] = deque()
        self.asynchronous: deque[Call] = deque()

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self.calls) + len(self.asynchronous)

    @property
    def is_empty(self) -> bool:
        """Whether none waits; asked several times a call, and quicker than the length."""
        return not (self.calls or self.asynchronous)

    def __iter__(self) -> Iterator[Call]:
        """Yield them in their order."""
        yield from self.calls
        yield from self.asynchronous

    def append(self, call: Call) -> None:
        """Put one at the end of its kind."""
        self.line_of(call).append(call)

    def appendleft(self, call: Call) -> None:
        """Put one first of its kind."""
        self.line_of(call).appendleft(call)

    def popleft(self) -> Call:
        """Take the first out."""
        return (self.calls or self.asynchronous).popleft()

    def remove(self, call: Call) -> None:
        """Take one out."""
        self.line_of(call).remove(call)

    def clear(self) -> None:
        """Take all out."""
        self.calls.clear()
        self.asynchronous.clear()

    def line_of(self, call: Call) -> deque[Call]:
        """Return the line in which one of its kind waits."""
        return self.asynchronous if call.is_asynchronous else self.calls
