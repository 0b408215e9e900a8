"""The frame codec against pika's own: what one writes the other reads, byte for byte."""

from __future__ import annotations

import random
import struct
import tracemalloc
from typing import Any, Final, cast

import pika
import pika.frame
import pika.spec
import pytest

from lambda_protocol.amqp_frames import (
    Delivery,
    FrameError,
    FrameReader,
    Properties,
    encode_ack,
    publish_pieces,
)

FRAME_MAX = 4096  # the least that AMQP allows
#: Properties of a message, beside its headers: those that we write and read, and others.
PLAIN_PROPERTIES = (
    *("content_type", "delivery_mode", "correlation_id", "reply_to", "expiration", "timestamp"),
)
OTHER_PROPERTIES = (*("content_encoding", "message_id", "type", "user_id", "app_id", "cluster_id"),)

#: Older ones, such as Debian's in the static executable, mistake some integers' signs in a table.
_PIKA: Final[str] = pika.__version__  # type: ignore[attr-defined] # unknown to types-pika
reads_every_integer = pytest.mark.skipif(
    _PIKA.split(".")[:2] < ["1", "4"], reason="pika before 1.4 mistakes integers' signs"
)


# --- what pika says


def by_pika(data: bytes) -> list[Any]:
    """Return the frames in ``data`` as pika decodes them."""
    frames = []
    while data:
        size, frame = pika.frame.decode_frame(data)
        assert frame is not None, f"half a frame: {data[:40]!r}"
        frames.append(frame)
        data = data[size:]
    return frames


def delivery_by_pika(
    body: bytes = b"{}",
    *,
    channel: int = 1,
    tag: int = 1,
    redelivered: bool = False,
    routing_key: str = "echo",
    exchange: str = "",
    consumer_tag: str = "ctag1.x",
    properties: pika.BasicProperties | None = None,
    piece: int = FRAME_MAX - 8,
) -> bytes:
    """Return the frames of a delivery as a broker sends them, written by pika."""
    method = pika.spec.Basic.Deliver(consumer_tag, tag, redelivered, exchange, routing_key)
    frames: list[Any] = [
        pika.frame.Method(channel, method),
        pika.frame.Header(channel, len(body), properties or pika.BasicProperties()),
    ]
    frames += [
        pika.frame.Body(channel, body[start : start + piece])
        for start in range(0, len(body), piece)
    ]
    return b"".join(frame.marshal() for frame in frames)


def published(properties: Properties, body: bytes = b"", **how: Any) -> bytes:
    """Return the frames of a publish, written by us."""
    how = {"channel": 1, "queue": "q", "mandatory": False, **how}
    channel, queue = how.pop("channel"), how.pop("queue")
    return b"".join(publish_pieces(channel, queue, properties, body, frame_max=FRAME_MAX, **how))


def read_one(data: bytes) -> Delivery:
    """Return the one delivery in ``data``."""
    (got,) = FrameReader().feed(data)
    assert isinstance(got, Delivery)
    return got


def method_by_pika(method: Any, channel: int = 1) -> bytes:
    return bytes(pika.frame.Method(channel, method).marshal())


def random_properties(rng: random.Random) -> Properties:
    def text(limit: int) -> str:
        return "".join(rng.choice("aZ0-_.é\u2603\U0001f980") for _ in range(rng.randrange(limit)))

    def maybe(value: Any) -> Any:
        return value if rng.random() < 0.5 else None

    headers: dict[str, str | int] = {}
    for _ in range(rng.randrange(5)):
        value: str | int = text(40)
        if rng.random() < 0.4:
            value = rng.choice(
                [0, 1, -1, 2**31, -(2**31), 2**63 - 1, -(2**63), rng.getrandbits(40)]
            )
        headers[text(20) or "n"] = value
    return Properties(
        content_type=maybe(text(20)),
        headers=headers,
        delivery_mode=maybe(rng.choice([1, 2])),
        correlation_id=maybe(text(60)),
        reply_to=maybe(text(60)),
        expiration=maybe(str(rng.randrange(10**6))),
        timestamp=maybe(rng.randrange(2**40)),
    )


