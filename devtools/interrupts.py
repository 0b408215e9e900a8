"""Ctrl-C: how a script ends after it, and steps that it must not cut in two."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Final, NoReturn

#: What a shell gives for a program that SIGINT has ended.
INTERRUPTED: Final = 128 + signal.SIGINT


def exit_with(main: Callable[[], int], say: str = "Interrupted.") -> NoReturn:
    """Run ``main`` and exit with what it returns; an interrupt is the line ``say`` and 130."""
    try:
        code = main()
    except KeyboardInterrupt:
        print(say, file=sys.stderr)
        code = INTERRUPTED
    sys.exit(code)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Let an interrupt wait until the end of the block; for steps without a wait.

    Any thread: Python interrupts the main one alone. A mask would be inherited by the processes
    that the block starts; a handler is not.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []

    def remember(number: int, _frame: FrameType | None) -> None:
        came.append(number)

    before = signal.signal(signal.SIGINT, remember)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came:
        raise KeyboardInterrupt
