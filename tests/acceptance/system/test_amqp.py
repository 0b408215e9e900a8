"""The way through the broker: what becomes of calls when nobody, nothing or too much is there."""

from __future__ import annotations

import base64
import contextlib
import datetime
import decimal
import json
import os
import signal
import struct
import time
import urllib.parse
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pika
import pika.exceptions
import pika.spec
import pytest

from devtools.ports import LOOPBACK, free_ports
from devtools.rabbitmq_node import RabbitmqNode, TlsFiles
from tests import support
from tests.acceptance.system.amqp import DIRECT_REPLY_TO, QUEUE_ARGUMENTS, AmqpClient
from tests.acceptance.system.conftest import LEDGER, Ledger, port_of, through
from tests.acceptance.system.proxy import Proxy
from tests.conftest import StartRapid, StartServer
from tests.support import (
    ECHO,
    MISBEHAVE,
    Answer,
    Rapid,
    Server,
    unique_name,
    wait_until,
)

MIB = 1_048_576
#: Well over what an answer takes that nobody waits for, well under any timeout, seconds.
AT_ONCE_S = 5.0
#: How long an answer may take that waits for the broker's silence to be noticed, seconds.
BOUNDED_S = 15.0


def timed(call: Callable[[], Answer]) -> tuple[float, Answer]:
    begun = time.monotonic()
    answer = call()
    return time.monotonic() - begun, answer


def is_ready(program: Rapid | Server) -> bool:
    return program.get("/readyz").status == 200


# --- nobody takes the call


@pytest.mark.parametrize("kind", ["RequestResponse", "Event", "DryRun"])
def test_a_call_of_an_unknown_function_is_404_long_before_any_timeout(
    server: Server, kind: str
) -> None:
    seconds, answer = timed(lambda: server.invoke("nobody", X_Amz_Invocation_Type=kind))

    assert answer.status == 404
    assert answer.headers["x-amzn-ErrorType"] == "ResourceNotFoundException"
    assert seconds < AT_ONCE_S


@pytest.mark.parametrize("kind", ["RequestResponse", "Event", "DryRun"])
@pytest.mark.parametrize(
    "name",
    [
        "amq.rabbitmq.reply-to",
        "amq.rabbitmq.reply-to.x",
        "amq.gen-abc",
        "echo.events",
        "echo.dead",
        "lambda.retry.60000",
    ],
)
def test_queues_of_the_system_are_no_functions(server: Server, name: str, kind: str) -> None:
    assert server.invoke(name, X_Amz_Invocation_Type=kind).status == 404


def test_queues_of_the_system_are_no_functions_though_they_exist(
    server: Server, amqp: AmqpClient
) -> None:
    name = f"{unique_name()}.events"
    amqp.declare(name)

    answer = server.invoke(name)

    assert answer.status == 404
    assert amqp.waiting(name) == 0


@pytest.fixture
def hurried_server(start_server: StartServer, broker: str) -> Server:
    return start_server(AMQP_URI=broker, INVOKE_QUEUE_TIMEOUT="0.3")


def test_a_call_beyond_what_can_run_is_429(
    hurried_server: Server,
    start_rapid: StartRapid,
    broker: str,
    ledger: Ledger,
    pool: ThreadPoolExecutor,
) -> None:
    rapid = start_rapid(
        LEDGER, RAPID_AMQP_URI=broker, RAPID_INVOKE_QUEUE_TIMEOUT="0.3", **ledger.environ
    )
    running = pool.submit(hurried_server.invoke, rapid.function_name, ledger.held)
    ledger.wait_for(1)

    seconds, refused = timed(lambda: hurried_server.invoke(rapid.function_name, "[2]"))
    ledger.open()

    assert refused.status == 429
    assert refused.headers["x-amzn-ErrorType"] == "TooManyRequestsException"
    assert refused.json() == {
        "Type": "User",
        "message": "Rate Exceeded.",
        "Reason": "ConcurrentInvocationLimitExceeded",
    }
    assert seconds < BOUNDED_S
    assert running.result().status == 200
    assert hurried_server.invoke(rapid.function_name, "[3]").body == b"[3]"
    assert [line.split()[1] for line in ledger.lines[1:]] == ["[3]"]


def test_a_call_without_an_instance_is_502_after_its_wait(
    hurried_server: Server, amqp: AmqpClient, function_name: str
) -> None:
    amqp.declare(function_name)

    seconds, answer = timed(lambda: hurried_server.invoke(function_name))

    assert answer.status == 502
    assert answer.headers["x-amzn-ErrorType"] == "ResourceNotReadyException"
    assert 0.3 <= seconds < BOUNDED_S
    wait_until(lambda: amqp.waiting(function_name) == 0, "the broker to drop the call")


def test_a_call_that_runs_longer_than_any_wait_is_answered(
    hurried_server: Server, start_rapid: StartRapid, broker: str
) -> None:
    rapid = start_rapid(MISBEHAVE, RAPID_AMQP_URI=broker)
    event = '{"do": "sleep", "s": 2.8}'  # over the queue timeout and what is added to it

    seconds, answer = timed(lambda: hurried_server.invoke(rapid.function_name, event))

    assert seconds > 2.8
    assert (answer.status, answer.body.decode()) == (200, event)


# --- an instance is lost


def test_a_call_whose_instance_was_killed_is_500_and_never_run_twice(
    server: Server,
    start_rapid: StartRapid,
    broker: str,
    ledger: Ledger,
    pool: ThreadPoolExecutor,
) -> None:
    name = unique_name()
    setup: dict[str, Any] = {
        "RAPID_AMQP_URI": broker,
        "AWS_LAMBDA_FUNCTION_NAME": name,
        **ledger.environ,
    }
    first = start_rapid(LEDGER, **setup)
    call = pool.submit(server.invoke, name, ledger.held)
    ledger.wait_for(1)
    start_rapid(LEDGER, **setup)

    first.signal(signal.SIGKILL)
    answer = call.result(AT_ONCE_S)

    assert answer.status == 500
    assert answer.headers["x-amzn-ErrorType"] == "ServiceException"
    assert answer.json()["Type"] == "Service"
    assert "lost" in answer.json()["Message"]
    assert server.invoke(name, "[2]").body == b"[2]"
    assert [line.split()[1] for line in ledger.lines[1:]] == ["[2]"]


