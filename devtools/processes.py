"""Processes that outlive the command that started them, known by pid and start time."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from devtools.progress import OnWait, wait_until

_ORPHANS_LIMIT_S = 1.0  # helpers that notice by themselves that their parent is gone
_KILL_LIMIT_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BackgroundProcess:
    """A program running in a session of its own.

    The start time tells it from a later process that was given the same pid, so a stale record
    never leads to the wrong process being killed.
    """

    pid: int
    started: int  #: clock ticks from boot to the start of the process, as in /proc/<pid>/stat
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
        return cls(pid=child.pid, started=_processes()[child.pid].started, _child=child)

    @classmethod
    def from_record(cls, record: Mapping[str, int]) -> Self:
        """Rebuild what ``to_record`` wrote, perhaps in another process."""
        return cls(pid=record["pid"], started=record["started"])

    def to_record(self) -> dict[str, int]:
        """Return what another process needs to find this one again."""
        return {"pid": self.pid, "started": self.started}

    def is_alive(self) -> bool:
        """Return whether it still runs; a zombie does not."""
        if self._child is not None:
            return self._child.poll() is None
        found = _processes().get(self.pid)
        return found is not None and found.started == self.started and not found.is_zombie

    def stop(self, limit_s: float, on_wait: OnWait | None = None) -> None:
        """Ask it to end, and kill it after ``limit_s``. What it had started ends with it."""
        family = self._family()
        _send(signal.SIGTERM, {self.pid: self.started})
        wait_until(lambda: not self.is_alive(), limit_s, on_wait)
        if not wait_until(lambda: self._is_gone(family), _ORPHANS_LIMIT_S, on_wait):
            self._kill(family | self._family())

    def kill(self) -> None:
        """Kill it and what it had started, at once."""
        self._kill(self._family())

    def _kill(self, family: Mapping[int, int]) -> None:
        _send(signal.SIGKILL, family)
        wait_until(lambda: self._is_gone(family), _KILL_LIMIT_S)

    def _is_gone(self, family: Mapping[int, int]) -> bool:
        if self.is_alive():
            return False
        now = _processes()
        return not any(
            pid in now and now[pid].started == started and not now[pid].is_zombie
            for pid, started in family.items()
        )

    def _family(self) -> dict[int, int]:
        """Return pid and start time of the process, its descendants and its session's orphans."""
        now = _processes()
        leader = now.get(self.pid)
        if leader is not None and leader.started != self.started:
            return {}  # the pid has been given away, so nobody of its session is left
        members = {self.pid}
        size = 0
        while size < len(members):
            size = len(members)
            members |= {
                pid
                for pid, process in now.items()
                if (process.parent in members or process.session == self.pid)
                and process.started >= self.started
            }
        return {pid: now[pid].started for pid in members if pid in now}


def write_whole(file: Path, text: str) -> None:
    """Replace ``file``, readable by its owner alone: a reader finds the old text or the new."""
    new = file.with_suffix(".new")
    new.unlink(missing_ok=True)
    new.touch(mode=0o600)
    new.write_text(text)
    new.replace(file)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Process:
    parent: int
    session: int
    started: int
    is_zombie: bool


def _processes() -> dict[int, _Process]:
    """Return every process of this machine that /proc shows. Source: proc(5)."""
    processes = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # ended while the folder was read
            # The name, in brackets, may hold anything; after the last bracket come plain fields.
            fields = stat.read_text(errors="replace").rpartition(")")[2].split()
            processes[int(stat.parent.name)] = _Process(
                parent=int(fields[1]),
                session=int(fields[3]),
                started=int(fields[19]),
                is_zombie=fields[0] in "ZX",
            )
    return processes


def _send(number: signal.Signals, processes: Mapping[int, int]) -> None:
    now = _processes()
    for pid, started in processes.items():
        if pid in now and now[pid].started == started:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
