"""Asynchronous invocation over RabbitMQ: retries, destinations, dead letters, and what is lost."""

from __future__ import annotations

import contextlib
import itertools
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pika
import pika.spec
import pytest

from devtools.rabbitmq_node import RabbitmqNode
from tests.acceptance.system.amqp import AmqpClient, Reply
from tests.acceptance.system.conftest import through
from tests.acceptance.system.proxy import Proxy
from tests.conftest import StartRapid, StartServer
from tests.events import CHRONICLE, Chronicle, Recorder
from tests.support import ECHO, LIMIT_S, Answer, Rapid, Server, unique_name, wait_until


@pytest.fixture
def name() -> str:
    return unique_name()


def start(start_rapid: StartRapid, broker: str, chronicle: Chronicle, **environ: str) -> Rapid:
    return start_rapid(CHRONICLE, RAPID_AMQP_URI=broker, **{**chronicle.environ, **environ})


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


def is_drained(amqp: AmqpClient, name: str) -> bool:
    return amqp.waiting(f"{name}.events") == 0


# --- accepted


def test_an_event_by_rapids_own_door_goes_through_the_broker(
    start_rapid: StartRapid, broker: str, amqp: AmqpClient, chronicle: Chronicle
) -> None:
    rapid = start(start_rapid, broker, chronicle)

    answer = send(rapid, rapid.function_name, {"n": 1})

    attempt = chronicle.wait_for(1)[0]
    assert attempt.event == {"n": 1}
    assert attempt.request_id == answer.headers["x-amzn-RequestId"]


def test_a_server_that_cannot_reach_the_broker_accepts_nothing(
    start_server: StartServer, start_rapid: StartRapid, broker: str, proxy: Proxy
) -> None:
    rapid = start_rapid(ECHO, RAPID_AMQP_URI=broker)
    server = start_server(AMQP_URI=through(proxy, broker), CONNECT_TIMEOUT="1")
    proxy.close()

    answer = server.invoke(rapid.function_name, X_Amz_Invocation_Type="Event")

    assert (answer.status, answer.headers["x-amzn-ErrorType"]) == (500, "ServiceException")


def test_a_rapid_that_has_lost_the_broker_accepts_nothing(
    start_rapid: StartRapid, broker: str, proxy: Proxy
) -> None:
    rapid = start_rapid(ECHO, RAPID_AMQP_URI=through(proxy, broker))
    proxy.close()
    rapid.wait_for_log("broker not reached")

    answer = rapid.invoke(X_Amz_Invocation_Type="Event")

    assert (answer.status, answer.headers["x-amzn-ErrorType"]) == (500, "ServiceException")


def test_an_event_with_its_client_context_and_qualifier_reaches_the_function(
    server: Server, start_rapid: StartRapid, broker: str, chronicle: Chronicle
) -> None:
    rapid = start(start_rapid, broker, chronicle)

    send(server, f"{rapid.function_name}:v1", {}, X_Amz_Client_Context="eyJjdXN0b20iOiB7fX0=")

    assert chronicle.wait_for(1)[0].context == '{"custom": {}}'


# --- flow


def test_calls_go_to_another_instance_while_an_event_runs_for_long(
    server: Server, start_rapid: StartRapid, broker: str, chronicle: Chronicle, name: str
) -> None:
    busy = start(start_rapid, broker, chronicle, AWS_LAMBDA_FUNCTION_NAME=name)
    send(server, name, chronicle.held)
    chronicle.wait_for(1)
    start(start_rapid, broker, chronicle, AWS_LAMBDA_FUNCTION_NAME=name)

    answers = [server.invoke(name, f"[{n}]") for n in range(20)]

    assert [answer.body for answer in answers] == [b"[%d]" % n for n in range(20)]
    instances = {attempt.instance for attempt in chronicle.attempts[1:]}
    assert busy.pid not in instances