# --- what we write


@reads_every_integer
def test_a_publish_reads_the_same_by_pika() -> None:
    rng = random.Random(1)
    for _ in range(300):
        properties = random_properties(rng)
        body = rng.randbytes(rng.choice([0, 1, 4088, 4089, 8176, 10_000]))
        channel, mandatory = rng.randrange(1, 2048), rng.random() < 0.5

        data = published(properties, body, channel=channel, queue="a.queue", mandatory=mandatory)
        method, header, *bodies = by_pika(data)

        assert {frame.channel_number for frame in (method, header, *bodies)} == {channel}
        assert isinstance(method.method, pika.spec.Basic.Publish)
        assert (method.method.exchange, method.method.routing_key) == ("", "a.queue")
        assert (method.method.mandatory, method.method.immediate) == (mandatory, False)
        assert header.body_size == len(body)
        assert b"".join(frame.fragment for frame in bodies) == body
        got = header.properties
        assert (got.headers or {}) == properties.headers
        for name in PLAIN_PROPERTIES:
            assert getattr(got, name) == getattr(properties, name), name


@pytest.mark.parametrize("size", [0, 1, 4087, 4088, 4089, 8176, 8177, 100_000])
def test_no_frame_is_over_the_agreed_size(size: int) -> None:
    data = published(Properties(), bytes(size))

    at = 0
    while at < len(data):
        length = struct.unpack_from(">I", data, at + 3)[0] + 8
        assert length <= FRAME_MAX
        at += length


def test_a_large_body_is_not_copied_to_be_published() -> None:
    body = bytes(6_291_456)
    tracemalloc.start()

    pieces = publish_pieces(1, "q", Properties(), body, frame_max=131_072)

    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100_000
    method, header, *frames = by_pika(b"".join(pieces))
    assert (method.method.routing_key, header.body_size) == ("q", len(body))
    assert b"".join(frame.fragment for frame in frames) == body


def test_an_acknowledgement_is_pikas_byte_for_byte() -> None:
    for channel, tag in [(1, 1), (2047, 2**63 - 1), (65_535, 300)]:
        expected = method_by_pika(pika.spec.Basic.Ack(tag, multiple=False), channel)

        assert encode_ack(channel, tag) == expected


# --- what we read


@reads_every_integer
def test_a_delivery_by_pika_reads_the_same() -> None:
    rng = random.Random(2)
    for _ in range(300):
        sent = random_properties(rng)
        others: Any = {name: rng.choice([None, "other"]) for name in OTHER_PROPERTIES}
        body = rng.randbytes(rng.choice([0, 1, 4088, 4089, 10_000]))
        data = delivery_by_pika(
            body,
            channel=rng.randrange(1, 2048),
            tag=rng.getrandbits(63),
            redelivered=rng.random() < 0.5,
            routing_key="x" * rng.randrange(256),
            exchange="e" * rng.randrange(30),
            consumer_tag="c" * rng.randrange(256),
            properties=pika.BasicProperties(
                headers=dict(sent.headers) or None,
                priority=rng.choice([None, 9]),
                **{name: getattr(sent, name) for name in PLAIN_PROPERTIES},
                **others,
            ),
        )
        method = by_pika(data)[0]

        got = read_one(data)

        assert got.properties == sent
        assert got.body == body
        assert got.channel == method.channel_number
        assert got.delivery_tag == method.method.delivery_tag
        assert got.redelivered == method.method.redelivered
        assert got.routing_key == method.method.routing_key


def nested(depth: int) -> bytes:
    """Return a field that is a table in a table in a table."""
    field = b"t\x01"
    for _ in range(depth):
        field = b"F" + struct.pack(">I", len(field) + 2) + b"\x01n" + field
    return field


