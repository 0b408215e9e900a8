"""Bounded waits, and steps that tell how long they take."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self, TextIO

#: Called again and again while something is waited for, with the seconds waited so far.
OnWait = Callable[[float], None]

_POLL_S = 0.05
_SHOW_AFTER_S = 2.0  # a wait that is over sooner needs no counter
_PLAIN_EVERY_S = 10.0  # a log file wants a sign of life, not a line each second


def wait_until(
    condition: Callable[[], bool], limit_s: float, on_wait: OnWait | None = None
) -> bool:
    """Wait until ``condition`` holds, ``limit_s`` seconds at most, and return whether it does."""
    started = time.monotonic()
    while not condition():
        waited_s = time.monotonic() - started
        if waited_s >= limit_s:
            return False
        if on_wait is not None:
            on_wait(waited_s)
        time.sleep(_POLL_S)
    return True


class Step:
    """One step of the work: a label, a live counter of seconds, and at the end what came of it.

    On a terminal the counter is rewritten in place each second; elsewhere a line is printed
    every ten seconds. Pass ``step.tick`` wherever an ``OnWait`` is taken.
    """

    def __init__(self, label: str, out: TextIO | None = None) -> None:
        self._label = label
        self._out = out or sys.stdout
        self._is_live = self._out.isatty()
        self._result = "done"
        self._started = time.monotonic()
        self._next_sign_s = _SHOW_AFTER_S

    def __enter__(self) -> Self:
        if self._is_live:
            self._write(f"  {self._label} ...")
        return self

    def tick(self, _waited_s: float = 0.0) -> None:
        """Show that the step is still at work; the counter runs from the step's own start."""
        elapsed_s = time.monotonic() - self._started
        if elapsed_s < self._next_sign_s:
            return
        self._next_sign_s = elapsed_s + (1.0 if self._is_live else _PLAIN_EVERY_S)
        sign = f"  {self._label} ... {elapsed_s:.0f} s"
        self._write(f"\r{sign}" if self._is_live else f"{sign}\n")

    def result(self, text: str) -> None:
        """Set what the step's closing line says."""
        self._result = text

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        elapsed_s = time.monotonic() - self._started
        result = self._result if error is None else "failed"
        seconds = f" ({elapsed_s:.1f} s)" if elapsed_s >= _SHOW_AFTER_S else ""
        start = "\r\033[K" if self._is_live else ""
        self._write(f"{start}  {self._label}: {result}{seconds}\n")

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()