def test_a_redelivered_call_is_run_again_when_that_is_wanted(
    server: Server,
    start_rapid: StartRapid,
    broker: str,
    ledger: Ledger,
    pool: ThreadPoolExecutor,
) -> None:
    name = unique_name()
    setup: dict[str, Any] = {
        "RAPID_AMQP_URI": broker,
        "AWS_LAMBDA_FUNCTION_NAME": name,
        "RAPID_SYNC_REDELIVERY": "retry",
        **ledger.environ,
    }
    first = start_rapid(LEDGER, **setup)
    call = pool.submit(server.invoke, name, ledger.held)
    ledger.wait_for(1)
    start_rapid(LEDGER, **setup)

    first.signal(signal.SIGKILL)
    ledger.wait_for(2)
    ledger.open()

    assert call.result(AT_ONCE_S).status == 200


@pytest.mark.parametrize("is_reconnected", [False, True], ids=["connected", "reconnected"])
def test_sigterm_hands_unstarted_calls_to_another_instance(
    server: Server,
    start_rapid: StartRapid,
    broker: str,
    proxy: Proxy,
    ledger: Ledger,
    pool: ThreadPoolExecutor,
    is_reconnected: bool,
) -> None:
    name = unique_name()
    setup: dict[str, Any] = {
        "RAPID_AMQP_URI": broker,
        "AWS_LAMBDA_FUNCTION_NAME": name,
        **ledger.environ,
    }
    first = start_rapid(LEDGER, **{**setup, "RAPID_AMQP_URI": through(proxy, broker)})
    if is_reconnected:
        proxy.cut()
        first.wait_for_log("consuming", count=2)
    # Fast so far: the instance reads ahead, and so has calls in hand that it has not started.
    list(pool.map(lambda number: server.invoke(name, str(number)), range(400)))
    running = pool.submit(server.invoke, name, ledger.held)
    ledger.wait_for(401)
    waiting = [pool.submit(server.invoke, name, f"[{number}]") for number in range(12)]
    start_rapid(LEDGER, **setup)

    first.signal(signal.SIGTERM)
    answers = [call.result(AT_ONCE_S) for call in waiting]

    assert [answer.body for answer in answers] == [b"[%d]" % number for number in range(12)]
    assert not running.done()
    ledger.open()
    assert running.result(AT_ONCE_S).status == 200
    assert first.wait_exit() == 0
    assert len(ledger.lines) == 413  # each was started once


@pytest.mark.slow
@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
def test_instances_that_come_and_go_under_load_lose_no_call(
    server: Server, start_rapid: StartRapid, broker: str, pool: ThreadPoolExecutor, queue_type: str
) -> None:
    name = unique_name()
    setup: dict[str, Any] = {
        "RAPID_AMQP_URI": broker,
        "AWS_LAMBDA_FUNCTION_NAME": name,
        "RAPID_MAX_CONCURRENCY": "2",
        "RAPID_AMQP_QUEUE_TYPE": queue_type,
    }
    instances = [start_rapid(ECHO, **setup)]
    is_over = False

    def call_on(caller: int) -> list[tuple[int, bytes]]:
        wrong = []
        number = 0
        with server.client() as client:
            while not is_over:
                number += 1
                payload = b'"%d of %d"' % (number, caller)
                answer = client.post(instances[0].path, payload)
                if answer.body != payload:
                    wrong.append((answer.status, answer.body))
        return wrong

    callers = [pool.submit(call_on, caller) for caller in range(8)]
    for _ in range(4):
        instances.append(start_rapid(ECHO, **setup))
        assert instances[-2].stop() == 0
    is_over = True

    assert [caller.result() for caller in callers] == [[]] * 8


# --- the broker is lost


def test_both_programs_outlive_a_killed_broker(
    node: RabbitmqNode,
    start_rapid: StartRapid,
    start_server: StartServer,
    ledger: Ledger,
    pool: ThreadPoolExecutor,
) -> None:
    rapid = start_rapid(LEDGER, RAPID_AMQP_URI=node.uri, **ledger.environ)
    server = start_server(AMQP_URI=node.uri)
    call = pool.submit(server.invoke, rapid.function_name, ledger.held)
    ledger.wait_for(1)

    node.kill()
    in_flight = call.result(AT_ONCE_S)
    seconds, meanwhile = timed(lambda: server.invoke(rapid.function_name))
    wait_until(lambda: not is_ready(rapid), "rapid to notice")
    ledger.open()
    direct = rapid.invoke(b"[1]")
    server_ready = is_ready(server)
    node.start()
    rapid.wait_ready()
    server.wait_ready()

    for answer in (in_flight, meanwhile):
        assert answer.status == 500
        assert answer.headers["x-amzn-ErrorType"] == "ServiceException"
    assert seconds < AT_ONCE_S
    assert direct.body == b"[1]"
    assert not server_ready
    assert server.invoke(rapid.function_name, "[2]").body == b"[2]"


