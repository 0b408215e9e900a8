"""The gunicorn worker: HTTP connections, their threads, and how it stops."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from devtools.ports import free_ports
from lambda_protocol.limits import SYNC_PAYLOAD_BYTES
from lambda_server.worker import KEPT_THREADS
from rapid.processes import child_pids
from tests import support
from tests.conftest import StartServer
from tests.fakes import FakeInstance, Instance, QueuedInstance
from tests.integration.calls import MIB, PATH, assert_is_aws_error, post
from tests.support import (
    IN_A_TERMINAL,
    LIMIT_S,
    Client,
    RawConnection,
    Server,
    child_states,
    is_alive,
    wait_for,
    wait_until,
)

#: What is held against both workers: one has a thread for each call, the other polls.
KINDS = {"threads": FakeInstance, "polling": QueuedInstance}


@pytest.fixture(params=KINDS)
def instance(request: pytest.FixtureRequest) -> Iterator[Instance]:
    """Give an instance of ``echo``, for a server with either worker."""
    with KINDS[request.param]() as instance:
        yield instance


@pytest.fixture(scope="module", params=KINDS)
def lasting(request: pytest.FixtureRequest) -> Iterator[tuple[Server, Instance]]:
    with KINDS[request.param]() as instance, Server(**instance.settings) as server:
        yield server, instance


@pytest.fixture
def server(lasting: tuple[Server, Instance]) -> Server:
    """Give a server with either worker, and the function ``echo``; never stop it."""
    support.started.append(lasting[0])  # so that its output is shown when the test fails
    return lasting[0]


@pytest.fixture
def raw(server: Server) -> Iterator[RawConnection]:
    with server.raw() as connection:
        yield connection


@pytest.fixture
def direct(_shared: tuple[Server, FakeInstance]) -> Iterator[RawConnection]:
    """Give a connection to the server whose instance sees HTTP."""
    with _shared[0].raw() as connection:
        yield connection


def assert_serves(server: Server) -> None:
    answer = server.invoke("echo", b'"alive"')
    assert (answer.status, answer.body) == (200, b'"alive"')


# --- connections


def test_a_dry_run_has_no_body_and_the_connection_stays_in_step(
    direct: RawConnection, shared_instance: FakeInstance
) -> None:
    kept = shared_instance.reply
    shared_instance.reply = lambda request: b"HTTP/1.1 204 No Content\r\n\r\n"
    direct.send(post(b"1", b"X-Amz-Invocation-Type: DryRun"))
    answer = direct.read_answer()
    shared_instance.reply = kept
    direct.send(post(b"2"))

    assert (answer.status, answer.headers.get("Content-Length")) == (204, None)
    assert direct.read_answer().body == b"2"


def test_headers_of_a_mebibyte_are_taken(
    direct: RawConnection, shared_instance: FakeInstance
) -> None:
    direct.send(post(b"1", b"X-Long: " + b"x" * MIB, b"X-Amzn-Trace-Id: Root=1-2-3"))

    assert direct.read_answer().body == b"1"
    assert shared_instance.requests[-1].headers["x-amzn-trace-id"] == "Root=1-2-3"


def test_headers_arrive_byte_for_byte(direct: RawConnection, shared_instance: FakeInstance) -> None:
    trace = b"Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1;  a=b"
    direct.send(post(b"1", b"x-amzn-trace-id:" + trace, b"X-Amz-Client-Context: eyJhIjoxfQ=="))

    assert direct.read_answer().headers["X-Amzn-Trace-Id"] == trace.decode()

    sent = shared_instance.requests[-1].headers
    assert sent["x-amzn-trace-id"] == trace.decode()
    assert sent["x-amz-client-context"] == "eyJhIjoxfQ=="


@pytest.mark.parametrize(
    "half",
    [
        pytest.param(b"Content-Length: 10\r\n\r\n[1, 2]", id="length"),
        pytest.param(b"Transfer-Encoding: chunked\r\n\r\n6\r\n[1, 2]\r\n", id="no-last-chunk"),
        pytest.param(b"Transfer-Encoding: chunked\r\n\r\n6\r\n[1,", id="half-a-chunk"),
        pytest.param(b"Transfer-Encoding: chunked\r\n\r\n", id="no-chunk"),
        pytest.param(b"Transfer-Encoding: chunked\r\n\r\nzz\r\n\r\n", id="broken-chunk"),
    ],
)
def test_a_body_that_breaks_off_is_400_and_reaches_nobody(
    raw: RawConnection, lasting: tuple[Server, Instance], half: bytes
) -> None:
    instance = lasting[1]
    before = len(instance.requests)
    raw.send(b"POST %b HTTP/1.1\r\nHost: x\r\n" % PATH + half)
    raw.close_sending()

    assert_is_aws_error(raw.read_answer(), 400)

    assert raw.read_to_end() == b""
    assert len(instance.requests) == before


@pytest.fixture
def quick_server(start_server: StartServer, instance: Instance) -> Server:
    """Give a server that has little patience with slow clients."""
    kind = "QuickPollingWorker" if isinstance(instance, QueuedInstance) else "QuickWorker"
    worker = f"tests.integration.server.quick_worker.{kind}"
    return start_server("-k", worker, **instance.settings)


@pytest.mark.parametrize(
    "begin", [pytest.param(b"", id="head"), pytest.param(post(b"x" * MIB)[:-MIB], id="body")]
)
def test_a_request_that_trickles_is_408_and_its_connection_ends(
    quick_server: Server, begin: bytes
) -> None:
    with quick_server.raw() as connection:
        connection.send(begin)
        with contextlib.suppress(ConnectionError):
            while not select.select([connection.socket], [], [], 0.05)[0]:
                connection.send(b"x")

        assert_is_aws_error(connection.read_answer(), 408)
        assert connection.read_to_end() == b""
    assert_serves(quick_server)


def test_an_answer_that_is_not_read_ends_its_connection(quick_server: Server) -> None:
    with quick_server.raw() as connection:
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.send(post(b'"' + b"x" * (SYNC_PAYLOAD_BYTES - 2) + b'"'))
        (worker,) = quick_server.descendants()
        peer = connection.socket.getsockname()[1]

        wait_until(lambda: peer not in peers_of(worker), "the server to close its end")
    assert_serves(quick_server)


def peers_of(pid: int) -> set[int]:
    """Return the ports of the clients that a process has connections to."""
    connections = psutil.Process(pid).net_connections("tcp4")
    return {connection.raddr.port for connection in connections if connection.raddr}


def test_calls_on_many_connections_run_side_by_side(lasting: tuple[Server, Instance]) -> None:
    server, instance = lasting
    before = len(instance.requests)
    instance.hold()
    with ThreadPoolExecutor(100) as pool:
        results = [pool.submit(server.invoke, "echo", str(n)) for n in range(100)]
        instance.wait_for(before + 100)
        instance.release()

        assert [int(result.result(LIMIT_S).body) for result in results] == [*range(100)]


def test_a_connection_beyond_the_limit_is_503_but_for_health(
    start_server: StartServer, instance: Instance
) -> None:
    server = start_server(
        "--worker-connections", "2", "-c", "python:lambda_server.gunicorn_conf",
        **instance.settings,
    )  # fmt: skip
    instance.hold()
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(with_a_place(server)) for _ in range(2)]
        for number, connection in enumerate(held):
            connection.send(post(b"%d" % number))
        instance.wait_for(2)

        assert_is_aws_error(server.invoke("echo", b"3"), 503)
        for path in ("/healthz", "/readyz", "/metrics"):
            assert server.get(path).status == 200
        instance.release()

        assert [int(connection.read_answer().body) for connection in held] == [0, 1]
        assert len(instance.requests) == 2
    wait_until(lambda: server.invoke("echo", b"1").status == 200, "a place to be free")
    assert any("too many connections" in line for line in server.log)


def with_a_place(server: Server) -> RawConnection:
    """Return a connection that has a thread: those before it may only just have been closed."""

    def connect() -> RawConnection | None:
        connection = server.raw()
        connection.send(b"GET /none HTTP/1.1\r\nHost: x\r\n\r\n")
        if connection.read_answer().status == 404:
            return connection
        connection.close()
        return None

    return wait_for(connect, "a place")


def test_health_has_a_port_of_its_own(start_server: StartServer, instance: Instance) -> None:
    (port,) = free_ports(1)
    server = start_server(**instance.settings, HEALTH_PORT=str(port))

    with Client(port) as health:
        for path in ("/healthz", "/readyz", "/metrics"):
            assert health.get(path).status == server.get(path).status == 200
        assert_is_aws_error(health.post(PATH.decode(), b"1"), 503)
    assert instance.requests == []
    assert server.stop() == 0


def test_slow_clients_over_the_limit_do_not_make_the_server_deaf_to_health(
    start_server: StartServer, instance: Instance
) -> None:
    """The newest of them hold every connection of the reserve as well."""
    server = start_server("--worker-connections", "100", **instance.settings)
    with contextlib.ExitStack() as stack:
        for _ in range(300):
            stack.enter_context(server.raw()).send(b"G")

        for _ in range(20):
            assert server.get("/healthz").status == 200


# --- the end


def serve(start_server: StartServer, instance: Instance, *arguments: str) -> Server:
    return start_server(*arguments, **instance.settings)


def test_sigterm_lets_the_call_in_hand_be_answered(
    start_server: StartServer, instance: Instance
) -> None:
    server = serve(start_server, instance)
    instance.hold()
    with server.raw() as connection:
        connection.send(post(b'"in hand"'))
        instance.wait_for(1)

        server.signal(signal.SIGTERM)
        wait_until(lambda: not _accepts(server.port), "the listener to close")
        instance.release()

        answer = connection.read_answer()
        assert (answer.status, answer.body) == (200, b'"in hand"')
        assert answer.headers["Connection"] == "close"
    assert server.wait_exit() == 0


@pytest.mark.slow
@pytest.mark.parametrize("instance", ["threads"], indirect=True)
def test_idle_connections_stay_and_all_but_a_few_threads_end(
    start_server: StartServer, instance: Instance
) -> None:
    server = serve(start_server, instance)
    (worker,) = child_states(server.pid)
    process = psutil.Process(worker)
    before = process.num_threads()
    instance.hold()
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(server.raw()) for _ in range(3 * KEPT_THREADS)]
        for connection in connections:
            connection.send(post(b"1"))
        instance.wait_for(len(connections))
        assert process.num_threads() > len(connections)

        instance.release()
        for connection in connections:
            assert connection.read_answer().status == 200
        wait_until(lambda: process.num_threads() <= before + KEPT_THREADS, "the threads' end")

        for connection in connections:
            connection.send(post(b"2"))
            assert connection.read_answer().body == b"2"


def test_a_terminal_that_is_closed_stops_the_server_after_the_call_in_hand(
    instance: Instance,
) -> None:
    with Server(prefix=IN_A_TERMINAL, **instance.settings) as terminal:
        (arbiter,) = child_pids(terminal.pid)
        os.kill(arbiter, signal.SIGHUP)  # the terminal is there: it reloads
        terminal.wait_for_log("Booting worker", count=2)
        wait_until(lambda: len(child_pids(arbiter)) == 1, "the end of the old worker")
        instance.hold()
        with terminal.raw() as connection:
            connection.send(post(b'"in hand"'))
            instance.wait_for(1)

            os.kill(terminal.pid, signal.SIGKILL)
            wait_until(lambda: not _accepts(terminal.port), "the listener to close")
            instance.release()

            assert connection.read_answer().body == b'"in hand"'
        wait_until(lambda: not is_alive(arbiter), "the end of gunicorn")


def test_nohup_lets_the_server_outlive_its_terminal(instance: Instance) -> None:
    nohup = ["sh", "-c", 'exec nohup "$@" 3>&2 >/dev/null 2>&1', "sh"]  # 3 keeps the terminal open
    with Server(prefix=[*IN_A_TERMINAL, *nohup], **instance.settings) as terminal:
        (arbiter,) = child_pids(terminal.pid)
        (old,) = child_pids(arbiter)

        os.kill(terminal.pid, signal.SIGKILL)

        wait_until(lambda: not is_alive(old), "a reload")
        wait_until(lambda: terminal.invoke("echo", b"1").body == b"1", "an answer")
        assert is_alive(arbiter)


def test_sigterm_closes_idle_connections(start_server: StartServer, instance: Instance) -> None:
    server = serve(start_server, instance)
    with server.raw() as used, server.raw() as unused:
        used.send(post(b"1"))
        used.read_answer()

        server.signal(signal.SIGTERM)

        assert used.read_to_end() == unused.read_to_end() == b""
        assert server.wait_exit() == 0


def test_sigterm_lets_a_request_that_has_begun_be_answered(
    start_server: StartServer, instance: Instance
) -> None:
    server = serve(start_server, instance)
    request = post(b'"begun"')
    with server.raw() as connection:
        connection.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" + request[:-3])
        assert connection.read_answer().status == 200

        server.signal(signal.SIGTERM)
        wait_until(lambda: not _accepts(server.port), "the listener to close")
        connection.send(request[-3:])

        assert connection.read_answer().body == b'"begun"'


def test_sigterm_waits_for_no_half_sent_request(
    start_server: StartServer, instance: Instance
) -> None:
    server = serve(start_server, instance)
    with server.raw() as connection:
        connection.send(post(b"1")[:20])

        server.signal(signal.SIGTERM)

        assert server.wait_exit() == 0


def test_a_worker_is_replaced_after_so_many_requests_and_no_call_is_lost(
    start_server: StartServer, instance: Instance
) -> None:
    server = serve(start_server, instance, "--max-requests", "10")
    (first,) = server.descendants()

    for number in range(9):
        assert server.invoke("echo", str(number)).body == b"%d" % number

    wait_until(lambda: first not in server.descendants(), "the end of the worker")
    assert_serves(server)


def test_gthread_serves_the_same_application(start_server: StartServer, instance: Instance) -> None:
    server = serve(start_server, instance, "-k", "gthread")

    with server.raw() as connection:
        connection.send(
            b"POST %b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"3\r\n[1]\r\n0\r\n\r\n" % PATH
        )
        assert connection.read_answer().body == b"[1]"
    with server.client() as client:
        assert client.post(PATH.decode(), b"[2]").body == b"[2]"
        assert_is_aws_error(client.post(PATH.decode(), b"{"), 400)
        assert_is_aws_error(client.post("/2015-03-31/functions/none/invocations"), 404)
        assert_is_aws_error(client.get("/none"), 404)
        assert_is_aws_error(client.post(PATH.decode(), b" " * (SYNC_PAYLOAD_BYTES + 1)), 413)
    assert server.stop() == 0


def _accepts(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False
