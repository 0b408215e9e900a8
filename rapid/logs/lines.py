"""Output cut into records: lines of a stream, and the frames of the log descriptor.

Both are pure, and fed only while somebody wants records. Nothing a function writes breaks them.
Source: Lambda developer guide, Telemetry API, "function"; the framing is that of AWS's runtime
clients for Python, Node.js and Java, ``_LAMBDA_TELEMETRY_LOG_FD``.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

#: A longer line becomes several records. Source: CloudWatch Logs quotas, size of an event.
MAX_LINE_BYTES: Final = 262_144
#: A frame that announces more is none.
MAX_FRAME_BYTES: Final = 4 * 1_048_576

#: Names of the levels a frame can have; 0 is none. In ascending order.
LEVELS: Final = ("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL")

_MAGIC: Final = 0xA55A0000
_MAGIC_BYTES: Final = b"\xa5\x5a\x00"
_HEAD: Final = struct.Struct(">II")
_TIME: Final = struct.Struct(">Q")
_HAS_TIME: Final = 0x2


class LineSplitter:
    """Cuts a stream of bytes into lines, each with its line end. One thread at a time."""

    def __init__(self) -> None:
        """Hold no half line."""
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Return the lines that ``data`` completes."""
        rest = self._rest
        if not rest and data.endswith(b"\n") and len(data) <= MAX_LINE_BYTES:
            return _split(data)
        rest += data
        end = rest.rfind(b"\n") + 1
        lines = _split(bytes(rest[:end])) if end else []
        del rest[:end]
        while len(rest) >= MAX_LINE_BYTES:
            lines.append(bytes(rest[:MAX_LINE_BYTES]))
            del rest[:MAX_LINE_BYTES]
        return lines

    def take_rest(self) -> list[bytes]:
        """Return the half line that is there, as if it had ended; none when there is none."""
        rest, self._rest = self._rest, bytearray()
        return [bytes(rest)] if rest else []


def _split(data: bytes) -> list[bytes]:
    """Split after each newline alone, and long lines after so many bytes."""
    lines = [line + b"\n" for line in data[:-1].split(b"\n")]
    if len(data) <= MAX_LINE_BYTES:
        return lines
    return [
        line[at : at + MAX_LINE_BYTES]
        for line in lines
        for at in range(0, len(line), MAX_LINE_BYTES)
    ]


@dataclass(frozen=True, slots=True)
class LogMessage:
    """A line, or one message of the log descriptor, however many lines that has."""

    text: bytes
    is_framed: bool = False  #: it came as a frame, so it is whole
    level: str | None = None  #: one of ``LEVELS``
    time_us: int | None = None  #: when it was written, epoch microseconds


class FrameParser:
    """Cuts what comes from the log descriptor into messages. One thread at a time.

    A frame is ``u32 type | u32 length | u64 time in microseconds, if the type says so | message``,
    big-endian. Bytes that are no frame come out as a message without a level, up to where a frame
    may begin again.
    """

    def __init__(self) -> None:
        """Hold no half frame."""
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[LogMessage]:
        """Return the messages that ``data`` completes."""
        self._buffer += data
        messages = []
        while (message := self._take()) is not None:
            messages.append(message)
        return messages

    def take_rest(self) -> list[LogMessage]:
        """Return what cannot become a frame any more, because nothing follows it."""
        rest, self._buffer = self._buffer, bytearray()
        return [LogMessage(bytes(rest))] if rest else []

    def _take(self) -> LogMessage | None:
        buffer = self._buffer
        if not buffer:
            return None
        if not _MAGIC_BYTES.startswith(buffer[:3]):
            return self._take_garbage()
        if len(buffer) < _HEAD.size:
            return None
        kind, length = _HEAD.unpack_from(buffer)
        level = (kind >> 2) & 0x3F
        if kind & 0xFFFFFF00 != _MAGIC or level > len(LEVELS) or length > MAX_FRAME_BYTES:
            return self._take_garbage()
        begin, time_us = _HEAD.size, None
        if kind & _HAS_TIME:
            begin += _TIME.size
        end = begin + length
        if len(buffer) < end:
            return None
        if kind & _HAS_TIME:
            (time_us,) = _TIME.unpack_from(buffer, _HEAD.size)
        text = bytes(buffer[begin:end])
        del buffer[:end]
        name = LEVELS[level - 1] if level else None
        return LogMessage(text, is_framed=True, level=name, time_us=time_us)

    def _take_garbage(self) -> LogMessage:
        """Take the bytes before the next that may begin a frame."""
        buffer = self._buffer
        end = buffer.find(_MAGIC_BYTES, 1)
        if end < 0:  # its beginning may be the end of what is here
            end = len(buffer) - next(n for n in (2, 1, 0) if buffer.endswith(_MAGIC_BYTES[:n]))
        message = LogMessage(bytes(buffer[:end]))
        del buffer[:end]
        return message
