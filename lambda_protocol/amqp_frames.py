"""The AMQP 0-9-1 frames of a message: publish, deliver, acknowledge, reject.

A general client takes as long to encode a call as the call takes to run. So this module writes and
reads these frames itself, by the byte layout of the specification. The reader hands all other
frames back for pika. Tests compare each frame with pika's codec.

Malformed bytes have two sources:

* Properties come from any client of the broker. The reader leaves out the properties that it cannot
  read. All others can be written again.
* Frames come from the broker. A frame that AMQP does not allow raises ``FrameError``, which ends
  the connection.

Source: AMQP 0-9-1 specification, sections 4.2 (wire format) and 1.8 (basic class).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from lambda_protocol.body_buffer import BodyBuffer

#: A part of what is sent: bytes, or a part of a body that is not copied.
Piece = bytes | memoryview
#: A header value; the tables we write hold nothing else.
HeaderValue = str | int

_FRAME = struct.Struct(">BHI")  # type, channel, payload size; a frame ends with 0xCE
_HEADER = struct.Struct(">HHQH")  # class, weight, body size, property flags
_U16 = struct.Struct(">H")
_U32 = struct.Struct(">I")
_U64 = struct.Struct(">Q")
_FRAME_END: Final = b"\xce"
_FRAME_OVERHEAD: Final = 8
_METHOD, _CONTENT_HEADER, _BODY = 1, 2, 3
_BASIC: Final = 60
_PUBLISH, _DELIVER, _ACK, _REJECT = 40, 60, 80, 90
_DELIVER_METHOD: Final = struct.pack(">HH", _BASIC, _DELIVER)

# Property flags of the basic class, highest bit first.
_CONTENT_TYPE, _CONTENT_ENCODING, _HEADERS, _DELIVERY_MODE = 1 << 15, 1 << 14, 1 << 13, 1 << 12
_PRIORITY, _CORRELATION_ID, _REPLY_TO, _EXPIRATION = 1 << 11, 1 << 10, 1 << 9, 1 << 8
_MESSAGE_ID, _TIMESTAMP, _TYPE, _USER_ID, _APP_ID = 1 << 7, 1 << 6, 1 << 5, 1 << 4, 1 << 3

PERSISTENT: Final = 2

#: pika agrees to no larger frame. Source: pika, spec.FRAME_MAX_SIZE.
MAX_FRAME_BYTES: Final = 131_072
_INT64_MAX: Final = 2**63 - 1


class FrameError(ConnectionError):
    """The broker sent bytes that AMQP does not allow here: the connection is of no more use."""


@dataclass(slots=True, kw_only=True)
class Properties:
    """The message properties the wire protocol uses."""

    content_type: str | None = None
    headers: Mapping[str, HeaderValue] = field(default_factory=dict)
    delivery_mode: int | None = None
    correlation_id: str | None = None
    reply_to: str | None = None
    expiration: str | None = None  #: milliseconds, as text
    timestamp: int | None = None  #: seconds since the epoch


@dataclass(slots=True, kw_only=True)
class Delivery:
    """One message, whole."""

    channel: int
    delivery_tag: int
    redelivered: bool
    routing_key: str
    properties: Properties
    body: bytes  #: empty if it was over the reader's limit
    body_size: int  #: bytes that were published


def publish_pieces(
    channel: int,
    routing_key: str,
    properties: Properties,
    body: bytes,
    *,
    frame_max: int,
    mandatory: bool = False,
    exchange: str = "",
) -> list[Piece]:
    """Return the frames that publish ``body``, in pieces that are sent in one go.

    They go to the default exchange unless another is named. A body of one frame is copied into the
    only piece. A larger one is not copied.
    """
    header = _encode_content_header(properties, len(body))
    head = [
        _publish_method(channel, exchange, routing_key, mandatory),
        _FRAME.pack(_CONTENT_HEADER, channel, len(header)),
        header,
        _FRAME_END,
    ]
    step = frame_max - _FRAME_OVERHEAD
    if len(body) <= step:
        if body:
            head += (_FRAME.pack(_BODY, channel, len(body)), body, _FRAME_END)
        return [b"".join(head)]
    pieces: list[Piece] = [b"".join(head)]
    view = memoryview(body)
    for start in range(0, len(body), step):
        piece = view[start : start + step]
        pieces += (_FRAME.pack(_BODY, channel, len(piece)), piece, _FRAME_END)
    return pieces


def encode_ack(channel: int, delivery_tag: int) -> bytes:
    """Return the frame that acknowledges one delivery."""
    return _ACK_FRAME.pack(_METHOD, channel, 13, _BASIC, _ACK, delivery_tag, 0, 0xCE)


def encode_reject(channel: int, delivery_tag: int) -> bytes:
    """Return the frame that refuses one delivery for good: its queue dead-letters or drops it."""
    return _ACK_FRAME.pack(_METHOD, channel, 13, _BASIC, _REJECT, delivery_tag, 0, 0xCE)


class FrameReader:
    """Cuts a byte stream into deliveries and what pika is to see.

    One thread: the connection's owner.
    """

    def __init__(self, *, max_body_bytes: int = _INT64_MAX) -> None:
        """Start at a frame boundary; a body over ``max_body_bytes`` is read and not kept."""
        self._max_body_bytes = max_body_bytes
        self._rest = b""  # of the last feed: less than a frame
        self._missing = 0  # bytes of the frame that the last feed has begun: a body's
        self._missing_channel = 0
        self._partial: dict[int, _PartialDelivery] = {}

    def feed(self, data: bytes) -> list[Delivery | bytes]:
        """Take the next bytes; return what they complete, in order.

        ``bytes`` items are whole frames of anything but a delivery. Raises ``FrameError``.
        """
        buffer = self._rest + data if self._rest else data
        found: list[Delivery | bytes] = []
        start = 0
        if self._missing:
            start = self._go_on(buffer, found)
        while len(buffer) - start >= _FRAME_OVERHEAD:
            kind, channel, size = _FRAME.unpack_from(buffer, start)
            end = start + _FRAME_OVERHEAD + size
            if kind > _FRAME_TYPES_MAX:  # no AMQP frame (a protocol header): all of it is pika's
                end = len(buffer)
            elif size > MAX_FRAME_BYTES:
                raise FrameError(f"a frame of {size} bytes; expected {MAX_FRAME_BYTES} at most")
            elif len(buffer) < end:
                if kind == _BODY and channel in self._partial:
                    self._partial[channel].begin_body(size)
                    self._missing, self._missing_channel = size + 1, channel
                    start = self._go_on(buffer, found, start + _FRAME.size)
                break
            item = self._read(kind, channel, buffer[start:end])
            if item is not None:
                found.append(item)
            start = end
        self._rest = buffer[start:]
        return found

    def _go_on(self, buffer: bytes, found: list[Delivery | bytes], start: int = 0) -> int:
        """Take what has come of a body's frame; return where the next frame begins."""
        end = min(start + self._missing, len(buffer))
        self._missing -= end - start
        channel = self._missing_channel
        partial = self._partial[channel]
        # The last byte of a frame is none of the body.
        partial.add_body(memoryview(buffer)[start : end if self._missing else end - 1])
        if not (self._missing or partial.missing):
            found.append(self._partial.pop(channel).decode(channel))
        return end

    def _read(self, kind: int, channel: int, frame: bytes) -> Delivery | bytes | None:
        if kind == _METHOD and frame.startswith(_DELIVER_METHOD, 7):
            self._partial[channel] = _PartialDelivery(frame, self._max_body_bytes)
            return None
        partial = self._partial.get(channel)
        if partial is None or kind not in (_CONTENT_HEADER, _BODY):
            return frame
        if kind == _CONTENT_HEADER:
            partial.add_header(frame)
        else:
            partial.begin_body(len(frame) - _FRAME_OVERHEAD)
            partial.add_body(frame[_FRAME.size : -1])
        if partial.missing:
            return None
        del self._partial[channel]
        return partial.decode(channel)


