"""The way through the broker: what becomes of calls when nobody, nothing or too much is there."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pika
import pika.exceptions
import pika.spec
import pytest

from devtools.ports import LOOPBACK
from devtools.rabbitmq_node import RabbitmqNode, TlsFiles
from tests.acceptance.system.amqp import QUEUE_ARGUMENTS, AmqpClient
from tests.acceptance.system.conftest import Ledger, through
from tests.acceptance.system.proxy import Proxy
from tests.conftest import StartRapid, StartServer
from tests.support import ECHO, LIMIT_S, MISBEHAVE, Rapid, Server, unique_name, wait_until


def is_ready(program: Rapid | Server) -> bool:
    return program.get("/readyz").status == 200


def is_served(server: Server, name: str) -> bool:
    return server.invoke(name, "[1]").body == b"[1]"


# --- who takes the call


def test_a_call_that_runs_longer_than_any_wait_is_answered_once(
    start_server: StartServer, start_rapid: StartRapid, broker: str, amqp: AmqpClient
) -> None:
    server = start_server(AMQP_URI=broker, INVOKE_QUEUE_TIMEOUT="0.3")
    rapid = start_rapid(MISBEHAVE, RAPID_AMQP_URI=broker)
    event = '{"do": "sleep", "s": 2.8}'  # over the queue timeout and what is added to it

    answer = server.invoke(rapid.function_name, event)

    assert (answer.status, answer.body.decode()) == (200, event)
    # A client that knows no frames is not told that the call has started.
    assert amqp.call(rapid.function_name, event.encode()).body.decode() == event


@pytest.mark.slow
def test_a_reply_faster_than_its_publisher_is_not_lost(
    server: Server, start_rapid: StartRapid, broker: str, pool: ThreadPoolExecutor
) -> None:
    rapid = start_rapid(ECHO, RAPID_AMQP_URI=broker, RAPID_MAX_CONCURRENCY="4")

    wrong = list(pool.map(partial(call_on, server, rapid.path, range(250)), range(16)))

    assert wrong == [[]] * 16


def call_on(server: Server, path: str, numbers: range, caller: int) -> list[tuple[int, bytes]]:
    """Call over one connection; return the answers that are not the caller's own."""
    wrong = []
    with server.client() as client:
        for number in numbers:
            payload = b'"%d of %d"' % (number, caller)
            answer = client.post(path, payload)
            if answer.body != payload:
                wrong.append((answer.status, answer.body))
    return wrong


def test_no_call_waits_behind_a_slow_one_while_another_instance_idles(
    server: Server, broker: str, ledger: Ledger, pool: ThreadPoolExecutor
) -> None:
    name = unique_name()
    for _ in range(2):
        ledger.start(RAPID_AMQP_URI=broker, AWS_LAMBDA_FUNCTION_NAME=name)
    # A fast function, as far as both can tell: they may read ahead.
    list(pool.map(lambda number: server.invoke(name, str(number)), range(400)))
    slow = pool.submit(server.invoke, name, ledger.held)
    ledger.wait_for(401)

    quick = list(pool.map(lambda number: server.invoke(name, str(number)), range(200)))

    assert not slow.done()
    assert [answer.body for answer in quick] == [b"%d" % number for number in range(200)]
    ledger.open()
    assert slow.result(LIMIT_S).status == 200


def test_a_call_waits_in_its_queue_for_an_instance(
    server: Server, start_rapid: StartRapid, broker: str, amqp: AmqpClient, pool: ThreadPoolExecutor
) -> None:
    """So a function can be scaled to nothing, and wake up for the first call."""
    name = unique_name()
    start_rapid(ECHO, RAPID_AMQP_URI=broker, AWS_LAMBDA_FUNCTION_NAME=name).stop()

    call = pool.submit(server.invoke, name, "[1]")
    wait_until(lambda: amqp.waiting(name) == 1, "the call to be in the queue")
    start_rapid(ECHO, RAPID_AMQP_URI=broker, AWS_LAMBDA_FUNCTION_NAME=name)

    assert call.result(LIMIT_S).body == b"[1]"


