from __future__ import annotations

import contextlib
import errno
import json
import select
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

import pytest

from devtools.ports import free_ports
from lambda_protocol.address import Address
from lambda_protocol.pace import Pace
from lambda_protocol.poller import Poller
from rapid.exchange import JSON, Exchange, Headers
from rapid.http_service.service import Handler, HttpService
from tests.support import LIMIT_S, Client, RawConnection, wait_until

MIB = 1_048_576
LIMIT = 100_000


def render_error(status: int, message: str) -> tuple[Headers, bytes]:
    return JSON, json.dumps({"status": status, "message": message}).encode()


def describe(exchange: Exchange) -> None:
    """Answer what was understood of the request."""
    request = exchange.request
    told = {
        "method": request.method,
        "path": request.path,
        "query": request.query,
        "headers": request.headers,
        "size": len(request.body),
        "body": request.body[:100].decode("latin-1"),
        "trailers": request.trailers,
        "oversize": request.is_oversize,
        "truncated": request.is_truncated,
    }
    exchange.answer(200, JSON, json.dumps(told).encode())


@dataclass
class Parked:
    """A handler that keeps every exchange, for the test to answer."""

    minds_disconnects: bool = True
    exchanges: list[Exchange] = field(default_factory=list)
    gone: list[Exchange] = field(default_factory=list)

    def __call__(self, exchange: Exchange) -> None:
        if self.minds_disconnects:
            exchange.on_disconnect = lambda: self.gone.append(exchange)
        self.exchanges.append(exchange)

    def wait(self, count: int) -> list[Exchange]:
        wait_until(lambda: len(self.exchanges) >= count, f"{count} requests")
        return self.exchanges


class Serve(Protocol):
    """Starts a service for the length of the test."""

    def __call__(self, handler: Handler, **settings: Any) -> HttpService: ...


@pytest.fixture
def serve(poller: Poller) -> Iterator[Serve]:
    services: list[HttpService] = []

    def start(handler: Handler, **settings: Any) -> HttpService:
        service = HttpService(
            Address("127.0.0.1", 0),
            handler,
            name="test",
            poller=poller,
            max_body_bytes=LIMIT,
            needs_host=False,
            render_error=render_error,
            **settings,
        )
        services.append(service)
        service.start()
        return service

    yield start
    for service in services:
        service.stop()


@pytest.fixture
def raw(serve: Serve) -> Iterator[RawConnection]:
    """Give a raw connection to a service that answers what it understood."""
    with RawConnection(serve(describe).port) as connection:
        yield connection


# --- requests


def test_method_path_query_headers_and_body_are_told_apart(serve: Serve) -> None:
    with Client(serve(describe).port) as client:
        told = client.request("PUT", "/a%20b?c=%64&e", b"body", {"X-Thing": "Värde"}).json()

    assert told["method"] == "PUT"
    assert (told["path"], told["query"]) == ("/a%20b", "c=%64&e")
    assert told["headers"]["x-thing"] == "Värde"
    assert told["body"] == "body"


def test_pipelined_bodies_are_kept_apart(raw: RawConnection) -> None:
    raw.send(
        b"POST /1 HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc"
        b"POST /2 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nde\r\n0\r\n\r\n"
        b"GET /3 HTTP/1.1\r\n\r\n"
    )

    told = [raw.read_answer().json() for _ in range(3)]

    assert [(one["path"], one["body"]) for one in told] == [("/1", "abc"), ("/2", "de"), ("/3", "")]


def test_nothing_may_come_behind_a_parked_request(serve: Serve) -> None:
    parked = Parked()
    with RawConnection(serve(parked).port) as raw:
        raw.send(b"GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\n")

        assert raw.read_to_end() == b""

    assert parked.gone == parked.exchanges


def test_a_pipelined_request_waits_for_the_answer_before_it(serve: Serve) -> None:
    parked = Parked(minds_disconnects=False)
    with RawConnection(serve(parked).port) as raw:
        raw.send(b"GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\n")
        (first,) = parked.wait(1)

        first.answer(200, (), b"first")
        second = parked.wait(2)[1]
        second.answer(200, (), b"second")

        assert [raw.read_answer().body, raw.read_answer().body] == [b"first", b"second"]


