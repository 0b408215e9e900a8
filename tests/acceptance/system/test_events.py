"""Asynchronous invocation over RabbitMQ: retries, destinations, dead letters, and what is lost."""

from __future__ import annotations

import contextlib
import itertools
import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pika
import pytest

from devtools.rabbitmq_node import RabbitmqNode
from tests.acceptance.system.amqp import AmqpClient, Reply
from tests.acceptance.system.conftest import through
from tests.acceptance.system.proxy import Proxy
from tests.conftest import StartRapid, StartServer
from tests.events import CHRONICLE, Chronicle, Recorder
from tests.support import ECHO, LIMIT_S, Answer, Rapid, Server, unique_name, wait_until

#: Starts a rapid with the function ``chronicle`` and these settings.
Start = Callable[..., Rapid]


@pytest.fixture
def start(start_rapid: StartRapid, broker: str, chronicle: Chronicle) -> Start:
    return lambda **environ: start_rapid(
        CHRONICLE, **{"RAPID_AMQP_URI": broker, **chronicle.environ, **environ}
    )


def send(server: Server | Rapid, name: str, event: Any, **headers: str) -> Answer:
    """Invoke asynchronously, and check that the event is accepted."""
    path = f"/2015-03-31/functions/{name}/invocations"
    with server.client() as client:
        answer = client.post(
            path, json.dumps(event).encode(), X_Amz_Invocation_Type="Event", **headers
        )
    assert answer.status == 202, answer.body
    return answer


def take(amqp: AmqpClient, queue: str) -> Reply:
    """Take a message out of a queue."""
    found: list[Reply] = []

    def has_come() -> bool:
        method, properties, body = amqp.channel.basic_get(queue, auto_ack=True)
        if method is not None:
            found.append(Reply(properties, body))
        return bool(found)

    wait_until(has_come, f"a message in {queue}")
    return found[0]


# --- accepted


def test_an_event_by_rapids_own_door_goes_through_the_broker(
    start: Start, chronicle: Chronicle
) -> None:
    rapid = start()

    answer = send(rapid, rapid.function_name, {"n": 1})

    attempt = chronicle.wait_for(1)[0]
    assert attempt.event == {"n": 1}
    assert attempt.request_id == answer.headers["x-amzn-RequestId"]


def test_without_the_broker_neither_program_accepts_anything(
    start_server: StartServer, start_rapid: StartRapid, broker: str, proxy: Proxy
) -> None:
    uri = through(proxy, broker)
    rapid = start_rapid(ECHO, RAPID_AMQP_URI=uri)
    server = start_server(AMQP_URI=uri, CONNECT_TIMEOUT="1")
    proxy.close()
    rapid.wait_for_log("broker not reached")

    for answer in (
        rapid.invoke(X_Amz_Invocation_Type="Event"),
        server.invoke(rapid.function_name, X_Amz_Invocation_Type="Event"),
    ):
        assert (answer.status, answer.headers["x-amzn-ErrorType"]) == (500, "ServiceException")


# --- flow


def test_calls_go_to_another_instance_while_an_event_runs_for_long(
    server: Server, start: Start, chronicle: Chronicle
) -> None:
    name = unique_name()
    busy = start(AWS_LAMBDA_FUNCTION_NAME=name)
    send(server, name, chronicle.held)
    chronicle.wait_for(1)
    start(AWS_LAMBDA_FUNCTION_NAME=name)

    answers = [server.invoke(name, f"[{n}]") for n in range(20)]

    assert [answer.body for answer in answers] == [b"[%d]" % n for n in range(20)]
    assert busy.pid not in {attempt.instance for attempt in chronicle.attempts[1:]}


def test_an_event_waits_in_the_broker_while_calls_have_every_slot(
    server: Server, start: Start, amqp: AmqpClient, chronicle: Chronicle
) -> None:
    name = start(RAPID_MAX_CONCURRENCY="2").function_name
    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(server.invoke, name, json.dumps(chronicle.held)) for _ in range(2)]
        chronicle.wait_for(2)

        for n in range(3):
            send(server, name, {"n": n})

        queue = f"{name}.events"
        wait_until(lambda: amqp.waiting(queue) == 3, "the events to be handed back")
        wait_until(lambda: amqp.consumers(queue) == 0, "no event to be asked for")
        chronicle.open()
        assert all(call.result().status == 200 for call in calls)
    chronicle.wait_for(5)
    assert len({attempt.request_id for attempt in chronicle.attempts}) == 5


