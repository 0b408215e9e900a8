"""Kills the processes of an environment that have left their process groups.

A process that daemonizes (setsid) escapes the kill of its group. When its parent dies, the kernel
gives it to rapid, as PID 1 or as the subreaper of its descendants. Such an orphan can hide: its
environment block is empty (``env -i``) or closed (PR_SET_DUMPABLE). So an orphan is spared only if
it is provably of another environment that lives: it is in a process group of that environment, or
it was started with that environment's Runtime API, both of which a hostile process can forge, or
it is in that environment's control group, where there are such.
Source: prctl(2), kill(2), setsid(2).
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

from rapid.processes import Reaper, environ_of

logger = logging.getLogger(__name__)

#: How often it is looked whether orphans are dead, seconds.
_POLL_S: Final = 0.001
#: A process within execve has no environment block: so often it is read before that counts.
_EMPTY_READS: Final = 20
#: PID 1 kills all of its namespace when orphans outran this share of the limit.
_PATIENCE: Final = 0.5


def kill_orphans(
    reaper: Reaper, runtime_api: str, is_anothers: Callable[[int], bool], limit_s: float
) -> None:
    """Kill every orphan that is not provably another environment's; wait until all are dead.

    ``runtime_api`` is the Runtime API of the environment that ends; ``is_anothers`` tells by the
    control group of a process.
    """
    begun_at = time.monotonic()
    empty_reads: Counter[int] = Counter()
    killed: set[int] = set()
    while True:
        others = _Others(reaper, runtime_api, is_anothers)
        left = set(reaper.orphans(others.have))
        if not left:
            return
        for pid in left:  # again in each round: they may fork before they die
            if others and empty_reads[pid] < _EMPTY_READS and not environ_of(pid, reads=1):
                empty_reads[pid] += 1
                continue
            if pid not in killed:
                logger.info("orphan killed", extra={"pid": pid})
                killed.add(pid)
            _kill(pid, reaper)
        waited_s = time.monotonic() - begun_at
        if waited_s > _PATIENCE * limit_s and not others:
            _kill_namespace(reaper)
        if waited_s > limit_s:
            logger.error("orphans left", extra={"pids": sorted(left)})
            return
        time.sleep(_POLL_S)


class _Others:
    """The environments that live beside the one that ends, as they are now."""

    def __init__(
        self, reaper: Reaper, runtime_api: str, is_anothers: Callable[[int], bool]
    ) -> None:
        self._is_anothers = is_anothers
        owners = reaper.owners()
        self._groups = {pid for pid, owner in owners.items() if owner != runtime_api}
        self._marks = [
            f"AWS_LAMBDA_RUNTIME_API={owner}\0".encode()
            for owner in set(owners.values()) - {runtime_api}
        ]

    def __bool__(self) -> bool:
        return bool(self._groups)

    def have(self, pid: int) -> bool:
        """Whether a process is provably of one of them."""
        if not self._groups:
            return False
        if self._is_anothers(pid):
            return True
        with contextlib.suppress(ProcessLookupError):
            if os.getpgid(pid) in self._groups:
                return True
        block = environ_of(pid, reads=1)
        return any(mark in block for mark in self._marks)


def _kill(pid: int, reaper: Reaper) -> None:
    """Kill an orphan, with its process group: a member that forks meanwhile dies too.

    It may have joined a group that is not its own: rapid's, or another environment's.
    """
    with contextlib.suppress(ProcessLookupError, PermissionError):
        group = os.getpgid(pid)
        if group == os.getpgrp() or group in reaper.owners():
            os.kill(pid, signal.SIGKILL)
        else:
            os.killpg(group, signal.SIGKILL)


def _kill_namespace(reaper: Reaper) -> None:
    """As PID 1, kill at once what forks faster than it can be found.

    That ends a shell of ``docker exec`` too. Children that rapid did not start are spared.
    """
    if os.getpid() == 1 and not reaper.has_inherited:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(-1, signal.SIGKILL)
