"""Runs a program that gets SIGTERM when its parent ends, even if the parent is killed.

``python end_with_parent.py PARENT COMMAND...``: the parent starts this with its own
process id, and this process becomes the command. Source: prctl(2), PR_SET_PDEATHSIG.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import Final

_PR_SET_PDEATHSIG: Final = 1


def command(argv: list[str]) -> list[str]:
    """Return what a parent starts for ``argv``, from a thread that lives as long as the parent.

    The kernel sends the signal when the thread that started the process ends.
    """
    # Isolated: no variable or folder of the program's changes what runs before it.
    return [sys.executable, "-IS", __file__, str(os.getpid()), *argv]


def main(parent: str, argv: list[str]) -> None:
    """Ask the kernel for the signal, and become ``argv``; the request outlives execve."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != int(parent):
        sys.exit(128 + signal.SIGTERM)  # the parent ended before the request
    os.execv(argv[0], argv)  # noqa: S606 - the command that the parent chose


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