class _PartialDelivery:
    """A delivery that has not fully arrived."""

    __slots__ = ("_body", "_header", "_max_body_bytes", "_method", "_size", "_whole", "missing")

    def __init__(self, method: bytes, max_body_bytes: int) -> None:
        self._method = method
        self._max_body_bytes = max_body_bytes
        self._header = b""
        self._size = 0
        self._whole: bytes | memoryview = b""  # a body that came in one frame
        self._body: BodyBuffer | None = None  # any other
        self.missing = 1  # body bytes to come; at least the header is

    def add_header(self, frame: bytes) -> None:
        if self._header:
            raise FrameError("the header of a message comes twice")
        if len(frame) < _HEADER_END:
            raise FrameError("the header of a message is cut off")
        self._header = frame
        self.missing = self._size = _HEADER.unpack_from(frame, 7)[2]

    def begin_body(self, size: int) -> None:
        """Check that a body's frame of ``size`` bytes may come now."""
        if not self._header:
            raise FrameError("the header of a message does not come before its body")
        if size > self.missing:
            raise FrameError("a message is longer than its header says")

    def add_body(self, data: bytes | memoryview) -> None:
        self.missing -= len(data)
        if len(data) == self._size <= self._max_body_bytes:
            self._whole = data
        elif data and self._size <= self._max_body_bytes:
            if self._body is None:
                self._body = BodyBuffer(self._size, least=self._size)
            self._body.add(data)

    def decode(self, channel: int) -> Delivery:
        method = self._method
        try:
            at = 12 + method[11]  # past the consumer tag
            routing_key_at = at + 10 + method[at + 9]  # past the exchange
            return Delivery(
                channel=channel,
                delivery_tag=_U64.unpack_from(method, at)[0],
                redelivered=method[at + 8] & 1 == 1,
                routing_key=_short_string(method, routing_key_at)[0],
                properties=_decode_properties(self._header),
                body=bytes(self._whole) if self._body is None else self._body.take(),
                body_size=self._size,
            )
        except (IndexError, struct.error) as error:
            raise FrameError(f"a delivery cannot be read: {error}") from error