def test_an_instance_holds_no_more_events_than_it_has_slots(
    server: Server, start: Start, amqp: AmqpClient, chronicle: Chronicle
) -> None:
    name = start(RAPID_MAX_CONCURRENCY="2").function_name

    for _ in range(5):
        send(server, name, chronicle.held)

    chronicle.wait_for(2)
    wait_until(lambda: amqp.waiting(f"{name}.events") == 3, "three events to stay in the broker")
    wait_until(lambda: amqp.consumers(name) == 0, "the slots to be offered to no call")
    chronicle.open()
    assert server.invoke(name, "[1]").body == b"[1]"


def test_a_stopping_instance_finishes_what_runs_and_hands_back_what_does_not(
    server: Server, start: Start, amqp: AmqpClient, chronicle: Chronicle
) -> None:
    rapid = start()
    name = rapid.function_name
    send(server, name, chronicle.held)
    send(server, name, {"n": 2})
    chronicle.wait_for(1)

    with ThreadPoolExecutor(1) as pool:
        stopped = pool.submit(rapid.stop)
        rapid.wait_for_log("consuming no more")
        chronicle.open()
        assert stopped.result(LIMIT_S) == 0

    # A quorum queue counts a moment later than it confirms.
    wait_until(lambda: amqp.waiting(f"{name}.events") == 1, "the other event to be in its queue")
    assert len(chronicle.attempts) == 1
    assert amqp.waiting(f"{name}.dead") == 0


def test_a_function_without_its_call_queue_is_not_found(
    server: Server, start: Start, amqp: AmqpClient
) -> None:
    rapid = start()
    name = rapid.function_name
    rapid.stop()
    amqp.delete(name)

    for kind in ("RequestResponse", "Event", "DryRun"):
        assert server.invoke(name, X_Amz_Invocation_Type=kind).status == 404
    assert amqp.waiting(f"{name}.events") == 0


def test_a_function_without_an_event_queue_is_found_and_takes_no_events(
    server: Server, amqp: AmqpClient, function_name: str
) -> None:
    """A worker of another make has a queue for calls alone."""
    amqp.declare(function_name)

    answer = server.invoke(function_name, X_Amz_Invocation_Type="Event")

    assert (answer.status, answer.headers["x-amzn-ErrorType"]) == (503, "ServiceException")
    assert f"{function_name}.events does not exist" in answer.json()["Message"]
    assert server.invoke(function_name, X_Amz_Invocation_Type="DryRun").status == 204


def test_calls_go_on_when_the_event_queue_cannot_be_had(
    server: Server, start: Start, amqp: AmqpClient, function_name: str
) -> None:
    amqp.channel.queue_declare(f"{function_name}.events")  # of another kind
    rapid = start(AWS_LAMBDA_FUNCTION_NAME=function_name)
    rapid.wait_for_log("no asynchronous invocations are taken or accepted")
    assert server.invoke(function_name, "[1]").body == b"[1]"
    assert rapid.invoke(X_Amz_Invocation_Type="Event").status == 500

    amqp.delete(f"{function_name}.events")

    wait_until(
        lambda: rapid.invoke(X_Amz_Invocation_Type="Event").status == 202, "events to be accepted"
    )


# --- retries


def test_a_failing_event_is_a_dead_letter_after_growing_delays(
    server: Server, start: Start, amqp: AmqpClient, chronicle: Chronicle
) -> None:
    name = start().function_name

    answer = send(server, name, {"fail": True})

    dead = take(amqp, f"{name}.dead")
    first, second = (b.at - a.at for a, b in itertools.pairwise(chronicle.attempts))
    assert first >= 0.2
    assert second >= 0.4
    assert json.loads(dead.body) == {"fail": True}
    assert dead.headers["RequestID"] == answer.headers["x-amzn-RequestId"]
    assert (dead.headers["ErrorCode"], dead.headers["ErrorMessage"]) == (200, "on purpose")
    assert amqp.waiting(f"{name}.events") == 0


