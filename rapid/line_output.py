"""Standard output and error of rapid: many writers, and no line is torn into another."""

from __future__ import annotations

import contextlib
import os
import threading
from typing import NamedTuple


class LineJoiner:
    """Ends a line that one writer left open before the output of another. One thread at a time.

    The bytes of a single writer pass unchanged.
    """

    def __init__(self) -> None:
        """Begin at the start of a line."""
        self._open_line_of: object = None

    def join(self, data: bytes, writer: object) -> bytes:
        """Return ``data`` of ``writer``, any object, as it follows what was written before."""
        if self._open_line_of is not None and self._open_line_of is not writer:
            data = b"\n" + data
        self._open_line_of = None if data.endswith(b"\n") else writer
        return data


class LineOutput:
    """A descriptor that several threads write whole lines to. Thread-safe; a write may block.

    On a terminal a carriage return becomes a line end: AWS's runtime clients separate the lines
    of a traceback by it, and a terminal would show only the last one.
    """

    def __init__(self, descriptor: int) -> None:
        """Write to ``descriptor``, which stays the caller's to close."""
        self._descriptor = descriptor
        self._is_terminal = os.isatty(descriptor)
        self._lock = threading.Lock()
        self._joiner = LineJoiner()  # guarded by _lock

    def write(self, data: bytes, writer: object) -> None:
        """Write ``data``, whole lines unless ``writer`` continues or leaves a line of its own."""
        if self._is_terminal:
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        with self._lock:
            write_all(self._descriptor, self._joiner.join(data, writer))


class TextStream:
    """A :class:`LineOutput` for ``logging``, which writes text. Thread-safe."""

    def __init__(self, output: LineOutput) -> None:
        """Write to ``output``."""
        self._output = output

    def write(self, text: str) -> int:
        """Write a log record, with its line end."""
        self._output.write(text.encode("utf-8", "backslashreplace"), self)
        return len(text)

    def flush(self) -> None:
        """Do nothing: no text is held."""


class Outputs(NamedTuple):
    """Standard output and error; the same object when both are one file."""

    stdout: LineOutput
    stderr: LineOutput


def open_outputs(stdout: int = 1, stderr: int = 2) -> Outputs:
    """Return the outputs of two descriptors; a process has one for each file."""
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