_FRAME_TYPES_MAX: Final = 8
#: The least that a content header's frame has before its end: frame head, fixed fields.
_HEADER_END: Final = 7 + _HEADER.size
_ACK_FRAME = struct.Struct(">BHIHHQBB")  # its last bit: multiple; of a reject: requeue


@lru_cache(maxsize=1024)
def _publish_method(channel: int, exchange: str, routing_key: str, mandatory: bool) -> bytes:
    payload = b"".join(
        (
            struct.pack(">HHH", _BASIC, _PUBLISH, 0),  # reserved
            _encode_short(exchange),
            _encode_short(routing_key),
            bytes((mandatory,)),
        )
    )
    return _FRAME.pack(_METHOD, channel, len(payload)) + payload + _FRAME_END


def _encode_content_header(properties: Properties, body_size: int) -> bytes:
    flags = 0
    parts = [b""]
    if properties.content_type is not None:
        flags |= _CONTENT_TYPE
        parts.append(_encode_short(properties.content_type))
    if properties.headers:
        flags |= _HEADERS
        parts.append(_encode_table(properties.headers))
    if properties.delivery_mode is not None:
        flags |= _DELIVERY_MODE
        parts.append(bytes((properties.delivery_mode,)))
    if properties.correlation_id is not None:
        flags |= _CORRELATION_ID
        parts.append(_encode_short(properties.correlation_id))
    if properties.reply_to is not None:
        flags |= _REPLY_TO
        parts.append(_encode_short(properties.reply_to))
    if properties.expiration is not None:
        flags |= _EXPIRATION
        parts.append(_encode_short(properties.expiration))
    if properties.timestamp is not None:
        flags |= _TIMESTAMP
        parts.append(_U64.pack(properties.timestamp))
    parts[0] = _HEADER.pack(_BASIC, 0, body_size, flags)
    return b"".join(parts)


def _encode_text(text: str) -> bytes:
    """Return any text as bytes; what :func:`_short_string` made of bytes, as they were."""
    try:
        return text.encode(errors="surrogateescape")
    except UnicodeEncodeError:  # surrogates of another origin: JSON may hold them
        return text.encode(errors="replace")


def _encode_short(text: str) -> bytes:
    data = _encode_text(text)[:_SHORT_MAX]
    return bytes((len(data),)) + data


#: There are few names, and each message has some of them.
_encode_name: Final = lru_cache(maxsize=256)(_encode_short)


