"""A control group (version 2) for each environment, where our own group lets us make some.

Its processes are killed whole, whatever they do to hide. With ``RAPID_ENFORCE_MEMORY`` they are
held to the memory size. The kernel allows limits below a group only when no process is in the
group itself, so rapid then moves to a group beside those of its environments. A container with a
writable /sys/fs/cgroup lets us, and a systemd service with ``Delegate=yes``.
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

from lambda_protocol.memory_cgroup import MemoryCgroup, find_cgroup_v2, find_memory_cgroup
from rapid.environment.out_of_memory import OomWatch
from rapid.processes import ProcessGroup

logger = logging.getLogger(__name__)

_CONTROLLER: Final = "memory"
#: What the names of our groups begin with.
_PREFIX: Final = f"rapid-{os.getpid()}"


@dataclass(frozen=True, slots=True)
class EnvironmentGroup:
    """The control group of one environment, if it has one, and who was out of memory in it."""

    watch: OomWatch
    folder: Path | None = None
    is_limited: bool = False  #: in its memory

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
                if self.is_limited:
                    _warn(_reason(error))
                return

    def kill(self) -> None:
        """Kill every process of the control group at once; Linux 5.14 and newer can."""
        if self.folder is not None:
            with contextlib.suppress(OSError):
                _write(self.folder / "cgroup.kill", "1")

    def is_anothers(self, pid: int) -> bool:
        """Whether a process is in the control group of another environment of ours."""
        if self.folder is None:
            return False
        name = _group_name(pid)
        return name.startswith(f"{_PREFIX}-") and name != self.folder.name

    def close(self) -> None:
        """Remove the control group. If a process is left in it, the group is used again."""
        if self.folder is not None:
            with contextlib.suppress(OSError):
                self.folder.rmdir()


class EnvironmentGroups:
    """Gives environments their control groups. Thread-safe after :meth:`enforce_memory`."""

    def __init__(self, memory_mb: int, proc: Path = Path("/proc/self")) -> None:
        """Limit nothing yet; ``proc`` is the folder of our process in /proc."""
        self._memory_bytes = memory_mb << 20
        self._memory = find_memory_cgroup(proc)
        self._shared = EnvironmentGroup(OomWatch(self._memory))
        own = find_cgroup_v2(proc)
        self._parent = own if own is not None and _is_ours(own) else None
        self._limits: MemoryCgroup | None = None  # below which groups are limited

    def enforce_memory(self) -> None:
        """Limit environments from now on; where that cannot be, log why once."""
        try:
            self._limits = _delegated(self._memory)
        except OSError as error:
            _warn(_reason(error))

    def of_environment(self, index: int) -> EnvironmentGroup:
        """Return the group of environment number ``index``, which is about to start."""
        limits = self._limits
        parent = self._parent if limits is None else limits.folder
        if parent is None:
            return self._shared
        folder = parent / f"{_PREFIX}-{index}"
        try:
            folder.mkdir(exist_ok=True)
            if limits is None:
                return replace(self._shared, folder=folder)
            _write(folder / "memory.max", str(self._memory_bytes))
            with contextlib.suppress(FileNotFoundError):  # a kernel without swap
                _write(folder / "memory.swap.max", "0")
        except OSError as error:
            self._parent = self._limits = None
            with contextlib.suppress(OSError):
                folder.rmdir()
            if limits is not None:
                _warn(_reason(error))
            return self._shared
        return EnvironmentGroup(OomWatch(replace(limits, folder=folder)), folder, is_limited=True)


def _is_ours(folder: Path) -> bool:
    """Whether rapid may make groups below ``folder``. The root group is never divided."""
    return (folder / "cgroup.events").exists() and all(
        os.access(path, os.W_OK) for path in (folder, folder / "cgroup.procs")
    )


def _group_name(pid: int) -> str:
    """Return the name of the control group of a process, empty if it is gone."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
            if line.startswith("0::"):
                return line.rpartition("/")[2]
    return ""


def _delegated(cgroup: MemoryCgroup | None) -> MemoryCgroup:
    """Return our control group, ready for limited groups below it; raises ``OSError``."""
    if cgroup is None or not cgroup.is_v2:
        raise OSError(errno.ENOTSUP, "memory is not counted by control groups of version 2")
    folder = cgroup.folder
    if _CONTROLLER not in (folder / "cgroup.controllers").read_text().split():
        raise OSError(errno.ENOTSUP, f"{folder} does not have the memory controller")
    if _CONTROLLER in (folder / "cgroup.subtree_control").read_text().split():
        return cgroup
    own = folder / _PREFIX
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