@pytest.mark.parametrize(
    ("field", "value"),
    [
        pytest.param(b"b\xfb", -5, id="int8"),
        pytest.param(b"B\xfa", 250, id="uint8"),
        pytest.param(b"s" + struct.pack(">h", -300), -300, id="int16"),
        pytest.param(b"u" + struct.pack(">H", 65_000), 65_000, id="uint16"),
        pytest.param(b"I" + struct.pack(">i", -70_000), -70_000, id="int32"),
        pytest.param(b"i" + struct.pack(">I", 4_000_000_000), 4_000_000_000, id="uint32"),
        pytest.param(b"l" + struct.pack(">q", -(2**40)), -(2**40), id="int64"),
        pytest.param(b"t\x01", 1, id="boolean"),
        pytest.param(b"S\x00\x00\x00\x02ok", "ok", id="text"),
    ],
)
@reads_every_integer
def test_a_header_is_read_as_pika_reads_it(field: bytes, value: int | str) -> None:
    data = with_table(b"\x01n" + field)

    headers = read_one(data).properties.headers

    assert headers == {"n": value} == by_pika(data)[1].properties.headers


@pytest.mark.parametrize(
    ("field", "read"),
    [
        pytest.param(b"T" + struct.pack(">Q", 1_795_305_600), {"n": 1_795_305_600}, id="time"),
        # What is of no use here is skipped.
        pytest.param(b"V", {}, id="void"),
        pytest.param(b"x\x00\x00\x00\x02ab", {}, id="bytes"),
        pytest.param(b"A\x00\x00\x00\x02t\x01", {}, id="array"),
        pytest.param(nested(3000), {}, id="tables-3000-deep"),
        pytest.param(b"D\x01\x00\x00\x00\x0f", {}, id="decimal"),
        pytest.param(b"f" + bytes(4), {}, id="float"),
        pytest.param(b"d" + bytes(8), {}, id="double"),
        pytest.param(b"L" + bytes(8), {}, id="long-of-another-kind"),
        pytest.param(b"S\x00\x00\x00\x01\xff", {}, id="no-utf-8"),
    ],
)
def test_a_header_of_another_type_is_skipped_and_the_rest_is_read(
    field: bytes, read: dict[str, int]
) -> None:
    got = read_one(with_table(b"\x01n" + field + b"\x01ab\x07"))

    assert got.properties.headers == {**read, "a": 7}


@pytest.mark.parametrize(
    "field",
    [
        pytest.param(b"Z\x00\x00", id="of-no-known-type"),
        pytest.param(b"T" + b"\xff" * 8, id="timestamp-of-no-int64"),
        pytest.param(b"S\xff\xff\xff\xffcut", id="text-longer-than-the-frame"),
        pytest.param(b"l\x00", id="number-cut-off"),
        pytest.param(b"", id="no-value"),
    ],
)
def test_a_header_that_cannot_be_read_leaves_a_message_that_can_be_sent_on(field: bytes) -> None:
    got = read_one(with_table(b"\x01ab\x07\x01n" + field))

    assert got.properties.headers["a"] == 7
    assert published(got.properties)


def test_an_id_that_is_no_utf_8_is_given_back_byte_for_byte() -> None:
    payload = struct.pack(">HHQH", 60, 0, 0, 1 << 10) + b"\x02\xff\xfe"
    header = struct.pack(">BHI", 2, 1, len(payload)) + payload + b"\xce"
    method = method_by_pika(pika.spec.Basic.Deliver("c", 1, False, "", "echo"))
    got = read_one(method + header)

    answered = Properties(correlation_id=got.properties.correlation_id)
    (reply,) = publish_pieces(1, "answers", answered, b"", frame_max=4096)

    assert b"\x02\xff\xfe" in bytes(reply)


