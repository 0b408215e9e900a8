"""The program that listens on a TCP port, for the message that the port is taken."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_LISTENING: Final = "0A"  # TCP_LISTEN. Source: the kernel's include/net/tcp_states.h
_LOCAL_ADDRESS, _STATE, _INODE = 1, 3, 9  # columns. Source: proc_net_tcp(5)


def port_holder(port: int) -> str | None:
    """Return the program on ``port`` as ``nginx, pid 812``, or None.

    The program of another user is not known, and neither is that of another network namespace.
    """
    sockets = {f"socket:[{inode}]" for inode in _listening_inodes(port)}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # ended meanwhile, or another user's
            if not sockets.isdisjoint(_open_files(process)):
                return f"{(process / 'comm').read_text().strip()}, pid {process.name}"
    return None


def _open_files(process: Path) -> Iterator[str]:
    for descriptor in (process / "fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            yield str(descriptor.readlink())


def _listening_inodes(port: int) -> Iterator[str]:
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):  # no /proc, or no IPv6
            for line in Path("/proc/net", table).read_text().splitlines()[1:]:
                columns = line.split()
                is_here = columns[_LOCAL_ADDRESS].endswith(f":{port:04X}")
                if is_here and columns[_STATE] == _LISTENING:
                    yield columns[_INODE]
