"""The C library's allocator, told to give large blocks back."""

from __future__ import annotations

import contextlib
from typing import Final

#: Of glibc's malloc.h.
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
#: From this size on a block has a mapping of its own, bytes.
_LARGE_BYTES: Final = 131_072
#: Arenas for smaller blocks: Python's lock lets threads allocate in turn, so that few do.
_ARENAS: Final = 2


def give_back_large_blocks() -> None:
    """Let a large block be the system's again as soon as it is freed.

    glibc begins so, but moves its threshold up to 32 MiB with the blocks that are freed. Payloads
    then come from the arenas of many threads, and each arena keeps what was freed. A threshold
    that is set stays. Call it before there are threads. Without effect on other C libraries.
    Source: mallopt(3).
    """
    with contextlib.suppress(ImportError, OSError, AttributeError):  # no ctypes, or no glibc
        import ctypes

        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
        mallopt(_M_ARENA_MAX, _ARENAS)