def test_a_reply_to_the_functions_own_queue_makes_no_loop(
    broker: str, amqp: AmqpClient, ledger: Ledger
) -> None:
    name = ledger.start(RAPID_AMQP_URI=broker).function_name

    amqp.publish(name, b"[1]", pika.BasicProperties(reply_to=name, correlation_id="loop"))
    ledger.wait_for(2)
    amqp.call(name, b"[2]")

    assert ledger.events == ["[1]", "[1]", "[2]"]


# --- an instance is lost


def test_sigterm_hands_unstarted_calls_to_another_instance(
    server: Server, broker: str, proxy: Proxy, ledger: Ledger, pool: ThreadPoolExecutor
) -> None:
    name = unique_name()
    first = ledger.start(RAPID_AMQP_URI=through(proxy, broker), AWS_LAMBDA_FUNCTION_NAME=name)
    proxy.cut()
    first.wait_for_log("consuming", count=2)
    # Fast so far: the instance reads ahead, and so has calls in hand that it has not started.
    list(pool.map(lambda number: server.invoke(name, str(number)), range(400)))
    running = pool.submit(server.invoke, name, ledger.held)
    ledger.wait_for(401)
    waiting = [pool.submit(server.invoke, name, f"[{number}]") for number in range(12)]
    ledger.start(RAPID_AMQP_URI=broker, AWS_LAMBDA_FUNCTION_NAME=name)

    stopped = pool.submit(first.stop)
    answers = [call.result(LIMIT_S) for call in waiting]

    assert [answer.body for answer in answers] == [b"[%d]" % number for number in range(12)]
    assert not running.done()
    ledger.open()
    assert running.result(LIMIT_S).status == 200
    assert stopped.result(LIMIT_S) == 0
    assert len(ledger.lines) == 413  # each was started once


@pytest.mark.slow
@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
def test_instances_that_come_and_go_under_load_lose_no_call(
    server: Server, start_rapid: StartRapid, broker: str, pool: ThreadPoolExecutor, queue_type: str
) -> None:
    setup: dict[str, Any] = {
        "RAPID_AMQP_URI": broker,
        "AWS_LAMBDA_FUNCTION_NAME": unique_name(),
        "RAPID_MAX_CONCURRENCY": "2",
        "RAPID_AMQP_QUEUE_TYPE": queue_type,
    }
    instances = [start_rapid(ECHO, **setup)]
    is_over = False

    def call_until_over(caller: int) -> list[tuple[int, bytes]]:
        wrong = []
        while not is_over:
            wrong += call_on(server, instances[0].path, range(100), caller)
        return wrong

    callers = [pool.submit(call_until_over, caller) for caller in range(8)]
    for _ in range(4):
        instances.append(start_rapid(ECHO, **setup))
        assert instances[-2].stop() == 0
    is_over = True

    assert [caller.result() for caller in callers] == [[]] * 8


# --- the broker is lost


def test_both_programs_outlive_a_killed_broker(
    node: RabbitmqNode, start_server: StartServer, ledger: Ledger, pool: ThreadPoolExecutor
) -> None:
    rapid = ledger.start(RAPID_AMQP_URI=node.uri)
    server = start_server(AMQP_URI=node.uri)
    call = pool.submit(server.invoke, rapid.function_name, ledger.held)
    ledger.wait_for(1)

    node.kill()
    in_flight = call.result(LIMIT_S)
    meanwhile = server.invoke(rapid.function_name)
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
    assert direct.body == b"[1]"
    assert not server_ready
    assert is_served(server, rapid.function_name)


