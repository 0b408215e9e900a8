"""The worker that serves plain invocations in one thread, by its process, over a broker in memory.

What it has in common with the other worker is in ``test_worker``.
"""

from __future__ import annotations

import contextlib
import functools
import socket
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from devtools.ports import free_ports
from lambda_protocol.invocation import Outcome
from tests.acceptance.system.conftest import through
from tests.acceptance.system.proxy import Proxy
from tests.conftest import StartServer
from tests.fakes import FakeInstance, QueuedInstance
from tests.integration.calls import assert_is_aws_error
from tests.support import LIMIT_S, RawConnection, Server, wait_for, wait_until

CALL = (
    b"POST /2015-03-31/functions/echo/invocations HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
)
#: A socket that is closed so resets its connection.
RESETS = struct.pack("ii", 1, 0)


@pytest.fixture
def instance() -> Iterator[QueuedInstance]:
    with QueuedInstance() as instance:
        yield instance


@pytest.fixture
def server(start_server: StartServer, instance: QueuedInstance) -> Server:
    server = start_server(**instance.settings)
    wait_until(lambda: instance.connections == 4, "the instance and the server's three links")
    return server


def call(payload: bytes) -> bytes:
    return CALL % len(payload) + payload


def worker_of(server: Server) -> psutil.Process:
    (pid,) = server.descendants()
    return psutil.Process(pid)


def abandoned(server: Server) -> float:
    for line in server.get("/metrics").body.decode().splitlines():
        if line.startswith("lambda_invocations_total{") and 'outcome="abandoned"' in line:
            return float(line.rpartition(" ")[2])
    return 0.0


def test_calls_that_run_need_no_thread_each(server: Server, instance: QueuedInstance) -> None:
    instance.hold()
    before = worker_of(server).num_threads()
    with contextlib.ExitStack() as stack:
        callers = [stack.enter_context(server.raw()) for _ in range(200)]
        for number, caller in enumerate(callers):
            caller.send(call(b"%d" % number))
        instance.wait_for(200)

        assert worker_of(server).num_threads() <= before + 2
        instance.release()

        answers = [int(caller.read_answer().body) for caller in callers]
    assert answers == [*range(200)]


@pytest.mark.parametrize("sends_first", [b"", call(b"2")], ids=["alone", "after another request"])
def test_a_call_whose_caller_resets_its_connection_is_given_up(
    server: Server, instance: QueuedInstance, sends_first: bytes
) -> None:
    instance.hold()
    caller = server.raw()
    caller.send(call(b"1") + sends_first)
    instance.wait_for(1)

    caller.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESETS)
    caller.close()

    wait_until(lambda: abandoned(server) == 1, "the call to be given up")
    instance.release()
    assert server.invoke("echo", b"3").body == b"3"


@pytest.mark.parametrize("resets", [False, True], ids=["FIN", "RST"])
def test_calls_that_were_given_up_leave_no_bytes_in_hand(
    start_server: StartServer, instance: QueuedInstance, resets: bool
) -> None:
    server = start_server(BYTES_IN_HAND=str(8 * 1_048_576), **instance.settings)
    wait_until(lambda: instance.connections == 4, "the instance and the server's three links")
    instance.hold()
    payload = b'"' + b"x" * 60_000 + b'"'
    for number in range(1, 4):
        callers = [server.raw() for _ in range(100)]  # 6 MB
        for caller in callers:
            caller.send(call(payload))
        instance.wait_for(100 * number)
        for caller in callers:
            if resets:
                caller.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESETS)
            caller.close()
        given_up = functools.partial(lambda count: abandoned(server) == count, 100 * number)
        wait_until(given_up, "the calls to be given up")


def test_callers_that_hang_up_on_an_error_are_no_fault_of_ours(server: Server) -> None:
    request = call(b"1").replace(b"/echo/", b"/nobody/")
    for _ in range(50):
        caller = server.raw()
        caller.send(3 * request)
        caller.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESETS)
        caller.close()

    assert server.invoke("echo", b"1").status == 200
    assert not [line for line in server.log if "failed" in line or "Traceback" in line]


def test_a_quick_answer_is_all_that_a_caller_gets_that_has_closed_its_half(server: Server) -> None:
    with server.raw() as caller:
        caller.send(call(b"1"))
        caller.close_sending()

        assert caller.read_to_end().startswith(b"HTTP/1.1 200 ")


def test_a_caller_that_closes_its_half_gets_its_answer(
    server: Server, instance: QueuedInstance
) -> None:
    instance.hold()
    with server.raw() as caller:
        caller.send(call(b"1"))
        instance.wait_for(1)
        caller.close_sending()
        assert caller.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 100 ")  # is it still there?
        instance.release()

        assert _final(caller) == b"1"
        assert caller.read_to_end() == b""


def _final(caller: RawConnection) -> bytes:
    """Return the body of the answer behind interim responses, of which there may be more."""

    def read() -> bytes | None:
        answer = caller.read_answer()
        return answer.body if answer.status == 200 else None

    return wait_for(read, "the answer")


def test_a_broker_that_reads_nothing_keeps_nobody_else_waiting(
    start_server: StartServer, instance: QueuedInstance
) -> None:
    with Proxy(instance.port) as proxy, ThreadPoolExecutor(200) as pool:
        uri = through(proxy, instance.settings["AMQP_URI"])
        server = start_server(**{**instance.settings, "AMQP_URI": uri})
        wait_until(lambda: proxy.accepted == 3, "the links at the broker")
        proxy.hold()
        payload = b'"' + b"x" * 60_000 + b'"'
        calls = [pool.submit(server.invoke, "echo", payload) for _ in range(200)]
        wait_until(lambda: worker_of(server).num_threads() > 20, "calls for which there is no room")

        for _ in range(20):
            assert server.get("/healthz").status == 200
        proxy.release()

        assert {found.result(LIMIT_S).body for found in calls} == {payload}