def test_an_event_waits_in_the_broker_while_calls_have_every_slot(
    server: Server, start_rapid: StartRapid, broker: str, amqp: AmqpClient, chronicle: Chronicle
) -> None:
    rapid = start(start_rapid, broker, chronicle, RAPID_MAX_CONCURRENCY="2")
    name = rapid.function_name
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
    server: Server, start_rapid: StartRapid, broker: str, amqp: AmqpClient, chronicle: Chronicle
) -> None:
    rapid = start(start_rapid, broker, chronicle, RAPID_MAX_CONCURRENCY="2")
    name = rapid.function_name

    for _ in range(5):
        send(server, name, chronicle.held)

    chronicle.wait_for(2)
    wait_until(lambda: amqp.waiting(f"{name}.events") == 3, "three events to stay in the broker")
    wait_until(lambda: amqp.consumers(name) == 0, "the slots to be offered to no call")


def test_slots_are_offered_to_calls_again_when_events_have_ended(
    server: Server, start_rapid: StartRapid, broker: str, amqp: AmqpClient, chronicle: Chronicle
) -> None:
    rapid = start(start_rapid, broker, chronicle)
    send(server, rapid.function_name, chronicle.held)
    chronicle.wait_for(1)
    wait_until(lambda: amqp.consumers(rapid.function_name) == 0, "the slot to be taken")

    chronicle.open()

    assert server.invoke(rapid.function_name, "[1]").body == b"[1]"


def test_a_stopping_instance_finishes_what_runs_and_hands_back_what_does_not(
    server: Server, start_rapid: StartRapid, broker: str, amqp: AmqpClient, chronicle: Chronicle
) -> None:
    rapid = start(start_rapid, broker, chronicle)
    name = rapid.function_name
    send(server, name, chronicle.held)
    send(server, name, {"n": 2})
    chronicle.wait_for(1)

    with ThreadPoolExecutor(1) as pool:
        stopped = pool.submit(rapid.stop)
        rapid.wait_for_log("stopping")
        chronicle.open()
        assert stopped.result(LIMIT_S) == 0

    # A quorum queue counts a moment later than it confirms.
    wait_until(lambda: amqp.waiting(f"{name}.events") == 1, "the other event to be in its queue")
    assert len(chronicle.attempts) == 1
    assert amqp.waiting(f"{name}.dead") == 0


def test_the_queue_by_which_a_function_is_found_is_declared_last(
    start_rapid: StartRapid, broker: str, proxy: Proxy, name: str
) -> None:
    start_rapid(ECHO, RAPID_AMQP_URI=through(proxy, broker), AWS_LAMBDA_FUNCTION_NAME=name)

    declared = [m.queue for m in proxy.methods if isinstance(m, pika.spec.Queue.Declare)]
    own = [queue for queue in declared if queue.startswith(name)]
    assert own == [f"{name}.dead", f"{name}.events", name] == [*own[:2], declared[-1]]


@pytest.mark.parametrize("kind", ["RequestResponse", "Event", "DryRun"])
def test_a_function_without_its_call_queue_is_not_found(
    server: Server, start_rapid: StartRapid, broker: str, amqp: AmqpClient, name: str, kind: str
) -> None:
    start_rapid(ECHO, RAPID_AMQP_URI=broker, AWS_LAMBDA_FUNCTION_NAME=name).stop()
    amqp.delete(name)

    answer = server.invoke(name, X_Amz_Invocation_Type=kind)

    assert (answer.status, amqp.waiting(f"{name}.events")) == (404, 0)


def test_a_function_without_an_event_queue_is_found_and_takes_no_events(
    server: Server, amqp: AmqpClient, name: str
) -> None:
    """A worker of another make has a queue for calls alone."""
    amqp.declare(name)

    answer = server.invoke(name, X_Amz_Invocation_Type="Event")

    assert (answer.status, answer.headers["x-amzn-ErrorType"]) == (503, "ServiceException")
    assert f"{name}.events does not exist" in answer.json()["Message"]
    assert server.invoke(name, X_Amz_Invocation_Type="DryRun").status == 204