def test_both_programs_outlive_a_broker_that_is_killed_again(
    node: RabbitmqNode, start_server: StartServer, start_rapid: StartRapid
) -> None:
    """RabbitMQ 4.0 takes its time with the quorum queue of the functions before."""
    rapid = start_rapid(ECHO, RAPID_AMQP_URI=node.uri)
    server = start_server(AMQP_URI=node.uri)

    for _ in range(2):
        assert is_served(server, rapid.function_name)
        node.kill()
        wait_until(lambda: not is_ready(rapid), "rapid to notice")
        node.start()
        rapid.wait_ready()
        server.wait_ready()

    assert is_served(server, rapid.function_name)


@pytest.mark.parametrize("whose", ["the server's", "rapid's"])
def test_calls_in_flight_are_answered_when_a_connection_is_cut(
    proxy: Proxy,
    start_server: StartServer,
    broker: str,
    ledger: Ledger,
    pool: ThreadPoolExecutor,
    whose: str,
) -> None:
    cut_off = through(proxy, broker)
    rapid = ledger.start(
        RAPID_AMQP_URI=cut_off if whose == "rapid's" else broker, RAPID_MAX_CONCURRENCY="3"
    )
    server = start_server(AMQP_URI=cut_off if whose == "the server's" else broker)
    calls = [pool.submit(server.invoke, rapid.function_name, ledger.held) for _ in range(3)]
    ledger.wait_for(3)

    proxy.cut()
    answers = [call.result(LIMIT_S) for call in calls]
    ledger.open()

    assert [answer.status for answer in answers] == [500] * 3
    assert is_served(server, rapid.function_name)
    assert ledger.events[3:] == ["[1]"]  # none has run twice


def test_a_network_that_swallows_everything_holds_no_caller_for_long(
    proxy: Proxy, start_server: StartServer, broker: str, ledger: Ledger, pool: ThreadPoolExecutor
) -> None:
    silent = through(proxy, broker, "/?heartbeat=1")
    rapid = ledger.start(RAPID_AMQP_URI=silent, RAPID_MAX_CONCURRENCY="2")
    server = start_server(AMQP_URI=silent, INVOKE_QUEUE_TIMEOUT="0.2", CONNECT_TIMEOUT="0.5")
    call = pool.submit(server.invoke, rapid.function_name, ledger.held)
    ledger.wait_for(1)

    proxy.hold()
    on_new = server.invoke(rapid.function_name)
    in_flight = call.result(LIMIT_S)
    wait_until(lambda: not is_ready(rapid), "rapid to notice", 2 * LIMIT_S)  # by heartbeats
    direct = rapid.invoke(b"[1]")
    proxy.release()
    ledger.open()

    assert (on_new.status, in_flight.status) == (500, 500)
    assert direct.body == b"[1]"
    rapid.wait_ready()
    wait_until(lambda: is_served(server, rapid.function_name), "calls to be served again")


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


# --- who we are to the broker


@pytest.mark.slow
def test_calls_go_over_tls_with_a_ca_of_ones_own(
    node: RabbitmqNode,
    tls: TlsFiles,
    start_rapid: StartRapid,
    start_server: StartServer,
    pool: ThreadPoolExecutor,
) -> None:
    uri = f"{node.tls_uri}/?cacertfile={tls.ca}"
    rapid = start_rapid(ECHO, RAPID_AMQP_URI=uri, RAPID_MAX_CONCURRENCY="4")
    server = start_server(AMQP_URI=uri)
    large = b'"' + b"x" * 2_000_000 + b'"'

    many = pool.map(partial(call_on, server, rapid.path, range(60)), range(8))

    assert server.invoke(rapid.function_name, large).body == large
    assert list(many) == [[]] * 8


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


# --- the queue


@pytest.mark.parametrize("expires", ["0.3", "auto-delete"])
def test_the_queue_goes_away_when_it_is_unused_and_that_is_wanted(
    server: Server, start_rapid: StartRapid, broker: str, amqp: AmqpClient, expires: str
) -> None:
    rapid = start_rapid(ECHO, RAPID_AMQP_URI=broker, RAPID_AMQP_QUEUE_EXPIRES=expires)
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


