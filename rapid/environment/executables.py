"""What kind of file an executable is, and why this machine cannot run it.

Read only after the kernel has refused it. Source: elf(5), execve(2).
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
from pathlib import Path
from typing import Final

#: How much of a file is looked at; loaders and interpreters are named in the first bytes.
_HEAD_BYTES: Final = 65_536

#: ELF's numbers for machines, and what ``uname -m`` calls them. Source: elf.h, EM_*.
_MACHINES: Final = {
    3: "i386",
    21: "ppc64le",
    22: "s390x",
    40: "arm",
    62: "x86_64",
    183: "aarch64",
    243: "riscv64",
}
_ELF: Final = b"\x7fELF"
_PT_INTERP: Final = 3
#: What reading beyond the end of a header raises.
_NOT_THERE: Final = (struct.error, IndexError, OverflowError)


def why_not_run(program: str, error: OSError) -> str | None:
    """Return what ``error`` does not say of ``program``, or None when it says everything.

    The sentence has no capital and no full stop: it goes on from the error's own words.
    """
    path = Path(program)
    if "/" not in program:  # PATH was searched, and the working folder is not on it
        aside = f", the file in the working folder is ./{program}" if _is_here(program) else ""
        return f"no such command on PATH{aside}"
    if not _is_here(program):
        return None
    if path.is_dir():
        return "it is a directory"
    if error.errno == errno.EACCES and not os.access(path, os.X_OK):
        return f"it is not executable, chmod +x {program} makes it so"
    head = _head(path)
    return None if head is None else _why_unfit(head)


def _why_unfit(head: bytes) -> str | None:
    if head.startswith(_ELF):
        return _why_unfit_elf(head)
    if head.startswith(b"#!"):
        return _why_unfit_script(head)
    if not head:
        return "it is empty"
    return "it is neither an ELF executable nor a script that begins with #!"


def _why_unfit_elf(head: bytes) -> str | None:
    machine, host = _machine(head), os.uname().machine
    if machine is not None and machine != host:
        return f"it is built for {machine}, this machine is {host}"
    loader = _loader(head)
    if loader is not None and not _is_here(loader):
        return (
            f"its loader {loader} is not here, it is built for another C library; "
            "link it statically, or build it for this image"
        )
    return None


def _why_unfit_script(head: bytes) -> str | None:
    line = head.partition(b"\n")[0][2:].decode(errors="replace")
    interpreter = line.split()[0] if line.split() else ""
    if line.endswith("\r"):
        return "its first line ends in a carriage return, save it with Unix line ends"
    if not _is_here(interpreter):
        return f"its interpreter {interpreter} is not here"
    interpreter_head = _head(Path(interpreter)) or b""
    why = _why_unfit_elf(interpreter_head) if interpreter_head.startswith(_ELF) else None
    return None if why is None else f"of its interpreter {interpreter}: {why}"


def _is_here(name: str) -> bool:
    """Return whether there is such a file; a name that no file can have is the name of none."""
    with contextlib.suppress(OSError, ValueError):
        return Path(name).exists()
    return False


def _head(path: Path) -> bytes | None:
    """Return the first bytes; None of a file that may be run but not read."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        return file.read(_HEAD_BYTES)
    return None


def _machine(head: bytes) -> str | None:
    """Return the machine an ELF file is for, None if its header is cut short."""
    with contextlib.suppress(*_NOT_THERE):
        (number,) = struct.unpack_from(f"{_byte_order(head)}H", head, 18)
        return _MACHINES.get(number, f"ELF machine {number}")
    return None


def _loader(head: bytes) -> str | None:
    """Return the program loader that a dynamically linked ELF file asks for."""
    with contextlib.suppress(*_NOT_THERE):
        order, is_64_bit = _byte_order(head), head[4] == 2
        (table,) = struct.unpack_from(
            f"{order}{'Q' if is_64_bit else 'I'}", head, 32 if is_64_bit else 28
        )
        size, count = struct.unpack_from(f"{order}HH", head, 54 if is_64_bit else 42)
        for at in (table + number * size for number in range(count)):
            if is_64_bit:
                kind, _, offset, _, _, length = struct.unpack_from(f"{order}IIQQQQ", head, at)
            else:
                kind, offset, _, _, length = struct.unpack_from(f"{order}IIIII", head, at)
            if kind == _PT_INTERP:
                name = head[offset : offset + length].rstrip(b"\0")
                return name.decode(errors="replace") or None
    return None


def _byte_order(head: bytes) -> str:
    return ">" if head[5] == 2 else "<"