def test_calls_go_on_when_the_event_queue_cannot_be_had(
    server: Server, start_rapid: StartRapid, broker: str, amqp: AmqpClient, name: str
) -> None:
    amqp.channel.queue_declare(f"{name}.events")  # of another kind
    rapid = start_rapid(ECHO, RAPID_AMQP_URI=broker, AWS_LAMBDA_FUNCTION_NAME=name)
    rapid.wait_for_log("no asynchronous invocations are taken or accepted")
    assert server.invoke(name, "[1]").body == b"[1]"
    assert rapid.invoke(X_Amz_Invocation_Type="Event").status == 500

    amqp.delete(f"{name}.events")

    wait_until(
        lambda: rapid.invoke(X_Amz_Invocation_Type="Event").status == 202, "events to be accepted"
    )


# --- retries


def test_a_failing_event_is_tried_three_times_with_growing_delays(
    server: Server, start_rapid: StartRapid, broker: str, amqp: AmqpClient, chronicle: Chronicle
) -> None:
    rapid = start(start_rapid, broker, chronicle)

    answer = send(server, rapid.function_name, {"fail": True})

    dead = take(amqp, f"{rapid.function_name}.dead")
    attempts = chronicle.attempts
    assert [attempt.request_id for attempt in attempts] == 3 * [answer.headers["x-amzn-RequestId"]]
    first, second = (b.at - a.at for a, b in itertools.pairwise(attempts))
    assert first >= 0.2
    assert second >= 0.4
    assert json.loads(dead.body) == {"fail": True}
    assert dead.headers["RequestID"] == answer.headers["x-amzn-RequestId"]
    assert (dead.headers["ErrorCode"], dead.headers["ErrorMessage"]) == (200, "on purpose")
    assert is_drained(amqp, rapid.function_name)


def test_an_event_that_succeeds_at_last_is_done(
    server: Server, start_rapid: StartRapid, broker: str, amqp: AmqpClient, chronicle: Chronicle
) -> None:
    queue = unique_name()
    amqp.channel.queue_declare(queue)
    rapid = start(start_rapid, broker, chronicle, RAPID_ON_SUCCESS=f"queue:{queue}")

    send(server, rapid.function_name, {"fail_until": 2})

    record = json.loads(take(amqp, queue).body)
    assert record["requestContext"]["approximateInvokeCount"] == 2
    assert record["requestContext"]["condition"] == "Success"
    assert len(chronicle.attempts) == 2


def test_with_no_retry_attempts_an_event_runs_once(
    server: Server, start_rapid: StartRapid, broker: str, amqp: AmqpClient, chronicle: Chronicle
) -> None:
    rapid = start(start_rapid, broker, chronicle, RAPID_MAX_RETRY_ATTEMPTS="0")

    send(server, rapid.function_name, {"fail": True})

    take(amqp, f"{rapid.function_name}.dead")
    assert len(chronicle.attempts) == 1


def test_a_retry_that_would_come_too_late_is_not_waited_for(
    server: Server, start_rapid: StartRapid, broker: str, amqp: AmqpClient, chronicle: Chronicle
) -> None:
    queue = unique_name()
    amqp.channel.queue_declare(queue)
    rapid = start(
        start_rapid,
        broker,
        chronicle,
        RAPID_MAXIMUM_EVENT_AGE="60",
        RAPID_EVENT_RETRY_DELAYS="61",
        RAPID_ON_FAILURE=f"queue:{queue}",
    )

    send(server, rapid.function_name, {"fail": True})

    context = json.loads(take(amqp, queue).body)["requestContext"]
    assert (context["condition"], context["approximateInvokeCount"]) == ("EventAgeExceeded", 1)