def test_a_broker_that_stands_still_holds_no_caller_for_long(
    node: RabbitmqNode, start_rapid: StartRapid, start_server: StartServer, pool: ThreadPoolExecutor
) -> None:
    rapid = start_rapid(ECHO, RAPID_AMQP_URI=f"{node.uri}/?heartbeat=1")
    server = start_server(
        AMQP_URI=node.uri, INVOKE_QUEUE_TIMEOUT="0.2", CONNECT_TIMEOUT="0.5", WEB_CONCURRENCY="1"
    )
    with server.client() as connected:
        assert connected.post(rapid.path, b"[1]").body == b"[1]"
        assert node.pid is not None
        os.kill(node.pid, signal.SIGSTOP)

        on_new = pool.submit(server.invoke, rapid.function_name)
        seconds, on_old = timed(lambda: connected.post(rapid.path))
        os.kill(node.pid, signal.SIGCONT)

        assert on_old.status == 500
        assert seconds < BOUNDED_S
        assert on_new.result(BOUNDED_S).status == 500
        rapid.wait_ready()
        wait_until(
            lambda: connected.post(rapid.path, b"[2]").body == b"[2]", "calls to be served again"
        )


def test_calls_in_flight_are_answered_when_the_servers_connection_is_cut(
    proxy: Proxy,
    start_server: StartServer,
    start_rapid: StartRapid,
    broker: str,
    ledger: Ledger,
    pool: ThreadPoolExecutor,
) -> None:
    rapid = start_rapid(LEDGER, RAPID_AMQP_URI=broker, RAPID_MAX_CONCURRENCY="3", **ledger.environ)
    server = start_server(AMQP_URI=through(proxy, broker))
    calls = [pool.submit(server.invoke, rapid.function_name, ledger.held) for _ in range(3)]
    ledger.wait_for(3)

    proxy.cut()
    answers = [call.result(AT_ONCE_S) for call in calls]
    ledger.open()

    assert [answer.status for answer in answers] == [500] * 3
    assert server.invoke(rapid.function_name, "[1]").body == b"[1]"


def test_a_connection_that_was_cut_while_idle_costs_no_call(
    proxy: Proxy, start_server: StartServer, start_rapid: StartRapid, broker: str
) -> None:
    rapid = start_rapid(ECHO, RAPID_AMQP_URI=broker)
    server = start_server(AMQP_URI=through(proxy, broker))
    with server.client() as client:
        for number in range(5):
            answer = client.post(rapid.path, b"[%d]" % number)
            assert (answer.status, answer.body) == (200, b"[%d]" % number)
            proxy.cut()


def test_a_call_in_flight_is_answered_when_rapids_connection_is_cut(
    proxy: Proxy,
    server: Server,
    start_rapid: StartRapid,
    broker: str,
    ledger: Ledger,
    pool: ThreadPoolExecutor,
) -> None:
    rapid = start_rapid(LEDGER, RAPID_AMQP_URI=through(proxy, broker), **ledger.environ)
    call = pool.submit(server.invoke, rapid.function_name, ledger.held)
    ledger.wait_for(1)

    proxy.cut()
    answer = call.result(AT_ONCE_S)
    ledger.open()

    assert answer.status == 500
    assert server.invoke(rapid.function_name, "[2]").body == b"[2]"
    assert [line.split()[1] for line in ledger.lines[1:]] == ["[2]"]


def test_a_network_that_swallows_everything_holds_no_caller_for_long(
    proxy: Proxy,
    start_server: StartServer,
    start_rapid: StartRapid,
    broker: str,
    ledger: Ledger,
    pool: ThreadPoolExecutor,
) -> None:
    rapid = start_rapid(LEDGER, RAPID_AMQP_URI=broker, RAPID_MAX_CONCURRENCY="2", **ledger.environ)
    server = start_server(
        AMQP_URI=through(proxy, broker, "/?heartbeat=1"),
        INVOKE_QUEUE_TIMEOUT="0.2",
        CONNECT_TIMEOUT="0.5",
    )
    call = pool.submit(server.invoke, rapid.function_name, ledger.held)
    ledger.wait_for(1)

    proxy.hold()
    seconds, on_new = timed(lambda: server.invoke(rapid.function_name))
    in_flight = call.result(BOUNDED_S)
    proxy.release()
    ledger.open()

    assert on_new.status == 500
    assert seconds < BOUNDED_S
    assert in_flight.status == 500
    wait_until(
        lambda: server.invoke(rapid.function_name, "[1]").body == b"[1]", "calls to be served again"
    )


def test_a_deleted_queue_is_declared_again(
    server: Server, start_rapid: StartRapid, broker: str, amqp: AmqpClient
) -> None:
    rapid = start_rapid(ECHO, RAPID_AMQP_URI=broker)

    amqp.delete(rapid.function_name)

    wait_until(
        lambda: server.invoke(rapid.function_name, "[1]").body == b"[1]", "calls to be served again"
    )


def test_a_queue_deleted_while_rapid_waits_for_another_answer_is_declared_again(
    proxy: Proxy, server: Server, start_rapid: StartRapid, broker: str, amqp: AmqpClient
) -> None:
    # Of what is published first, and of the consumers of calls and events.
    proxy.hold_answers_after(pika.spec.Basic.Qos, 3)
    rapid = start_rapid(ECHO, ready=False, RAPID_AMQP_URI=through(proxy, broker))
    rapid.wait_for_log("consuming")
    wait_until(lambda: proxy.count(pika.spec.Basic.Qos) == 3, "events to be asked for")

    amqp.delete(rapid.function_name)
    proxy.release()

    rapid.wait_for_log("consuming", count=2)
    assert server.invoke(rapid.function_name, "[1]").body == b"[1]"


# --- other AMQP clients


@pytest.mark.parametrize("direct", [False, True], ids=["own-queue", "direct-reply-to"])
def test_a_plain_rpc_client_gets_the_payload_and_its_correlation_id(
    echo: Rapid, broker: str, direct: bool
) -> None:
    with AmqpClient(broker, direct=direct) as client:
        reply = client.call(echo.function_name, b'{"x": 1}', correlation_id="my own id / 7")

    assert reply.body == b'{"x": 1}'
    assert reply.properties.correlation_id == "my own id / 7"
    assert reply.headers["X-Lambda-Status"] == 200
    assert reply.headers["X-Amz-Executed-Version"] == "$LATEST"


