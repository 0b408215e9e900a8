"""An exchange with a peer that does not end, or not in time, ends all the same."""

from __future__ import annotations

import http.client
import socket
import tracemalloc
from collections.abc import Iterator

import pytest

from devtools.ports import LOOPBACK
from lambda_protocol.address import Address
from lambda_protocol.http_client import AnswerTooLargeError, BoundedConnection
from tests.endless import ENDLESS, WITHOUT_BODY, EndlessPeer
from tests.support import LIMIT_S


@pytest.fixture(params=ENDLESS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def allocations() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


def ask(peer: EndlessPeer, limit_s: float) -> BoundedConnection:
    connection = BoundedConnection(peer.address)
    connection.begin(limit_s)
    connection.request("POST", "/", b"{}")
    return connection


def test_an_answer_without_end_is_too_large(kind: str, allocations: None) -> None:
    with EndlessPeer(kind) as peer:
        connection = ask(peer, LIMIT_S)

        with pytest.raises(http.client.HTTPException) as caught:
            connection.read_answer(100_000)
        connection.close()

    if kind not in WITHOUT_BODY and kind != "trailers":
        assert isinstance(caught.value, AnswerTooLargeError)
    assert tracemalloc.get_traced_memory()[1] < 2_000_000


def test_of_an_answer_without_end_the_status_is_known(kind: str, allocations: None) -> None:
    with EndlessPeer(kind) as peer:
        connection = ask(peer, LIMIT_S)

        if kind in WITHOUT_BODY:
            with pytest.raises(http.client.HTTPException):
                connection.read_status()
        else:
            assert connection.read_status() == 200
            assert connection.sock is None  # the rest is not the next answer
        connection.close()

    assert tracemalloc.get_traced_memory()[1] < 2_000_000


def test_an_answer_of_a_byte_now_and_then_is_over_its_time(kind: str) -> None:
    with EndlessPeer(kind, is_slow=True) as peer:
        connection = ask(peer, 0.5)

        with pytest.raises(TimeoutError):
            connection.read_answer(100_000)
        connection.close()


def test_a_peer_that_does_not_read_is_given_up() -> None:
    with socket.create_server((LOOPBACK, 0)) as listener:
        connection = BoundedConnection(Address(LOOPBACK, listener.getsockname()[1]))
        connection.begin(0.2)

        with pytest.raises(TimeoutError):
            connection.send(b"x" * 50_000_000)
        connection.close()
