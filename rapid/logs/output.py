"""Standard output and error of rapid: many writers, and no line is torn into another."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections import deque
from typing import Final, NamedTuple

logger = logging.getLogger(__name__)

#: How much of one writer waits for our own standard output; further lines of rapid are dropped.
MAX_WAITING_BYTES: Final = 262_144


class LineJoiner:
    """Ends a line that one writer left open before the output of another. One thread at a time.

    The bytes of a single writer pass unchanged, until its line is ended.
    """

    def __init__(self) -> None:
        """Begin at the start of a line."""
        self._open_line: object = None

    def join(self, data: bytes, line: object) -> bytes:
        """Return ``data`` of ``line``, any object, as it follows what was written before."""
        if self._open_line is not None and self._open_line is not line:
            data = b"\n" + data
        self._open_line = None if data.endswith(b"\n") else line
        return data


class LineWriter:
    """One of those who write whole lines to an output. Thread-safe; nothing here waits.

    A line that a writer leaves open goes on with its next bytes.
    """

    __slots__ = ("line", "output", "waiting_bytes")

    def __init__(self, output: LineOutput) -> None:
        """Write to ``output``."""
        self.output = output
        self.line: object = self  #: whose bytes make one line
        self.waiting_bytes = 0  #: not written yet; guarded by the output's lock

    @property
    def has_room(self) -> bool:
        """Whether what waits is within ``MAX_WAITING_BYTES``."""
        return self.waiting_bytes < MAX_WAITING_BYTES

    def end_line(self) -> None:
        """Let what comes next be of another line, if one is open."""
        self.line = object()

    def put(self, data: bytes) -> None:
        """Have ``data`` written after what waits, by :meth:`LineOutput.write_waiting`.

        The caller makes sure of the room, and that a thread calls it.
        """
        self.output.put(self, data)

    def offer(self, data: bytes) -> None:
        """Have ``data`` written soon; without room it is dropped, and counted."""
        if self.has_room:
            self.output.put(self, data)
        else:
            self.output.drop()
        self.output.wake()


class LineOutput:
    """A descriptor that several threads write whole lines to. Thread-safe.

    A pipe without a reader blocks the output's own thread, and the callers of
    :meth:`write_waiting`. The other methods never wait for it.

    On a terminal a carriage return becomes a line end: AWS's runtime clients separate the lines
    of a traceback by it, and a terminal would show only the last one.
    """

    def __init__(self, descriptor: int) -> None:
        """Write to ``descriptor``, which stays the caller's to close."""
        self._descriptor = descriptor
        self._is_terminal = os.isatty(descriptor)
        self._write_lock = threading.Lock()  # held while writing; taken before _lock
        self._joiner = LineJoiner()  # guarded by _write_lock
        self._lock = threading.Lock()
        # guarded by _lock:
        self._waiting: deque[tuple[LineWriter, object, bytes]] = deque()
        self._unwritten = 0  # pieces that wait or are being written
        self._dropped = 0  # lines since the last that told of it
        self._wanted = threading.Condition(self._lock)
        self._written = threading.Condition(self._lock)
        threading.Thread(target=self._run, name=f"output-{descriptor}", daemon=True).start()

    def put(self, writer: LineWriter, data: bytes) -> None:
        """Append ``data`` to what waits."""
        with self._lock:
            self._waiting.append((writer, writer.line, data))
            self._unwritten += 1
            writer.waiting_bytes += len(data)

    def drop(self) -> None:
        """Count a line that there was no room for."""
        with self._lock:
            self._dropped += 1

    def wake(self) -> None:
        """Have the output's thread write what waits; does nothing if nothing does."""
        if (
            self._waiting or self._dropped
        ):  # without the lock: who adds something calls this after it
            with self._lock:
                self._wanted.notify()

    def write_waiting(self) -> None:
        """Write what waits now; blocks as the descriptor does."""
        with self._write_lock:
            for _ in range(len(self._waiting)):  # no more than that: others may add without end
                with self._lock:
                    writer, line, data = self._waiting.popleft()
                try:
                    self._write(data, line)
                finally:
                    with self._lock:
                        writer.waiting_bytes -= len(data)
                        self._unwritten -= 1
                        if not self._unwritten:
                            self._written.notify_all()

    def flush(self, limit_s: float) -> bool:
        """Wait until all is written; False when the limit came first."""
        with self._lock:
            self._wanted.notify()
            return self._written.wait_for(lambda: not self._unwritten, limit_s)

    def _write(self, data: bytes, line: object) -> None:
        if self._is_terminal:
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        write_all(self._descriptor, self._joiner.join(data, line))

    def _run(self) -> None:
        while True:
            with self._lock:
                self._wanted.wait_for(lambda: self._waiting or self._dropped)
                dropped = 0
                if not self._waiting:
                    dropped, self._dropped = self._dropped, 0
            with contextlib.suppress(Exception):  # out of memory: the next lines have a chance
                if dropped:
                    logger.warning("log lines dropped: not read in time", extra={"lines": dropped})
                self.write_waiting()


class TextStream:
    """A :class:`LineOutput` for ``logging``, which writes text. Thread-safe; it never waits."""

    def __init__(self, output: LineOutput) -> None:
        """Write to ``output``."""
        self._writer = LineWriter(output)

    def write(self, text: str) -> int:
        """Write a log record, with its line end."""
        self._writer.offer(text.encode("utf-8", "backslashreplace"))
        return len(text)

    def flush(self) -> None:
        """Do nothing: the output's thread writes soon."""


class Outputs(NamedTuple):
    """Standard output and error; the same object when both are one file."""

    stdout: LineOutput
    stderr: LineOutput

    def wake(self) -> None:
        """Have what waits written soon."""
        self.stdout.wake()
        if self.stderr is not self.stdout:
            self.stderr.wake()

    def write_waiting(self) -> None:
        """Write what waits now; blocks as the descriptors do."""
        for output in set(self):
            output.write_waiting()

    def flush(self, limit_s: float) -> None:
        """Wait until all is written, for at most ``limit_s``."""
        deadline = time.monotonic() + limit_s
        for output in set(self):
            output.flush(max(0.0, deadline - time.monotonic()))


def open_outputs(stdout: int = 1, stderr: int = 2) -> Outputs:
    """Return the outputs of two descriptors; a process has one for each file.

    Each has a thread; raises ``RuntimeError`` when none can be started.
    """
    out = LineOutput(stdout)
    return Outputs(out, out if _is_same_file(stdout, stderr) else LineOutput(stderr))


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of ``data``; a closed descriptor swallows it, as it would have the function's."""
    view = memoryview(data)
    with contextlib.suppress(OSError):
        while view:
            view = view[os.write(descriptor, view) :]


def _is_same_file(one: int, other: int) -> bool:
    with contextlib.suppress(OSError):
        return os.path.sameopenfile(one, other)
    return False
