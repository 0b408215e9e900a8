"""One message costs itself and nothing else: no connection, no other call, no other event."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from lambda_protocol.amqp_frames import Properties
from tests.acceptance.system.amqp import AmqpClient
from tests.acceptance.system.poison import RawPublisher, random_body, random_table, random_text
from tests.conftest import StartRapid
from tests.support import ECHO, LIMIT_S, MISBEHAVE, Answer, Rapid, wait_until

MIB = 1_048_576


@pytest.fixture
def raw_amqp(broker: str) -> Iterator[RawPublisher]:
    publisher = RawPublisher(broker)
    yield publisher
    publisher.close()


@pytest.fixture
def busy(
    start_rapid: StartRapid, broker: str, pool: ThreadPoolExecutor
) -> Iterator[Callable[[], Rapid]]:
    """Give a rapid with a call in hand that its caller gets, and one connection to the broker."""
    started: list[tuple[Rapid, Future[Answer]]] = []

    def start() -> Rapid:
        rapid = start_rapid(
            MISBEHAVE,
            RAPID_AMQP_URI=broker,
            RAPID_MAX_CONCURRENCY="2",
            RAPID_MAX_RETRY_ATTEMPTS="0",
        )
        held = pool.submit(rapid.do, do="sleep", s=2)
        gauge = f'lambda_concurrent_executions{{function_name="{rapid.function_name}"}} 1.0'
        wait_until(lambda: gauge.encode() in rapid.get("/metrics").body, "the call to run")
        started.append((rapid, held))
        return rapid

    yield start
    for rapid, held in started:
        assert held.result(LIMIT_S).status == 200
        assert rapid.get("/readyz").status == 200
        assert sum("consuming" in line for line in rapid.log) == 1


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"not json", id="no-json"),
        pytest.param(b"\xff", id="no-text"),
        pytest.param(b'"' + b"x" * 2 * MIB + b'"', id="2-MiB"),
        pytest.param(b'"' + b"x" * 30 * MIB + b'"', id="30-MiB"),
    ],
)
def test_an_event_that_cannot_be_run_is_a_dead_letter_and_costs_nothing_else(
    busy: Callable[[], Rapid], raw_amqp: RawPublisher, amqp: AmqpClient, body: bytes
) -> None:
    rapid = busy()
    dead = f"{rapid.function_name}.dead"

    raw_amqp.publish(f"{rapid.function_name}.events", body, Properties(correlation_id="\udcff"))

    wait_until(lambda: amqp.waiting(dead) == 1, "the dead letter")
    _, _, letter = amqp.channel.basic_get(dead, auto_ack=True)
    assert letter == body


def test_an_error_message_of_half_a_character_is_a_dead_letter_and_costs_nothing_else(
    busy: Callable[[], Rapid], amqp: AmqpClient
) -> None:
    """JSON can say it, and neither UTF-8 nor an AMQP header can."""
    rapid = busy()
    body = '{"errorMessage": "\\ud800", "errorType": "\\udfff"}'

    answer = rapid.invoke(
        json.dumps({"do": "raise", "type": "T", "body": body}), X_Amz_Invocation_Type="Event"
    )

    assert answer.status == 202
    wait_until(lambda: amqp.waiting(f"{rapid.function_name}.dead") == 1, "the dead letter")


@pytest.mark.parametrize("size", [6_291_457, 30 * MIB])
def test_a_call_over_the_payload_limit_is_413_to_its_caller_and_costs_nothing_else(
    busy: Callable[[], Rapid], amqp: AmqpClient, size: int
) -> None:
    rapid = busy()

    reply = amqp.call(rapid.function_name, b'"' + b"x" * (size - 2) + b'"')

    assert reply.headers["X-Lambda-Status"] == 413
    assert reply.headers["X-Lambda-Error-Type"] == "RequestEntityTooLargeException"


def test_messages_with_every_field_type_and_any_text_cost_nothing_else(
    start_rapid: StartRapid, raw_amqp: RawPublisher, amqp: AmqpClient, broker: str
) -> None:
    """One runtime and many messages: calls are handed back, too, and events wait and end."""
    rapid = start_rapid(ECHO, RAPID_AMQP_URI=broker, RAPID_MAX_RETRY_ATTEMPTS="0")
    rng = random.Random(13)
    for _ in range(400):
        queue = rapid.function_name + rng.choice(["", ".events"])
        raw_amqp.publish(queue, random_body(rng), random_text(rng), random_table(rng))
    raw_amqp.flush()

    reply = amqp.call(rapid.function_name, b"[1]")

    assert reply.body == b"[1]"
    queues = [rapid.function_name, f"{rapid.function_name}.events"]
    wait_until(lambda: not any(map(amqp.waiting, queues)), "the queues to be empty")
    assert rapid.get("/readyz").status == 200
    assert sum("consuming" in line for line in rapid.log) == 1
    assert not [line for line in rapid.log if "Traceback" in line]
