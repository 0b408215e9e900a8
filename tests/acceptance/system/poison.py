"""AMQP messages that no client library would publish."""

from __future__ import annotations

import base64
import random
import struct
from typing import Final

from lambda_protocol.amqp_connection import AmqpConnection, connection_parameters
from lambda_protocol.amqp_frames import Properties, publish_pieces
from lambda_protocol.environ import BrokerAddress


class RawPublisher:
    """Publishes what no client library would: any bytes as text, any field type in headers."""

    def __init__(self, uri: str) -> None:
        parameters = connection_parameters(BrokerAddress(uri=uri), name="test")
        self._connection = AmqpConnection(parameters, lambda _delivery: None)
        self._channel = self._connection.open_channel()
        self._connection.call(self._channel, "confirm_delivery", ack_nack_callback=self._confirm)
        self._unconfirmed = 0

    def _confirm(self, _frame: object) -> None:
        self._unconfirmed -= 1

    def publish(
        self, queue: str, body: bytes, properties: Properties, table: bytes | None = None
    ) -> None:
        """Publish; ``table`` replaces the headers, written field by field."""
        frames = b"".join(
            publish_pieces(self._channel.channel_number, queue, properties, body, frame_max=131_072)
        )
        if table is not None:
            frames = _with_table(frames, table)
        self._connection.send(frames)

    def flush(self) -> None:
        """Wait until RabbitMQ has taken all that was published; raises ``BrokerLost`` if not."""
        self._connection.call(self._channel, "basic_qos", prefetch_count=0)  # in its order

    def close(self) -> None:
        """Hang up."""
        self._connection.shut_down()


def _with_table(frames: bytes, table: bytes) -> bytes:
    """Put ``table`` into the content header of a publish whose headers are one integer field."""
    old = struct.pack(">I", 11) + b"\x01xl" + struct.pack(">q", 0)
    at = frames.index(old)
    new = struct.pack(">I", len(table)) + table
    method_end = 8 + struct.unpack_from(">I", frames, 3)[0]
    size = struct.unpack_from(">I", frames, method_end + 3)[0] + len(new) - len(old)
    patched = frames[: method_end + 3] + struct.pack(">I", size) + frames[method_end + 7 : at]
    return patched + new + frames[at + len(old) :]


def random_body(rng: random.Random) -> bytes:
    """Return a payload, of JSON or not."""
    return rng.choice([b"", b"{}", b"[1]", b"\xff\xfe", b"not json", b'"\\ud800"', b"[" * 50_000])


def random_text(rng: random.Random) -> Properties:
    """Return properties of any text, and a time that no calendar has."""

    def text() -> str | None:
        data = rng.randbytes(rng.randrange(256))
        return rng.choice([None, "", data.decode(errors="surrogateescape")])

    return Properties(
        content_type=text(),
        headers={"x": 0},  # the place of the table
        correlation_id=text(),
        reply_to=rng.choice([None, "nowhere", "q" * 255, text(), *map(_direct_address, _PIDS)]),
        timestamp=rng.choice([None, 0, 2**63, 2**64 - 1]),
    )


#: Processes of Erlang that reply addresses may name: of the old kind, cut off, nobody's, none.
_PIDS: Final = (
    b"\x83gd\x00\x07reply@1" + bytes(9),
    b"\x83Xw\x05reply@1" + bytes(12),
    b"\x83Xw\x07reply@1" + bytes(12),
    b"nonsense",
)


def _direct_address(pid: bytes) -> str:
    return f"amq.rabbitmq.reply-to.{base64.b64encode(pid).decode()}.a2V5"


_NAMES: Final = (
    b"X-Amz-Client-Context",
    b"X-Amz-Tenant-Id",
    b"X-Amz-Function-Qualifier",
    b"X-Amzn-Trace-Id",
    b"X-Lambda-Frames",
    b"X-Lambda-Attempt",
    b"X-Lambda-First-Queued-Ms",
    b"X-Lambda-Backoffs",
    b"\xff\xfe",
    b"",
)


def random_table(rng: random.Random) -> bytes:
    """Return fields of every type that RabbitMQ knows. Source: AMQP 0-9-1 Errata, RabbitMQ."""
    fields = b""
    for _ in range(rng.randrange(6)):
        name = rng.choice(_NAMES)
        kind, width = rng.choice(
            [
                *((b"t", 1), (b"b", 1), (b"B", 1), (b"s", 2), (b"u", 2), (b"I", 4), (b"i", 4)),
                *((b"l", 8), (b"T", 8), (b"f", 4), (b"d", 8), (b"D", 5), (b"V", 0)),
                *((b"S", None), (b"x", None), (b"A", None), (b"F", None)),
            ]
        )
        if width is None:
            size = rng.choice([0, 60, 20_000]) if kind in b"Sx" else 0
            data = rng.randbytes(size) if kind in b"Sx" else _nested(kind, rng.choice([0, 3, 3000]))
            value = struct.pack(">I", len(data)) + data
        elif kind in b"fd":  # RabbitMQ closes the connection for what is no number, or infinite
            value = rng.choice([bytes(width), b"\xff\x6f" + bytes(width), b"\x7f\x6f" * width])[
                :width
            ]
        else:
            value = rng.choice([bytes(width), b"\xff" * width, b"\x7f" + b"\xff" * width])[:width]
        fields += bytes((len(name),)) + name + kind + value
    return fields


def _nested(kind: bytes, levels: int) -> bytes:
    """Return the inside of a table or an array that has another one in it, and so on."""
    inner, name = b"", b"" if kind == b"A" else b"\x01a"
    for _ in range(levels):
        inner = name + kind + struct.pack(">I", len(inner)) + inner
    return inner
