"""One buffer for a body that comes in parts: read into it, then take it as ``bytes`` uncopied."""

from __future__ import annotations

import io
from typing import Final

#: What room is made for at first, bytes.
_LEAST_BYTES: Final = 65_536


class BodyBuffer:
    """The buffer. One thread.

    ``io.BytesIO`` is the one type whose bytes can be written in place and be ``bytes`` after that.
    """

    __slots__ = ("_file", "_first", "_least", "_most", "_room", "size")

    def __init__(self, most: int, *, least: int = _LEAST_BYTES) -> None:
        """Hold nothing yet; make room for ``least`` bytes at first.

        A body of more than ``most`` bytes is rare, and gets no spare room.
        """
        self.size = 0  #: bytes that are here, or for which there is room
        self._most = most
        self._least = least
        self._first = b""  # most bodies are one part
        self._file: io.BytesIO | None = None
        self._room = 0

    def add(self, data: bytes | memoryview) -> None:
        """Append ``data``."""
        if not self.size and isinstance(data, bytes):
            self._first, self.size = data, len(data)
            return
        with self.room(len(data)) as room:
            room[:] = data

    def room(self, count: int) -> memoryview:
        """Append ``count`` bytes that the caller writes; the view is to be released before more."""
        start, end = self.size, self.size + count
        if self._file is None:
            self._file = io.BytesIO()
        if end > self._room:
            self._room = max(end, min(max(2 * self._room, self._least), self._most))
            self._file.seek(self._room - 1)
            self._file.write(b"\0")
        if self._first:
            with self._file.getbuffer() as whole:
                whole[:start] = self._first
            self._first = b""
        self.size = end
        return self._file.getbuffer()[start:end]

    def take(self) -> bytes:
        """Return the body; nothing more is appended."""
        if self._file is None:
            return self._first
        if self.size < self._room:
            self._file.truncate(self.size)
        return self._file.getvalue()
