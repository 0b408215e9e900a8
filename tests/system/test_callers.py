"""Callers that hang up: their calls are dropped unless they have started, and no others are."""

from __future__ import annotations

import http.client
import re
import select
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from scripts.ports import LOOPBACK
from tests.conftest import StartRapid, StartServer
from tests.support import Rapid, RawConnection, Server, wait_until
from tests.system.conftest import LEDGER, Ledger

SLOTS = 2
CALLERS = 20


def request(path: str, event: str, version: str = "1.1") -> bytes:
    """Return a call as a client of this version of HTTP sends it."""
    return (
        f"POST {path} HTTP/{version}\r\nHost: x\r\nContent-Length: {len(event)}\r\n\r\n{event}"
    ).encode()


def count(program: Rapid | Server, outcome: str) -> int:
    """Return how many invocations the program's metrics count under an outcome."""
    text = program.get("/metrics").body.decode()
    found = re.findall(rf'lambda_invocations_total{{.*outcome="{outcome}".*}} (\d+)', text)
    return sum(map(int, found))


def reset(connection: RawConnection) -> None:
    """Hang up by a reset, as a process that is killed with data unread."""
    linger = (1).to_bytes(4, "little") + (0).to_bytes(4, "little")
    connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    connection.close()


def status_read_by_http_client(connection: RawConnection) -> int:
    response = http.client.HTTPResponse(connection.socket)
    response.begin()
    return response.status


@pytest.fixture
def callers() -> Iterator[Callable[[Rapid | Server, bytes], list[RawConnection]]]:
    """Give a factory: callers that have sent a request each, and wait."""
    with ExitStack() as stack:

        def call(program: Rapid | Server, data: bytes) -> list[RawConnection]:
            connections = [stack.enter_context(program.raw()) for _ in range(CALLERS)]
            for connection in connections:
                connection.send(data)
            return connections

        yield call


Callers = Callable[[Rapid | Server, bytes], list[RawConnection]]


# --- rapid's own port, and a Lambda Server before it


@pytest.mark.parametrize("worker", [None, "lambda_server.worker.ConnectionWorker", "gthread"])
@pytest.mark.parametrize("hang_up", [RawConnection.close, reset], ids=["closed", "reset"])
def test_calls_of_callers_that_hung_up_are_dropped_unless_started(
    start_rapid: StartRapid,
    start_server: StartServer,
    ledger: Ledger,
    pool: ThreadPoolExecutor,
    callers: Callers,
    hang_up: Callable[[RawConnection], None],
    worker: str | None,
) -> None:
    rapid = start_rapid(LEDGER, RAPID_MAX_CONCURRENCY=str(SLOTS), **ledger.environ)
    program: Rapid | Server = rapid
    if worker is not None:
        endpoints = f"{rapid.function_name}=http://{LOOPBACK}:{rapid.port}"
        program = start_server(
            *("-k", worker, "--threads", str(CALLERS + 4)), LAMBDA_ENDPOINTS=endpoints
        )
    gone = callers(program, request(rapid.path, ledger.held))
    ledger.wait_for(SLOTS)

    for connection in gone:
        hang_up(connection)
    healthy = pool.submit(rapid.invoke, "[1]")
    wait_until(lambda: count(rapid, "abandoned") == CALLERS - SLOTS, "the calls to be dropped")
    ledger.open()

    assert healthy.result().body == b"[1]"
    assert len(ledger.lines) == SLOTS + 1
    wait_until(lambda: count(rapid, "success") == SLOTS + 1, "the started calls to end")
    assert count(program, "abandoned") == (CALLERS - SLOTS if worker is None else CALLERS)


@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize("through_server", [False, True], ids=["direct", "server"])
def test_a_caller_that_closed_only_its_sending_side_gets_its_answer(
    start_rapid: StartRapid,
    start_server: StartServer,
    ledger: Ledger,
    callers: Callers,
    version: str,
    through_server: bool,
) -> None:
    rapid = start_rapid(LEDGER, **ledger.environ)
    program: Rapid | Server = rapid
    if through_server:
        endpoints = f"{rapid.function_name}=http://{LOOPBACK}:{rapid.port}"
        program = start_server(LAMBDA_ENDPOINTS=endpoints)
    connections = callers(program, request(rapid.path, ledger.held, version))
    ledger.wait_for(1)

    for connection in connections:
        connection.close_sending()
    if version == "1.1":  # it knows interim responses; a rapid sends none once a call has started
        sockets = [connection.socket for connection in connections]
        asked = CALLERS if through_server else CALLERS - 1
        wait_until(lambda: len(select.select(sockets, [], [], 0)[0]) == asked, "interim responses")
    ledger.open()
    statuses = [status_read_by_http_client(connection) for connection in connections]

    assert statuses == [200] * CALLERS
    assert count(rapid, "abandoned") == count(program, "abandoned") == 0