def test_a_plain_rpc_client_is_refused_what_is_no_json(
    start_rapid: StartRapid, broker: str, amqp: AmqpClient
) -> None:
    checks = start_rapid(ECHO, RAPID_AMQP_URI=broker)
    passes = start_rapid(ECHO, RAPID_AMQP_URI=broker, RAPID_CHECK_PAYLOAD="FALSE")

    refused = amqp.call(checks.function_name, b"no json")
    passed = amqp.call(passes.function_name, b"no json")

    assert refused.headers["X-Lambda-Status"] == 400
    assert refused.headers["X-Lambda-Error-Type"] == "InvalidRequestContentException"
    assert passed.body == b"no json"


def test_a_plain_rpc_client_sees_failures(
    start_rapid: StartRapid, broker: str, amqp: AmqpClient
) -> None:
    rapid = start_rapid(MISBEHAVE, RAPID_AMQP_URI=broker)

    raised = amqp.call(rapid.function_name, b'{"do": "raise"}')
    crashed = amqp.call(rapid.function_name, b'{"do": "exit"}')
    refused = amqp.call(rapid.function_name, headers={"X-Amz-Client-Context": "no JSON"})

    assert json.loads(raised.body)["errorType"] == "ValueError"
    assert raised.headers["X-Amz-Function-Error"] == "Unhandled"
    assert json.loads(crashed.body)["errorType"] == "Runtime.ExitError"
    assert crashed.headers["X-Amz-Function-Error"] == "Unhandled"
    assert refused.headers["X-Lambda-Status"] == 400
    assert refused.headers["X-Lambda-Error-Type"] == "InvalidRequestContentException"


def test_a_plain_rpc_client_gets_one_reply_though_the_call_takes_long(
    start_rapid: StartRapid, broker: str, amqp: AmqpClient
) -> None:
    rapid = start_rapid(MISBEHAVE, RAPID_AMQP_URI=broker)
    event = b'{"do": "sleep", "s": 1.3}'

    reply = amqp.call(rapid.function_name, event)

    assert reply.body == event
    assert amqp.collect(0.1) == []


def test_headers_of_a_call_reach_the_function(
    start_rapid: StartRapid, broker: str, amqp: AmqpClient
) -> None:
    rapid = start_rapid(MISBEHAVE, RAPID_AMQP_URI=broker)
    trace_id = "Root=1-6746f0a1-0123456789abcdef01234567;Parent=0123456789abcdef;Sampled=1"

    reply = amqp.call(
        rapid.function_name,
        b'{"do": "headers"}',
        headers={
            "X-Amzn-Trace-Id": trace_id,
            "X-Amz-Client-Context": "eyJjdXN0b20iOnsiYSI6MX19",
            "X-Amz-Function-Qualifier": "live",
            "X-Amz-Tenant-Id": "blue",
        },
    )

    seen = dict(json.loads(reply.body)["headers"])
    assert seen["Lambda-Runtime-Trace-Id"] == trace_id
    assert json.loads(seen["Lambda-Runtime-Client-Context"]) == {"custom": {"a": 1}}
    assert seen["Lambda-Runtime-Invoked-Function-Arn"].endswith(f":{rapid.function_name}:live")
    assert seen["Lambda-Runtime-Aws-Tenant-Id"] == "blue"


@pytest.fixture(scope="module")
def _echoes(broker: str) -> Iterator[list[Rapid]]:
    with contextlib.ExitStack() as stack:
        rapids: list[Rapid] = []
        yield rapids
        for rapid in rapids:
            stack.callback(rapid.close)


@pytest.fixture
def echo(_echoes: list[Rapid], broker: str) -> Iterator[Rapid]:
    """Give a rapid, the same for every test until one has upset it."""
    if not _echoes:
        rapid = Rapid(ECHO, RAPID_AMQP_URI=broker)
        _echoes.append(rapid.__enter__())
    rapid = _echoes[-1]
    support.started.append(rapid)
    yield rapid
    if not _is_undisturbed(rapid):
        _echoes.remove(rapid)
        rapid.close()


def _is_undisturbed(rapid: Rapid) -> bool:
    log = "\n".join(rapid.log)
    return rapid.exit_code is None and "trying again" not in log and "Traceback" not in log


class RawProperties(pika.BasicProperties):
    """Properties that no client library would write."""

    def __init__(self, flags: int, *fields: bytes) -> None:
        super().__init__()
        self._raw = struct.pack(">H", flags) + b"".join(fields)

    def encode(self) -> list[bytes]:
        return [self._raw]


def short(value: bytes) -> bytes:
    return bytes((len(value),)) + value


def table(*fields: bytes) -> bytes:
    return struct.pack(">I", sum(map(len, fields))) + b"".join(fields)


def long_string(name: bytes, value: bytes) -> bytes:
    return short(name) + b"S" + struct.pack(">I", len(value)) + value


def deep_table(levels: int) -> bytes:
    inner = table()
    for _ in range(levels):
        inner = table(short(b"a") + b"F" + inner)
    return inner


def deep_array(levels: int) -> bytes:
    inner = struct.pack(">I", 0)
    for _ in range(levels):
        inner = struct.pack(">I", len(inner) + 1) + b"A" + inner
    return table(short(b"a") + b"A" + inner)


def direct_address(pid: bytes) -> str:
    return f"{DIRECT_REPLY_TO}.{base64.b64encode(pid).decode()}.a2V5"


HEADERS, CORRELATION_ID, REPLY_TO, TIMESTAMP = 1 << 13, 1 << 10, 1 << 9, 1 << 6


def with_headers(**headers: Any) -> pika.BasicProperties:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return pika.BasicProperties(headers=named, correlation_id="odd")


