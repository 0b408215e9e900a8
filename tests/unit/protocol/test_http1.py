from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import cast

import pytest

from lambda_protocol.http1 import MAX_HEAD_BYTES, Request, RequestReader
from lambda_protocol.http_head import BadRequestError, encode_head
from lambda_protocol.pace import Pace, TooSlowError

#: Over at once, for a client that is not as quick as the test.
AT_ONCE = Pace(idle_s=0.05, head_s=0.05, grace_s=0.05, bytes_per_s=1e6)


class Wire:
    """A socket pair: what is sent at one end is read as requests at the other."""

    def __init__(self) -> None:
        self.peer, self.ours = socket.socketpair()
        self.peer.settimeout(5)
        self.set_pace(Pace(idle_s=5))

    def set_pace(self, pace: Pace) -> None:
        """Begin anew with ``pace``."""
        pace.limit_waits(self.ours)
        self.reader = RequestReader(self.ours, max_body_bytes=1000, pace=pace)

    def read(self) -> Request | None:
        request = self.reader.read_head()
        if request is not None:
            self.reader.read_body(request)
        return request

    def close(self) -> None:
        self.peer.close()
        self.ours.close()


@pytest.fixture
def wire() -> Iterator[Wire]:
    wire = Wire()
    yield wire
    wire.close()


REQUESTS = (
    b"POST /a?b=c HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
    b"PUT /d HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nT: 1\r\n\r\n"
    b"\r\nGET /e HTTP/1.0\r\n\r\n"
)


def summary(request: Request) -> object:
    return (request.method, request.path, request.query, request.body, request.is_last)


class Pieces:
    """Stands in for a socket: each ``recv`` returns one piece, the last one the end."""

    def __init__(self, data: bytes, step: int) -> None:
        self._pieces = [data[at : at + step] for at in range(0, len(data), step)]

    def recv(self, size: int) -> bytes:
        if not self._pieces:
            return b""
        piece = self._pieces[0]
        self._pieces[0] = piece[size:]
        if not self._pieces[0]:
            del self._pieces[0]
        return piece[:size]

    def recv_into(self, room: bytearray | memoryview) -> int:
        piece = self.recv(len(room))
        room[: len(piece)] = piece
        return len(piece)


@pytest.mark.parametrize("step", [1, 2, 3, 7, 64, 1000])
def test_pieces_of_any_size_are_the_same_requests(step: int) -> None:
    reader = RequestReader(cast("socket.socket", Pieces(REQUESTS, step)), max_body_bytes=1000)
    requests = []
    while (request := reader.read_head()) is not None:
        reader.read_body(request)
        requests.append(summary(request))

    assert requests == [
        ("POST", "/a", "b=c", b"hello", False),
        ("PUT", "/d", "", b"abcde", False),
        ("GET", "/e", "", b"", True),
    ]


@pytest.mark.parametrize(
    ("version", "connection", "is_last"),
    [
        ("HTTP/1.1", None, False),
        ("HTTP/1.1", "keep-alive", False),
        ("HTTP/1.1", "Close", True),
        ("HTTP/1.1", "TE, close", True),
        ("HTTP/1.1", "close,keep-alive", True),
        ("HTTP/1.1", "xclose", False),
        ("HTTP/1.1", "upgrade", False),
        ("HTTP/1.0", "x-keep-alive", True),
        ("HTTP/1.0", None, True),
        ("HTTP/1.0", "keep-alive", False),
        ("HTTP/1.0", "close", True),
    ],
)
def test_who_wants_the_connection_closed(
    wire: Wire, version: str, connection: str | None, is_last: bool
) -> None:
    header = f"Connection: {connection}\r\n" if connection else ""
    wire.peer.sendall(f"GET / {version}\r\nHost: x\r\n{header}\r\n".encode())

    request = wire.read()

    assert request is not None
    assert request.is_last is is_last


def test_the_size_of_a_body_is_known_even_if_it_is_not_kept(wire: Wire) -> None:
    wire.peer.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1001\r\n\r\n" + b"x" * 1001)

    request = wire.read()

    assert request is not None
    assert (request.is_oversize, request.body, request.body_size) == (True, b"", 1001)


@pytest.mark.parametrize("coding", ["sized", "chunked"])
def test_a_body_that_is_too_large_is_kept_where_it_is_wanted(wire: Wire, coding: str) -> None:
    body = bytes(range(256)) * 8
    if coding == "sized":
        framing, sent = f"Content-Length: {len(body)}", body
    else:
        framing = "Transfer-Encoding: chunked"
        sent = b"400\r\n" + body[:1024] + b"\r\n400\r\n" + body[1024:] + b"\r\n0\r\n\r\n"
    wire.peer.sendall(f"POST / HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n".encode() + sent)

    request = wire.reader.read_head()
    assert request is not None
    wire.reader.read_body(request, keeps_oversize=True)

    assert (request.is_oversize, request.body, request.body_size) == (True, body, 2048)


def test_a_silent_connection_is_taken_for_closed_where_nobody_waits_forever(wire: Wire) -> None:
    wire.set_pace(AT_ONCE)

    assert wire.read() is None


