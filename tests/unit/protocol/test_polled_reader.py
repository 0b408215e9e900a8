"""Short requests out of bytes that somebody else has read."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import pytest

from lambda_protocol.http1 import Request
from lambda_protocol.http_head import BadRequestError
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


# --- a body that is wanted while it comes


class Receiver:
    """Takes a body, and says when it was waited for: ``None`` between the parts."""

    def __init__(self, most_bytes: int = 1000) -> None:
        self.most_bytes = most_bytes
        self.taken: list[bytes | None] = []
        self.patience_s: float | None = None
        self.flushed = 0
        self.on_waited: Callable[[], None] = lambda: None

    def take(self, data: bytes) -> None:
        """Keep ``data``."""
        self.taken.append(data)

    def on_wait(self) -> float | None:
        """Keep that nothing more is there; then the next bytes come."""
        self.taken.append(None)
        self.on_waited()
        return self.patience_s

    def flush(self) -> None:
        """Count it, and let the next bytes come."""
        self.flushed += 1


@pytest.fixture
def pair() -> Iterator[tuple[PolledReader, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield PolledReader(ours, max_body_bytes=10, streams=lambda request: True), theirs


def read_long(reader: PolledReader) -> Request:
    request = reader.read_long(keeps_oversize=lambda path: False)
    assert request is not None
    assert request.read_into is not None
    return request


@pytest.mark.parametrize("framing", ["Transfer-Encoding: chunked", "Content-Length: 9"])
def test_a_streamed_body_that_is_not_whole_is_left_to_a_thread(framing: str) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        reader = PolledReader(ours, max_body_bytes=10, streams=lambda request: True)
        reader.feed(memoryview(f"POST / HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n".encode()))

        with pytest.raises(NotShortError):
            reader.take_short()


def test_a_streamed_body_is_given_as_it_comes(pair: tuple[PolledReader, socket.socket]) -> None:
    reader, theirs = pair
    theirs.sendall(HEAD + b"2\r\nab\r\n3\r\ncd")
    receiver = Receiver()
    rest = iter([b"e\r\n", b"1\r\nf\r\n0\r\nX-T: 1\r\n\r\n"])
    receiver.on_waited = lambda: theirs.sendall(next(rest))

    request = read_long(reader)
    assert request.read_into is not None
    request.read_into(receiver)

    assert receiver.taken == [b"ab", b"cd", None, b"e", None, b"f"]
    assert request.trailers == {"x-t": "1"}
    assert (request.body_size, request.is_truncated) == (6, False)


def test_a_receiver_that_keeps_something_is_told_that_nothing_comes(
    pair: tuple[PolledReader, socket.socket],
) -> None:
    reader, theirs = pair
    theirs.sendall(HEAD + b"2\r\nab\r\n")
    receiver = Receiver()
    receiver.patience_s = 0.001
    receiver.flush = lambda: theirs.sendall(b"0\r\n\r\n")  # type: ignore[method-assign]

    request = read_long(reader)
    assert request.read_into is not None
    request.read_into(receiver)

    assert receiver.taken == [b"ab", None]


@pytest.mark.parametrize(
    "body", [b"5\r\nabcde\r\n1\r\nf\r\n0\r\n\r\n", b"6\r\nabcdef\r\n0\r\n\r\n"]
)
def test_a_streamed_body_that_is_too_large_is_cut(
    pair: tuple[PolledReader, socket.socket], body: bytes
) -> None:
    reader, theirs = pair
    theirs.sendall(HEAD + body)
    receiver = Receiver(most_bytes=5)

    request = read_long(reader)
    assert request.read_into is not None
    request.read_into(receiver)

    assert b"".join(filter(None, receiver.taken)) == b"abcde"
    assert (request.is_oversize, request.is_last) == (True, True)


@pytest.mark.parametrize("body", [b"2\r\na", b"2\r\nabX", b"z\r\n", b""])
def test_a_streamed_body_that_breaks_off_is_truncated(
    pair: tuple[PolledReader, socket.socket], body: bytes
) -> None:
    reader, theirs = pair
    theirs.sendall(HEAD + body)
    theirs.shutdown(socket.SHUT_WR)

    request = read_long(reader)
    assert request.read_into is not None
    request.read_into(Receiver())

    assert (request.is_truncated, request.is_last) == (True, True)


def test_a_streamed_body_with_a_length_is_given_as_it_comes(
    pair: tuple[PolledReader, socket.socket],
) -> None:
    reader, theirs = pair
    theirs.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\n" + b"a" * 15)
    receiver = Receiver()
    receiver.on_waited = lambda: theirs.sendall(b"b" * 5)

    request = read_long(reader)
    assert request.read_into is not None
    request.read_into(receiver)

    assert receiver.taken == [b"a" * 15, None, b"b" * 5]


def test_a_streamed_body_of_no_known_end_is_refused(
    pair: tuple[PolledReader, socket.socket],
) -> None:
    reader, theirs = pair
    theirs.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n")

    request = read_long(reader)
    assert request.read_into is not None
    with pytest.raises(BadRequestError):
        request.read_into(Receiver())


def test_a_peer_that_is_gone_before_it_may_send_its_body_has_truncated_it(
    pair: tuple[PolledReader, socket.socket],
) -> None:
    reader, theirs = pair
    theirs.sendall(
        b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
    )
    request = read_long(reader)
    theirs.close()

    assert request.read_into is not None
    request.read_into(Receiver())

    assert (request.is_truncated, request.is_last) == (True, True)
