"""Deadlines of a stop: computed once, shared by its parts, shortened by a second signal."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

#: How soon a wait notices that its deadline was brought nearer, seconds.
_LOOK_S: Final = 0.05


class Deadline:
    """A time by which something must be over. Thread-safe."""

    def __init__(self, limit_s: float) -> None:
        """``limit_s`` is counted from now."""
        self._at = time.monotonic() + limit_s

    @property
    def left_s(self) -> float:
        """How much time is left, seconds; negative when it is over."""
        return self._at - time.monotonic()

    def shorten(self, limit_s: float) -> None:
        """Leave at most ``limit_s`` from now on."""
        self._at = min(self._at, time.monotonic() + limit_s)

    def wait(self, step: Callable[[float], bool], *, at_most_s: float = float("inf")) -> bool:
        """Repeat ``step`` until it returns True; False if the time is over before that.

        ``step`` waits for as many seconds as it is given, and can be repeated. ``at_most_s`` is
        a limit of its own.
        """
        own = Deadline(at_most_s)
        while True:
            left_s = min(self.left_s, own.left_s)
            if step(max(0.0, min(left_s, _LOOK_S))):
                return True
            if left_s <= 0:
                return False


class StopDeadlines:
    """When a stop has let what is in hand end, and when it is over. Thread-safe."""

    def __init__(self, drain_s: float, *, end_s: float, hurried_end_s: float) -> None:
        """Let what is in hand end for ``drain_s``, and end the rest within ``end_s`` after that.

        ``hurried_end_s`` is what is left of the stop after a second signal.
        """
        self.drain = Deadline(drain_s)
        self.end = Deadline(drain_s + end_s)
        self._end_s = end_s
        self._hurried_end_s = hurried_end_s

    def end_drain(self) -> None:
        """Note that nothing is in hand any more, or that it is not waited for."""
        self.drain.shorten(0.0)
        self.end.shorten(self._end_s)

    def shorten(self) -> None:
        """Wait for nothing that is in hand any longer, and for the end not long."""
        self.drain.shorten(0.0)
        self.end.shorten(self._hurried_end_s)
