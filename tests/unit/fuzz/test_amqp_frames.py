"""Any bytes for the frame reader: it says that they are no AMQP, or gives what can be sent on."""

from __future__ import annotations

import struct

import pika
from hypothesis import given
from hypothesis import strategies as st

from lambda_protocol.amqp_frames import (
    Delivery,
    FrameError,
    FrameReader,
    Properties,
    publish_pieces,
)

INTEGERS = st.integers(-(2**63), 2**63 - 1)
SHORT = st.binary(max_size=255).map(lambda data: bytes((len(data),)) + data)
LONG = st.binary(max_size=400).map(lambda data: struct.pack(">I", len(data)) + data)
#: A field as RabbitMQ may pass it on: of any type, true to its form or not.
FIELD = st.one_of(
    st.tuples(SHORT, st.sampled_from([b"S", b"A", b"F", b"x"]), LONG),
    st.tuples(SHORT, st.just(b"l"), INTEGERS.map(lambda n: struct.pack(">q", n))),
    st.tuples(SHORT, st.binary(min_size=1, max_size=1), st.binary(max_size=10)),
).map(b"".join)
TABLE = st.lists(FIELD, max_size=8).map(b"".join)


def delivered(flags: int, properties: bytes) -> bytes:
    """Return an empty message whose properties are ``properties``, whatever ``flags`` promise."""
    deliver = pika.frame.Method(1, pika.spec.Basic.Deliver("c", 1, False, "", "echo")).marshal()
    payload = struct.pack(">HHQH", 60, 0, 0, flags & 0xFFFE) + properties
    return bytes(deliver) + struct.pack(">BHI", 2, 1, len(payload)) + payload + b"\xce"


def read_and_sent_again(data: bytes) -> None:
    (item,) = FrameReader().feed(data)
    assert isinstance(item, Delivery)
    sent = b"".join(publish_pieces(1, "q", item.properties, b"", frame_max=131_072))
    (again,) = FrameReader().feed(data[: data.index(b"\xce") + 1] + sent.partition(b"\xce")[2])
    assert isinstance(again, Delivery)
    assert again.properties == item.properties


@given(st.integers(0, 0xFFFF), st.binary(max_size=300))
def test_properties_of_any_bytes_are_read_and_can_be_sent_again(flags: int, data: bytes) -> None:
    read_and_sent_again(delivered(flags, data))


@given(TABLE, st.integers(-20, 20))
def test_a_table_of_any_fields_is_read_and_can_be_sent_again(table: bytes, lie: int) -> None:
    size = struct.pack(">I", max(0, len(table) + lie))
    read_and_sent_again(delivered(1 << 13, size + table))


@given(
    st.text(),
    st.dictionaries(st.text(max_size=60), st.one_of(st.text(), INTEGERS, st.text(st.characters()))),
    st.one_of(st.none(), st.integers(0, 2**64 - 1)),
)
def test_any_text_and_number_can_be_sent(
    text: str, headers: dict[str, str | int], timestamp: int | None
) -> None:
    properties = Properties(
        content_type=text, headers=headers, correlation_id=text, timestamp=timestamp
    )

    assert publish_pieces(1, text, properties, b"", frame_max=4096, exchange=text)


@given(st.lists(st.binary(max_size=400)))
def test_any_bytes_are_frames_or_no_amqp(pieces: list[bytes]) -> None:
    reader = FrameReader(max_body_bytes=100)
    try:
        for piece in pieces:
            for item in reader.feed(piece):
                assert isinstance(item, Delivery | bytes)
    except FrameError:
        pass


@given(
    st.lists(
        st.tuples(
            st.sampled_from([1, 2, 3, 8]),
            st.integers(0, 2),
            st.one_of(st.binary(max_size=60), st.just(b"\x00\x3c\x00\x3c" + bytes(30))),
        )
    ),
    st.integers(1, 70),
)
def test_frames_in_any_order_are_read_or_no_amqp(
    frames: list[tuple[int, int, bytes]], step: int
) -> None:
    data = b"".join(
        struct.pack(">BHI", kind, channel, len(payload)) + payload + b"\xce"
        for kind, channel, payload in frames
    )
    reader = FrameReader(max_body_bytes=100)
    try:
        for at in range(0, len(data), step):
            reader.feed(data[at : at + step])
    except FrameError:
        pass
