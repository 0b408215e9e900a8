"""AWS's event stream: messages with headers and checksums, one after the other in a body.

Source: Amazon Transcribe developer guide, "Event stream encoding"; botocore, eventstream.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

#: The longest message that is decoded, bytes. Source: botocore, eventstream (a payload of 24 MiB).
MAX_MESSAGE_BYTES: Final = 16 * 1_048_576
CONTENT_TYPE: Final = "application/vnd.amazon.eventstream"

_PRELUDE: Final = struct.Struct("!LLL")  # whole length, length of the headers, checksum of the two
_CHECKSUM: Final = struct.Struct("!L")
_VALUE: Final = struct.Struct("!BH")  # type, length
_STRING: Final = 7
_LEAST_BYTES: Final = _PRELUDE.size + _CHECKSUM.size


class BrokenStreamError(ValueError):
    """The bytes are no message."""


class Message(NamedTuple):
    """One message; all its headers are text."""

    headers: Mapping[str, str]
    payload: bytes


def encode_headers(headers: Mapping[str, str]) -> bytes:
    """Return the headers of a message, for :func:`encode`."""
    encoded = bytearray()
    for name, value in headers.items():
        text = value.encode()
        encoded += bytes((len(name),)) + name.encode() + _VALUE.pack(_STRING, len(text)) + text
    return bytes(encoded)


def encode(headers: bytes, payload: bytes) -> bytes:
    """Return a message whose headers are encoded already."""
    length = _LEAST_BYTES + len(headers) + len(payload)
    lengths = struct.pack("!LL", length, len(headers))
    head = lengths + _CHECKSUM.pack(zlib.crc32(lengths)) + headers
    checksum = zlib.crc32(payload, zlib.crc32(head))
    return b"".join((head, payload, _CHECKSUM.pack(checksum)))


class Decoder:
    """Takes messages from bytes as they come. One thread."""

    def __init__(self) -> None:
        """Nothing has come."""
        self._buffer = bytearray()

    @property
    def is_between_messages(self) -> bool:
        """Whether no message has begun that has not come whole."""
        return not self._buffer

    def feed(self, data: bytes) -> Iterator[Message]:
        """Yield the messages that are whole with ``data``; raises ``BrokenStreamError``."""
        self._buffer += data
        while len(self._buffer) >= _PRELUDE.size:
            length, headers_length, checksum = _PRELUDE.unpack_from(self._buffer)
            if zlib.crc32(self._buffer[:8]) != checksum:
                raise BrokenStreamError("the checksum of a message's lengths is wrong")
            if not headers_length + _LEAST_BYTES <= length <= MAX_MESSAGE_BYTES:
                raise BrokenStreamError(f"a message of {length} bytes")
            if len(self._buffer) < length:
                return
            message = bytes(self._buffer[:length])
            del self._buffer[:length]
            yield _decode(message, _PRELUDE.size + headers_length)


def _decode(message: bytes, headers_end: int) -> Message:
    end = len(message) - _CHECKSUM.size
    if _CHECKSUM.unpack_from(message, end)[0] != zlib.crc32(message[:end]):
        raise BrokenStreamError("the checksum of a message is wrong")
    headers: dict[str, str] = {}
    at = _PRELUDE.size
    try:
        while at < headers_end:
            name_end = at + 1 + message[at]
            kind, size = _VALUE.unpack_from(message, name_end)
            value_end = name_end + _VALUE.size + size
            if kind != _STRING or value_end > headers_end:
                raise BrokenStreamError("a message's header is not text")
            value = message[name_end + _VALUE.size : value_end]
            headers[message[at + 1 : name_end].decode()] = value.decode()
            at = value_end
    except (struct.error, UnicodeDecodeError, IndexError) as error:
        raise BrokenStreamError("a message's header is malformed") from error
    return Message(headers, message[headers_end:end])
