from __future__ import annotations

import random

import pytest

from rapid.logs.lines import MAX_LINE_BYTES, FrameParser, LineSplitter, LogMessage

TIME_US = 1_769_860_800_123_456


def frame(kind: int, text: bytes, time_us: int = TIME_US) -> bytes:
    """Return a frame as AWS's runtime clients write it."""
    head = kind.to_bytes(4, "big") + len(text).to_bytes(4, "big")
    return head + (time_us.to_bytes(8, "big") if kind & 2 else b"") + text


# --- lines


@pytest.mark.parametrize(
    ("pieces", "lines"),
    [
        ([b"one\n"], [b"one\n"]),
        ([b"one\ntwo\n"], [b"one\n", b"two\n"]),
        ([b"on", b"e\ntw", b"o\n"], [b"one\n", b"two\n"]),
        ([b"\n\n"], [b"\n", b"\n"]),
        ([b"a\rb\r\n"], [b"a\rb\r\n"]),
        ([b"\xff\x00\n"], [b"\xff\x00\n"]),
        ([b"no end"], []),
        ([b""], []),
    ],
    ids=str,
)
def test_lines_end_at_newlines_alone(pieces: list[bytes], lines: list[bytes]) -> None:
    splitter = LineSplitter()

    assert [line for piece in pieces for line in splitter.feed(piece)] == lines


def test_half_a_line_can_be_taken_as_it_is() -> None:
    splitter = LineSplitter()
    splitter.feed(b"whole\nhalf")

    assert splitter.take_rest() == [b"half"]
    assert splitter.take_rest() == []
    assert splitter.feed(b"next\n") == [b"next\n"]


@pytest.mark.parametrize("at_once", [True, False])
def test_a_long_line_is_cut_and_nothing_is_lost(at_once: bool) -> None:
    splitter = LineSplitter()
    data = b"x" * 1_000_000 + b"\nshort\n"
    pieces = [data] if at_once else [data[n : n + 65_536] for n in range(0, len(data), 65_536)]

    lines = [line for piece in pieces for line in splitter.feed(piece)]

    assert b"".join(lines) == data
    assert max(map(len, lines)) == MAX_LINE_BYTES
    assert lines[-1] == b"short\n"


def test_any_bytes_in_any_pieces_come_out_whole() -> None:
    noise = random.Random(1)
    for _ in range(200):
        data = bytes(noise.choices(b"ab\n\r\xff", k=noise.randrange(200)))
        splitter, rest, out = LineSplitter(), data, []
        while rest:
            size = noise.randrange(1, 20)
            out += splitter.feed(rest[:size])
            rest = rest[size:]
        out += splitter.take_rest()

        assert b"".join(out) == data
        assert all(line.count(b"\n") == line.endswith(b"\n") for line in out)


# --- frames


#: Frame types of AWS's runtime clients. Source: awslambdaric 4.2, lambda_runtime_log_utils.
VECTORS = [
    (0xA55A0003, None),
    (0xA55A0002, None),
    (0xA55A0007, "TRACE"),
    (0xA55A000B, "DEBUG"),
    (0xA55A000F, "INFO"),
    (0xA55A000E, "INFO"),
    (0xA55A0013, "WARN"),
    (0xA55A0017, "ERROR"),
    (0xA55A0016, "ERROR"),
    (0xA55A001B, "FATAL"),
]


@pytest.mark.parametrize(("kind", "level"), VECTORS, ids=str)
def test_a_frame_is_one_message_of_its_level(kind: int, level: str | None) -> None:
    (message,) = FrameParser().feed(frame(kind, b"first\nsecond"))

    assert message == LogMessage(b"first\nsecond", is_framed=True, level=level, time_us=TIME_US)


def test_a_frame_without_a_time_is_told_by_its_type() -> None:
    """Older clients wrote such; the class comment of the Java client still says so."""
    (message,) = FrameParser().feed(frame(0xA55A0001, b"old"))

    assert message == LogMessage(b"old", is_framed=True)


def test_frames_come_in_any_pieces() -> None:
    data = b"".join(frame(0xA55A000F, b"message %d" % number) for number in range(3))

    for size in range(1, len(data)):
        parser = FrameParser()
        pieces = [data[at : at + size] for at in range(0, len(data), size)]
        texts = [message.text for piece in pieces for message in parser.feed(piece)]
        assert texts == [b"message 0", b"message 1", b"message 2"]


def test_an_empty_message_is_a_message() -> None:
    assert FrameParser().feed(frame(0xA55A0003, b"")) == [
        LogMessage(b"", is_framed=True, time_us=TIME_US)
    ]


@pytest.mark.parametrize(
    "garbage",
    [
        b"x",
        b"plain text\n",
        b"\xa5",
        b"\xa5\x5a\x01\x00",
        b"\xa5\x5a\x00\xff\xff\xff\xff\xff",
        b"\0" * 9,
    ],
    ids=repr,
)
def test_what_is_no_frame_comes_out_as_it_is_and_the_next_frame_is_found(garbage: bytes) -> None:
    parser = FrameParser()

    messages = parser.feed(garbage + frame(0xA55A0003, b"found"))

    assert b"".join(message.text for message in messages[:-1]) == garbage
    assert not any(message.is_framed for message in messages[:-1])
    assert messages[-1].text == b"found"


def test_half_a_frame_comes_out_when_nothing_follows() -> None:
    parser = FrameParser()
    half = frame(0xA55A0003, b"never finished")[:-3]

    assert parser.feed(half) == []
    assert parser.take_rest() == [LogMessage(half)]
    assert parser.take_rest() == []


def test_no_bytes_are_lost_whatever_they_are() -> None:
    """2,000 seeded streams of frames, cut ones and noise, in random pieces."""
    noise = random.Random(7)
    for _ in range(2_000):
        parts = [
            frame(noise.choice(VECTORS)[0], noise.randbytes(noise.randrange(40)))
            if noise.random() < 0.5
            else bytes(noise.choices(b"\xa5\x5a\x00\x03\xffab\n", k=noise.randrange(24)))
            for _ in range(noise.randrange(6))
        ]
        data = b"".join(part[: noise.randrange(len(part) + 1)] for part in parts)
        parser, rest, size = FrameParser(), data, 0
        while rest:
            count = noise.randrange(1, 30)
            for message in parser.feed(rest[:count]):
                size += len(message.text)
                if message.is_framed:
                    size += 8 if message.time_us is None else 16
            rest = rest[count:]
        size += sum(len(message.text) for message in parser.take_rest())

        assert size == len(data)