ODD_MESSAGES: dict[str, pika.BasicProperties | None] = {
    "nothing at all": None,
    "nested tables": with_headers(a={"b": {"c": [1, {"d": None}]}}),
    "arrays": with_headers(a=[1, "two", [3.0, [True]]], X_Amzn_Trace_Id=["Root=1-2-3"]),
    "hundred thousand bytes": with_headers(a="x" * 100_000),
    "trace id of hundred thousand bytes": with_headers(X_Amzn_Trace_Id="x" * 100_000),
    "many headers": with_headers(**{f"h{number}": "x" for number in range(3000)}),
    "numbers for text": with_headers(
        X_Amzn_Trace_Id=1, X_Amz_Log_Type=2, X_Amz_Tenant_Id=3, X_Amz_Function_Qualifier=4
    ),
    "other types for text": with_headers(
        X_Amzn_Trace_Id=True,
        X_Amz_Log_Type=None,
        X_Amz_Tenant_Id=1.5,
        X_Amz_Function_Qualifier=b"\xff\xfe",
        X_Amz_Client_Context=decimal.Decimal("1.5"),
        X_Lambda_Frames=datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
    ),
    "number for client context": with_headers(X_Amz_Client_Context=7),
    "frames that are text": with_headers(X_Lambda_Frames="1"),
    "frames, and no id of ours": with_headers(X_Lambda_Frames=1),
    "line ends in the trace id": with_headers(X_Amzn_Trace_Id="Root=1\r\nX-Evil: 1\r\n\r\n"),
    "line ends in the client context": with_headers(X_Amz_Client_Context="e30=\r\nX-Evil: 1"),
    "line ends in its JSON": with_headers(
        X_Amz_Client_Context="eyJhIjoiXHJcblgtRXZpbDogMSJ9"  # {"a":"\r\nX-Evil: 1"}
    ),
    "line ends in the tenant": with_headers(X_Amz_Tenant_Id="a\r\nX-Evil: 1"),
    "line ends in the qualifier": with_headers(X_Amz_Function_Qualifier="a\r\nX-Evil: 1"),
    "line ends in the correlation id": pika.BasicProperties(correlation_id="a\r\nb"),
    "text beyond latin-1": with_headers(X_Amzn_Trace_Id="Root=\u20ac", X_Amz_Tenant_Id="\u20ac"),
    "client context that is no JSON": with_headers(X_Amz_Client_Context="%%%"),
    "invocation type unknown": with_headers(X_Amz_Invocation_Type="Later"),
    "invocation type DryRun": with_headers(X_Amz_Invocation_Type="DryRun"),
    "reply to nobody": pika.BasicProperties(reply_to="no.such.queue", correlation_id="odd"),
    "reply to the longest name": pika.BasicProperties(reply_to="q" * 255),
    "reply to an empty name": pika.BasicProperties(reply_to=""),
    "reply to a made-up direct address": pika.BasicProperties(reply_to=f"{DIRECT_REPLY_TO}.x"),
    "reply to an old direct address": pika.BasicProperties(
        reply_to=f"{DIRECT_REPLY_TO}.g2dkABByYWJiaXRAMTI3LjAuMC4xAAAAAQAAAAAA.YWJj"
    ),
    "reply to a pid of the old kind": pika.BasicProperties(
        reply_to=direct_address(b"\x83gd\x00\x07reply@1" + bytes(9))
    ),
    "reply to a pid with a wrong length": pika.BasicProperties(
        reply_to=direct_address(b"\x83Xw\x05reply@1" + bytes(12))
    ),
    "reply to a pid that is nobody's": pika.BasicProperties(
        reply_to=direct_address(b"\x83Xw\x07reply@1" + bytes(12))
    ),
    "reply to a direct address of base64": pika.BasicProperties(
        reply_to=f"{DIRECT_REPLY_TO}.AAAA.BBBB"
    ),
    "expiration and priority": pika.BasicProperties(expiration="60000", priority=9, type="x"),
    "every property": pika.BasicProperties(
        content_type="text/plain",
        content_encoding="gzip",
        headers={},
        delivery_mode=2,
        priority=1,
        correlation_id="",
        reply_to="nobody",
        expiration="60000",
        message_id="m",
        timestamp=2**40,
        type="t",
        app_id="a",
    ),
    "correlation id that is no UTF-8": RawProperties(CORRELATION_ID, short(b"\xff\xfe")),
    "reply to that is no UTF-8": RawProperties(REPLY_TO, short(b"\xff\xfe\xc3")),
    "header value that is no UTF-8": RawProperties(
        HEADERS, table(long_string(b"X-Amzn-Trace-Id", b"\xff\xfe"))
    ),
    "header name that is no UTF-8": RawProperties(HEADERS, table(long_string(b"\xff\xfe", b"x"))),
    "a timestamp no calendar has": RawProperties(TIMESTAMP, b"\xff" * 8),
    "a header time no calendar has": RawProperties(
        HEADERS, table(short(b"a") + b"T" + b"\xff" * 8, short(b"b") + b"F" + table())
    ),
    "tables in tables without end": RawProperties(HEADERS, deep_table(3000)),
    "arrays in arrays without end": RawProperties(HEADERS, deep_array(3000)),
    "floats and void": RawProperties(
        HEADERS,
        table(
            short(b"f") + b"f" + b"\x7f\xc0\x00\x00",
            short(b"d") + b"d" + b"\x7f\xf8" + b"\x00" * 6,
            short(b"v") + b"V",
            short(b"x") + b"x" + struct.pack(">I", 3) + b"\x00\xff\x01",
            short(b"D") + b"D" + b"\xff" + b"\xff" * 4,
        ),
    ),
}


@pytest.mark.parametrize("properties", ODD_MESSAGES.values(), ids=ODD_MESSAGES.keys())
def test_an_odd_message_harms_nobody(
    echo: Rapid, server: Server, broker: str, properties: pika.BasicProperties | None
) -> None:
    _publish_oddly(broker, echo.function_name, b"{}", properties)

    answer = server.invoke(echo.function_name, b"[1]")

    assert (answer.status, answer.body) == (200, b"[1]")
    assert _is_undisturbed(echo)


