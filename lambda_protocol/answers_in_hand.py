"""How many bytes of answers one process holds for clients that are slow to read them."""

from __future__ import annotations

import contextlib
import socket
import threading


class AnswersInHand:
    """Large answers that clients have yet to take; beyond a bound the oldest is cut off.

    An answer that could not be sent is lost work, so none is refused: who reads slowest gives way.
    Thread-safe; its lock is a leaf.
    """

    def __init__(self, limit_bytes: int) -> None:
        """Hold ``limit_bytes``, or one answer that is larger."""
        self._limit = limit_bytes
        self._lock = threading.Lock()
        self._sizes: dict[socket.socket, int] = {}  # oldest first; guarded by _lock
        self._bytes = 0  # guarded by _lock

    def add(self, sock: socket.socket, count: int) -> None:
        """Note that ``sock`` has yet to take an answer of ``count`` bytes."""
        with self._lock:
            self._sizes[sock] = count
            self._bytes += count
            while self._bytes > self._limit and len(self._sizes) > 1:
                oldest = next(iter(self._sizes))
                self._remove_locked(oldest)
                with contextlib.suppress(OSError):  # it is gone already
                    # Not the method of a TLS socket, which another thread is writing to.
                    socket.socket.shutdown(oldest, socket.SHUT_RDWR)

    def remove(self, sock: socket.socket) -> None:
        """Note that the answer is sent, or will never be. Idempotent."""
        with self._lock:
            self._remove_locked(sock)

    def _remove_locked(self, sock: socket.socket) -> None:
        self._bytes -= self._sizes.pop(sock, 0)
