"""The queue of a function, and the pods that take from it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from bench.autoscale.metrics import QueueMetrics


@dataclass(slots=True, kw_only=True, eq=False)
class Pod:
    """A pod with rapid in it: it holds no more than it has free runtimes for."""

    free: int  #: runtimes without an invocation
    created_at: float
    is_ready: bool = False
    is_stopping: bool = False  #: SIGTERM came: it takes nothing more, and ends what it has
    running: int = 0


@dataclass(slots=True)
class Queue:
    """First in, first out; invocations that came together are one entry."""

    metrics: QueueMetrics = field(default_factory=QueueMetrics)
    _waiting: deque[tuple[float, int]] = field(default_factory=deque)

    def put(self, now: float, count: int) -> None:
        """Take invocations that came at this moment."""
        self._waiting.append((now, count))
        self.metrics.ready += count

    def take(self, most: int) -> list[tuple[float, int]]:
        """Hand out the oldest, as (when they came, how many), at most so many in all."""
        taken = []
        while most and self._waiting:
            came_at, count = self._waiting.popleft()
            if count > most:
                self._waiting.appendleft((came_at, count - most))
                count = most
            taken.append((came_at, count))
            most -= count
            self.metrics.ready -= count
            self.metrics.unacknowledged += count
        return taken

    def acknowledge(self, count: int) -> None:
        """Forget invocations that are done."""
        self.metrics.unacknowledged -= count