def test_an_event_that_is_too_old_is_never_run(
    start_rapid: StartRapid, broker: str, amqp: AmqpClient, chronicle: Chronicle, recorder: Recorder
) -> None:
    rapid = start(
        start_rapid, broker, chronicle, RAPID_MAXIMUM_EVENT_AGE="60", RAPID_ON_FAILURE=recorder.url
    )
    headers = {"X-Lambda-First-Queued-Ms": int((time.time() - 61) * 1000)}

    amqp.publish(f"{rapid.function_name}.events", b"{}", pika.BasicProperties(headers=headers))

    record = recorder.wait_for()[0]
    assert record["requestContext"]["condition"] == "EventAgeExceeded"
    assert record["requestContext"]["approximateInvokeCount"] == 0
    assert "responsePayload" not in record
    assert chronicle.attempts == []


def test_a_poison_event_ends_in_the_dead_letters(
    server: Server, start_rapid: StartRapid, broker: str, amqp: AmqpClient, chronicle: Chronicle
) -> None:
    name = unique_name()
    first = start(start_rapid, broker, chronicle, AWS_LAMBDA_FUNCTION_NAME=name)
    send(server, name, {"kill": True})
    first.wait_exit()

    for _ in range(2):
        doomed = Rapid(
            CHRONICLE, RAPID_AMQP_URI=broker, AWS_LAMBDA_FUNCTION_NAME=name, **chronicle.environ
        )
        with contextlib.closing(doomed):
            doomed.start()  # and perhaps killed before it is seen to be ready
            doomed.wait_exit()
    last = start(start_rapid, broker, chronicle, AWS_LAMBDA_FUNCTION_NAME=name)

    dead = take(amqp, f"{name}.dead")
    assert "The instance was lost" in dead.headers["ErrorMessage"]
    assert len(chronicle.attempts) == 3
    assert last.exit_code is None
    assert server.invoke(name, "[1]").body == b"[1]"


def test_a_message_that_is_no_invocation_goes_to_the_dead_letters(
    server: Server, start_rapid: StartRapid, broker: str, amqp: AmqpClient, chronicle: Chronicle
) -> None:
    rapid = start(start_rapid, broker, chronicle)
    headers = {"X-Amz-Client-Context": "no base64"}

    amqp.publish(f"{rapid.function_name}.events", b"{}", pika.BasicProperties(headers=headers))

    dead = take(amqp, f"{rapid.function_name}.dead")
    assert "Client context" in dead.headers["ErrorMessage"]
    assert server.invoke(rapid.function_name, "[1]").body == b"[1]"


def test_an_event_is_kept_when_the_broker_does_not_take_what_follows_it(
    server: Server, start_rapid: StartRapid, broker: str, amqp: AmqpClient, chronicle: Chronicle
) -> None:
    rapid = start(start_rapid, broker, chronicle, RAPID_MAX_RETRY_ATTEMPTS="0")
    dead = f"{rapid.function_name}.dead"
    send(server, rapid.function_name, {**chronicle.held, "fail": True})
    chronicle.wait_for(1)
    amqp.delete(dead)

    chronicle.open()

    rapid.wait_for_log("consuming", count=2)  # the queue is declared again
    assert json.loads(take(amqp, dead).body)["fail"] is True


# --- destinations


@pytest.fixture
def exchange(amqp: AmqpClient) -> Iterator[str]:
    """Give a topic exchange whose messages go to the queue of the same name."""
    name = unique_name("exchange")
    amqp.channel.exchange_declare(name, "topic")
    amqp.channel.queue_declare(name)
    amqp.channel.queue_bind(name, name, "failed.#")
    yield name
    amqp.channel.exchange_delete(name)
    amqp.channel.queue_delete(name)


