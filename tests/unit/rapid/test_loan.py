from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import cast

import pytest

from lambda_protocol.amqp_stream import AmqpStream
from lambda_protocol.poller import Poller
from rapid.broker.commands import Commands
from rapid.broker.loan import Loan
from rapid.broker.slots import HAND_BACK_AFTER_S
from tests.support import LIMIT_S

CHANNEL = 1


class Stream:
    """Stands in for the stream: each byte that comes is a call, or the end of them."""

    def __init__(self, commands: Commands) -> None:
        self.peer, self._socket = socket.socketpair()
        self._commands = commands
        self.descriptor: int | None = self._socket.fileno()
        self.timer_at = float("inf")
        self.taken_in: list[str] = []  # the threads
        self.error: Exception | None = None

    def take_messages(self, channel: int, most_bytes: int) -> bool:
        assert (channel, most_bytes) == (CHANNEL, 65_536)
        data = self._socket.recv(1)
        self.taken_in.append(threading.current_thread().name)
        if self.error is not None:
            raise self.error
        return data != b"c"

    def wait_for_wake(self, timeout_s: float) -> None:
        select.select([self._commands.wake_fd], [], [], timeout_s)

    def close(self) -> None:
        self.peer.close()
        self._socket.close()


class Lender:
    """The consumer's side of a loan."""

    def __init__(self) -> None:
        self.poller = Poller()
        self.poller.start()
        self.commands = Commands()
        self.stream = Stream(self.commands)
        self.loan = Loan(self.poller, self.commands)

    def wait(self, limit_s: float = LIMIT_S) -> float | None:
        due = time.monotonic() + limit_s
        return self.loan.wait(cast(AmqpStream, self.stream), CHANNEL, due)


@pytest.fixture
def lender() -> Iterator[Lender]:
    lender = Lender()
    yield lender
    lender.poller.stop()
    lender.stream.close()


def test_calls_are_taken_by_the_poller_until_something_else_comes(lender: Lender) -> None:
    lender.stream.peer.sendall(b"ccx")

    lender.wait()

    assert lender.stream.taken_in == ["http"] * 3
    assert lender.commands.is_woken


def test_nothing_is_taken_after_the_loan(lender: Lender) -> None:
    lender.wait(0.0)

    lender.stream.peer.sendall(b"c")
    done = threading.Event()
    lender.poller.call(done.set)
    assert done.wait(LIMIT_S)

    assert lender.stream.taken_in == []


def test_the_thread_looks_after_the_rest_soon_after_a_call(lender: Lender) -> None:
    lender.stream.peer.sendall(b"c")

    due = lender.wait()

    assert due is not None
    assert due <= time.monotonic() < due + LIMIT_S / 2
    assert not lender.commands.is_woken


def test_a_command_ends_the_loan(lender: Lender) -> None:
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(lender.wait)
        lender.commands.wake()

        assert waiting.result(LIMIT_S / 2) is not None


def test_a_timer_ends_the_loan(lender: Lender) -> None:
    lender.stream.timer_at = time.monotonic()
    until = time.monotonic() + LIMIT_S

    due = lender.wait()

    assert due is not None
    assert due >= until


def test_what_ends_the_reading_is_raised_in_the_thread(lender: Lender) -> None:
    lender.stream.error = ConnectionError("on purpose")
    lender.stream.peer.sendall(b"c")

    with pytest.raises(ConnectionError, match="on purpose"):
        lender.wait()


def test_a_socket_that_cannot_be_lent_is_not_waited_for(lender: Lender) -> None:
    lender.stream.descriptor = None

    assert lender.wait() is None


def test_no_loan_is_made_to_a_poller_that_has_ended(lender: Lender) -> None:
    lender.poller.stop()

    assert lender.wait() is None


def test_a_poller_that_ends_ends_the_loan(lender: Lender) -> None:
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(lender.wait)
        lender.stream.peer.sendall(b"c")  # so that it is lent
        lender.poller.stop()

        waiting.result(LIMIT_S / 2)

    assert HAND_BACK_AFTER_S < LIMIT_S / 2