@pytest.mark.parametrize("body", [b"", b"\xff\x00", b"not JSON", b"[" * 200_000])
def test_an_odd_body_harms_nobody(
    echo: Rapid, server: Server, amqp: AmqpClient, body: bytes
) -> None:
    reply = amqp.call(echo.function_name, body)

    assert (
        reply.body == body
        or (body == b"" and reply.body == b"{}")
        or (reply.headers["X-Lambda-Status"] == 400)
    )
    assert server.invoke(echo.function_name, b"[1]").body == b"[1]"


def test_a_body_over_the_limit_is_refused_or_run_and_harms_nobody(
    echo: Rapid, server: Server, amqp: AmqpClient
) -> None:
    reply = amqp.call(echo.function_name, b'"' + b"x" * (7 * MIB) + b'"')

    assert reply.headers["X-Lambda-Status"] == 413 or "X-Amz-Function-Error" in reply.headers
    assert server.invoke(echo.function_name, b"[1]").body == b"[1]"


def test_odd_messages_harm_no_call_in_flight(
    server: Server,
    start_rapid: StartRapid,
    broker: str,
    ledger: Ledger,
    pool: ThreadPoolExecutor,
) -> None:
    rapid = start_rapid(LEDGER, RAPID_AMQP_URI=broker, RAPID_MAX_CONCURRENCY="2", **ledger.environ)
    call = pool.submit(server.invoke, rapid.function_name, ledger.held)
    ledger.wait_for(1)

    for properties in ODD_MESSAGES.values():
        _publish_oddly(broker, rapid.function_name, b"{}", properties)
    assert server.invoke(rapid.function_name, b"[1]").body == b"[1]"
    ledger.open()

    assert call.result(AT_ONCE_S).status == 200


def test_the_pseudo_queues_own_name_as_reply_address_harms_nobody(
    echo: Rapid, server: Server, amqp: AmqpClient
) -> None:
    amqp.publish(echo.function_name, b"{}", pika.BasicProperties(reply_to=DIRECT_REPLY_TO))

    assert server.invoke(echo.function_name, b"[1]").body == b"[1]"


def test_a_reply_to_the_functions_own_queue_makes_no_loop(
    start_rapid: StartRapid, broker: str, amqp: AmqpClient, ledger: Ledger
) -> None:
    rapid = start_rapid(LEDGER, RAPID_AMQP_URI=broker, **ledger.environ)
    name = rapid.function_name

    amqp.publish(name, b"[1]", pika.BasicProperties(reply_to=name, correlation_id="loop"))
    ledger.wait_for(2)
    amqp.call(name, b"[2]")

    assert [line.split()[1] for line in ledger.lines] == ["[1]", "[1]", "[2]"]


def _publish_oddly(
    uri: str, queue: str, body: bytes, properties: pika.BasicProperties | None
) -> None:
    """Publish and see it arrive; what the broker itself refuses is no matter of ours."""
    with AmqpClient(uri) as client, contextlib.suppress(pika.exceptions.AMQPError):
        client.channel.confirm_delivery()
        client.publish(queue, body, properties)


# --- payloads


@pytest.mark.parametrize("size", [1, 131_064, 131_065, MIB, 6 * MIB], ids=str)
def test_payloads_of_every_size_pass_both_ways(echo: Rapid, server: Server, size: int) -> None:
    payload = b"1" if size == 1 else b'"' + b"x" * (size - 2) + b'"'

    answer = server.invoke(echo.function_name, payload)

    assert answer.status == 200
    assert answer.body == payload


def test_the_largest_response_passes_and_a_larger_one_is_an_error(
    server: Server, start_rapid: StartRapid, broker: str
) -> None:
    rapid = start_rapid(MISBEHAVE, RAPID_AMQP_URI=broker)
    limit = 6 * MIB + 100

    largest = server.invoke(rapid.function_name, json.dumps({"do": "size", "n": limit}))
    larger = server.invoke(rapid.function_name, json.dumps({"do": "size", "n": limit + 1}))

    assert len(largest.body) == limit
    assert larger.headers["X-Amz-Function-Error"] == "Unhandled"
    assert larger.error_type == "Function.ResponseSizeTooLarge"


def test_big_and_small_payloads_at_once_keep_apart(
    echo: Rapid, server: Server, pool: ThreadPoolExecutor
) -> None:
    payloads = [
        b'"%d%s"' % (number, b"x" * (2 * MIB if number % 4 == 0 else 10)) for number in range(24)
    ]

    answers = list(pool.map(lambda payload: server.invoke(echo.function_name, payload), payloads))

    assert [answer.body for answer in answers] == payloads


# --- who we are to the broker


def test_calls_go_over_tls_with_a_ca_of_ones_own(
    node: RabbitmqNode, tls: TlsFiles, start_rapid: StartRapid, start_server: StartServer
) -> None:
    uri = f"{node.tls_uri}/?cacertfile={tls.ca}"
    rapid = start_rapid(ECHO, RAPID_AMQP_URI=uri, RAPID_MAX_CONCURRENCY="4")
    server = start_server(AMQP_URI=uri)
    payload = b'"' + b"x" * (2 * MIB) + b'"'

    assert server.invoke(rapid.function_name, b"[1]").body == b"[1]"
    assert server.invoke(rapid.function_name, payload).body == payload


@pytest.mark.slow
def test_many_calls_at_once_over_tls(
    node: RabbitmqNode,
    tls: TlsFiles,
    start_rapid: StartRapid,
    start_server: StartServer,
    pool: ThreadPoolExecutor,
) -> None:
    uri = f"{node.tls_uri}/?cacertfile={tls.ca}"
    rapid = start_rapid(ECHO, RAPID_AMQP_URI=uri, RAPID_MAX_CONCURRENCY="4")
    server = start_server(AMQP_URI=uri)

    def call_many(caller: int) -> bool:
        with server.client() as client:
            payloads = [b'"%d of %d"' % (number, caller) for number in range(60)]
            return [client.post(rapid.path, payload).body for payload in payloads] == payloads

    assert list(pool.map(call_many, range(8))) == [True] * 8


