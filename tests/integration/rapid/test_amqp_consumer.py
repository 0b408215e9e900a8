"""rapid as a consumer of its function's queue: a real rapid, a real broker, a plain client."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pika
import pytest

from tests.acceptance.system.amqp import DIRECT_REPLY_TO, AmqpClient
from tests.conftest import StartRapid
from tests.support import ECHO, MISBEHAVE, Rapid, running_now, unique_name, wait_until

Start = Callable[..., Rapid]


@pytest.fixture
def start(start_rapid: StartRapid, broker: str) -> Start:
    """Give a function that starts a rapid over the broker."""

    def start(runtime: str = ECHO, **settings: Any) -> Rapid:
        return start_rapid(runtime, RAPID_AMQP_URI=broker, **settings)

    return start


@pytest.fixture
def caller(broker: str) -> Iterator[AmqpClient]:
    """Give a plain client of AMQP-RPC with direct reply-to."""
    with AmqpClient(broker, direct=True) as caller:
        yield caller


def do(**event: Any) -> bytes:
    return json.dumps(event).encode()


def send(caller: AmqpClient, queue: str, body: bytes) -> None:
    """Send a call, and do not wait for its reply."""
    caller.publish(queue, body, pika.BasicProperties(reply_to=caller.reply_to))


# --- plain clients


def test_a_plain_client_gets_the_payload_alone(start: Start, caller: AmqpClient) -> None:
    rapid = start()

    reply = caller.call(rapid.function_name, b'{"a": 1}', correlation_id="mine")

    assert reply.body == b'{"a": 1}'
    assert reply.properties.correlation_id == "mine"
    assert reply.properties.content_type == "application/json"
    assert reply.headers == {"X-Lambda-Status": 200, "X-Amz-Executed-Version": "$LATEST"}


def test_a_call_is_acknowledged_with_its_reply(start: Start, caller: AmqpClient) -> None:
    rapid = start()
    caller.call(rapid.function_name)

    rapid.stop()

    assert caller.waiting(rapid.function_name) == 0


def test_a_client_without_reply_to_is_served_too(start: Start, caller: AmqpClient) -> None:
    rapid = start(MISBEHAVE)

    caller.publish(rapid.function_name)

    assert caller.call(rapid.function_name, do(do="counter")).body == b"2"


@pytest.mark.parametrize(
    "reply_to",
    [
        "no-such-queue",
        "",
        "x" * 255,
        # RabbitMQ closes the connection of whoever publishes to one of these.
        f"{DIRECT_REPLY_TO}.g1.nonsense",
        f"{DIRECT_REPLY_TO}.Zm9v.YmFy",
        f"{DIRECT_REPLY_TO}.g2dkABByYWJiaXRAMTI3LjAuMC4x.YWJj",
    ],
    ids=lambda text: text[-12:],
)
def test_a_reply_that_nobody_can_get_harms_nobody(
    start: Start, caller: AmqpClient, reply_to: str
) -> None:
    rapid = start()

    caller.publish(rapid.function_name, b"1", pika.BasicProperties(reply_to=reply_to))

    assert caller.call(rapid.function_name, b"2").body == b"2"
    assert sum("consuming" in line for line in rapid.log) == 1


def test_a_reply_queue_of_the_clients_own_is_used(start: Start, broker: str) -> None:
    rapid = start()

    with AmqpClient(broker) as caller:
        assert caller.call(rapid.function_name, b"7").body == b"7"


def test_a_header_that_cannot_be_passed_on_is_refused(start: Start, caller: AmqpClient) -> None:
    rapid = start()

    reply = caller.call(rapid.function_name, headers={"X-Amz-Tenant-Id": "a\r\nX-Evil: 1"})

    assert reply.headers["X-Lambda-Status"] == 400
    assert reply.headers["X-Lambda-Error-Type"] == "ValidationException"
    assert caller.call(rapid.function_name, b"1").body == b"1"


def test_a_long_call_is_announced_to_a_client_that_understands_it(
    start: Start, caller: AmqpClient
) -> None:
    rapid = start(MISBEHAVE, AWS_LAMBDA_FUNCTION_TIMEOUT="10")

    first = caller.call(rapid.function_name, do(do="sleep", s=1.3), headers={"X-Lambda-Frames": 1})
    last = caller.next_reply()

    assert (first.headers["X-Lambda-Frame"], first.body) == ("started", b"")
    assert 8_000 < first.headers["X-Lambda-Answered-Within-Ms"] <= 9_500
    assert "X-Lambda-Frame" not in last.headers
    assert json.loads(last.body) == {"do": "sleep", "s": 1.3}


# --- who takes what


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
def test_calls_wait_in_the_broker_for_an_instance(
    start: Start, caller: AmqpClient, queue_type: str
) -> None:
    """So a function can be scaled to nothing, and wake up for the first call."""
    settings = {"AWS_LAMBDA_FUNCTION_NAME": unique_name(), "RAPID_AMQP_QUEUE_TYPE": queue_type}
    first = start(**settings)
    first.stop()
    send(caller, first.function_name, b"1")

    start(**settings)

    assert caller.next_reply().body == b"1"


def test_an_instance_takes_no_more_than_it_can_run(start: Start, caller: AmqpClient) -> None:
    rapid = start(MISBEHAVE, RAPID_MAX_CONCURRENCY="2")
    for _ in range(6):
        send(caller, rapid.function_name, do(do="sleep", s=1))

    wait_until(lambda: caller.waiting(rapid.function_name) == 4, "four to stay in the broker")

    for _ in range(6):
        caller.next_reply()


def test_a_stop_hands_back_what_has_not_started(start: Start, caller: AmqpClient) -> None:
    name = unique_name()
    first = start(MISBEHAVE, AWS_LAMBDA_FUNCTION_NAME=name)
    for count in range(4):
        send(caller, name, do(do="sleep", s=0.5, n=count))
    wait_until(lambda: caller.waiting(name) == 3, "the first call to be taken")

    code = first.stop()
    start(MISBEHAVE, AWS_LAMBDA_FUNCTION_NAME=name)

    assert code == 0
    assert sorted(json.loads(caller.next_reply().body)["n"] for _ in range(4)) == [0, 1, 2, 3]


@pytest.mark.parametrize(("redelivery", "status"), [("fail", 500), ("retry", 200)])
def test_a_call_whose_instance_died_is_run_again_only_where_that_is_wanted(
    start: Start, caller: AmqpClient, redelivery: str, status: int
) -> None:
    settings = {"AWS_LAMBDA_FUNCTION_NAME": unique_name(), "RAPID_SYNC_REDELIVERY": redelivery}
    first = start(MISBEHAVE, **settings)
    send(caller, first.function_name, do(do="sleep", s=1))
    wait_until(lambda: running_now(first) == 1, "the call to run")

    first.signal(signal.SIGKILL)
    start(MISBEHAVE, **settings)

    assert caller.next_reply().headers["X-Lambda-Status"] == status


# --- the queue


def test_a_queue_of_other_properties_is_named_in_the_log(start: Start, caller: AmqpClient) -> None:
    name = unique_name()
    caller.channel.queue_declare(name, durable=False, auto_delete=True)

    rapid = start(ready=False, AWS_LAMBDA_FUNCTION_NAME=name)

    line = rapid.wait_for_log("RabbitMQ refuses what rapid wants")
    assert f"queue.declare queue='{name}' durable=True" in line
    assert "inequivalent arg 'durable'" in line
    assert "delete the queue" in line
    refused = "RabbitMQ refuses: PRECONDITION_FAILED"
    wait_until(
        lambda: rapid.get("/readyz").json()["status"].startswith(refused), "the reason at /readyz"
    )


def test_a_deleted_queue_is_declared_again(start: Start, caller: AmqpClient) -> None:
    rapid = start()

    caller.delete(rapid.function_name)
    rapid.wait_for_log("consuming", count=2)

    assert caller.call(rapid.function_name, b"1").body == b"1"


def test_without_its_broker_a_rapid_serves_http_and_is_not_ready(start_rapid: StartRapid) -> None:
    rapid = start_rapid(ECHO, ready=False, RAPID_AMQP_URI="amqp://127.0.0.1:1")

    assert rapid.invoke(b"1").body == b"1"
    assert rapid.get("/readyz").status == 503
    assert rapid.stop() == 0


def test_the_brokers_password_is_not_logged(start: Start, broker: str) -> None:
    rapid = start(RAPID_LOG_LEVEL="trace")
    rapid.invoke()
    rapid.stop()

    password = broker.rpartition("@")[0].rpartition(":")[2]
    assert f":{password}@" not in "\n".join(rapid.log)
