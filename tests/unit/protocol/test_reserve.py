"""Health checks and scrapes where there is no place for a connection."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from lambda_protocol.address import Address
from lambda_protocol.http1 import Request
from lambda_protocol.pace import Pace
from lambda_protocol.reserve import SIZE, Reserve
from tests.support import LIMIT_S, Client, RawConnection

REFUSAL = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
GET = b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n"

StartReserve = Callable[..., int]


def answer(request: Request) -> bytes:
    """Answer the path."""
    body = request.path.encode()
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


@pytest.fixture
def start() -> Iterator[StartReserve]:
    """Give a function that serves a listener by a reserve, and returns its port."""
    with ExitStack() as stack:

        def start(answer: Callable[[Request], bytes] = answer, **settings: Any) -> int:
            listener = stack.enter_context(Address("127.0.0.1", 0).listen())
            settings = {"pace": Pace(), "answers_block": False, **settings}
            reserve = Reserve("test", answer, REFUSAL, **settings)
            reserve.listen(listener)
            reserve.start()
            stack.callback(reserve.stop)
            return int(listener.getsockname()[1])

        yield start


@pytest.mark.parametrize("answers_block", [False, True])
def test_health_and_figures_are_answered_and_all_else_refused(
    start: StartReserve, answers_block: bool
) -> None:
    port = start(answers_block=answers_block)

    for path in ("/healthz", "/readyz", "/metrics"):
        with Client(port) as client:
            assert client.get(path).body == path.encode()
    for method, path in (("GET", "/"), ("POST", "/healthz"), ("POST", "/2015-03-31/functions/f")):
        with Client(port) as client:
            assert client.request(method, path, b"x" * 100_000).status == 503


def test_a_request_may_come_byte_by_byte(start: StartReserve) -> None:
    with RawConnection(start()) as raw:
        for byte in GET % b"/healthz":
            raw.send(bytes((byte,)))

        assert raw.read_answer().body == b"/healthz"
        assert raw.read_to_end() == b""


@pytest.mark.parametrize("data", [b"", b"GET /healthz HTTP/1.1\r\nX: "])
def test_a_peer_without_a_request_is_dropped(start: StartReserve, data: bytes) -> None:
    with RawConnection(start(pace=Pace(head_s=0.2))) as raw:
        raw.send(data)

        assert raw.read_to_end() == b""


def test_a_head_without_end_is_dropped(start: StartReserve) -> None:
    with RawConnection(start()) as raw:
        raw.send(b"x" * 16_384)

        assert raw.read_to_end() == b""


def test_of_too_many_peers_the_oldest_is_refused(start: StartReserve) -> None:
    port = start()
    with ExitStack() as stack:
        first = stack.enter_context(RawConnection(port))
        for _ in range(SIZE):
            stack.enter_context(RawConnection(port))

        assert first.read_answer().status == 503
        with Client(port) as client:
            assert client.get("/healthz").status == 200


def test_an_answer_that_is_not_read_keeps_nobody_waiting(start: StartReserve) -> None:
    def answer_much(request: Request) -> bytes:
        return b"HTTP/1.1 200 OK\r\nContent-Length: 20000000\r\n\r\n" + b"x" * 20_000_000

    port = start(answer_much)
    with RawConnection(port) as deaf, Client(port) as client:
        deaf.send(GET % b"/metrics")

        assert len(client.get("/metrics").body) == 20_000_000


def test_a_slow_answer_keeps_no_other_path_waiting(start: StartReserve) -> None:
    release = threading.Event()

    def answer_late(request: Request) -> bytes:
        if request.path == "/readyz":
            release.wait(LIMIT_S)
        return answer(request)

    port = start(answer_late, answers_block=True)
    with RawConnection(port) as slow, Client(port) as client:
        slow.send(GET % b"/readyz")

        assert client.get("/healthz").body == b"/healthz"
        release.set()
        assert slow.read_answer().body == b"/readyz"


def test_an_answer_that_fails_is_a_503(start: StartReserve) -> None:
    def fail(request: Request) -> bytes:
        raise ValueError("on purpose")

    port = start(fail)
    for _ in range(2):
        with Client(port) as client:
            assert client.get("/healthz").status == 503
