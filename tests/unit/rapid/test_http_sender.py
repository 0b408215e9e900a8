from __future__ import annotations

import queue
from collections.abc import Iterator

import pytest

from rapid.invocations import http_sender
from rapid.invocations.destinations import HttpDestination
from rapid.invocations.http_sender import HttpSender
from tests.endless import EndlessPeer
from tests.support import LIMIT_S


@pytest.fixture
def sender() -> Iterator[HttpSender]:
    sender = HttpSender()
    sender.start()
    yield sender
    assert sender.stop(LIMIT_S)


@pytest.mark.parametrize("kind", ["body", "announced body", "chunks"])
def test_a_destination_whose_answers_do_not_end_gets_every_record(
    sender: HttpSender, kind: str
) -> None:
    delivered: queue.SimpleQueue[bool] = queue.SimpleQueue()
    with EndlessPeer(kind) as peer:
        for number in range(3):
            record = b'{"n":%d}' % number
            sender.send(HttpDestination(peer.address.url), record, delivered.put)

        assert [delivered.get(timeout=LIMIT_S) for _ in range(3)] == [True] * 3
    assert [request[-7:] for request in peer.requests] == [b'{"n":%d}' % n for n in range(3)]


def test_a_destination_that_answers_a_byte_now_and_then_is_given_up(
    sender: HttpSender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_sender, "HTTP_TIMEOUT_S", 0.3)
    monkeypatch.setattr(http_sender, "HTTP_RETRY_DELAYS_S", (0.01,))
    delivered: queue.SimpleQueue[bool] = queue.SimpleQueue()
    with EndlessPeer("head", is_slow=True) as peer:
        sender.send(HttpDestination(peer.address.url), b"{}", delivered.put)

        assert not delivered.get(timeout=LIMIT_S)
    assert len(peer.requests) == 2


def test_records_that_wait_have_a_bound_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand of the largest would be some gigabytes."""
    monkeypatch.setattr(http_sender, "MAX_WAITING_BYTES", 2_500)
    delivered: queue.SimpleQueue[bool] = queue.SimpleQueue()
    sender, record = HttpSender(), b"{" + b" " * 998 + b"}"
    with EndlessPeer("body") as peer:
        destination = HttpDestination(peer.address.url)
        for _ in range(3):
            sender.send(destination, record, delivered.put)
        sender.start()

        assert [delivered.get(timeout=LIMIT_S) for _ in range(3)] == [False, True, True]
        sender.send(destination, record, delivered.put)
        assert delivered.get(timeout=LIMIT_S)
    assert sender.stop(LIMIT_S)