def test_an_event_that_is_too_old_is_never_run(
    start: Start, amqp: AmqpClient, chronicle: Chronicle, recorder: Recorder
) -> None:
    rapid = start(RAPID_MAXIMUM_EVENT_AGE="60", RAPID_ON_FAILURE=recorder.url)
    headers = {"X-Lambda-First-Queued-Ms": int((time.time() - 61) * 1000)}

    amqp.publish(f"{rapid.function_name}.events", b"{}", pika.BasicProperties(headers=headers))

    record = recorder.wait_for()[0]
    assert record["requestContext"]["condition"] == "EventAgeExceeded"
    assert record["requestContext"]["approximateInvokeCount"] == 0
    assert "responsePayload" not in record
    assert chronicle.attempts == []


def test_a_poison_event_ends_in_the_dead_letters(
    server: Server, start: Start, broker: str, amqp: AmqpClient, chronicle: Chronicle
) -> None:
    name = unique_name()
    first = start(AWS_LAMBDA_FUNCTION_NAME=name)
    send(server, name, {"kill": True})
    first.wait_exit()

    for _ in range(2):
        doomed = Rapid(
            CHRONICLE, RAPID_AMQP_URI=broker, AWS_LAMBDA_FUNCTION_NAME=name, **chronicle.environ
        )
        with contextlib.closing(doomed):
            doomed.start()  # and perhaps killed before it is seen to be ready
            doomed.wait_exit()
    last = start(AWS_LAMBDA_FUNCTION_NAME=name)

    dead = take(amqp, f"{name}.dead")
    assert "The instance was lost" in dead.headers["ErrorMessage"]
    assert len(chronicle.attempts) == 3
    assert last.exit_code is None
    assert server.invoke(name, "[1]").body == b"[1]"


def test_an_event_is_kept_when_the_broker_does_not_take_what_follows_it(
    server: Server, start: Start, amqp: AmqpClient, chronicle: Chronicle
) -> None:
    rapid = start(RAPID_MAX_RETRY_ATTEMPTS="0")
    dead = f"{rapid.function_name}.dead"
    send(server, rapid.function_name, {**chronicle.held, "fail": True})
    chronicle.wait_for(1)
    amqp.delete(dead)

    chronicle.open()

    rapid.wait_for_log("consuming", count=2)  # the queue is declared again
    assert json.loads(take(amqp, dead).body)["fail"] is True


# --- destinations


@pytest.mark.parametrize("kind", ["queue", "exchange", "function"])
def test_the_record_of_a_failure_goes_to_its_destination(
    server: Server, start: Start, amqp: AmqpClient, function_name: str, kind: str
) -> None:
    key = "/failed.event" if kind == "exchange" else ""
    suffix = {"queue": "", "exchange": ".bound", "function": ".events"}[kind]
    queue = f"{function_name}{suffix}"
    if kind == "function":
        start(AWS_LAMBDA_FUNCTION_NAME=function_name).stop()
    else:
        amqp.channel.queue_declare(queue, exclusive=True)
    if kind == "exchange":
        amqp.channel.exchange_declare(function_name, "topic", auto_delete=True)
        amqp.channel.queue_bind(queue, function_name, "failed.#")
    destination = f"{kind}:{function_name}{key}"
    rapid = start(RAPID_MAX_RETRY_ATTEMPTS="0", RAPID_ON_FAILURE=destination)

    request_id = send(server, rapid.function_name, {"fail": True}).headers["x-amzn-RequestId"]

    told = take(amqp, queue)
    record = json.loads(told.body)
    assert record["requestContext"]["condition"] == "RetriesExhausted"
    assert record["requestContext"]["requestId"] == request_id
    # For a function it is an invocation of its own.
    assert (told.properties.correlation_id == request_id) is (kind != "function")
    assert amqp.waiting(f"{rapid.function_name}.dead") == 0


@pytest.mark.parametrize(
    "destination", ["queue:nobody", "exchange:nobody/x", "function:nobody", "http"]
)
def test_a_failure_whose_destination_is_not_there_is_a_dead_letter(
    server: Server,
    start: Start,
    amqp: AmqpClient,
    chronicle: Chronicle,
    recorder: Recorder,
    destination: str,
) -> None:
    recorder.status = 500
    where = recorder.url if destination == "http" else destination
    rapid = start(RAPID_MAX_RETRY_ATTEMPTS="0", RAPID_ON_FAILURE=where)

    send(server, rapid.function_name, {"fail": True})

    assert take(amqp, f"{rapid.function_name}.dead").headers["ErrorMessage"] == "on purpose"
    assert len(chronicle.attempts) == 1
    assert "lambda_destination_delivery_failures_total" in rapid.get("/metrics").body.decode()
    assert server.invoke(rapid.function_name, "[1]").body == b"[1]"


