"""Processes that outlive the command that started them, known by pid and start time."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import psutil

from devtools.progress import OnWait, wait_until

_ORPHANS_LIMIT_S = 1.0  # helpers that notice by themselves that their parent is gone
_KILL_LIMIT_S = 5.0
_ENDED = (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)


@dataclass(frozen=True, slots=True, kw_only=True)
class BackgroundProcess:
    """A program running in a session of its own.

    The start time tells it from a later process that was given the same pid, so a stale record
    never leads to the wrong process being killed.
    """

    pid: int
    started: float  #: seconds from boot to the start of the process
    _child: subprocess.Popen[bytes] | None = field(default=None, repr=False, compare=False)

    @classmethod
    def spawn(
        cls, command: Sequence[str | Path], *, env: Mapping[str, str], cwd: Path, log: Path
    ) -> Self:
        """Start ``command`` without a terminal; what it prints is appended to ``log``."""
        with log.open("ab") as output:
            child = subprocess.Popen(
                [str(part) for part in command],
                env=env,
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        # Until it is polled, a child that has ended already is still listed, as a zombie.
        return cls(pid=child.pid, started=_started(psutil.Process(child.pid)), _child=child)

    @classmethod
    def from_record(cls, record: Mapping[str, float]) -> Self:
        """Rebuild what ``to_record`` wrote, perhaps in another process."""
        return cls(pid=int(record["pid"]), started=record["started"])

    def to_record(self) -> dict[str, float]:
        """Return what another process needs to find this one again."""
        return {"pid": self.pid, "started": self.started}

    def is_alive(self) -> bool:
        """Return whether it still runs; a zombie does not."""
        if self._child is not None:
            return self._child.poll() is None
        found = self._found()
        return found is not None and _runs(found)

    def stop(self, limit_s: float, on_wait: OnWait | None = None) -> None:
        """Ask it to end, and kill it after ``limit_s``. What it had started ends with it."""
        family = self._family()
        found = self._found()
        if found is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                found.terminate()
        wait_until(lambda: not self.is_alive(), limit_s, on_wait)
        if not wait_until(lambda: self._is_gone(family), _ORPHANS_LIMIT_S, on_wait):
            self._kill(family | self._family())

    def kill(self) -> None:
        """Kill it and what it had started, at once."""
        self._kill(self._family())

    def _kill(self, family: set[psutil.Process]) -> None:
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        wait_until(lambda: self._is_gone(family), _KILL_LIMIT_S)

    def _is_gone(self, family: set[psutil.Process]) -> bool:
        return not self.is_alive() and not any(map(_runs, family))

    def _found(self) -> psutil.Process | None:
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(self.pid)
            if _started(process) == self.started:
                return process
        return None

    def _family(self) -> set[psutil.Process]:
        """Return the process, its descendants and its session's orphans."""
        if self._found() is None and psutil.pid_exists(self.pid):
            return set()  # another process has the pid, so the session has ended
        family = session_of(self.pid)
        for process in tuple(family):
            with contextlib.suppress(psutil.NoSuchProcess):
                family |= set(process.children(recursive=True))
        return family


def session_of(leader: int) -> set[psutil.Process]:
    """Return the processes of the session that ``leader`` leads or led."""
    members = set()
    for process in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError):  # ended meanwhile
            if os.getsid(process.pid) == leader:
                members.add(process)
    return members


def write_whole(file: Path, text: str) -> None:
    """Replace ``file``, readable by its owner alone: a reader finds the old text or the new."""
    new = file.with_suffix(".new")
    new.unlink(missing_ok=True)
    new.touch(mode=0o600)
    new.write_text(text)
    new.replace(file)


def _started(process: psutil.Process) -> float:
    """Return the seconds from boot to the start, which setting the clock does not change."""
    return round(process.create_time() - psutil.boot_time(), 2)


def _runs(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() not in _ENDED
    return False
