"""The control group of a process for memory, and its limit.

Source: the Linux kernel's "Control Group v2", Memory; "Memory Resource Controller" for version 1;
proc_pid_mountinfo(5).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

#: A limit of version 1 beyond this is none.
_NO_LIMIT_BYTES: Final = 1 << 60


@dataclass(frozen=True, slots=True)
class MemoryCgroup:
    """A folder of the memory controller. Each call reads the kernel's files anew."""

    folder: Path
    mount: Path  #: the hierarchy's root; ``folder`` or above it
    is_v2: bool

    @property
    def limit_bytes(self) -> int | None:
        """The smallest limit of the group and those above it, or None."""
        name = "memory.max" if self.is_v2 else "memory.limit_in_bytes"
        limits = [_number(folder / name) for folder in self._upwards()]
        return min((n for n in limits if n is not None and n < _NO_LIMIT_BYTES), default=None)

    @property
    def oom_kills(self) -> int | None:
        """How many processes of the group the kernel has killed for memory, None if unknown."""
        text = _read(self.folder / ("memory.events" if self.is_v2 else "memory.oom_control"))
        for line in text.splitlines():
            name, _, count = line.partition(" ")
            if name == "oom_kill" and count.isdigit():
                return int(count)
        return None

    def _upwards(self) -> Iterator[Path]:
        yield self.folder
        for folder in self.folder.parents:
            if not folder.is_relative_to(self.mount):
                return
            yield folder


def find_cgroup_v2(proc: Path = Path("/proc/self")) -> Path | None:
    """Return the control group of version 2 of a process, whatever it controls, if it is mounted.

    ``proc`` is the process's folder in /proc.
    """
    path, mounts = _paths(proc).get(True), dict(_mounts(_read(proc / "mountinfo")))
    return None if path is None or True not in mounts else _folder(path, *mounts[True])


def find_memory_cgroup(proc: Path = Path("/proc/self")) -> MemoryCgroup | None:
    """Return the control group that counts the memory of a process, if it can be read.

    ``proc`` is the process's folder in /proc. A hierarchy of version 1 that has the memory
    controller goes before version 2, which then has not.
    """
    paths = _paths(proc)
    mounts = dict(_mounts(_read(proc / "mountinfo")))
    for is_v2 in (False, True):
        if is_v2 in paths and is_v2 in mounts:
            root, mount = mounts[is_v2]
            return MemoryCgroup(_folder(paths[is_v2], root, mount), mount, is_v2)
    return None


def _paths(proc: Path) -> dict[bool, str]:
    """Return the paths of the groups that may count memory, by whether they are version 2."""
    paths = {}
    for line in _read(proc / "cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" or "memory" in controllers.split(","):
            paths[number == "0"] = path
    return paths


def _mounts(mountinfo: str) -> Iterator[tuple[bool, tuple[str, Path]]]:
    """Yield the hierarchies that may count memory: is it version 2, its root and mount point."""
    for line in mountinfo.splitlines():
        fields, _, rest = line.partition(" - ")
        kind, _, options = [*rest.split(" "), "", "", ""][:3]
        place = fields.split(" ")
        is_v1 = kind == "cgroup" and "memory" in options.split(",")
        if len(place) > 4 and (is_v1 or kind == "cgroup2"):
            yield not is_v1, (place[3], Path(place[4]))


def _folder(path: str, root: str, mount: Path) -> Path:
    """Return where a group is mounted; in a container a part of the hierarchy may be its root."""
    with contextlib.suppress(ValueError):
        return mount / Path(path).relative_to(root)
    return mount


def _number(file: Path) -> int | None:
    text = _read(file).strip()
    return int(text) if text.isdigit() else None


def _read(file: Path) -> str:
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return file.read_text()
    return ""
