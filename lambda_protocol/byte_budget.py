"""How many bytes of payloads one process may hold: beyond them a request is refused unread."""

from __future__ import annotations

import threading
from typing import Final

from lambda_protocol.errors import TooManyRequestsException
from lambda_protocol.memory_cgroup import find_memory_cgroup

#: The budget of a process whose memory nothing limits, bytes.
UNLIMITED_BYTES: Final = 256 * 1_048_576
#: The least budget: one payload of the largest size, and some small ones.
LEAST_BYTES: Final = 8 * 1_048_576
#: A payload of so many bytes is not counted: the limit of connections bounds these.
FREE_BYTES: Final = 16_384
#: A payload is held as it came, is sent on, and its answer may be as large: with what a join takes
#: on the way, that is four times the budget.
_PART_OF_LIMIT: Final = 4


def too_many_bytes() -> TooManyRequestsException:
    """Return the error of a request that the budget is too small for now."""
    return TooManyRequestsException(
        "Too many bytes of payloads are in hand: try again later.", reason="CallerRateLimitExceeded"
    )


def default_bytes() -> int:
    """Return a quarter of the memory limit of our control group, 256 MiB without one."""
    cgroup = find_memory_cgroup()
    limit = None if cgroup is None else cgroup.limit_bytes
    return UNLIMITED_BYTES if limit is None else max(LEAST_BYTES, limit // _PART_OF_LIMIT)


class ByteBudget:
    """The bytes of one process. Thread-safe; its lock is a leaf."""

    def __init__(self, limit_bytes: int) -> None:
        """Let ``limit_bytes`` be in hand, and no more."""
        self.limit_bytes = limit_bytes
        self._lock = threading.Lock()
        self._left = limit_bytes  # guarded by _lock

    @property
    def left(self) -> int:
        """How many bytes may still be taken."""
        return self._left

    def take(self, count: int) -> bool:
        """Take ``count`` bytes; False, and none taken, when there are not so many left."""
        with self._lock:
            if count > self._left:
                return False
            self._left -= count
            return True

    def give(self, count: int) -> None:
        """Give ``count`` bytes back that were taken."""
        with self._lock:
            self._left += count


class Share:
    """What one request has of a budget. Thread-safe after the last :meth:`take`."""

    __slots__ = ("_budget", "_taken")

    def __init__(self, budget: ByteBudget) -> None:
        """Have nothing yet."""
        self._budget = budget
        self._taken: list[int] = []

    def take(self, count: int) -> bool:
        """Take ``count`` bytes more; False when there are not so many left."""
        if not self._budget.take(count):
            return False
        self._taken.append(count)
        return True

    def give(self) -> None:
        """Give everything back. Idempotent."""
        while self._taken:
            try:
                count = self._taken.pop()
            except IndexError:  # another thread gives the same
                return
            self._budget.give(count)
