"""The limit of open files: raised to the most there can be, shared out, and kept clear of.

A program that has no descriptor left can neither accept a connection nor refuse it, loses the
broker at the next reconnection, and fails at every import.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import socket
import time

#: No descriptor is left, of the process or of the machine.
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE})
#: How long accepting rests when there is not even a descriptor to refuse with, seconds.
_REST_S = 0.05


def raise_descriptor_limit() -> int:
    """Raise the soft limit of open files to the hard one; return what the soft one was.

    Source: getrlimit(2), RLIMIT_NOFILE.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # a hard limit over the kernel's own
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return soft


def descriptor_limit() -> int:
    """Return the soft limit of open files."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


class SpareDescriptor:
    """A spare descriptor: closed for a moment, it lets a connection be refused. One thread."""

    def __init__(self) -> None:
        """Hold one."""
        self._held: int | None = _any_descriptor()

    def refuse_if_exhausted(
        self, error: OSError, listener: socket.socket, answer: bytes = b""
    ) -> None:
        """After ``accept`` failed with ``error``: accept, send ``answer`` and close.

        Does nothing unless it failed for want of descriptors. A connection that is left in the
        backlog would have the listener ready again at once, for ever.
        """
        if error.errno not in _EXHAUSTED:
            return
        if self._held is not None:
            os.close(self._held)
            self._held = None
        try:
            client, _ = listener.accept()
            with client, contextlib.suppress(OSError):
                client.send(answer, socket.MSG_DONTWAIT)
        except OSError:
            time.sleep(_REST_S)
        with contextlib.suppress(OSError):  # another thread was quicker: at the next time
            self._held = _any_descriptor()

    def close(self) -> None:
        """Hold none. Idempotent."""
        if self._held is not None:
            os.close(self._held)
            self._held = None


def _any_descriptor() -> int:
    """Return a new descriptor; unlike /dev/null, its file is there in an empty image too."""
    return os.eventfd(0, os.EFD_CLOEXEC)
