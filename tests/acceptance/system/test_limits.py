"""What strangers send at the limits, to real processes: neither program grows, stalls or dies."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import psutil
import pytest

from tests.acceptance.system.amqp import AmqpClient
from tests.conftest import StartRapid
from tests.support import (
    ECHO,
    MISBEHAVE,
    RAPID,
    Program,
    Rapid,
    Server,
    wait_until,
)

IDLE = 1100  #: connections: more than a soft limit of 1,024 open files


def test_4000_made_up_names_and_methods_are_no_labels_of_rapid(start_rapid: StartRapid) -> None:
    rapid = start_rapid(ECHO, RAPID_ANY_FUNCTION_NAME="TRUE")
    assert dry_run(rapid, range(1)) == [204]
    before = series(rapid)

    assert dry_run(rapid, range(4000)) == [204] * 4000
    for number in range(4000):
        with rapid.raw() as connection:
            connection.send(b"BREW%d / HTTP/1.1\r\nHost: x\r\n\r\n" % number)
            assert connection.read_answer().status == 501

    assert series(rapid) == before


def dry_run(rapid: Rapid, numbers: range) -> list[int]:
    """Ask for made-up functions over one connection; return the statuses."""
    statuses = []
    with rapid.raw() as connection:
        for number in numbers:
            connection.send(
                b"POST /2015-03-31/functions/made-up-%d/invocations HTTP/1.1\r\nHost: x\r\n"
                b"X-Amz-Invocation-Type: DryRun\r\n\r\n" % number
            )
            statuses.append(connection.read_answer(has_body=False).status)
    return statuses


def series(rapid: Rapid) -> set[str]:
    """Return the time series of ``/metrics``: names with labels, without values."""
    lines = rapid.get("/metrics").body.decode().splitlines()
    return {line.rpartition(" ")[0] for line in lines if not line.startswith("#")}


# --- descriptors


def with_open_files(soft: int, hard: int) -> list[str]:
    """Return a command prefix that sets the limits of open files."""
    return ["prlimit", f"--nofile={soft}:{hard}", "--"]


@pytest.fixture
def idle(request: pytest.FixtureRequest) -> Iterator[ExitStack]:
    """Give room for ``IDLE`` connections of the test itself."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if before[1] < 2 * IDLE:
        pytest.skip(f"a hard limit of {before[1]} open files is too low for {IDLE} connections")
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    with ExitStack() as stack:
        yield stack
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def connect(stack: ExitStack, program: Rapid | Server) -> None:
    """Open idle connections, until they are all accepted."""
    for _ in range(IDLE):
        stack.enter_context(program.raw())


def test_a_function_has_the_limit_that_rapid_was_started_with(
    start_rapid: StartRapid, idle: ExitStack
) -> None:
    """Also where rapid has more open than that limit allows for."""
    rapid = start_rapid(MISBEHAVE, program=[*with_open_files(1024, 4096), *RAPID])
    assert rapid.do(do="env").json()["open_files"] == [1024, 4096]
    connect(idle, rapid)
    process = psutil.Process(rapid.pid)
    wait_until(lambda: process.num_fds() > IDLE, "the connections to be accepted")

    rapid.do(do="exit")

    assert rapid.do(do="env").json()["open_files"] == [1024, 4096]
    assert process.rlimit(psutil.RLIMIT_NOFILE) == (4096, 4096)


@pytest.mark.parametrize("hard", [1024, 4096])
def test_1100_idle_connections_cost_rapid_nothing_that_it_has(
    start_rapid: StartRapid, idle: ExitStack, broker: str, hard: int
) -> None:
    """What dies is replaced, calls are answered by HTTP and over RabbitMQ, and once each."""
    rapid = start_rapid(
        MISBEHAVE, program=[*with_open_files(1024, hard), *RAPID], RAPID_AMQP_URI=broker
    )
    with rapid.client() as client:
        assert client.get("/healthz").status == 200
        connect(idle, rapid)

        for _ in range(3):
            assert client.post(rapid.path, b'{"do": "exit"}').error_type == "Runtime.ExitError"
            assert client.post(rapid.path, b'{"do": "counter"}').json() == 1
        with AmqpClient(broker) as caller:
            assert caller.call(rapid.function_name, b'"by rabbitmq"').body == b'"by rabbitmq"'
    assert not [line for line in rapid.log if "Traceback" in line]


@pytest.mark.parametrize("is_direct", [False, True], ids=["rabbitmq", "direct"])
@pytest.mark.parametrize("hard", [1024, 4096])
def test_with_1100_idle_connections_no_call_of_the_server_is_500(
    start_rapid: StartRapid, idle: ExitStack, broker: str, hard: int, is_direct: bool
) -> None:
    rapid = start_rapid(ECHO, RAPID_AMQP_URI=broker)
    way: dict[str, Any] = (
        {"LAMBDA_ENDPOINTS": rapid.endpoint} if is_direct else {"AMQP_URI": broker}
    )
    with Server(prefix=with_open_files(1024, hard), **way) as server:
        with ExitStack() as stack:
            clients = [stack.enter_context(server.client()) for _ in range(40)]
            for client in clients:
                assert client.get("/healthz").status == 200
            connect(idle, server)

            statuses = {
                client.post(rapid.path, b"1").status for _ in range(2) for client in clients
            }

        assert statuses == {200}
        assert server.exit_code is None


def test_nothing_on_a_failure_path_is_imported_when_it_fails(
    start_rapid: StartRapid, broker: str
) -> None:
    """An import needs a descriptor, and there may be none."""
    rapid = start_rapid(
        MISBEHAVE,
        program=[sys.executable, "-X", "importtime", "-m", "rapid"],
        RAPID_AMQP_URI=broker,
        AWS_LAMBDA_FUNCTION_TIMEOUT="1",
    )
    assert rapid.do(do="echo").status == 200
    before = imports(rapid)
    assert "rapid.daemon" in before

    assert rapid.do(do="exit").error_type == "Runtime.ExitError"
    assert rapid.do(do="signal", name="KILL").error_type == "Runtime.ExitError"
    assert rapid.do(do="sleep", s=60).error_type == "Sandbox.Timedout"
    with rapid.raw() as connection:
        connection.send(b"nonsense\r\n\r\n")
        assert connection.read_answer().status == 400

    assert imports(rapid)[len(before) :] == []


def imports(program: Program) -> list[str]:
    """Return the modules that a program has imported, as ``-X importtime`` tells."""
    return [line.split("|")[-1].strip() for line in program.log if line.startswith("import time:")]