def test_a_broker_signed_by_another_ca_is_one_clear_line_and_not_ready(
    node: RabbitmqNode,
    make_tls: Callable[[str], TlsFiles],
    start_rapid: StartRapid,
    start_server: StartServer,
) -> None:
    uri = f"{node.tls_uri}/?cacertfile={make_tls('another-ca').ca}"

    rapid = start_rapid(ECHO, RAPID_AMQP_URI=uri, ready=False)
    server = start_server(AMQP_URI=uri, ready=False)
    line = rapid.wait_for_log("broker not reached")
    answer = server.invoke(rapid.function_name)

    for text in (line, server.wait_for_log("broker not reached")):
        assert "CERTIFICATE_VERIFY_FAILED" in text
        assert f"amqps://{LOOPBACK}" in text
        assert "guest" not in text
    for program in (rapid, server):
        assert not is_ready(program)
        assert "Traceback" not in "\n".join(program.log)
    assert answer.status == 500


def test_credentials_come_from_variables_of_their_own(
    node: RabbitmqNode, start_rapid: StartRapid, start_server: StartServer
) -> None:
    password = "p@ss/w:rd%41 ?#"
    node.ctl("add_user", "caller", password)
    node.ctl("set_permissions", "caller", ".*", ".*", ".*")
    setup: dict[str, Any] = {
        "AMQP_URI": f"amqp://{LOOPBACK}:{node.port}",
        "AMQP_USERNAME": "caller",
        "AMQP_PASSWORD": password,
    }

    rapid = start_rapid(ECHO, **setup)
    server = start_server(**setup)

    assert server.invoke(rapid.function_name, "[1]").body == b"[1]"


def test_a_refused_login_is_one_clear_line_and_not_ready(
    broker: str, start_rapid: StartRapid, start_server: StartServer
) -> None:
    setup: dict[str, Any] = {
        "AMQP_URI": broker,
        "AMQP_USERNAME": "guest",
        "AMQP_PASSWORD": "not-the-password",
    }

    rapid = start_rapid(ECHO, ready=False, **setup)
    server = start_server(ready=False, **setup)
    answer = server.invoke(rapid.function_name)

    assert answer.status == 500
    for program in (rapid, server):
        line = program.wait_for_log("RabbitMQ refuses what")
        assert "broker_says=ACCESS_REFUSED - Login was refused" in line
        assert "correct the user and password" in line
        assert "not-the-password" not in "\n".join(program.log)
        assert "Traceback" not in "\n".join(program.log)
        assert not is_ready(program)


def test_a_broker_that_is_not_there_yet_is_waited_for(
    node: RabbitmqNode, start_rapid: StartRapid, start_server: StartServer
) -> None:
    with Proxy(node.port) as relay:
        relay.hold()
        rapid = start_rapid(ECHO, RAPID_AMQP_URI=through(relay, node.uri), ready=False)
        server = start_server(AMQP_URI=through(relay, node.uri), ready=False, CONNECT_TIMEOUT="0.3")
        assert not is_ready(rapid)
        assert not is_ready(server)

        relay.release()

        rapid.wait_ready()
        server.wait_ready()
        assert server.invoke(rapid.function_name, "[1]").body == b"[1]"


def test_an_address_nobody_listens_at_is_a_line_and_not_ready(start_rapid: StartRapid) -> None:
    port = free_ports(1)[0]

    rapid = start_rapid(ECHO, ready=False, RAPID_AMQP_URI=f"amqp://{LOOPBACK}:{port}")

    line = rapid.wait_for_log("broker not reached")
    assert f"{LOOPBACK}:{port}" in line
    assert rapid.get("/readyz").status == 503
    assert rapid.invoke(b"[1]").body == b"[1]"


# --- the queue


def test_a_queue_with_other_properties_is_a_clear_line_until_it_is_gone(
    server: Server, start_rapid: StartRapid, broker: str, amqp: AmqpClient, function_name: str
) -> None:
    amqp.channel.queue_declare(function_name, durable=True)

    rapid = start_rapid(
        ECHO, RAPID_AMQP_URI=broker, AWS_LAMBDA_FUNCTION_NAME=function_name, ready=False
    )
    line = rapid.wait_for_log("RabbitMQ refuses what rapid wants")
    assert function_name in line
    assert "delete the queue" in line
    assert "x-expires" in line
    assert "PRECONDITION_FAILED" in line
    assert "Traceback" not in "\n".join(rapid.log)
    assert not is_ready(rapid)
    amqp.delete(function_name)

    rapid.wait_ready()
    assert server.invoke(function_name, "[1]").body == b"[1]"


def test_the_queue_goes_away_when_it_has_been_unused_for_long_enough(
    server: Server, start_rapid: StartRapid, broker: str, amqp: AmqpClient
) -> None:
    rapid = start_rapid(ECHO, RAPID_AMQP_URI=broker, RAPID_AMQP_QUEUE_EXPIRES="0.3")
    name = rapid.function_name
    assert server.invoke(name, "[1]").body == b"[1]"

    rapid.stop()

    amqp.channel.confirm_delivery()
    wait_until(lambda: _is_gone(amqp, name), "the queue to be gone")
    assert server.invoke(name).status == 404


def _is_gone(client: AmqpClient, queue: str) -> bool:
    """Ask in the one way that does not count as using the queue."""
    try:
        client.channel.basic_publish("", queue, b"{}", mandatory=True)
    except pika.exceptions.UnroutableError:
        return True
    return False


