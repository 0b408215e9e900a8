"""rapid as a consumer of its function's queue: a real rapid, a real broker, a plain client."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Iterator
from typing import Any, cast

import pika
import pika.exceptions
import pytest

from tests.conftest import StartRapid
from tests.support import ECHO, LIMIT_S, MISBEHAVE, Rapid, unique_name, wait_until

DIRECT = "amq.rabbitmq.reply-to"


class Reply:
    """A reply as a plain AMQP-RPC client sees it."""

    def __init__(self, properties: pika.BasicProperties, body: bytes) -> None:
        self.correlation_id = properties.correlation_id
        self.headers: dict[str, Any] = dict(properties.headers or {})
        self.content_type = properties.content_type
        self.body = body

    def json(self) -> Any:
        return json.loads(self.body)


class Caller:
    """A plain AMQP-RPC client with direct reply-to. One thread."""

    def __init__(self, uri: str) -> None:
        self.connection = pika.BlockingConnection(pika.URLParameters(uri))
        self.channel = self.connection.channel()
        self.replies: list[Reply] = []
        self.returned: list[str] = []
        on_return = cast(Any, self._on_return)  # the stubs have its arguments wrong
        self.channel.add_on_return_callback(on_return)
        self.channel.basic_consume(
            DIRECT,
            lambda _channel, _method, properties, body: self.replies.append(
                Reply(properties, body)
            ),
            auto_ack=True,
        )

    def _on_return(self, _channel: object, method: Any, _properties: object, _body: bytes) -> None:
        self.returned.append(method.reply_text)

    def send(
        self,
        queue: str,
        body: bytes = b"{}",
        *,
        reply_to: str | None = DIRECT,
        **headers: Any,
    ) -> str:
        correlation_id = str(uuid.uuid4())
        self.channel.basic_publish(
            "",
            queue,
            body,
            pika.BasicProperties(
                correlation_id=correlation_id,
                reply_to=reply_to,
                headers=cast(Any, {name.replace("_", "-"): v for name, v in headers.items()}),
            ),
            mandatory=True,
        )
        return correlation_id

    def wait(self, count: int = 1, limit_s: float = LIMIT_S) -> list[Reply]:
        def has_come() -> bool:
            self.connection.process_data_events(cast(int, 0.02))
            return len(self.replies) >= count or bool(self.returned)

        wait_until(has_come, f"{count} replies", limit_s)
        assert not self.returned, self.returned
        return self.replies

    def call(self, queue: str, body: bytes = b"{}", **headers: Any) -> Reply:
        correlation_id = self.send(queue, body, **headers)
        reply = self.wait(len(self.replies) + 1)[-1]
        assert reply.correlation_id == correlation_id
        return reply

    def waiting(self, queue: str) -> int:
        """Return how many messages of ``queue`` are with no consumer."""
        return self.channel.queue_declare(queue, passive=True).method.message_count or 0

    def close(self) -> None:
        if self.connection.is_open:
            self.connection.close()


@pytest.fixture
def caller(broker: str) -> Iterator[Caller]:
    caller = Caller(broker)
    yield caller
    caller.close()


def start(start_rapid: StartRapid, broker: str, runtime: str = ECHO, **environ: Any) -> Rapid:
    return start_rapid(runtime, RAPID_AMQP_URI=broker, **environ)


def do(**event: Any) -> bytes:
    return json.dumps(event).encode()


# --- plain clients


def test_a_plain_client_gets_the_payload_alone(
    start_rapid: StartRapid, broker: str, caller: Caller
) -> None:
    rapid = start(start_rapid, broker)

    reply = caller.call(rapid.function_name, b'{"a": 1}')

    assert reply.body == b'{"a": 1}'
    assert reply.content_type == "application/json"
    assert reply.headers == {"X-Lambda-Status": 200, "X-Amz-Executed-Version": "$LATEST"}


def test_an_empty_call_reaches_the_function_as_an_empty_object(
    start_rapid: StartRapid, broker: str, caller: Caller
) -> None:
    rapid = start(start_rapid, broker)

    assert caller.call(rapid.function_name, b"").body == b"{}"


def test_a_call_is_acknowledged_with_its_reply(
    start_rapid: StartRapid, broker: str, caller: Caller
) -> None:
    rapid = start(start_rapid, broker)
    caller.call(rapid.function_name)

    rapid.stop()

    assert caller.waiting(rapid.function_name) == 0


def test_a_client_without_reply_to_is_served_too(
    start_rapid: StartRapid, broker: str, caller: Caller
) -> None:
    rapid = start(start_rapid, broker, MISBEHAVE)

    caller.send(rapid.function_name, reply_to=None)

    assert caller.call(rapid.function_name, do(do="counter")).body == b"2"


def test_a_reply_queue_of_the_clients_own_is_used(
    start_rapid: StartRapid, broker: str, caller: Caller
) -> None:
    rapid = start(start_rapid, broker)
    own = caller.channel.queue_declare("", exclusive=True).method.queue
    caller.channel.basic_consume(
        own, lambda _c, _m, properties, body: caller.replies.append(Reply(properties, body)),
        auto_ack=True,
    )  # fmt: skip

    caller.send(rapid.function_name, b"7", reply_to=own)

    assert caller.wait()[0].body == b"7"


@pytest.mark.parametrize("reply_to", ["no-such-queue", "", "x" * 255, f"{DIRECT}.g1.nonsense"])
def test_a_reply_that_nobody_can_get_harms_nobody(
    start_rapid: StartRapid, broker: str, caller: Caller, reply_to: str
) -> None:
    rapid = start(start_rapid, broker)

    caller.send(rapid.function_name, b"1", reply_to=reply_to)

    assert caller.call(rapid.function_name, b"2").body == b"2"


@pytest.mark.parametrize(
    "made_up", ["g1.nonsense", "Zm9v.YmFy", "g2dkABByYWJiaXRAMTI3LjAuMC4x.YWJj"]
)
def test_a_made_up_direct_reply_address_costs_nobody_the_connection(
    start_rapid: StartRapid, broker: str, caller: Caller, made_up: str
) -> None:
    """RabbitMQ closes the connection of whoever publishes to one."""
    rapid = start(start_rapid, broker)

    caller.send(rapid.function_name, b"1", reply_to=f"{DIRECT}.{made_up}")

    assert caller.call(rapid.function_name, b"2").body == b"2"
    assert sum("consuming" in line for line in rapid.log) == 1


def test_large_payloads_pass_both_ways(
    start_rapid: StartRapid, broker: str, caller: Caller
) -> None:
    rapid = start(start_rapid, broker)
    body = b'"' + b"x" * 6_000_000 + b'"'

    assert caller.call(rapid.function_name, body).body == body


def test_headers_reach_the_function(start_rapid: StartRapid, broker: str, caller: Caller) -> None:
    rapid = start(start_rapid, broker, MISBEHAVE)
    context = base64.b64encode(b'{"custom":{"k":"v"}}').decode()

    reply = caller.call(
        rapid.function_name,
        do(do="headers"),
        X_Amz_Client_Context=context,
        X_Amzn_Trace_Id="Root=1-7",
        X_Amz_Tenant_Id="t",
        X_Amz_Function_Qualifier="v1",
    )

    headers = dict(reply.json()["headers"])
    assert headers["Lambda-Runtime-Client-Context"] == '{"custom": {"k": "v"}}'
    assert headers["Lambda-Runtime-Trace-Id"] == "Root=1-7"
    assert headers["Lambda-Runtime-Aws-Tenant-Id"] == "t"
    assert headers["Lambda-Runtime-Invoked-Function-Arn"].endswith(":v1")


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("X_Amz_Client_Context", "!", "InvalidRequestContentException"),
        ("X_Amz_Tenant_Id", "a\r\nX-Evil: 1", "ValidationException"),
        ("X_Amz_Tenant_Id", "snow\u2603", "ValidationException"),
        ("X_Amz_Function_Qualifier", "\u2603", "ValidationException"),
    ],
)
def test_a_header_that_cannot_be_passed_on_is_refused(
    start_rapid: StartRapid, broker: str, caller: Caller, name: str, value: str, code: str
) -> None:
    rapid = start(start_rapid, broker)

    reply = caller.call(rapid.function_name, b"{}", **{name: value})

    assert reply.headers["X-Lambda-Status"] == 400
    assert reply.headers["X-Lambda-Error-Type"] == code
    assert caller.call(rapid.function_name, b"1").body == b"1"


def test_a_functions_failure_is_told_in_a_header(
    start_rapid: StartRapid, broker: str, caller: Caller
) -> None:
    rapid = start(start_rapid, broker, MISBEHAVE)

    reply = caller.call(rapid.function_name, do(do="exit", code=9))

    assert reply.headers["X-Amz-Function-Error"] == "Unhandled"
    assert "exit status 9" in reply.json()["errorMessage"]


def test_a_log_tail_is_a_header(start_rapid: StartRapid, broker: str, caller: Caller) -> None:
    rapid = start(start_rapid, broker)

    reply = caller.call(rapid.function_name, X_Amz_Log_Type="Tail")

    assert b"REPORT RequestId" in base64.b64decode(reply.headers["X-Amz-Log-Result"])


# --- frames


def test_a_long_call_is_announced_to_a_client_that_understands_it(
    start_rapid: StartRapid, broker: str, caller: Caller
) -> None:
    rapid = start(start_rapid, broker, MISBEHAVE, AWS_LAMBDA_FUNCTION_TIMEOUT="10")

    caller.send(rapid.function_name, do(do="sleep", s=1.3), X_Lambda_Frames=1)
    first, last = caller.wait(2)

    assert (first.headers["X-Lambda-Frame"], first.body) == ("started", b"")
    assert 8_000 < first.headers["X-Lambda-Answered-Within-Ms"] <= 9_500
    assert "X-Lambda-Frame" not in last.headers
    assert last.json() == {"do": "sleep", "s": 1.3}


def test_a_long_call_of_a_plain_client_has_one_reply(
    start_rapid: StartRapid, broker: str, caller: Caller
) -> None:
    rapid = start(start_rapid, broker, MISBEHAVE)

    reply = caller.call(rapid.function_name, do(do="sleep", s=1.3))

    assert reply.json() == {"do": "sleep", "s": 1.3}


# --- who takes what


def test_calls_wait_in_the_broker_for_an_instance(
    start_rapid: StartRapid, broker: str, caller: Caller
) -> None:
    """So a function can be scaled to nothing, and wake up for the first call."""
    name = unique_name()
    start(start_rapid, broker, AWS_LAMBDA_FUNCTION_NAME=name).stop()
    caller.send(name, b"1")

    start(start_rapid, broker, AWS_LAMBDA_FUNCTION_NAME=name)

    assert caller.wait()[0].body == b"1"


def test_an_instance_takes_no_more_than_it_can_run(
    start_rapid: StartRapid, broker: str, caller: Caller
) -> None:
    rapid = start(start_rapid, broker, MISBEHAVE, RAPID_MAX_CONCURRENCY="2")
    for _ in range(6):
        caller.send(rapid.function_name, do(do="sleep", s=1))

    wait_until(lambda: caller.waiting(rapid.function_name) == 4, "four to stay in the broker")

    assert len(caller.wait(6)) == 6


def test_calls_are_shared_with_an_idle_instance(
    start_rapid: StartRapid, broker: str, caller: Caller
) -> None:
    name = unique_name()
    for _ in range(2):
        start(
            *(start_rapid, broker, MISBEHAVE),
            AWS_LAMBDA_FUNCTION_NAME=name,
            AWS_LAMBDA_FUNCTION_TIMEOUT="600",
        )

    caller.send(name, do(do="sleep", s=600))
    caller.send(name, do(do="pid"))

    assert len(caller.wait(1)) == 1


def test_a_stop_hands_back_what_has_not_started(
    start_rapid: StartRapid, broker: str, caller: Caller
) -> None:
    name = unique_name()
    first = start(start_rapid, broker, MISBEHAVE, AWS_LAMBDA_FUNCTION_NAME=name)
    for count in range(4):
        caller.send(name, do(do="sleep", s=0.5, n=count))
    wait_until(lambda: caller.waiting(name) == 3, "the first call to be taken")

    code = first.stop()
    start(start_rapid, broker, MISBEHAVE, AWS_LAMBDA_FUNCTION_NAME=name)
    replies = caller.wait(4)

    assert code == 0
    assert sorted(reply.json()["n"] for reply in replies) == [0, 1, 2, 3]


def test_a_call_whose_instance_died_is_not_run_again(
    start_rapid: StartRapid, broker: str, caller: Caller
) -> None:
    name = unique_name()
    first = start(start_rapid, broker, MISBEHAVE, AWS_LAMBDA_FUNCTION_NAME=name)
    second = start(start_rapid, broker, MISBEHAVE, AWS_LAMBDA_FUNCTION_NAME=name)
    caller.send(name, do(do="sleep", s=5))
    wait_until(lambda: running(first) + running(second) == 1, "the call to run")

    (first if running(first) else second).close()
    reply = caller.wait()[0]

    assert reply.headers["X-Lambda-Status"] == 500
    assert reply.headers["X-Lambda-Error-Type"] == "ServiceException"


def test_a_call_whose_instance_died_is_run_again_where_that_is_wanted(
    start_rapid: StartRapid, broker: str, caller: Caller
) -> None:
    name = unique_name()
    settings = {"AWS_LAMBDA_FUNCTION_NAME": name, "RAPID_SYNC_REDELIVERY": "retry"}
    first = start(start_rapid, broker, MISBEHAVE, **settings)
    caller.send(name, do(do="sleep", s=1))
    wait_until(lambda: running(first) == 1, "the call to run")

    first.close()
    start(start_rapid, broker, MISBEHAVE, **settings)

    assert caller.wait()[0].json() == {"do": "sleep", "s": 1}


def running(rapid: Rapid) -> int:
    for line in rapid.get("/metrics").body.decode().splitlines():
        if line.startswith("lambda_concurrent_executions{"):
            return int(float(line.rpartition(" ")[2]))
    raise AssertionError("no such metric")


# --- the queue


@pytest.mark.parametrize(
    "settings", [{}, {"RAPID_AMQP_QUEUE_TYPE": "quorum"}], ids=["classic", "quorum"]
)
def test_the_queue_outlives_its_consumer(
    start_rapid: StartRapid, broker: str, caller: Caller, settings: dict[str, str]
) -> None:
    rapid = start(start_rapid, broker, **settings)
    rapid.stop()

    assert caller.waiting(rapid.function_name) == 0


def test_the_queue_goes_with_its_consumer_where_that_is_wanted(
    start_rapid: StartRapid, broker: str, caller: Caller
) -> None:
    rapid = start(start_rapid, broker, RAPID_AMQP_QUEUE_EXPIRES="auto-delete")
    rapid.stop()

    with pytest.raises(pika.exceptions.ChannelClosedByBroker):
        caller.waiting(rapid.function_name)


def test_a_queue_of_other_properties_is_named_in_the_log(
    start_rapid: StartRapid, broker: str, caller: Caller
) -> None:
    name = unique_name()
    caller.channel.queue_declare(name, durable=False, auto_delete=True)

    rapid = start(start_rapid, broker, ready=False, AWS_LAMBDA_FUNCTION_NAME=name)

    line = rapid.wait_for_log("RabbitMQ refuses what rapid wants")
    assert f"queue.declare queue='{name}' durable=True" in line
    assert "inequivalent arg 'durable'" in line
    assert "delete the queue" in line
    refused = "RabbitMQ refuses: PRECONDITION_FAILED"
    wait_until(
        lambda: rapid.get("/readyz").json()["status"].startswith(refused), "the reason at /readyz"
    )


def test_a_deleted_queue_is_declared_again(
    start_rapid: StartRapid, broker: str, caller: Caller
) -> None:
    rapid = start(start_rapid, broker)

    caller.channel.queue_delete(rapid.function_name)
    rapid.wait_for_log("consuming", count=2)

    assert caller.call(rapid.function_name, b"1").body == b"1"


def test_without_its_broker_a_rapid_serves_http_and_is_not_ready(start_rapid: StartRapid) -> None:
    rapid = start_rapid(ECHO, ready=False, RAPID_AMQP_URI="amqp://127.0.0.1:1")

    assert rapid.invoke(b"1").body == b"1"
    assert rapid.get("/readyz").status == 503
    assert rapid.stop() == 0


def test_the_brokers_password_is_not_logged(start_rapid: StartRapid, broker: str) -> None:
    rapid = start(start_rapid, broker, RAPID_LOG_LEVEL="trace")
    rapid.invoke()
    rapid.stop()

    password = broker.rpartition("@")[0].rpartition(":")[2]
    assert f":{password}@" not in "\n".join(rapid.log)
