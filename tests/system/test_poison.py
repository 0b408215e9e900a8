"""One message costs itself and nothing else: no connection, no other call, no other event."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from lambda_protocol.amqp_connection import AmqpConnection, connection_parameters
from lambda_protocol.amqp_frames import Properties, encode_publish
from lambda_protocol.environ import BrokerAddress
from tests.conftest import StartRapid
from tests.support import ECHO, LIMIT_S, MISBEHAVE, Answer, Rapid, wait_until
from tests.system.amqp import AmqpClient

MIB = 1_048_576


class RawPublisher:
    """Publishes what no client library would: any bytes as text, any field type in headers."""

    def __init__(self, uri: str) -> None:
        parameters = connection_parameters(BrokerAddress(uri=uri), name="test")
        self._connection = AmqpConnection(parameters, lambda _delivery: None)
        self._channel = self._connection.open_channel()
        self._connection.call(self._channel, "confirm_delivery", ack_nack_callback=self._confirm)
        self._unconfirmed = 0

    def _confirm(self, _frame: object) -> None:
        self._unconfirmed -= 1

    def publish(
        self, queue: str, body: bytes, properties: Properties, table: bytes | None = None
    ) -> None:
        """Publish; ``table`` replaces the headers, written field by field."""
        frames = encode_publish(
            self._channel.channel_number, queue, properties, body, frame_max=131_072
        )
        if table is not None:
            frames = _with_table(frames, table)
        self._connection.send(frames)

    def close(self) -> None:
        self._connection.shut_down()


def _with_table(frames: bytes, table: bytes) -> bytes:
    """Put ``table`` into the content header of a publish whose headers are one integer field."""
    old = struct.pack(">I", 11) + b"\x01xl" + struct.pack(">q", 0)
    at = frames.index(old)
    new = struct.pack(">I", len(table)) + table
    method_end = 8 + struct.unpack_from(">I", frames, 3)[0]
    size = struct.unpack_from(">I", frames, method_end + 3)[0] + len(new) - len(old)
    patched = frames[: method_end + 3] + struct.pack(">I", size) + frames[method_end + 7 : at]
    return patched + new + frames[at + len(old) :]


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
        raw_amqp.publish(queue, random_body(rng), random_text(rng, queue), random_table(rng))

    reply = amqp.call(rapid.function_name, b"[1]")

    assert reply.body == b"[1]"
    queues = [rapid.function_name, f"{rapid.function_name}.events"]
    wait_until(lambda: not any(map(amqp.waiting, queues)), "the queues to be empty")
    assert rapid.get("/readyz").status == 200
    assert sum("consuming" in line for line in rapid.log) == 1
    assert not [line for line in rapid.log if "Traceback" in line]


def random_body(rng: random.Random) -> bytes:
    return rng.choice([b"", b"{}", b"[1]", b"\xff\xfe", b"not json", b'"\\ud800"', b"[" * 50_000])


def random_text(rng: random.Random, reply_to: str) -> Properties:
    def text() -> str | None:
        data = rng.randbytes(rng.randrange(256))
        return rng.choice([None, "", data.decode(errors="surrogateescape")])

    return Properties(
        content_type=text(),
        headers={"x": 0},  # the place of the table
        correlation_id=text(),
        reply_to=rng.choice([None, "nowhere", "amq.rabbitmq.reply-to.g2dk", text()]),
        timestamp=rng.choice([None, 0, 2**63, 2**64 - 1]),
    )


NAMES = (
    b"X-Amz-Client-Context",
    b"X-Amz-Tenant-Id",
    b"X-Amz-Function-Qualifier",
    b"X-Amzn-Trace-Id",
    b"X-Lambda-Frames",
    b"X-Lambda-Attempt",
    b"X-Lambda-First-Queued-Ms",
    b"X-Lambda-Backoffs",
    b"\xff\xfe",
    b"",
)


def random_table(rng: random.Random) -> bytes:
    """Return fields of every type that RabbitMQ knows. Source: AMQP 0-9-1 Errata, RabbitMQ."""
    fields = b""
    for _ in range(rng.randrange(6)):
        name = rng.choice(NAMES)
        kind, width = rng.choice(
            [
                *((b"t", 1), (b"b", 1), (b"B", 1), (b"s", 2), (b"u", 2), (b"I", 4), (b"i", 4)),
                *((b"l", 8), (b"T", 8), (b"f", 4), (b"d", 8), (b"D", 5), (b"V", 0)),
                *((b"S", None), (b"x", None), (b"A", None), (b"F", None)),
            ]
        )
        if width is None:
            data = rng.randbytes(rng.randrange(60)) if kind in b"Sx" else b""
            value = struct.pack(">I", len(data)) + data
        else:
            value = rng.choice([bytes(width), b"\xff" * width, b"\x7f" + b"\xff" * width])[:width]
        fields += bytes((len(name),)) + name + kind + value
    return fields
