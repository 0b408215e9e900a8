"""The wall clock as it goes over the wire."""

from __future__ import annotations

import time


def now_ms() -> int:
    """Return the time, epoch milliseconds."""
    return int(time.time() * 1000)
