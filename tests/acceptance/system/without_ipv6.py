"""Run a command that can open no IPv6 socket, as on a machine whose kernel has IPv6 disabled.

A seccomp filter answers ``socket(AF_INET6, …)`` with EAFNOSUPPORT. Source: seccomp(2), bpf(4);
linux/audit.h and linux/filter.h for the numbers. x86-64 and AArch64.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import socket
import struct
import sys

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
LOAD_WORD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, FAIL = 0x7FFF0000, 0x00050000 | errno.EAFNOSUPPORT
#: Offsets in struct seccomp_data: the system call's number, and its first argument's low half.
NUMBER, FAMILY = 0, 16
SOCKET_CALL = {"x86_64": 41, "aarch64": 198}[platform.machine()]

PROGRAM = b"".join(
    struct.pack("=HBBI", *instruction)
    for instruction in (
        (LOAD_WORD, 0, 0, NUMBER),
        (JUMP_IF_EQUAL, 0, 3, SOCKET_CALL),
        (LOAD_WORD, 0, 0, FAMILY),
        (JUMP_IF_EQUAL, 0, 1, socket.AF_INET6),
        (RETURN, 0, 0, FAIL),
        (RETURN, 0, 0, ALLOW),
    )
)


class SockFprog(ctypes.Structure):
    """``struct sock_fprog``."""

    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def main() -> None:
    """Install the filter, which children inherit, and become the command."""
    libc = ctypes.CDLL(None, use_errno=True)
    program = SockFprog(len(PROGRAM) // 8, PROGRAM)
    for arguments in (
        (PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0),
    ):
        if libc.prctl(*arguments) != 0:
            raise OSError(ctypes.get_errno(), "prctl")
    os.execvp(sys.argv[1], sys.argv[1:])


if __name__ == "__main__":
    main()
