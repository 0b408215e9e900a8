"""How fast an HTTP client has to send a request and read its answer, on a blocking socket.

A client that is quick costs no system call more than without: the kernel ends each wait after
:attr:`Pace.tick_s`, and the deadline is looked at then. Only near the deadline a timeout is set.
"""

from __future__ import annotations

import math
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar

_TICK_S: Final = 5.0
#: How much is given to TLS at a time, which tells nothing before it has sent all of it, bytes.
_TLS_PIECE: Final = 65_536


_Wanted = TypeVar("_Wanted")
_Received = TypeVar("_Received")


class TooSlowError(OSError):
    """The client did not send, or read, as fast as it has to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """The limits of one listener's clients."""

    idle_s: float = math.inf  #: between requests
    head_s: float = 10.0  #: from a request's first byte to the end of its headers
    grace_s: float = 10.0  #: for a body, or for an answer, until the least rate counts
    bytes_per_s: float = 1024.0  #: the least rate, an average; 0: a body may pause for ever
    pause_s: float = 30.0  #: the longest pause, however much came before it

    tick_s: float = field(init=False)  #: how long the kernel lets a read or write wait

    def __post_init__(self) -> None:
        """Look at deadlines twice as often as the shortest of them comes."""
        object.__setattr__(self, "tick_s", min(_TICK_S, self.head_s / 2, self.grace_s / 2))

    @property
    def between_parts(self) -> Pace:
        """The pace of the reader of an answer in parts: it may pause before each."""
        return replace(self, grace_s=self.pause_s)

    def limit_waits(self, sock: socket.socket) -> None:
        """Let the kernel end a read or write of ``sock`` that makes no progress for a tick.

        It then fails with ``BlockingIOError``. A socket timeout would cost a poll for each. TLS
        does not see the kernel's limit, so a socket that has a timeout keeps one: ``TimeoutError``.
        """
        if sock.gettimeout() is not None:
            sock.settimeout(self.tick_s)
            return
        whole, part = divmod(self.tick_s, 1)
        limit = struct.pack("@ll", int(whole), int(part * 1e6) or int(not whole))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)

    def receive(self, sock: socket.socket, size: int, ends_at: float) -> bytes:
        """Return bytes from ``sock``, empty at its end; raises ``TooSlowError`` at ``ends_at``."""
        return self._receive(sock, sock.recv, size, ends_at)

    def receive_into(
        self, sock: socket.socket, room: bytearray | memoryview, ends_at: float
    ) -> int:
        """The same into ``room``; return how many bytes came, 0 at the end."""
        return self._receive(sock, sock.recv_into, room, ends_at)

    def _receive(
        self,
        sock: socket.socket,
        receive: Callable[[_Wanted], _Received],
        wanted: _Wanted,
        ends_at: float,
    ) -> _Received:
        while (left_s := ends_at - time.monotonic()) > 0:
            try:
                if left_s >= self.tick_s:
                    return receive(wanted)
                timeout_s = sock.gettimeout()
                sock.settimeout(left_s)
                try:
                    return receive(wanted)
                finally:
                    sock.settimeout(timeout_s)
            except (BlockingIOError, TimeoutError):
                continue
        raise TooSlowError

    def send(self, sock: socket.socket, data: bytes) -> None:
        """Write all of ``data``; raises ``TooSlowError`` and other ``OSError``."""
        progress = Progress(self)
        left = memoryview(data)
        piece = len(data) if sock.gettimeout() is None else _TLS_PIECE
        while left:
            try:
                sent = sock.send(left[:piece])
            except (BlockingIOError, TimeoutError):
                sent = 0
            if len(left) < len(data):  # what went first fills the kernel's buffer: nobody read it
                progress.add(sent)
            left = left[sent:]
            if left and progress.ends_at <= time.monotonic():
                raise TooSlowError


class Progress:
    """How much time one client has left for a body or an answer. One thread at a time."""

    __slots__ = ("_pace", "ends_at")

    def __init__(self, pace: Pace) -> None:
        """Begin now."""
        self._pace = pace
        self.ends_at = time.monotonic() + pace.grace_s  #: monotonic seconds

    def add(self, count: int) -> None:
        """Note that ``count`` more bytes have passed."""
        rate = self._pace.bytes_per_s
        earned_s = count / rate if rate else math.inf
        self.ends_at = min(self.ends_at + earned_s, time.monotonic() + self._pace.pause_s)
