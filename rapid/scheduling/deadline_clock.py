"""The thread ``clock``: it sleeps until the earliest deadline of rapid, and then looks at all."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final

logger = logging.getLogger(__name__)

#: How soon the clock looks again after an unexpected error, seconds.
_AFTER_ERROR_S: Final = 1.0
#: The longest sleep of the clock, seconds: what a platform's wait can take.
_LONGEST_SLEEP_S: Final = 3600.0


class DeadlineClock:
    """One thread for every deadline. Guarded by the scheduler's lock.

    It is woken only for a deadline that is earlier than all others, so a call costs it nothing.
    """

    def __init__(
        self,
        lock: threading.Lock,
        *,
        on_tick_locked: Callable[[float], None],
        is_over_locked: Callable[[], bool],
        clock: Callable[[], float],
    ) -> None:
        """``on_tick_locked`` gets the time, and notes the deadlines that are left."""
        self._lock = lock
        self._on_tick_locked = on_tick_locked
        self._is_over_locked = is_over_locked
        self._clock = clock
        self._earlier = threading.Condition(lock)
        self._wake_at = float("inf")  # guarded by lock
        self._thread = threading.Thread(target=self._run, name="clock", daemon=True)

    def start(self) -> None:
        """Look at deadlines from now on."""
        self._thread.start()

    def note_locked(self, when: float) -> None:
        """Make sure the clock looks at ``when``."""
        if when < self._wake_at:
            self._wake_at = when
            self._earlier.notify()

    def _run(self) -> None:
        with self._lock:
            while not self._is_over_locked():
                now = self._clock()
                if self._wake_at > now:
                    self._earlier.wait(min(self._wake_at - now, _LONGEST_SLEEP_S))
                    continue
                self._wake_at = float("inf")
                try:
                    self._on_tick_locked(now)
                except Exception:
                    logger.exception("clock failed")
                    self.note_locked(now + _AFTER_ERROR_S)