def test_an_empty_line_before_a_request_is_passed_over(raw: RawConnection) -> None:
    raw.send(b"\r\nGET /x HTTP/1.1\r\n\r\n")

    assert raw.read_answer().json()["path"] == "/x"


def test_the_same_header_twice_is_joined(raw: RawConnection) -> None:
    raw.send(b"GET / HTTP/1.1\r\nX-A: 1\r\nx-a: 2\r\n\r\n")

    assert raw.read_answer().json()["headers"]["x-a"] == "1,2"


def test_a_header_of_1_mib_is_taken(raw: RawConnection) -> None:
    raw.send(b"GET / HTTP/1.1\r\nX-Cause: " + b"c" * MIB + b"\r\n\r\n")

    assert len(raw.read_answer().json()["headers"]["x-cause"]) == MIB


def test_chunked_bodies_are_joined_and_their_trailers_read(raw: RawConnection) -> None:
    raw.send(
        b"POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n"
        b"4;ext=1\r\nwiki\r\n05\r\npedia\r\nA\r\n0123456789\r\n0\r\nX-T: after\r\n\r\n"
        b"GET /next HTTP/1.1\r\n\r\n"
    )

    told = raw.read_answer().json()
    assert told["body"] == "wikipedia0123456789"
    assert told["trailers"] == {"x-t": "after"}
    assert "x-t" not in told["headers"]
    assert raw.read_answer().json()["path"] == "/next"


def test_expect_100_continue_with_the_body_already_here_needs_no_interim_answer(
    raw: RawConnection,
) -> None:
    raw.send(b"POST / HTTP/1.1\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\nbody")

    assert raw.read_answer().status == 200


@pytest.mark.parametrize("size", [0, 1, LIMIT - 1, LIMIT])
def test_a_body_up_to_the_limit_is_whole(serve: Serve, size: int) -> None:
    with Client(serve(describe).port) as client:
        told = client.post("/", b"x" * size).json()

    assert (told["size"], told["oversize"]) == (size, False)


@pytest.mark.parametrize("size", [LIMIT + 1, 5 * MIB])
def test_an_oversize_body_is_thrown_away_and_the_connection_kept(serve: Serve, size: int) -> None:
    with Client(serve(describe).port) as client:
        told = client.post("/", b"x" * size).json()
        port = client.local_port

        assert (told["size"], told["oversize"]) == (0, True)
        assert client.get("/after").json()["path"] == "/after"
        assert client.local_port == port


@pytest.mark.parametrize(
    "request_bytes",
    [
        pytest.param(b"POST / HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n", id="sized"),
        pytest.param(
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n7fffffff\r\n", id="chunked"
        ),
    ],
)
def test_a_body_not_worth_throwing_away_is_oversize_and_the_connection_closed(
    raw: RawConnection, request_bytes: bytes
) -> None:
    raw.send(request_bytes)

    answer = raw.read_answer()

    assert answer.json()["oversize"] is True
    assert answer.headers["Connection"] == "close"


def test_an_oversize_chunked_body_is_thrown_away_and_the_connection_kept(
    raw: RawConnection,
) -> None:
    chunk = b"8000\r\n" + b"x" * 0x8000 + b"\r\n"
    raw.send(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk * 4 + b"0\r\n\r\n")
    told = raw.read_answer().json()
    raw.send(b"GET /after HTTP/1.1\r\n\r\n")

    assert told["oversize"] is True
    assert raw.read_answer().json()["path"] == "/after"


@pytest.mark.parametrize(
    "request_bytes",
    [
        pytest.param(b"POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\nhalf", id="sized"),
        pytest.param(
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nha", id="in-a-chunk"
        ),
        pytest.param(
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nha\r\n", id="between-chunks"
        ),
    ],
)
def test_a_body_that_ends_early_is_truncated(raw: RawConnection, request_bytes: bytes) -> None:
    raw.send(request_bytes)
    raw.close_sending()

    answer = raw.read_answer()

    assert answer.json()["truncated"] is True
    assert answer.headers["Connection"] == "close"


@pytest.mark.parametrize(
    "chunks",
    [
        pytest.param(b"xyz\r\n", id="no-size"),
        pytest.param(b"0\r\nno colon\r\n\r\n", id="malformed-trailer"),
    ],
)
def test_a_body_whose_chunks_are_broken_is_truncated(raw: RawConnection, chunks: bytes) -> None:
    """The handler has to hear of it: a runtime's broken answer ends its invocation."""
    raw.send(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks)

    answer = raw.read_answer()

    assert answer.json()["truncated"] is True
    assert answer.headers["Connection"] == "close"


