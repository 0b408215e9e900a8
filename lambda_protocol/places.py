"""Counts what there may be only so many of: connections, and the threads that serve them."""

from __future__ import annotations

import threading


class Places:
    """A number of places. Thread-safe.

    Each :meth:`take` that succeeds is followed by one :meth:`give_back`, whatever happens between.
    """

    def __init__(self, limit: int) -> None:
        """Have ``limit`` places, all free."""
        self.limit = limit
        self._lock = threading.Lock()
        self._taken = 0  # guarded by _lock

    @property
    def taken(self) -> int:
        """How many places are taken."""
        with self._lock:
            return self._taken

    def take(self) -> bool:
        """Take a place; False if there is none."""
        with self._lock:
            if self._taken >= self.limit:
                return False
            self._taken += 1
            return True

    def give_back(self) -> None:
        """Free a place that was taken."""
        with self._lock:
            assert self._taken > 0
            self._taken -= 1