def test_the_record_of_a_failure_is_aws_s(
    server: Server, start_rapid: StartRapid, broker: str, amqp: AmqpClient, chronicle: Chronicle,
    exchange: str,
) -> None:  # fmt: skip
    rapid = start(
        start_rapid, broker, chronicle, RAPID_ON_FAILURE=f"exchange:{exchange}/failed.event"
    )

    answer = send(server, rapid.function_name, {"fail": True})

    record = json.loads(take(amqp, exchange).body)
    assert record.pop("timestamp").endswith("Z")
    arn = f"arn:aws:lambda:us-east-1:123456789012:function:{rapid.function_name}:$LATEST"
    assert record == {
        "version": "1.0",
        "requestContext": {
            "requestId": answer.headers["x-amzn-RequestId"],
            "functionArn": arn,
            "condition": "RetriesExhausted",
            "approximateInvokeCount": 3,
        },
        "requestPayload": {"fail": True},
        "responseContext": {
            "statusCode": 200,
            "executedVersion": "$LATEST",
            "functionError": "Unhandled",
        },
        "responsePayload": {"errorMessage": "on purpose", "errorType": "Boom"},
    }
    assert amqp.waiting(f"{rapid.function_name}.dead") == 0


def test_another_function_is_invoked_with_the_record(
    server: Server, start_rapid: StartRapid, broker: str, chronicle: Chronicle, name: str
) -> None:
    rapid = start(
        start_rapid,
        broker,
        chronicle,
        RAPID_MAX_RETRY_ATTEMPTS="0",
        RAPID_ON_FAILURE=f"function:{name}",
    )
    start(start_rapid, broker, chronicle, AWS_LAMBDA_FUNCTION_NAME=name)

    send(server, rapid.function_name, {"fail": True})

    told = chronicle.wait_for(2)[1]
    assert told.event["requestContext"]["condition"] == "RetriesExhausted"
    assert told.request_id != told.event["requestContext"]["requestId"]


def test_a_record_is_posted_to_an_http_destination(
    server: Server, start_rapid: StartRapid, broker: str, chronicle: Chronicle, recorder: Recorder
) -> None:
    rapid = start(start_rapid, broker, chronicle, RAPID_ON_SUCCESS=recorder.url)

    send(server, rapid.function_name, {"n": 1})

    record = recorder.wait_for()[0]
    assert recorder.paths == ["/records?of=events"]
    assert (record["requestPayload"], record["responsePayload"]) == ({"n": 1}, {"n": 1})
    assert "functionError" not in record["responseContext"]


@pytest.mark.parametrize(
    "destination", ["queue:nobody", "exchange:nobody/x", "function:nobody", "http"]
)
def test_a_failure_whose_destination_is_not_there_is_a_dead_letter(
    server: Server,
    start_rapid: StartRapid,
    broker: str,
    amqp: AmqpClient,
    chronicle: Chronicle,
    recorder: Recorder,
    destination: str,
) -> None:
    recorder.status = 500
    where = recorder.url if destination == "http" else destination
    rapid = start(
        start_rapid, broker, chronicle, RAPID_MAX_RETRY_ATTEMPTS="0", RAPID_ON_FAILURE=where
    )

    send(server, rapid.function_name, {"fail": True})

    assert take(amqp, f"{rapid.function_name}.dead").headers["ErrorMessage"] == "on purpose"
    assert len(chronicle.attempts) == 1
    assert "lambda_destination_delivery_failures_total" in rapid.get("/metrics").body.decode()
    assert server.invoke(rapid.function_name, "[1]").body == b"[1]"


def test_a_destination_is_kept_from_the_function(start_rapid: StartRapid, broker: str) -> None:
    rapid = start_rapid(
        "/usr/bin/env", RAPID_AMQP_URI=broker, RAPID_ON_FAILURE="queue:secret", ready=False
    )

    rapid.wait_for_log("init failed")

    assert "ON_FAILURE" not in rapid.stdout.decode()
    assert "secret" not in rapid.stdout.decode()


# --- metrics


def test_events_are_counted(
    server: Server, start_rapid: StartRapid, broker: str, amqp: AmqpClient, chronicle: Chronicle
) -> None:
    rapid = start(start_rapid, broker, chronicle, RAPID_MAX_RETRY_ATTEMPTS="1")
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