# --- what is no request


@pytest.mark.parametrize(
    "trailers",
    [
        pytest.param(b"X: y\r\n" * 600, id="many"),
        pytest.param(b"".join(b"X-%d: " % n + b"y" * MIB + b"\r\n" for n in range(3)), id="large"),
    ],
)
def test_trailers_have_the_limits_of_headers(raw: RawConnection, trailers: bytes) -> None:
    raw.send(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + trailers)

    assert raw.read_answer().status == 431


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        pytest.param(b"HELO world\r\n\r\n", 400, id="no-http"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400, id="tls"),
        pytest.param(b"GET / HTTP/2.0\r\n\r\n", 505, id="http-2"),
        pytest.param(
            b"POST / HTTP/1.1\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n",
            413,
            id="endless-length",
        ),
        pytest.param(b"BREW / HTTP/1.1\r\n\r\n", 501, id="unknown-method"),
        pytest.param(
            b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: 1\r\n" % n for n in range(600)) + b"\r\n",
            431,
            id="600-headers",
        ),
        pytest.param(b"GET / HTTP/1.1\r\nX: " + b"x" * 3 * MIB, 431, id="3-mib-header"),
    ],
)
def test_bytes_that_are_no_request_are_refused_and_the_connection_closed(
    raw: RawConnection, request_bytes: bytes, status: int
) -> None:
    raw.send(request_bytes)

    answer = raw.read_answer()

    assert (answer.status, answer.json()["status"]) == (status, status)
    assert answer.headers["Connection"] == "close"
    raw.close_sending()
    assert raw.read_to_end() == b""


def test_a_handler_that_fails_is_a_500_and_the_connection_is_kept(serve: Serve) -> None:
    def fail(exchange: Exchange) -> None:
        if exchange.request.path == "/fail":
            raise ZeroDivisionError
        describe(exchange)

    with Client(serve(fail).port) as client:
        assert client.get("/fail").status == 500
        assert client.get("/").status == 200


def test_an_answer_whose_headers_cannot_be_sent_is_502_and_nothing_of_it_is(serve: Serve) -> None:
    def answer(exchange: Exchange) -> None:
        exchange.answer(200, (("X-Amz-Executed-Version", "1\r\nX-Split: y"),), b"secret")

    with Client(serve(answer).port) as client:
        response = client.get("/")

        assert (response.status, b"secret" in response.body) == (502, False)
        assert "X-Split" not in response.headers
        assert client.get("/").status == 502  # on the same connection


# --- answers


def test_a_204_has_neither_body_nor_length(serve: Serve) -> None:
    with RawConnection(serve(lambda exchange: _ignore(exchange.answer(204))).port) as raw:
        raw.send(b"GET / HTTP/1.1\r\n\r\n")

        assert raw.read_until(b"\r\n\r\n") == b"HTTP/1.1 204 No Content\r\n\r\n"


def _ignore(_result: object) -> None:
    """Drop a result that a handler has no use for."""


def test_header_names_go_out_as_they_were_written(serve: Serve) -> None:
    def answer(exchange: Exchange) -> None:
        exchange.answer(200, [("x-amzn-RequestId", "1"), ("Lambda-Runtime-Trace-Id", "2")])

    with RawConnection(serve(answer).port) as raw:
        raw.send(b"GET / HTTP/1.1\r\n\r\n")
        head = raw.read_until(b"\r\n\r\n")

    assert b"\r\nx-amzn-RequestId: 1\r\nLambda-Runtime-Trace-Id: 2\r\n" in head