def test_any_text_can_be_sent() -> None:
    """JSON may hold half a surrogate pair, and an error message is sent on in a header."""
    properties = Properties(correlation_id="\ud800", headers={"ErrorMessage": "a\ud800b"})

    data = published(properties)

    assert by_pika(data)[1].properties.headers == {"ErrorMessage": "a?b"}


def test_a_body_over_the_limit_is_counted_and_not_kept() -> None:
    reader = FrameReader(max_body_bytes=5000)
    data = delivery_by_pika(b"a" * 5000) + delivery_by_pika(b"b" * 5001) + delivery_by_pika(b"c")

    got = [item for item in reader.feed(data) if isinstance(item, Delivery)]

    assert [(d.body_size, len(d.body)) for d in got] == [(5000, 5000), (5001, 0), (1, 1)]


def test_a_body_of_many_frames_is_held_once_while_it_comes() -> None:
    body = bytes(range(256)) * 4000
    data = memoryview(delivery_by_pika(body, piece=100_000))
    pieces = [data[start : start + 30_000] for start in range(0, len(data), 30_000)]
    reader = FrameReader()
    tracemalloc.start()

    got = [item for piece in pieces for item in reader.feed(bytes(piece))]

    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [item.body for item in got if isinstance(item, Delivery)] == [body]
    assert peak < 1.2 * len(body)


HEADER_FRAME = pika.frame.Header(1, 2, pika.BasicProperties()).marshal()
BODY_FRAME = pika.frame.Body(1, b"ab").marshal()


@pytest.mark.parametrize(
    "frames",
    [
        pytest.param(BODY_FRAME, id="body-first"),
        pytest.param(HEADER_FRAME + HEADER_FRAME, id="two-headers"),
        pytest.param(HEADER_FRAME + pika.frame.Body(1, b"abc").marshal(), id="too-long"),
        pytest.param(b"\x02\x00\x01\x00\x00\x00\x00\xce", id="empty-header"),
        pytest.param(struct.pack(">BHI", 3, 1, 2**32 - 1) + b"x", id="endless-frame"),
    ],
)
def test_frames_that_amqp_does_not_allow_end_the_connection(frames: bytes) -> None:
    deliver = method_by_pika(pika.spec.Basic.Deliver("c", 1, False, "", "echo"))

    with pytest.raises(FrameError):
        FrameReader().feed(deliver + frames)


def with_table(entry: bytes) -> bytes:
    """Return an empty delivery whose headers are one table entry, written by hand."""
    payload = struct.pack(">HHQH", 60, 0, 0, 1 << 13) + struct.pack(">I", len(entry)) + entry
    header = struct.pack(">BHI", 2, 1, len(payload)) + payload + b"\xce"
    method = method_by_pika(pika.spec.Basic.Deliver("c", 1, False, "", "echo"))
    return method + header


# --- how it arrives


FOREIGN = [
    pytest.param(method_by_pika(pika.spec.Channel.OpenOk()), id="Channel.OpenOk"),
    pytest.param(method_by_pika(pika.spec.Basic.Ack(1)), id="Basic.Ack"),
    pytest.param(method_by_pika(pika.spec.Basic.Cancel(cast(Any, "c"))), id="Basic.Cancel"),
    pytest.param(method_by_pika(pika.spec.Connection.Close(320, "bye", 0, 0), 0), id="Close"),
    pytest.param(bytes(pika.frame.Heartbeat().marshal()), id="heartbeat"),
    pytest.param(
        method_by_pika(pika.spec.Basic.Return(312, "NO_ROUTE", "", "nobody"), 3)
        + bytes(pika.frame.Header(3, 2, pika.BasicProperties(correlation_id="c")).marshal())
        + bytes(pika.frame.Body(3, b"{}").marshal()),
        id="Basic.Return",
    ),
    pytest.param(
        method_by_pika(pika.spec.Basic.GetOk(1, False, "", "q", 0), 3)
        + bytes(pika.frame.Header(3, 1, pika.BasicProperties()).marshal())
        + bytes(pika.frame.Body(3, b"x").marshal()),
        id="Basic.GetOk",
    ),
]