def _encode_table(table: Mapping[str, HeaderValue]) -> bytes:
    parts = [b""]
    for name, value in table.items():
        parts.append(_encode_name(name))
        if isinstance(value, int):
            parts.append(b"l" + value.to_bytes(8, "big", signed=True))
        else:
            data = _encode_text(value)
            parts.append(b"S" + _U32.pack(len(data)) + data)
    parts[0] = _U32.pack(sum(map(len, parts)))
    return b"".join(parts)


def _decode_properties(frame: bytes) -> Properties:
    """Return what a content header says; what makes no sense is left out, never an error.

    The broker passes on whatever a client sent, and a message that cannot be read would come
    back for ever.
    """
    properties = Properties()
    try:
        _read_properties(frame, properties)
    except (IndexError, struct.error):  # it is shorter than its flags say
        return properties  # with what was read before
    return properties


def _read_properties(frame: bytes, properties: Properties) -> None:
    flags = _HEADER.unpack_from(frame, 7)[3]
    at = _HEADER_END
    if flags & _CONTENT_TYPE:
        properties.content_type, at = _short_string(frame, at)
    if flags & _CONTENT_ENCODING:
        _, at = _short_string(frame, at)
    if flags & _HEADERS:
        end = at + 4 + _U32.unpack_from(frame, at)[0]
        table: dict[str, HeaderValue] = {}
        properties.headers = table
        _read_table(frame, at + 4, min(end, len(frame) - 1), table)
        at = end
    if flags & _DELIVERY_MODE:
        properties.delivery_mode = frame[at]
        at += 1
    if flags & _PRIORITY:
        at += 1
    if flags & _CORRELATION_ID:
        properties.correlation_id, at = _short_string(frame, at)
    if flags & _REPLY_TO:
        properties.reply_to, at = _short_string(frame, at)
    if flags & _EXPIRATION:
        properties.expiration, at = _short_string(frame, at)
    if flags & _MESSAGE_ID:
        _, at = _short_string(frame, at)
    if flags & _TIMESTAMP:
        properties.timestamp = _U64.unpack_from(frame, at)[0]
    # type, user id, app id and cluster id follow; unused


def _short_string(frame: bytes, at: int) -> tuple[str, int]:
    """Return any bytes as text, which is given back byte for byte; and where it ends."""
    end = at + 1 + frame[at]
    return frame[at + 1 : end].decode(errors="surrogateescape"), end


def _read_table(frame: bytes, at: int, end: int, table: dict[str, HeaderValue]) -> None:
    """Add the text and integers of a field table to ``table``.

    Other types are skipped by their size, and so are integers that cannot be written again.
    """
    while at < end:
        name, at = _short_string(frame, at)
        kind = frame[at]
        at += 1
        if kind in _INTEGERS:
            width, signed = _INTEGERS[kind]
            number = int.from_bytes(frame[at : at + width], "big", signed=signed)
            if number <= _INT64_MAX:
                table[name] = number
            at += width
        elif kind in _SIZED:
            size = _U32.unpack_from(frame, at)[0]
            at += 4 + size
            if kind == _TEXT:
                try:
                    table[name] = frame[at - size : at].decode()
                except UnicodeDecodeError:
                    continue
        elif kind in _SKIPPED:
            at += _SKIPPED[kind]
        else:
            return  # what follows cannot be found


_SHORT_MAX: Final = 255
#: Field types as RabbitMQ writes them. Source: RabbitMQ documentation, "AMQP 0-9-1 Errata".
#: Integers: width in bytes, signed.
_INTEGERS: Final = {
    ord("t"): (1, False),
    ord("b"): (1, True),
    ord("B"): (1, False),
    ord("s"): (2, True),
    ord("u"): (2, False),
    ord("I"): (4, True),
    ord("i"): (4, False),
    ord("l"): (8, True),
    ord("T"): (8, False),
}
_TEXT: Final = ord("S")
#: Text, arrays, tables and bytes: their size goes before them.
_SIZED: Final = frozenset(b"SAFx")
#: Floats, decimals and void, by width.
_SKIPPED: Final = {ord("f"): 4, ord("d"): 8, ord("L"): 8, ord("D"): 5, ord("V"): 0}
