"""The slots that invocations from RabbitMQ run in: how many are taken, and the prefetch counts."""

from __future__ import annotations

import bisect
import threading
import time
from typing import Final

#: The work that may be read ahead for each slot, seconds.
READ_AHEAD_S: Final = 0.005
#: Steps of reading ahead, calls a slot: a change costs a new consumer, so there are few.
READ_AHEAD_STEPS: Final = (0, 1, 4, 16)
#: What was sent here and has not begun after this goes back, for an instance that is free, seconds.
HAND_BACK_AFTER_S: Final = 0.05
#: The weight of the newest call in the mean duration.
_SMOOTHING: Final = 0.1
#: Between two changes of the read-ahead, seconds.
_CHANGE_INTERVAL_S: Final = 0.5


class Slots:
    """Counts calls and asynchronous invocations in hand. Thread-safe.

    An instance must not hold work that it cannot start. RabbitMQ has two prefetch counts, one for
    calls and one for asynchronous invocations, and may fill both at once. Three rules follow:

    * Slots that asynchronous invocations hold for a while are not offered to calls.
    * What cannot start is handed back to its queue.
    * After that, no asynchronous invocation is taken until a slot is free.

    Reading ahead is for fast functions: the round trip to RabbitMQ would be most of their time.
    """

    def __init__(self, slots: int) -> None:
        """``slots`` is how many invocations can run at once."""
        self._lock = threading.Lock()
        self._slots = slots
        # guarded by _lock:
        self._in_hand = 0
        self._async_times: dict[int, float] = {}  # by key, of those in hand: since when
        self._takes_asynchronous = True
        self._mean_s: float | None = None
        self._ahead = 0  # calls read ahead for each slot
        self._changed_at = 0.0

    @property
    def is_over(self) -> bool:
        """Whether more is in hand than can run."""
        return self._in_hand > self._slots

    @property
    def poll_limit_s(self) -> float:
        """How long the consumer may sleep before it looks again at what it holds."""
        with self._lock:
            newest = max(self._async_times.values(), default=-HAND_BACK_AFTER_S)
            has_new = time.monotonic() - newest < HAND_BACK_AFTER_S
        return HAND_BACK_AFTER_S if has_new or self.is_over else 3600.0

    def call_prefetch(self) -> int:
        """Return the prefetch count of calls."""
        with self._lock:
            settled = self._settled_before_locked()
            taken = sum(since <= settled for since in self._async_times.values())
            return self._prefetch_locked(max(0, self._slots - taken))

    def async_prefetch(self) -> int:
        """Return the prefetch count of asynchronous invocations."""
        with self._lock:
            if not self._takes_asynchronous and self._in_hand < self._slots:
                self._takes_asynchronous = True
            return self._prefetch_locked(self._slots) if self._takes_asynchronous else 0

    @property
    def is_closed_to_asynchronous(self) -> bool:
        """Whether asynchronous invocations wait in the broker for a slot to be free."""
        return not self._takes_asynchronous

    def on_taken(self) -> None:
        """Count a call in."""
        with self._lock:
            self._in_hand += 1

    def on_async_taken(self, key: int) -> None:
        """Count an asynchronous invocation in; ``key`` tells it from the others."""
        with self._lock:
            self._in_hand += 1
            self._async_times[key] = time.monotonic()

    def on_async_done(self, key: int, duration_s: float | None = None) -> bool:
        """Count an asynchronous invocation out; True if a prefetch count should change."""
        with self._lock:
            since = self._async_times.pop(key, None)
            if since is None:
                return False
            has_taken_a_slot = since <= self._settled_before_locked()
        return self.on_done(1, duration_s) or has_taken_a_slot or self.is_closed_to_asynchronous

    def on_done(self, count: int = 1, duration_s: float | None = None) -> bool:
        """Count calls out; True when the prefetch should change for what one of them took."""
        with self._lock:
            self._in_hand -= count
            if duration_s is None:
                return False
            mean = self._mean_s
            mean = duration_s if mean is None else mean + _SMOOTHING * (duration_s - mean)
            self._mean_s = mean
            ahead = read_ahead(READ_AHEAD_S / max(mean, 1e-6), self._ahead)
            now = time.monotonic()
            if ahead == self._ahead or now - self._changed_at < _CHANGE_INTERVAL_S:
                return False
            self._ahead = ahead
            self._changed_at = now
            return True

    def on_handed_back(self, *, asynchronous: bool) -> None:
        """Forget how fast the function was.

        If what went back was ``asynchronous``, none of it is taken until a slot is free.
        """
        with self._lock:
            self._ahead = 0
            self._mean_s = None
            self._changed_at = time.monotonic()
            if asynchronous:
                self._takes_asynchronous = False

    def _settled_before_locked(self) -> float:
        """Return since when an asynchronous invocation holds a slot that no call is offered."""
        is_slow = self._mean_s is not None and self._mean_s >= HAND_BACK_AFTER_S
        return time.monotonic() - (0.0 if is_slow else HAND_BACK_AFTER_S)

    def _prefetch_locked(self, slots: int) -> int:
        return min(slots * (1 + self._ahead), 65_535)


def read_ahead(fitting: float, current: int) -> int:
    """Return the step for ``fitting`` calls a slot. A step up has to fit twice, against swings."""
    most = fitting if fitting < current else max(current, fitting / 2)
    return READ_AHEAD_STEPS[bisect.bisect_right(READ_AHEAD_STEPS, most) - 1]