def test_declared_queues_are_what_rabbitmq_4_3_takes(
    start_rapid: StartRapid, start_server: StartServer, broker: str, proxy: Proxy
) -> None:
    uri = through(proxy, broker)
    rapid = start_rapid(ECHO, RAPID_AMQP_URI=uri)
    server = start_server(AMQP_URI=uri)
    name = rapid.function_name
    for kind, status in (("RequestResponse", 200), ("Event", 202), ("DryRun", 204)):
        assert server.invoke(name, X_Amz_Invocation_Type=kind).status == status

    wait_until(
        lambda: any(getattr(method, "exclusive", False) for method in proxy.methods),
        "the server to listen for announcements",
    )
    methods = proxy.methods

    declared = [method for method in methods if isinstance(method, pika.spec.Queue.Declare)]
    of_one_connection = [method for method in declared if method.exclusive]  # which 4.3 takes
    assert [method.queue for method in of_one_connection] == [""]  # of announcements
    declared = [method for method in declared if not method.exclusive]
    queues = [method.queue for method in declared if not method.passive]
    assert queues == [f"{name}.dead", f"{name}.events", "lambda.retry.1000", name]
    for method in declared:
        assert method.passive or (method.durable and not method.auto_delete)
    limits = [method for method in methods if isinstance(method, pika.spec.Basic.Qos)]
    assert limits
    assert not any(method.global_qos for method in limits)


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
    assert is_served(server, name)

    a.kill()
    meanwhile = [
        server.invoke(name, X_Amz_Invocation_Type=kind) for kind in ("RequestResponse", "DryRun")
    ]
    unknown = server.invoke(unique_name("unknown"))
    wait_until(lambda: not is_ready(rapid), "rapid to notice")
    a.start()

    for answer in meanwhile:
        assert (answer.status, answer.headers["x-amzn-ErrorType"]) == (503, "ServiceException")
    assert unknown.status == 404
    rapid.wait_ready()
    assert is_served(server, name)


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
    waiting = [pool.submit(server.invoke, name) for _ in range(20)]
    with AmqpClient(c.uri) as client:
        wait_until(lambda: client.waiting(name) == len(waiting), "the calls in the queue")

    a.kill()

    # Long before the queue timeout of 30 s, over which the client does not wait.
    assert {call.result().status for call in waiting} == {503}
    assert event().status == 503


@pytest.mark.slow
def test_calls_go_on_when_the_node_of_a_quorum_queue_and_of_a_caller_dies(
    cluster: list[RabbitmqNode], start_server: StartServer, ledger: Ledger, pool: ThreadPoolExecutor
) -> None:
    a, b, c = cluster
    name = unique_name("quorum")
    _declare_on(a, name, {**QUEUE_ARGUMENTS, "x-queue-type": "quorum"})
    ledger.start(
        RAPID_AMQP_URI=b.uri,
        AWS_LAMBDA_FUNCTION_NAME=name,
        RAPID_AMQP_QUEUE_TYPE="quorum",
        RAPID_MAX_CONCURRENCY="3",
    )
    server = start_server(AMQP_URI=c.uri, INVOKE_QUEUE_TIMEOUT="1")
    assert is_served(server, name)
    with AmqpClient(a.uri, direct=True) as caller:
        caller.publish(name, ledger.held.encode(), pika.BasicProperties(reply_to=caller.reply_to))
        in_flight = pool.submit(server.invoke, name, ledger.held)
        ledger.wait_for(3)
        a.kill()

    wait_until(lambda: is_served(server, name), "calls to go on")
    ledger.open()  # one of the two has nobody left to be answered to
    answers = [server.invoke(name, f"[{number}]") for number in range(20)]

    assert in_flight.result(LIMIT_S).status == 200
    assert [answer.body for answer in answers] == [b"[%d]" % number for number in range(20)]


def _declare_on(node: RabbitmqNode, name: str, arguments: Any) -> None:
    with AmqpClient(node.uri) as client:
        client.channel.queue_declare(name, durable=True, arguments=dict(arguments))
