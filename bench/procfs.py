"""CPU time and memory of a session of processes, read from /proc.

Each measured program leads a session of its own, and whatever it starts stays in that session,
also what it puts into other process groups. Source: proc(5).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def leader_cpu_s(session: int) -> float:
    """Return the CPU seconds used so far by the process that leads ``session``."""
    return dict(_members(session)).get(session, 0.0)


def session_cpu_s(session: int) -> float:
    """Return the CPU seconds used so far by every living process of ``session``."""
    return sum(cpu_s for _, cpu_s in _members(session))


def leader_rss_mb(session: int) -> float:
    """Return the resident memory of the process that leads ``session``, in MB of 10^6 bytes."""
    return _rss_mb(session)


def session_rss_mb(session: int) -> float:
    """Return the resident memory of all processes of ``session``; shared pages count for each."""
    return sum(_rss_mb(pid) for pid, _ in _members(session))


def _members(session: int) -> Iterator[tuple[int, float]]:
    """Yield the pid and CPU seconds of each process of ``session``."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # ended while the folder was read
            # The name, in brackets, may hold anything; after the last bracket come plain fields.
            fields = stat.read_text(errors="replace").rpartition(")")[2].split()
            if int(fields[3]) == session:
                user, system = int(fields[11]), int(fields[12])
                yield int(stat.parent.name), (user + system) / _TICKS_PER_S


def _rss_mb(pid: int) -> float:
    with suppress(OSError):
        resident_pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return resident_pages * _PAGE_BYTES / 1e6
    return 0.0