def test_a_new_prefetch_costs_no_event_an_attempt(
    server: Server, start_rapid: StartRapid, broker: str, chronicle: Chronicle
) -> None:
    """What is read ahead follows the function's speed, and each change is a new consumer.

    A quorum queue takes back what was on its way to the old one, and delivers it as redelivered.
    """
    rapid = start(start_rapid, broker, chronicle)
    label = f'function_name="{rapid.function_name}"'

    for _ in range(300):
        send(server, rapid.function_name, {})

    chronicle.wait_for(300)
    assert f"lambda_async_event_retries_total{{{label}}} 0.0" in rapid.get("/metrics").body.decode()


@pytest.mark.slow
def test_instances_that_come_and_go_under_load_cost_no_event_an_attempt(
    server: Server, start_rapid: StartRapid, broker: str, chronicle: Chronicle
) -> None:
    name = unique_name()
    setup = {"AWS_LAMBDA_FUNCTION_NAME": name, "RAPID_MAX_CONCURRENCY": "2"}
    instances = [start(start_rapid, broker, chronicle, **setup)]
    count = 0
    for _ in range(6):
        replaced = False

        def replace() -> None:
            nonlocal replaced
            instances.append(start(start_rapid, broker, chronicle, **setup))
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


# --- nothing is lost


EVENTS = 2_000


def accept_all(server: Server, name: str, count: int) -> set[int]:
    """Send events, again and again until each is accepted; return their numbers."""
    with server.client() as client:
        for n in range(count):
            body = json.dumps({"n": n, "sleep_s": 0.002}).encode()

            def is_accepted(body: bytes = body) -> bool:
                path = f"/2015-03-31/functions/{name}/invocations"
                return client.post(path, body, X_Amz_Invocation_Type="Event").status == 202

            wait_until(is_accepted, f"event {n} to be accepted", 60)
    return set(range(count))


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_no_accepted_event_is_lost_with_instances_and_the_broker(
    node: RabbitmqNode, start_rapid: StartRapid, start_server: StartServer, chronicle: Chronicle
) -> None:
    name = unique_name()

    def start_instance() -> Rapid:
        return start(
            start_rapid,
            node.uri,
            chronicle,
            AWS_LAMBDA_FUNCTION_NAME=name,
            RAPID_MAX_CONCURRENCY="4",
        )

    server = start_server(AMQP_URI=node.uri)
    instances = [start_instance() for _ in range(2)]
    with ThreadPoolExecutor(1) as pool:
        accepted = pool.submit(accept_all, server, name, EVENTS)
        for kill in range(3):
            chronicle.wait_for(EVENTS // 8 * (kill + 1))
            instances.pop(0).close()
            instances.append(start_instance())
            if kill == 1:
                node.restart()
        numbers = accepted.result(180)

    def missing() -> set[int]:
        return numbers - {attempt.event["n"] for attempt in chronicle.attempts}

    wait_until(lambda: not missing(), f"{EVENTS} events to run", 60)


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_no_accepted_event_is_lost_with_a_node_of_the_cluster(
    cluster: list[RabbitmqNode],
    start_rapid: StartRapid,
    start_server: StartServer,
    chronicle: Chronicle,
) -> None:
    name = unique_name()
    dies, *stay = cluster
    rapid = start(
        start_rapid,
        stay[0].uri,
        chronicle,
        AWS_LAMBDA_FUNCTION_NAME=name,
        RAPID_MAX_CONCURRENCY="4",
        RAPID_AMQP_QUEUE_TYPE="quorum",
    )
    server = start_server(AMQP_URI=stay[1].uri)
    try:
        with ThreadPoolExecutor(1) as pool:
            accepted = pool.submit(accept_all, server, name, EVENTS // 2)
            chronicle.wait_for(EVENTS // 8)
            dies.kill()
            numbers = accepted.result(180)

        def missing() -> set[int]:
            return numbers - {attempt.event["n"] for attempt in chronicle.attempts}

        wait_until(lambda: not missing(), "every event to run", 60)
        assert rapid.exit_code is None
    finally:
        dies.start()
