"""CPU time and memory of a session of processes.

Each measured program leads a session of its own, and whatever it starts stays in that session,
also what it puts into other process groups.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress

import psutil

from devtools.processes import session_of


def leader_cpu_s(session: int) -> float:
    """Return the CPU seconds used so far by the process that leads ``session``."""
    return _sum(_cpu_s, [psutil.Process(session)]) if psutil.pid_exists(session) else 0.0


def session_cpu_s(session: int) -> float:
    """Return the CPU seconds used so far by every living process of ``session``."""
    return _sum(_cpu_s, session_of(session))


def leader_rss_mb(session: int) -> float:
    """Return the resident memory of the process that leads ``session``, in MB of 10^6 bytes."""
    return _sum(_rss_mb, [psutil.Process(session)]) if psutil.pid_exists(session) else 0.0


def session_rss_mb(session: int) -> float:
    """Return the resident memory of all processes of ``session``; shared pages count for each."""
    return _sum(_rss_mb, session_of(session))


def _sum(figure: Callable[[psutil.Process], float], processes: Iterable[psutil.Process]) -> float:
    total = 0.0
    for process in processes:
        with suppress(psutil.NoSuchProcess):  # ended meanwhile
            total += figure(process)
    return total


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def _rss_mb(process: psutil.Process) -> float:
    return process.memory_info().rss / 1e6
