"""Short requests out of bytes that somebody else has read."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from lambda_protocol.polled_reader import NotShortError, PolledReader

HEAD = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture
def reader() -> Iterator[PolledReader]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield PolledReader(ours, max_body_bytes=1000)


def test_a_chunked_body_in_two_pieces_is_taken(reader: PolledReader) -> None:
    reader.feed(memoryview(HEAD + b"2\r\n"))
    assert reader.take_short() is None

    reader.feed(memoryview(b"ab\r\n0\r\n\r\n"))

    request = reader.take_short()
    assert request is not None
    assert (request.body, reader.in_hand) == (b"ab", 0)


def test_a_body_of_many_chunks_is_left_to_a_thread(reader: PolledReader) -> None:
    reader.feed(memoryview(HEAD + 100 * b"1\r\nx\r\n" + b"0\r\n\r\n"))

    with pytest.raises(NotShortError):
        reader.take_short()
    assert reader.in_hand == len(HEAD) + 605


def test_a_chunked_body_in_many_pieces_is_left_to_a_thread(reader: PolledReader) -> None:
    """Each look parses all of it anew."""
    reader.feed(memoryview(HEAD))

    for _ in range(3):
        assert reader.take_short() is None
        reader.feed(memoryview(b"1\r\nx\r\n"))

    with pytest.raises(NotShortError):
        reader.take_short()
    assert reader.in_hand == len(HEAD) + 18  # nothing of it is taken
