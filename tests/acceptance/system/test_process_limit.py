"""A function that uses up the process limit is killed and its caller answered; rapid goes on."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from typing import Any

import pytest

from devtools.ports import LOOPBACK
from tests.support import (
    MISBEHAVE,
    RAPID,
    Rapid,
    RawConnection,
    Server,
    wait_until,
    with_process_limit,
)

LIMIT = 25
StartLimited = Callable[..., Rapid]


@pytest.fixture
def start_limited() -> Iterator[StartLimited]:
    """Give a function that starts a rapid whose processes and threads are limited."""
    program = [*with_process_limit(LIMIT), *RAPID]
    with ExitStack() as stack:

        def start(**environ: Any) -> Rapid:
            return stack.enter_context(Rapid(MISBEHAVE, program=program, **environ))

        yield start


def is_used_up(rapid: Rapid) -> bool:
    """Whether a long request finds no thread: the function has taken what there was."""
    with RawConnection(rapid.port) as connection:
        connection.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 90000\r\n\r\n")
        connection.close_sending()
        return connection.read_answer().status == 503


def test_a_fork_bomb_is_killed_and_answered_and_the_next_call_works(
    start_limited: StartLimited,
) -> None:
    rapid = start_limited(AWS_LAMBDA_FUNCTION_TIMEOUT="2")

    bombed = rapid.do(do="fork_bomb")

    assert bombed.error_type == "Sandbox.Timedout"
    assert rapid.do(do="counter").json() == 1
    assert len(rapid.descendants()) == 1
    assert not [line for line in rapid.log if "Traceback" in line]


def test_a_call_that_needs_an_environment_meanwhile_is_answered(
    start_limited: StartLimited, pool: ThreadPoolExecutor
) -> None:
    rapid = start_limited(RAPID_MAX_CONCURRENCY="2", RAPID_DRAIN_TIMEOUT="0.1")
    with rapid.client() as connected:
        assert connected.get("/healthz").status == 200
        pool.submit(rapid.do, do="fork_bomb")
        wait_until(lambda: is_used_up(rapid), "the limit to be used up")

        assert rapid.get("/healthz").status == 200
        answer = connected.post(rapid.path, b"{}")

        assert answer.error_type == "Runtime.Unknown"
        assert "can't start new thread" in answer.json()["errorMessage"]
        assert rapid.stop() == 0


def test_a_stop_under_a_fork_bomb_is_orderly(
    start_limited: StartLimited, pool: ThreadPoolExecutor
) -> None:
    rapid = start_limited(RAPID_DRAIN_TIMEOUT="0.1")
    call = pool.submit(rapid.do, do="fork_bomb")
    wait_until(lambda: is_used_up(rapid), "the limit to be used up")

    rapid.signal(signal.SIGTERM)

    assert rapid.wait_exit() == 0
    assert call.result().status == 200
    assert rapid.descendants() == []
    assert "stopped" in rapid.log[-1]
    assert not [line for line in rapid.log if "Traceback" in line]


def test_a_limit_too_low_to_start_is_told_in_one_line() -> None:
    rapid = Rapid(MISBEHAVE, program=[*with_process_limit(3), *RAPID])
    with closing(rapid):
        rapid.start()

        assert rapid.wait_exit() == 1
        (line,) = rapid.log

    assert "cannot start: can't start new thread" in line


def test_a_server_whose_connections_find_no_thread_goes_on() -> None:
    prefix = with_process_limit(12)
    with Server(prefix=prefix, ready=False, LAMBDA_ENDPOINTS=f"f=http://{LOOPBACK}:1") as server:
        with ExitStack() as stack:
            connections = [stack.enter_context(RawConnection(server.port)) for _ in range(20)]
            for connection in connections:
                connection.send(b"GET /none HTTP/1.1\r\nHost: x\r\n\r\n")
            assert {each.read_answer().status for each in connections} == {404, 503}
            server.wait_for_log("no thread for a connection")
            assert server.get("/healthz").status == 200

        wait_until(lambda: server.get("/healthz").status == 200, "the server to serve")
        assert not [line for line in server.log if "Traceback" in line]
        assert sum("Booting worker" in line for line in server.log) == 1
