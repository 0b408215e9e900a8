"""Holds each environment to its memory size, by a control group of its own (version 2).

The kernel allows limits below a group only when no process is in the group itself. So rapid moves
to a group beside those of its environments, and needs its control group for itself:
a container's with a writable /sys/fs/cgroup, or a systemd service with ``Delegate=yes``.
Source: the Linux kernel's "Control Group v2", Delegation and No Internal Process Constraint.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from lambda_protocol.memory_cgroup import MemoryCgroup, find_memory_cgroup
from rapid.cgroups import OomWatch
from rapid.processes import ProcessGroup

logger = logging.getLogger(__name__)

_CONTROLLER: Final = "memory"


@dataclass(frozen=True, slots=True)
class EnvironmentMemory:
    """The memory of one environment: who was out of it, and its control group if it has one."""

    watch: OomWatch
    folder: Path | None = None  #: of a control group of its own

    def add(self, group: ProcessGroup) -> None:
        """Move a process, just started, and what it has started itself into the control group."""
        if self.folder is None:
            return
        for pid in group.pids():  # a parent before its children are looked for
            try:
                _write(self.folder / "cgroup.procs", str(pid))
            except ProcessLookupError:
                continue
            except OSError as error:
                return _warn(_reason(error))

    def kill(self) -> None:
        """Kill every process of the control group at once; Linux 5.14 and newer can."""
        if self.folder is not None:
            with contextlib.suppress(OSError):
                _write(self.folder / "cgroup.kill", "1")

    def close(self) -> None:
        """Remove the control group; one that a process is left in is used again."""
        if self.folder is not None:
            with contextlib.suppress(OSError):
                self.folder.rmdir()


class MemoryLimits:
    """Gives environments their memory. Thread-safe after :meth:`enforce`."""

    def __init__(self, memory_mb: int, proc: Path = Path("/proc/self")) -> None:
        """Enforce nothing yet; ``proc`` is the folder of our process in /proc."""
        self._memory_bytes = memory_mb << 20
        self._cgroup = find_memory_cgroup(proc)
        self._shared = EnvironmentMemory(OomWatch(self._cgroup))
        self._parent: MemoryCgroup | None = None  # of the environments' control groups

    def enforce(self) -> None:
        """Limit environments from now on; where that cannot be, log why once."""
        try:
            self._parent = _delegated(self._cgroup)
        except OSError as error:
            _warn(_reason(error))

    def of_environment(self, index: int) -> EnvironmentMemory:
        """Return the memory of environment number ``index``, which is about to start."""
        parent = self._parent
        if parent is None:
            return self._shared
        folder = parent.folder / f"rapid-{os.getpid()}-{index}"
        try:
            folder.mkdir(exist_ok=True)
            _write(folder / "memory.max", str(self._memory_bytes))
            with contextlib.suppress(FileNotFoundError):  # a kernel without swap
                _write(folder / "memory.swap.max", "0")
        except OSError as error:
            self._parent = None
            with contextlib.suppress(OSError):
                folder.rmdir()
            _warn(_reason(error))
            return self._shared
        return EnvironmentMemory(OomWatch(replace(parent, folder=folder)), folder)


def _delegated(cgroup: MemoryCgroup | None) -> MemoryCgroup:
    """Return our control group, ready for groups below it; raises ``OSError``."""
    if cgroup is None or not cgroup.is_v2:
        raise OSError(errno.ENOTSUP, "memory is not counted by control groups of version 2")
    folder = cgroup.folder
    if _CONTROLLER not in (folder / "cgroup.controllers").read_text().split():
        raise OSError(errno.ENOTSUP, f"{folder} does not have the memory controller")
    if _CONTROLLER in (folder / "cgroup.subtree_control").read_text().split():
        return cgroup
    own = folder / f"rapid-{os.getpid()}"
    own.mkdir(exist_ok=True)
    _write(own / "cgroup.procs", "0")  # the process that writes it
    try:
        _write(folder / "cgroup.subtree_control", f"+{_CONTROLLER}")
    except OSError:
        _write(folder / "cgroup.procs", "0")
        own.rmdir()
        raise
    return cgroup


def _write(file: Path, text: str) -> None:
    with file.open("w") as opened:
        opened.write(text)


def _reason(error: OSError) -> str:
    if error.errno == errno.EBUSY:
        return "rapid shares its control group with other processes"
    return str(error.strerror if error.filename is None else error)


def _warn(reason: str) -> None:
    logger.warning("RAPID_ENFORCE_MEMORY: memory is not limited", extra={"reason": reason})
