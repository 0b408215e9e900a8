"""What the function prints: passed on byte for byte, and the last of it kept for the caller."""

from __future__ import annotations

import contextlib
import os
import select
import threading
from typing import Final

from lambda_protocol.limits import LOG_TAIL_BYTES

#: How long a reply waits for a capture that is blocked by our own full standard output, seconds.
_FLUSH_LIMIT_S: Final = 0.1
_READ_SIZE: Final = 65_536


class LogCapture:
    """The pipes of one environment's processes. Thread-safe.

    Nothing is split into lines or decoded, so partial lines, 1 MB lines and bytes that are no
    UTF-8 all pass.
    """

    def __init__(self, name: str, *, sinks: tuple[int, int] = (1, 2)) -> None:
        """Open the pipes and start reading; ``name`` is for the thread.

        ``sinks`` are the descriptors that standard output and error are passed on to.
        """
        self._lock = threading.Lock()
        self._sinks: dict[int, int] = {}  # read end → our own descriptor; guarded by _lock
        self._writers: list[int] = []
        self._tail = bytearray()  # guarded by _lock; the last output, over all invocations
        self.total_bytes = 0  #: ever captured; a mark from which a tail is cut
        self.stdout = self._open_pipe(sinks[0])
        self.stderr = self._open_pipe(sinks[1])
        self._thread = threading.Thread(target=self._run, name=f"{name}-logs", daemon=True)
        self._thread.start()

    def flush(self) -> None:
        """Take in what is in the pipes now: a function's last print precedes its response."""
        if self._lock.acquire(timeout=_FLUSH_LIMIT_S):
            try:
                self._pump_locked()
            finally:
                self._lock.release()

    def tail_since(self, mark: int) -> bytes:
        """Return the last output, at most 4 KiB, captured since ``total_bytes`` was ``mark``."""
        with self._lock:
            wanted = min(self.total_bytes - mark, LOG_TAIL_BYTES)
            return bytes(self._tail[-wanted:]) if wanted > 0 else b""

    def close_writers(self) -> None:
        """Close our copies of the write ends: the pipes end with the last process. Idempotent."""
        writers, self._writers = self._writers, []
        for descriptor in writers:
            os.close(descriptor)

    def close(self, limit_s: float = 1.0) -> None:
        """Pass on what is left and stop reading."""
        self.close_writers()
        self._thread.join(limit_s)
        with self._lock:
            for descriptor in self._sinks:
                os.close(descriptor)
            self._sinks.clear()

    def _open_pipe(self, sink: int) -> int:
        reader, writer = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(reader, False)
        self._sinks[reader] = sink
        self._writers.append(writer)
        return writer

    def _run(self) -> None:
        poller = select.poll()
        with self._lock:
            for descriptor in self._sinks:
                poller.register(descriptor, select.POLLIN)
            left = len(self._sinks)
        while left:
            for descriptor, _ in poller.poll(1000):
                with self._lock:
                    if self._pump_one_locked(descriptor):
                        continue
                    left -= 1
                    poller.unregister(descriptor)

    def _pump_locked(self) -> None:
        for descriptor in self._sinks:
            self._pump_one_locked(descriptor)

    def _pump_one_locked(self, descriptor: int) -> bool:
        """Pass on what one pipe holds; False when it has ended."""
        sink = self._sinks.get(descriptor)
        if sink is None:
            return False
        while True:
            try:
                data = os.read(descriptor, _READ_SIZE)
            except BlockingIOError:
                return True
            if not data:
                return False
            self.total_bytes += len(data)
            self._tail += data
            if len(self._tail) > 4 * LOG_TAIL_BYTES:
                del self._tail[:-LOG_TAIL_BYTES]
            write_all(sink, data)
            if len(data) < _READ_SIZE:
                return True


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of ``data``; a closed descriptor swallows it, as it would have the function's."""
    view = memoryview(data)
    with contextlib.suppress(OSError):
        while view:
            view = view[os.write(descriptor, view) :]