def test_an_auto_delete_queue_ends_with_its_last_consumer(
    server: Server, start_rapid: StartRapid, broker: str
) -> None:
    rapid = start_rapid(ECHO, RAPID_AMQP_URI=broker, RAPID_AMQP_QUEUE_EXPIRES="auto-delete")
    assert server.invoke(rapid.function_name, "[1]").body == b"[1]"

    rapid.stop()

    assert server.invoke(rapid.function_name).status == 404


def test_a_name_that_is_percent_encoded_finds_its_queue(echo: Rapid, server: Server) -> None:
    name = urllib.parse.quote(f"{echo.function_name}:$LATEST", safe="")

    assert server.invoke(name, "[1]").body == b"[1]"


# --- silence


@pytest.fixture(scope="module", autouse=True)
def silenced(broker: str) -> Iterator[tuple[Proxy, Rapid]]:
    """Give a rapid whose broker fell silent when this module began: pika needs 12 s to tell."""
    with (
        Proxy(port_of(broker)) as relay,
        Rapid(ECHO, RAPID_AMQP_URI=through(relay, broker, "/?heartbeat=1")) as rapid,
    ):
        relay.hold()
        yield relay, rapid


def test_rapid_leaves_a_connection_that_went_silent(
    silenced: tuple[Proxy, Rapid], server: Server
) -> None:
    relay, rapid = silenced

    wait_until(lambda: not is_ready(rapid), "rapid to notice")
    assert rapid.invoke(b"[1]").body == b"[1]"
    relay.release()

    rapid.wait_ready()
    assert server.invoke(rapid.function_name, "[2]").body == b"[2]"


# --- a cluster of three nodes


@pytest.mark.slow
def test_a_classic_queue_is_back_when_its_node_is(
    cluster: list[RabbitmqNode], start_rapid: StartRapid, start_server: StartServer
) -> None:
    a, b, c = cluster
    name = unique_name("classic")
    _declare_on(a, name, QUEUE_ARGUMENTS)
    rapid = start_rapid(ECHO, RAPID_AMQP_URI=b.uri, AWS_LAMBDA_FUNCTION_NAME=name)
    server = start_server(AMQP_URI=c.uri, INVOKE_QUEUE_TIMEOUT="0.5")
    assert server.invoke(name, "[1]").body == b"[1]"

    a.kill()
    meanwhile = {
        kind: timed(partial(server.invoke, name, X_Amz_Invocation_Type=kind))
        for kind in ("RequestResponse", "DryRun")
    }
    unknown = server.invoke(unique_name("unknown"))
    wait_until(lambda: not is_ready(rapid), "rapid to notice")
    a.start()

    for seconds, answer in meanwhile.values():
        assert (answer.status, answer.headers["x-amzn-ErrorType"]) == (503, "ServiceException")
        assert seconds < BOUNDED_S
    assert unknown.status == 404
    rapid.wait_ready()
    assert server.invoke(name, "[2]").body == b"[2]"


@pytest.mark.slow
def test_calls_that_wait_in_a_queue_are_503_soon_after_its_node_has_died(
    cluster: list[RabbitmqNode], start_server: StartServer, pool: ThreadPoolExecutor
) -> None:
    a, _, c = cluster
    name = unique_name("classic")
    _declare_on(a, name, QUEUE_ARGUMENTS)
    _declare_on(c, f"{name}-async", QUEUE_ARGUMENTS)
    _declare_on(a, f"{name}-async.events", {"x-queue-type": "classic"})
    server = start_server(AMQP_URI=c.uri)
    event = partial(server.invoke, f"{name}-async", X_Amz_Invocation_Type="Event")
    assert event().status == 202
    waiting = [pool.submit(timed, lambda: server.invoke(name)) for _ in range(20)]
    with AmqpClient(c.uri) as client:
        wait_until(lambda: client.waiting(name) == len(waiting), "the calls in the queue")

    a.kill()
    answers = [call.result() for call in waiting]

    assert {answer.status for _, answer in answers} == {503}
    assert event().status == 503
    assert max(seconds for seconds, _ in answers) < BOUNDED_S


@pytest.mark.slow
def test_calls_go_on_when_the_node_of_a_quorum_queue_and_of_a_caller_dies(
    cluster: list[RabbitmqNode],
    start_rapid: StartRapid,
    start_server: StartServer,
    ledger: Ledger,
    pool: ThreadPoolExecutor,
) -> None:
    a, b, c = cluster
    name = unique_name("quorum")
    _declare_on(a, name, {**QUEUE_ARGUMENTS, "x-queue-type": "quorum"})
    start_rapid(
        LEDGER,
        RAPID_AMQP_URI=b.uri,
        AWS_LAMBDA_FUNCTION_NAME=name,
        RAPID_AMQP_QUEUE_TYPE="quorum",
        RAPID_MAX_CONCURRENCY="3",
        **ledger.environ,
    )
    server = start_server(AMQP_URI=c.uri, INVOKE_QUEUE_TIMEOUT="1")
    assert server.invoke(name, "[1]").body == b"[1]"
    with AmqpClient(a.uri, direct=True) as caller:
        caller.publish(name, ledger.held.encode(), pika.BasicProperties(reply_to=caller.reply_to))
        in_flight = pool.submit(server.invoke, name, ledger.held)
        ledger.wait_for(3)
        a.kill()

    wait_until(lambda: server.invoke(name, "[2]").body == b"[2]", "calls to go on")
    ledger.open()  # one of the two has nobody left to be answered to
    answer = in_flight.result(BOUNDED_S)
    answers = [server.invoke(name, f"[{number}]") for number in range(20)]

    assert answer.status == 200
    assert [answer.body for answer in answers] == [b"[%d]" % number for number in range(20)]


def _declare_on(node: RabbitmqNode, name: str, arguments: Any) -> None:
    with AmqpClient(node.uri) as client:
        client.channel.queue_declare(name, durable=True, arguments=dict(arguments))