@pytest.mark.parametrize(
    "request_bytes",
    [
        pytest.param(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n", id="close"),
        pytest.param(b"GET / HTTP/1.1\r\nconnection: Close\r\n\r\n", id="any-case"),
        pytest.param(b"GET / HTTP/1.0\r\n\r\n", id="http-1.0"),
    ],
)
def test_a_client_that_wants_it_closed_gets_the_answer_and_the_end(
    raw: RawConnection, request_bytes: bytes
) -> None:
    raw.send(request_bytes)

    assert raw.read_answer().status == 200
    assert raw.read_to_end() == b""


def test_another_thread_may_answer(serve: Serve) -> None:
    parked = Parked()
    with Client(serve(parked).port) as client:
        thread = threading.Thread(
            target=lambda: parked.wait(1)[0].answer(200, (), b"from elsewhere")
        )
        thread.start()

        assert client.get("/").body == b"from elsewhere"
        thread.join()


@pytest.mark.usefixtures("switching")
def test_of_many_answers_the_first_one_counts(serve: Serve) -> None:
    parked = Parked()
    with RawConnection(serve(parked).port) as raw:
        for count in range(1, 51):
            raw.send(b"GET / HTTP/1.1\r\n\r\n")
            exchange = parked.wait(count)[-1]

            with ThreadPoolExecutor(4) as pool:
                answers = [pool.submit(exchange.answer, 200, (), b"x") for _ in range(4)]
            raw.read_answer()

            assert sorted(answer.result() for answer in answers) == [False, False, False, True]


def test_a_slow_reader_does_not_hold_up_whoever_answers(serve: Serve) -> None:
    parked = Parked()
    body = b"x" * (24 * MIB)  # more than both sockets' buffers take
    with RawConnection(serve(parked).port) as raw:
        raw.send(b"GET / HTTP/1.1\r\n\r\n")
        (exchange,) = parked.wait(1)

        exchange.answer(200, (), body)

        assert raw.read_answer().body == body


def test_a_slow_readers_next_request_is_served_after_the_whole_answer(serve: Serve) -> None:
    body = b"x" * (16 * MIB)

    def answer(exchange: Exchange) -> None:
        exchange.answer(200, (), body if exchange.request.path == "/big" else b"small")

    with RawConnection(serve(answer).port) as raw:
        raw.send(b"GET /big HTTP/1.1\r\n\r\nGET /small HTTP/1.1\r\n\r\n")

        assert raw.read_answer().body == body
        assert raw.read_answer().body == b"small"


def test_large_answers_need_no_new_thread(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    body = b"x" * (16 * MIB)
    parked = Parked()
    service = serve(parked)
    with RawConnection(service.port) as one, RawConnection(service.port) as two:
        one.send(b"GET / HTTP/1.1\r\n\r\n")
        two.send(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
        exchanges = parked.wait(2)
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", no_thread)

            assert all(exchange.answer(200, (), body) for exchange in exchanges)

            assert two.read_answer().body == body  # one takes nothing, and holds nobody up
        assert one.read_answer().body == body


def test_a_large_answer_that_ends_the_connection_is_whole(serve: Serve) -> None:
    body = b"x" * (16 * MIB)
    with RawConnection(serve(lambda exchange: answer_with(exchange, body)).port) as raw:
        raw.send(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")

        assert raw.read_answer().body == body


def answer_with(exchange: Exchange, body: bytes) -> None:
    exchange.answer(200, (), body)


def test_a_stop_waits_until_an_answer_was_taken(serve: Serve) -> None:
    body = b"x" * (16 * MIB)
    parked = Parked()
    service = serve(parked)
    with RawConnection(service.port) as raw:
        raw.send(b"GET / HTTP/1.1\r\n\r\n")
        parked.wait(1)[0].answer(200, (), body)
        stop = threading.Thread(target=service.stop, args=(LIMIT_S,))
        stop.start()

        assert raw.read_answer().body == body

    stop.join(LIMIT_S)
    assert not stop.is_alive()


@pytest.mark.parametrize("is_reset", [False, True], ids=["closed", "reset"])
def test_a_peer_that_leaves_while_parked_is_noticed(serve: Serve, is_reset: bool) -> None:
    parked = Parked()
    raw = RawConnection(serve(parked).port)
    raw.send(b"GET / HTTP/1.1\r\n\r\n")
    (exchange,) = parked.wait(1)

    if is_reset:
        linger = (1).to_bytes(4, "little") + (0).to_bytes(4, "little")
        raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    raw.close()

    wait_until(lambda: parked.gone == [exchange], "the disconnect to be told")


def test_a_peer_that_leaves_after_its_answer_is_nobodys_business(serve: Serve) -> None:
    parked = Parked()
    service = serve(parked)
    with RawConnection(service.port) as raw:
        raw.send(b"GET / HTTP/1.1\r\n\r\n")
        parked.wait(1)[0].answer(200)
        raw.read_answer()

    wait_until(lambda: service.places.taken == 0, "the connection to end")
    assert parked.gone == []


def test_an_answer_to_a_peer_that_is_gone_is_false(serve: Serve) -> None:
    parked = Parked()
    service = serve(parked)
    with RawConnection(service.port) as raw:
        raw.send(b"GET / HTTP/1.1\r\n\r\n")
        (exchange,) = parked.wait(1)
    wait_until(lambda: parked.gone, "the disconnect to be told")
    wait_until(lambda: service.places.taken == 0, "the connection to end")

    assert exchange.answer(200, (), b"too late") is False


# --- slow peers

HURRIED = Pace(head_s=0.5, grace_s=0.5, bytes_per_s=1e6)


@pytest.mark.parametrize("begin", [b"", b"POST / HTTP/1.1\r\nContent-Length: 90000\r\n\r\n"])
def test_a_request_that_trickles_is_408_and_its_connection_ends(serve: Serve, begin: bytes) -> None:
    service = serve(describe, pace=HURRIED)
    with RawConnection(service.port) as raw:
        raw.send(begin)
        with contextlib.suppress(ConnectionError):
            while not select.select([raw.socket], [], [], 0.05)[0]:
                raw.send(b"x")

        assert raw.read_answer().status == 408
        assert raw.read_to_end() == b""
    wait_until(lambda: service.places.taken == 0, "the connection to end")


def test_an_answer_that_is_not_read_ends_its_connection(serve: Serve) -> None:
    def answer(exchange: Exchange) -> None:
        exchange.answer(200, (), b"x" * 20 * MIB)

    big = serve(answer, pace=HURRIED)
    with RawConnection(big.port) as raw:
        raw.send(b"GET / HTTP/1.1\r\n\r\n")
        wait_until(lambda: big.places.taken == 1, "the connection")

        wait_until(lambda: big.places.taken == 0, "the connection to end")


def test_an_idle_connection_may_stay(serve: Serve) -> None:
    with RawConnection(serve(describe, pace=HURRIED).port) as raw:
        for pause_s in (0.0, 1.2):
            assert not select.select([raw.socket], [], [], pause_s)[0]
            raw.send(b"GET / HTTP/1.1\r\n\r\n")
            assert raw.read_answer().status == 200


# --- the listener


def test_a_connection_too_many_is_503_and_closed(serve: Serve) -> None:
    service = serve(describe, max_connections=2)
    with RawConnection(service.port) as one, RawConnection(service.port) as two:
        for connection in (one, two):
            connection.send(b"GET / HTTP/1.1\r\n\r\n")
            connection.read_answer()

        with RawConnection(service.port) as third:
            assert third.read_answer().status == 503
            assert third.read_to_end() == b""


def test_a_connections_place_is_free_again_after_it(serve: Serve) -> None:
    service = serve(describe, max_connections=1)
    for _ in range(5):
        with RawConnection(service.port) as connection:
            connection.send(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
            assert connection.read_answer().status == 200
            connection.read_to_end()
        wait_until(lambda: service.places.taken == 0, "the place to be free")


def test_short_requests_need_no_thread(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    service = serve(describe)
    monkeypatch.setattr(threading.Thread, "start", no_thread)
    with Client(service.port) as client:
        assert client.get("/").status == 200
        assert client.post("/", b"x" * 16_000).json()["size"] == 16_000
    with RawConnection(service.port) as raw:
        raw.send(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nwiki\r\n")
        raw.send(b"5\r\npedia\r\n0\r\n\r\n")
        assert raw.read_answer().json()["body"] == "wikipedia"


def test_a_connection_that_cannot_be_served_loses_no_place(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = serve(describe, max_connections=1)
    with monkeypatch.context() as patched:
        patched.setattr(Poller, "watch", lambda *_: 1 / 0)
        with RawConnection(service.port) as connection:
            assert connection.read_to_end() == b""
    wait_until(lambda: service.places.taken == 0, "the place to be free")

    with Client(service.port) as client:
        assert client.get("/").status == 200


def test_a_long_request_without_a_thread_is_503_and_loses_no_place(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = serve(describe, max_connections=1)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", no_thread)
        with RawConnection(service.port) as connection:
            connection.send(b"POST / HTTP/1.1\r\nContent-Length: 90000\r\n\r\n")
            assert connection.read_answer().status == 503
            assert connection.read_to_end() == b""
    wait_until(lambda: service.places.taken == 0, "the place to be free")

    with RawConnection(service.port) as connection:
        connection.send(b"GET / HTTP/1.1\r\n\r\n")
        assert connection.read_answer().status == 200


def test_without_a_descriptor_a_connection_is_503(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = serve(describe)
    accept = service.socket.accept
    failures = [OSError(errno.EMFILE, "Too many open files")]

    class Exhausted:
        """Stands in for the listener: it fails once, for want of a descriptor."""

        def accept(self) -> object:
            if failures:
                raise failures.pop()
            return accept()

        def __getattr__(self, name: str) -> object:
            return getattr(listener, name)

    listener = service.socket
    monkeypatch.setattr(service, "socket", Exhausted())
    with RawConnection(service.port) as connection:
        assert connection.read_answer().status == 503
        assert connection.read_to_end() == b""

    with RawConnection(service.port) as connection:
        connection.send(b"GET / HTTP/1.1\r\n\r\n")
        assert connection.read_answer().status == 200


def test_health_is_answered_where_there_is_no_place(serve: Serve) -> None:
    (port,) = free_ports(1)
    health = Address("127.0.0.1", port)
    service = serve(describe, max_connections=1, has_health=True, health_port=health)
    with Client(service.port) as client:
        assert client.get("/").status == 200

        for each in (service.port, port):
            for path, status in (("/healthz", 200), ("/metrics", 200), ("/", 503)):
                with Client(each) as other:
                    assert other.get(path).status == status
    wait_until(lambda: service.places.taken == 0, "the place to be free")
    with Client(service.port) as client:
        assert client.get("/").status == 200


def no_thread(_thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_a_port_that_is_taken_raises(serve: Serve, poller: Poller) -> None:
    service = serve(describe)

    with pytest.raises(OSError, match="in use"):
        HttpService(
            Address("127.0.0.1", service.port),
            describe,
            name="second",
            poller=poller,
            max_body_bytes=1,
            render_error=render_error,
        )


def test_a_stopped_service_takes_no_connection_and_keeps_those_it_has(serve: Serve) -> None:
    service = serve(describe)
    with RawConnection(service.port) as raw:
        raw.send(b"GET /1 HTTP/1.1\r\n\r\n")
        raw.read_answer()

        service.stop()
        service.stop()

        raw.send(b"GET /2 HTTP/1.1\r\n\r\n")
        assert raw.read_answer().json()["path"] == "/2"
        with pytest.raises(ConnectionRefusedError):
            RawConnection(service.port)


def test_a_client_that_pipelines_lets_others_go_first(serve: Serve) -> None:
    served: list[str] = []
    has_sent = threading.Event()

    def handle(exchange: Exchange) -> None:
        if exchange.request.path == "/0":
            assert has_sent.wait(LIMIT_S)  # so that both have sent when the first turn ends
        served.append(exchange.request.path)
        exchange.answer(200)

    service = serve(handle)
    with RawConnection(service.port) as many, RawConnection(service.port) as one:
        one.send(b"GET /first HTTP/1.1\r\n\r\n")
        assert one.read_answer().status == 200  # so it is the poller's
        many.send(b"".join(b"GET /%d HTTP/1.1\r\n\r\n" % number for number in range(100)))
        one.send(b"GET /other HTTP/1.1\r\n\r\n")
        has_sent.set()

        assert one.read_answer().status == 200
        assert [many.read_answer().status for _ in range(100)] == [200] * 100
    assert served.index("/other") <= 3
    numbers = [path for path in served if path not in ("/first", "/other")]
    assert numbers == [f"/{n}" for n in range(100)]


def test_requests_of_many_connections_are_served_at_once(serve: Serve) -> None:
    parked = Parked()
    service = serve(parked)
    connections = [RawConnection(service.port) for _ in range(64)]
    for connection in connections:
        connection.send(b"GET / HTTP/1.1\r\n\r\n")

    for exchange in list(parked.wait(64)):
        exchange.answer(200, (), b"x")

    assert [connection.read_answer().body for connection in connections] == [b"x"] * 64
    for connection in connections:
        connection.close()
