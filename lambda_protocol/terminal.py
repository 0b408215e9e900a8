"""Whether this process has a controlling terminal: its end sends SIGHUP."""

from __future__ import annotations

import os


def has_terminal() -> bool:
    """Return whether ``/dev/tty`` can be opened. Source: tty(4)."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