@pytest.mark.parametrize(
    "half",
    [b"GET / HT", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhe"],
    ids=["head", "body"],
)
def test_a_request_that_stalls_is_a_408(wire: Wire, half: bytes) -> None:
    wire.peer.sendall(half)
    wire.set_pace(AT_ONCE)

    with pytest.raises(BadRequestError) as caught:
        wire.read()
    assert caught.value.status == 408


def test_a_peer_that_closes_in_its_head_sends_no_request(wire: Wire) -> None:
    wire.peer.sendall(b"GET / HTTP/1.1\r\nHost")
    wire.peer.close()

    assert wire.read() is None


def test_one_requests_headers_are_not_the_next_ones(wire: Wire) -> None:
    wire.peer.sendall(
        b"GET / HTTP/1.1\r\nHost: x\r\nX-A: 1\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\nX-B: 1\r\n\r\n"
    )

    first, second = wire.read(), wire.read()

    assert first is not None
    assert second is not None
    assert (dict(first.headers), dict(second.headers)) == (
        {"host": "x", "x-a": "1"},
        {"host": "x", "x-b": "1"},
    )


def test_a_head_without_an_end_is_refused_at_its_limit(wire: Wire) -> None:
    sender = threading.Thread(target=send_all, args=(wire.peer, b"x" * 2 * MAX_HEAD_BYTES))
    sender.start()

    with pytest.raises(BadRequestError) as caught:
        wire.read()
    wire.ours.close()
    sender.join()

    assert caught.value.status == 431


def send_all(peer: socket.socket, data: bytes) -> None:
    with contextlib.suppress(OSError):  # the reader has closed
        peer.sendall(data)


# --- slow peers


@pytest.mark.parametrize(
    ("head", "drop"),
    [
        pytest.param(b"", b"G", id="head"),
        pytest.param(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\n", b"x", id="body"),
        pytest.param(
            b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"1\r\nx\r\n",
            id="chunks",
        ),
        pytest.param(
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n\r\n", b"x", id="oversize"
        ),
    ],
)
def test_a_request_that_trickles_is_a_408(wire: Wire, head: bytes, drop: bytes) -> None:
    """Each wait alone is shorter than any limit."""
    wire.set_pace(Pace(head_s=0.2, grace_s=0.2, bytes_per_s=10_000))
    wire.peer.sendall(head)
    over = threading.Event()

    def trickle() -> None:
        with contextlib.suppress(OSError):
            while not over.wait(0.02):
                wire.peer.sendall(drop)

    trickler = threading.Thread(target=trickle)
    trickler.start()
    try:
        with pytest.raises(BadRequestError) as caught:
            wire.read()
    finally:
        over.set()
        trickler.join()

    assert caught.value.status == 408


def test_a_body_at_the_least_rate_has_all_the_time_it_needs(wire: Wire) -> None:
    """Longer than the grace."""
    wire.set_pace(Pace(grace_s=1.0, bytes_per_s=100, pause_s=20))
    wire.peer.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 800\r\n\r\n")
    pause = threading.Event()

    def send_pieces() -> None:
        for _ in range(8):
            wire.peer.sendall(b"x" * 100)
            pause.wait(0.25)

    sender = threading.Thread(target=send_pieces)
    sender.start()
    request = wire.read()
    sender.join()

    assert request is not None
    assert len(request.body) == 800


def test_a_body_without_a_least_rate_may_pause(wire: Wire) -> None:
    wire.set_pace(Pace(grace_s=0.05, bytes_per_s=0, pause_s=0.05))
    wire.peer.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nx")
    late = threading.Timer(0.5, wire.peer.sendall, (b"y",))
    late.start()

    request = wire.read()

    late.join()
    assert request is not None
    assert request.body == b"xy"


def test_much_at_first_buys_no_long_pause(wire: Wire) -> None:
    wire.set_pace(Pace(grace_s=0.1, bytes_per_s=1, pause_s=0.1))  # 900 bytes are good for 15 min
    wire.peer.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 901\r\n\r\n" + b"x" * 900)

    with pytest.raises(BadRequestError) as caught:
        wire.read()
    assert caught.value.status == 408


def test_an_idle_connection_may_stay_longer_than_a_head(wire: Wire) -> None:
    wire.set_pace(Pace(idle_s=20, head_s=0.05))
    late = threading.Timer(0.3, wire.peer.sendall, (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",))
    late.start()

    request = wire.read()

    late.join()
    assert request is not None


@pytest.mark.parametrize("timeout_s", [None, 5.0], ids=["blocking", "as-tls"])
def test_an_answer_that_is_not_read_ends(wire: Wire, timeout_s: float | None) -> None:
    pace = Pace(grace_s=0.2, bytes_per_s=1e9)
    wire.ours.settimeout(timeout_s)
    pace.limit_waits(wire.ours)

    with pytest.raises(TooSlowError):
        pace.send(wire.ours, b"x" * 10_000_000)


@pytest.mark.parametrize("timeout_s", [None, 5.0], ids=["blocking", "as-tls"])
def test_an_answer_that_is_read_at_the_least_rate_arrives(
    wire: Wire, timeout_s: float | None
) -> None:
    pace = Pace(grace_s=2.0, bytes_per_s=100_000, pause_s=20)
    wire.ours.settimeout(timeout_s)
    pace.limit_waits(wire.ours)
    data = bytes(range(256)) * 10_000
    received = bytearray()

    def read_slowly() -> None:
        while len(received) < len(data):
            received.extend(wire.peer.recv(65_536))
            time.sleep(0.01)

    reader = threading.Thread(target=read_slowly)
    reader.start()
    pace.send(wire.ours, data)
    reader.join()

    assert received == data


@pytest.mark.parametrize("value", ["a\r\nb: c", "a\nb", "a\rb", "a\0b", "\u2603"], ids=ascii)
def test_a_response_has_no_header_that_is_two_or_none(value: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the head of a response has one way to be wrong
        encode_head(["HTTP/1.1 200 OK", f"X: {value}"])