@pytest.mark.parametrize("frames", FOREIGN)
def test_what_is_no_delivery_is_handed_on_byte_for_byte(frames: bytes) -> None:
    items = FrameReader().feed(frames)

    assert all(isinstance(item, bytes) for item in items)
    assert b"".join(item for item in items if isinstance(item, bytes)) == frames


def test_a_protocol_header_is_handed_on() -> None:
    """A broker that speaks another version says so with its own header, and hangs up."""
    assert FrameReader().feed(b"AMQP\x00\x01\x00\x00") == [b"AMQP\x00\x01\x00\x00"]


def conversation() -> bytes:
    """Several deliveries, foreign frames between their frames, and two channels at once."""
    first = delivery_by_pika(b"a" * 5000, channel=1, tag=1)
    second = delivery_by_pika(b"b" * 300, channel=2, tag=9)
    heartbeat = bytes(pika.frame.Heartbeat().marshal())
    ack = method_by_pika(pika.spec.Basic.Ack(4), channel=3)
    pieces_1, pieces_2 = cut_frames(first), cut_frames(second)
    mixed = [
        heartbeat,
        pieces_1[0],
        pieces_2[0],
        ack,
        pieces_1[1],
        heartbeat,
        pieces_2[1],
        pieces_1[2],
        pieces_2[2],
        pieces_1[3],
        delivery_by_pika(b"", channel=1, tag=2),
    ]
    return b"".join(mixed)


def cut_frames(data: bytes) -> list[bytes]:
    frames = []
    while data:
        size, _ = pika.frame.decode_frame(data)
        frames.append(data[:size])
        data = data[size:]
    return frames


def summary(items: list[Delivery | bytes]) -> list[object]:
    return [
        (item.channel, item.delivery_tag, item.body) if isinstance(item, Delivery) else item
        for item in items
    ]


def test_deliveries_interleaved_with_other_frames_and_channels_are_kept_apart() -> None:
    items = summary(FrameReader().feed(conversation()))

    assert [item for item in items if isinstance(item, tuple)] == [
        (2, 9, b"b" * 300),
        (1, 1, b"a" * 5000),
        (1, 2, b""),
    ]
    assert len([item for item in items if isinstance(item, bytes)]) == 3


def test_a_cut_at_any_byte_changes_nothing() -> None:
    data = conversation()
    whole = summary(FrameReader().feed(data))

    for cut in range(len(data) + 1):
        reader = FrameReader()
        assert summary(reader.feed(data[:cut]) + reader.feed(data[cut:])) == whole, cut


@pytest.mark.parametrize("step", [1, 2, 7, 8, 4095])
def test_small_pieces_change_nothing(step: int) -> None:
    data = conversation()
    reader = FrameReader()
    items: list[Delivery | bytes] = []

    for start in range(0, len(data), step):
        items += reader.feed(data[start : start + step])

    assert summary(items) == summary(FrameReader().feed(data))


def test_a_body_that_comes_in_many_small_frames_is_whole() -> None:
    body = random.Random(3).randbytes(1000)

    assert read_one(delivery_by_pika(body, piece=1)).body == body


def test_a_publish_of_ours_comes_back_as_the_same_delivery() -> None:
    """What the broker does: our publish's header and body frames behind a Basic.Deliver."""
    properties = Properties(headers={"X-Lambda-Frames": 1, "a": "b"}, correlation_id="c")
    sent = published(properties, b"x" * 9999)
    method = method_by_pika(pika.spec.Basic.Deliver("c", 1, False, "", "q"))

    got = read_one(method + b"".join(cut_frames(sent)[1:]))

    assert (got.properties, got.body) == (properties, b"x" * 9999)