def test_a_large_answer_is_whole_and_others_do_not_wait_for_its_reader(
    server: Server, instance: QueuedInstance
) -> None:
    large = b'"' + b"x" * 5_000_000 + b'"'
    instance.answer = lambda body: Outcome(payload=large if body == b"1" else body)
    with server.raw() as slow:
        slow.send(call(b"1") + call(b"2"))

        for _ in range(10):
            assert server.invoke("echo", b"3").body == b"3"

        assert slow.read_answer().body == large
        assert slow.read_answer().body == b"2"


def test_an_answer_whose_header_cannot_be_sent_is_502(
    server: Server, instance: QueuedInstance
) -> None:
    instance.answer = lambda body: Outcome(payload=body, executed_version="1\r\nX-A: b")
    with server.raw() as caller:
        caller.send(call(b"1"))

        assert_is_aws_error(caller.read_answer(), 502)


def test_a_lost_connection_ends_the_calls_that_run_and_the_next_are_served(
    start_server: StartServer, instance: QueuedInstance
) -> None:
    instance.hold()
    with Proxy(instance.port) as proxy, ThreadPoolExecutor(8) as pool:
        uri = through(proxy, instance.settings["AMQP_URI"])
        server = start_server(**{**instance.settings, "AMQP_URI": uri})
        wait_until(lambda: proxy.accepted == 3, "the links at the broker")
        calls = [pool.submit(server.invoke, "echo", b"1") for _ in range(8)]
        instance.wait_for(8)

        proxy.cut()

        assert {found.result(LIMIT_S).status for found in calls} == {500}
        instance.release()
        for _ in range(10):
            assert server.invoke("echo", b"2").body == b"2"


def test_a_server_whose_broker_is_away_says_so_and_serves_when_it_is_back(
    start_server: StartServer, instance: QueuedInstance
) -> None:
    (port,) = free_ports(1)
    uri = instance.settings["AMQP_URI"].replace(str(instance.port), str(port))
    server = start_server(ready=False, **{**instance.settings, "AMQP_URI": uri})
    for _ in range(3):
        assert_is_aws_error(server.invoke("echo", b"1"), 500)

    with Proxy(instance.port, port=port):
        wait_until(lambda: server.invoke("echo", b"1").status == 200, "the broker to be back")


def test_what_an_alarm_refuses_never_runs(server: Server, instance: QueuedInstance) -> None:
    instance.hold()
    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(server.invoke, "echo", b"%d" % number) for number in range(4)]
        instance.wait_for(4)

        instance.set_alarm("low on memory")

        assert {found.result(LIMIT_S).status for found in waiting} == {503}
        assert server.invoke("echo", b"5").status == 503
    instance.set_alarm(None)
    instance.release()
    wait_until(lambda: server.invoke("echo", b"6").status == 200, "the end of the alarm")
    assert b"5" not in instance.requests


def test_a_function_may_be_named_by_its_arn(server: Server) -> None:
    arn = "arn%3Aaws%3Alambda%3Aus-east-1%3A123456789012%3Afunction%3Aecho"

    assert server.invoke(arn, b"1").body == b"1"
    assert server.invoke(arn.replace("us-east-1", "eu-west-1"), b"1").status == 404


def test_a_call_that_is_wrong_costs_its_connection_nothing(server: Server) -> None:
    with server.raw() as caller:
        caller.send(call(b"{") + call(b"1") + b"GET /none HTTP/1.1\r\nHost: x\r\n\r\n" + call(b"2"))

        assert_is_aws_error(caller.read_answer(), 400)
        assert caller.read_answer().body == b"1"
        assert caller.read_answer().status == 404
        assert caller.read_answer().body == b"2"


def test_without_a_broker_threads_serve_everything(start_server: StartServer) -> None:
    with FakeInstance() as direct:
        server = start_server(LAMBDA_WORKER="polling", **direct.settings)

        assert server.invoke("echo", b"1").body == b"1"


def test_a_plain_call_is_counted_and_in_the_access_log(
    start_server: StartServer, instance: QueuedInstance
) -> None:
    server = start_server("--access-logfile", "-", **instance.settings)
    wait_until(lambda: instance.connections == 4, "the instance and the server's three links")

    assert server.invoke("echo", b"1").body == b"1"
    assert server.invoke("nobody", b"1").status == 404

    server.wait_for_log('"POST /2015-03-31/functions/echo/invocations HTTP/1.1" 200')
    server.wait_for_log('"POST /2015-03-31/functions/nobody/invocations HTTP/1.1" 404')
    figures = server.get("/metrics").body.decode()
    assert 'lambda_invocations_total{function_name="echo",outcome="success"} 1.0' in figures
    assert 'lambda_invocations_total{function_name="",outcome="not_found"} 1.0' in figures


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"X-Amz-Invocation-Type": "Event"}, 202),
        ({"X-Amz-Invocation-Type": "DryRun"}, 204),
        ({"Origin": "http://elsewhere.test"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Content-Type": "text/plain"}, 200),
    ],
    ids=str,
)
def test_what_is_no_plain_call_is_served_by_the_application(
    server: Server, headers: dict[str, str], status: int
) -> None:
    assert server.invoke("echo", b"1", **headers).status == status
