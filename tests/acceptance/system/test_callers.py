"""Callers that hang up: their calls are dropped unless they have started, and no others are."""

from __future__ import annotations

import http.client
import re
import select
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pika
import pytest

from devtools.rabbitmq_node import RabbitmqNode
from tests.acceptance.system.amqp import AmqpClient
from tests.acceptance.system.conftest import Ledger
from tests.conftest import StartRapid, StartServer
from tests.support import ECHO, Rapid, RawConnection, Server, unique_name, wait_until

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
    start_server: StartServer,
    ledger: Ledger,
    pool: ThreadPoolExecutor,
    callers: Callers,
    hang_up: Callable[[RawConnection], None],
    worker: str | None,
) -> None:
    rapid = ledger.start(RAPID_MAX_CONCURRENCY=str(SLOTS))
    program: Rapid | Server = rapid
    if worker is not None:
        options = ("-k", worker, "--threads", str(CALLERS + 4))
        program = start_server(*options, LAMBDA_ENDPOINTS=rapid.endpoint)
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
    start_server: StartServer, ledger: Ledger, callers: Callers, version: str, through_server: bool
) -> None:
    rapid = ledger.start()
    program: Rapid | Server = rapid
    if through_server:
        program = start_server(LAMBDA_ENDPOINTS=rapid.endpoint)
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


# --- through the broker


def wait_for_drops(rapid: Rapid, ledger: Ledger, calls: int) -> None:
    """Wait until every call was run or dropped, and check that callers were asked.

    A call runs if there is no answer within half a second, which a busy machine may need for some.
    """
    wait_until(
        lambda: count(rapid, "abandoned") + len(ledger.lines) == calls,
        f"{calls} calls to be run or dropped",
    )
    assert count(rapid, "abandoned") >= calls // 2


def test_calls_in_the_broker_of_callers_that_hung_up_are_dropped_unless_started(
    broker_server: Server, broker: str, ledger: Ledger, pool: ThreadPoolExecutor, callers: Callers
) -> None:
    rapid = ledger.start(RAPID_AMQP_URI=broker, RAPID_MAX_CONCURRENCY=str(SLOTS))
    abandoned_before = count(broker_server, "abandoned")
    gone = callers(broker_server, request(rapid.path, ledger.held))
    ledger.wait_for(SLOTS)

    for connection in gone:
        connection.close()
    wait_until(
        lambda: count(broker_server, "abandoned") - abandoned_before == CALLERS,
        "the server to notice",
    )
    healthy = pool.submit(broker_server.invoke, rapid.function_name, "[1]")
    ledger.open()

    assert healthy.result().body == b"[1]"
    wait_for_drops(rapid, ledger, CALLERS + 1)


@pytest.fixture
def queue(amqp: AmqpClient) -> str:
    """Give the queue of a function that has no instance yet."""
    name = unique_name()
    amqp.declare(name)
    return name


@pytest.mark.parametrize("direct", [False, True], ids=["own-queue", "direct-reply-to"])
def test_calls_of_a_plain_amqp_client_that_is_gone_are_dropped(
    broker: str, amqp: AmqpClient, queue: str, ledger: Ledger, direct: bool
) -> None:
    with AmqpClient(broker, direct=direct) as gone:
        for _ in range(CALLERS):
            gone.publish(queue, b"{}", pika.BasicProperties(reply_to=gone.reply_to))
        wait_until(lambda: amqp.waiting(queue) == CALLERS, "the calls in the queue")
    rapid = ledger.start(AWS_LAMBDA_FUNCTION_NAME=queue, AMQP_URI=broker)

    wait_for_drops(rapid, ledger, CALLERS)
    assert amqp.call(queue, b"[1]").body == b"[1]"
    assert amqp.waiting(queue) == 0  # what is dropped is acknowledged


def test_calls_whose_callers_wait_are_run_however_long_they_have_waited(
    start_rapid: StartRapid,
    broker_server: Server,
    broker: str,
    amqp: AmqpClient,
    queue: str,
    callers: Callers,
) -> None:
    path = f"/2015-03-31/functions/{queue}/invocations"
    waiting = callers(broker_server, request(path, "[1]"))
    for connection in waiting[: CALLERS // 2]:
        connection.close_sending()
    amqp.publish(queue, b"[2]", pika.BasicProperties(reply_to=amqp.reply_to))
    amqp.publish(queue, b"[3]")  # nobody waits for a reply: nobody can be gone
    wait_until(lambda: amqp.waiting(queue) == CALLERS + 2, "the calls in the queue")
    rapid = start_rapid(ECHO, AWS_LAMBDA_FUNCTION_NAME=queue, RAPID_AMQP_URI=broker)

    statuses = [status_read_by_http_client(connection) for connection in waiting]

    assert statuses == [200] * CALLERS
    assert amqp.next_reply().body == b"[2]"
    wait_until(lambda: count(rapid, "success") == CALLERS + 2, "every call to be run")
    assert count(rapid, "abandoned") == 0


@pytest.mark.slow
def test_calls_of_clients_whose_broker_node_has_died_are_dropped(
    cluster: list[RabbitmqNode], ledger: Ledger
) -> None:
    a, b, _ = cluster
    name = unique_name()
    with AmqpClient(b.uri) as client, AmqpClient(a.uri, direct=True) as gone:
        client.declare(name)
        for _ in range(CALLERS):
            gone.publish(name, b"{}", pika.BasicProperties(reply_to=gone.reply_to))
        wait_until(lambda: client.waiting(name) == CALLERS, "the calls in the queue")
        a.kill()
        rapid = ledger.start(AWS_LAMBDA_FUNCTION_NAME=name, RAPID_AMQP_URI=b.uri)

        wait_for_drops(rapid, ledger, CALLERS)
        assert client.call(name, b"[1]").body == b"[1]"
    assert not any("broker not reached" in line for line in rapid.log)