# --- metrics


def test_events_are_counted(server: Server, start: Start, amqp: AmqpClient) -> None:
    rapid = start(RAPID_MAX_RETRY_ATTEMPTS="1")
    name = rapid.function_name

    send(server, name, {"fail": True})
    send(server, name, {})

    take(amqp, f"{name}.dead")
    text = rapid.get("/metrics").body.decode()
    label = f'function_name="{name}"'
    assert f"lambda_async_events_received_total{{{label}}} 2.0" in text
    assert f"lambda_async_event_retries_total{{{label}}} 1.0" in text
    assert f'lambda_async_events_dropped_total{{{label},reason="RetriesExhausted"}} 1.0' in text
    assert f"lambda_dead_letters_total{{{label}}} 1.0" in text
    assert f"lambda_async_event_age_seconds_count{{{label}}} 3.0" in text


# --- nothing is lost


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_instances_that_come_and_go_under_load_cost_no_event_an_attempt(
    server: Server, start: Start, chronicle: Chronicle
) -> None:
    name = unique_name()
    setup = {"AWS_LAMBDA_FUNCTION_NAME": name, "RAPID_MAX_CONCURRENCY": "2"}
    instances = [start(**setup)]
    count = 0
    for _ in range(6):
        replaced = False

        def replace() -> None:
            nonlocal replaced
            instances.append(start(**setup))
            assert instances[-2].stop() == 0
            replaced = True

        replacing = threading.Thread(target=replace)
        replacing.start()
        while not replaced and replacing.is_alive():
            send(server, name, {})
            count += 1
        replacing.join()

    chronicle.wait_for(count)
    assert not [line for rapid in instances for line in rapid.log if "tried again" in line]
    assert len(chronicle.attempts) == count


EVENTS = 2_000


def accept_all(server: Server, name: str, count: int) -> None:
    """Send events, and each again until it is accepted."""
    with server.client() as client:
        for n in range(count):
            body = json.dumps({"n": n, "sleep_s": 0.002}).encode()

            def is_accepted(body: bytes = body) -> bool:
                path = f"/2015-03-31/functions/{name}/invocations"
                return client.post(path, body, X_Amz_Invocation_Type="Event").status == 202

            wait_until(is_accepted, f"event {n} to be accepted", 60)


def wait_for_all(chronicle: Chronicle, count: int) -> None:
    def have_run() -> bool:
        return {attempt.event["n"] for attempt in chronicle.attempts} == set(range(count))

    wait_until(have_run, f"{count} events to run", 60)


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_no_accepted_event_is_lost_with_instances_and_the_broker(
    node: RabbitmqNode, start: Start, start_server: StartServer, chronicle: Chronicle
) -> None:
    setup = {"RAPID_AMQP_URI": node.uri, "RAPID_MAX_CONCURRENCY": "4"}
    setup["AWS_LAMBDA_FUNCTION_NAME"] = name = unique_name()
    server = start_server(AMQP_URI=node.uri)
    instances = [start(**setup) for _ in range(2)]
    with ThreadPoolExecutor(1) as pool:
        accepted = pool.submit(accept_all, server, name, EVENTS)
        for kill in range(3):
            chronicle.wait_for(EVENTS // 8 * (kill + 1))
            instances.pop(0).close()
            instances.append(start(**setup))
            if kill == 1:
                node.restart()
        accepted.result(180)

    wait_for_all(chronicle, EVENTS)


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_no_accepted_event_is_lost_with_a_node_of_the_cluster(
    cluster: list[RabbitmqNode], start: Start, start_server: StartServer, chronicle: Chronicle
) -> None:
    dies, *stay = cluster
    rapid = start(
        RAPID_AMQP_URI=stay[0].uri, RAPID_MAX_CONCURRENCY="4", RAPID_AMQP_QUEUE_TYPE="quorum"
    )
    server = start_server(AMQP_URI=stay[1].uri)
    try:
        with ThreadPoolExecutor(1) as pool:
            accepted = pool.submit(accept_all, server, rapid.function_name, EVENTS // 2)
            chronicle.wait_for(EVENTS // 8)
            dies.kill()
            accepted.result(180)

        wait_for_all(chronicle, EVENTS // 2)
        assert rapid.exit_code is None
    finally:
        dies.start()
