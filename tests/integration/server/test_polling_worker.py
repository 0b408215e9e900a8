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

from tests.acceptance.system.conftest import through
from tests.acceptance.system.proxy import Proxy
from tests.conftest import StartServer
from tests.fakes import QueuedInstance
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
    wait_until(lambda: instance.connections == 3, "the instance and both links at the broker")
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
    wait_until(lambda: instance.connections == 3, "the instance and both links at the broker")
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
        wait_until(lambda: proxy.accepted == 2, "both links at the broker")
        proxy.hold()
        payload = b'"' + b"x" * 60_000 + b'"'
        calls = [pool.submit(server.invoke, "echo", payload) for _ in range(200)]
        wait_until(lambda: worker_of(server).num_threads() > 20, "calls for which there is no room")

        for _ in range(20):
            assert server.get("/healthz").status == 200
        proxy.release()

        assert {found.result(LIMIT_S).body for found in calls} == {payload}


def test_a_plain_call_is_counted_and_in_the_access_log(
    start_server: StartServer, instance: QueuedInstance
) -> None:
    server = start_server("--access-logfile", "-", **instance.settings)
    wait_until(lambda: instance.connections == 3, "the instance and both links at the broker")

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
