"""Processes come when a call would wait, and go when they are not needed; none is left behind."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from devtools.ports import LOOPBACK, free_ports
from tests.acceptance.system.conftest import LEDGER, Ledger
from tests.conftest import StartRapid
from tests.support import (
    BASH_ECHO,
    MISBEHAVE,
    RAPID,
    Client,
    Program,
    Rapid,
    RawConnection,
    child_states,
    is_alive,
    wait_for,
    wait_until,
)

AT_ONCE_S = 5.0
_NEW_NAMESPACE = ("unshare", "-p", "-f", "--mount-proc", "--kill-child")


def runtimes(rapid: Rapid) -> list[int]:
    """Return the processes of the function."""
    return [pid for pid in rapid.descendants() if is_alive(pid)]


# --- how many environments there are


def test_calls_one_after_another_need_one_environment(start_rapid: StartRapid) -> None:
    rapid = start_rapid(MISBEHAVE, RAPID_MAX_CONCURRENCY="4")

    pids = {rapid.do(do="pid").json() for _ in range(20)}

    assert len(pids) == 1
    assert runtimes(rapid) == [*pids]


def test_an_environment_is_started_only_for_a_call_that_would_wait(
    start_rapid: StartRapid, ledger: Ledger, pool: ThreadPoolExecutor
) -> None:
    rapid = start_rapid(LEDGER, RAPID_MAX_CONCURRENCY="4", **ledger.environ)

    counts = []
    calls = []
    for number in range(1, 4):
        calls.append(pool.submit(rapid.invoke, ledger.held))
        ledger.wait_for(number)
        counts.append(len(runtimes(rapid)))
    ledger.open()

    assert counts == [1, 2, 3]
    assert [call.result().status for call in calls] == [200] * 3
    assert rapid.invoke(b"1").status == 200
    assert len(runtimes(rapid)) == 3


def test_more_callers_than_environments_are_all_served(
    start_rapid: StartRapid, ledger: Ledger, pool: ThreadPoolExecutor
) -> None:
    rapid = start_rapid(LEDGER, RAPID_MAX_CONCURRENCY="8", **ledger.environ)
    event = json.loads(ledger.held)
    payloads = [json.dumps({**event, "n": number}) for number in range(64)]

    calls = [pool.submit(rapid.invoke, payload) for payload in payloads]
    ledger.wait_for(8)
    running = runtimes(rapid)
    started = len(ledger.lines)
    ledger.open()
    answers = [call.result() for call in calls]

    assert started == 8
    assert len(running) == 8
    assert [answer.body.decode() for answer in answers] == payloads
    assert len(ledger.lines) == 64
    assert ledger.pids == set(running)


def test_a_call_that_waits_too_long_is_429(
    start_rapid: StartRapid, ledger: Ledger, pool: ThreadPoolExecutor
) -> None:
    rapid = start_rapid(LEDGER, RAPID_INVOKE_QUEUE_TIMEOUT="0.2", **ledger.environ)
    running = pool.submit(rapid.invoke, ledger.held)
    ledger.wait_for(1)

    refused = rapid.invoke(b"2")
    ledger.open()

    assert refused.status == 429
    assert refused.headers["x-amzn-ErrorType"] == "TooManyRequestsException"
    assert running.result().status == 200
    assert len(ledger.lines) == 1


def test_each_environment_is_told_its_number(
    start_rapid: StartRapid, pool: ThreadPoolExecutor
) -> None:
    rapid = start_rapid(MISBEHAVE, RAPID_MAX_CONCURRENCY="3")
    seen: dict[int, dict[str, Any]] = {}

    def look() -> None:
        environ = rapid.do(do="env").json()["environ"]
        seen[int(environ["INSTANCE"])] = environ

    def have_all() -> bool:
        busy = [pool.submit(rapid.do, do="sleep", s=0.1) for _ in range(2)]
        looks = [pool.submit(look) for _ in range(3)]
        for call in busy:
            call.result()
        for done in looks:
            done.result()
        return len(seen) == 3

    wait_until(have_all, "calls in every environment")

    assert sorted(seen) == [0, 1, 2]
    assert all(environ["_INSTANCE"] == environ["INSTANCE"] for environ in seen.values())
    addresses = {environ["AWS_LAMBDA_RUNTIME_API"] for environ in seen.values()}
    assert len(addresses) == 3
    assert seen[0]["AWS_LAMBDA_RUNTIME_API"] == f"{LOOPBACK}:{rapid.runtime_api_port}"


def test_an_environment_that_nobody_needs_goes_and_the_next_call_starts_another(
    start_rapid: StartRapid,
) -> None:
    rapid = start_rapid(MISBEHAVE, AWS_LAMBDA_FUNCTION_IDLETIMEOUT="0.2")
    pid = rapid.do(do="pid").json()

    wait_until(lambda: not runtimes(rapid), "the idle environment to go")
    following = rapid.do(do="pid").json()

    assert not is_alive(pid)
    assert following != pid
    assert rapid.get("/readyz").status == 200


def test_a_busy_environment_does_not_idle_out(start_rapid: StartRapid) -> None:
    rapid = start_rapid(MISBEHAVE, AWS_LAMBDA_FUNCTION_IDLETIMEOUT="0.2")
    pid = rapid.do(do="pid").json()

    slow = rapid.do(do="sleep", s=0.6)

    assert slow.status == 200
    assert rapid.do(do="pid").json() == pid


def test_without_eager_init_the_first_call_starts_the_function(start_rapid: StartRapid) -> None:
    rapid = start_rapid(MISBEHAVE, RAPID_EAGER_INIT="FALSE")
    before = runtimes(rapid)

    answer = rapid.do(do="echo")

    assert before == []
    assert answer.status == 200
    assert len(runtimes(rapid)) == 1


def test_with_eager_init_it_is_there_before_the_first_call(start_rapid: StartRapid) -> None:
    assert len(runtimes(start_rapid(MISBEHAVE))) == 1


def test_a_crash_while_idle_is_replaced_for_the_next_call(start_rapid: StartRapid) -> None:
    rapid = start_rapid(MISBEHAVE)
    pid = rapid.do(do="pid").json()

    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not is_alive(pid), "the runtime's end")

    assert rapid.do(do="pid").json() != pid


def test_a_next_whose_peer_is_gone_swallows_no_event(start_rapid: StartRapid) -> None:
    rapid = start_rapid(MISBEHAVE)
    wanted = b"GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: x\r\n\r\n"

    for requests in (1, 2):  # the second waits behind the first
        with RawConnection(rapid.runtime_api_port) as connection:
            connection.send(wanted * requests)
            connection.close_sending()
            assert connection.read_to_end() == b""

    assert rapid.do(do="echo").status == 200


# --- reports


def test_reports_are_printed_when_they_are_wanted(start_rapid: StartRapid) -> None:
    rapid = start_rapid(MISBEHAVE, RAPID_PRINT_REPORTS="TRUE")

    first = rapid.do(do="print", text="in between\n").headers["x-amzn-RequestId"]
    second = rapid.do(do="echo").headers["x-amzn-RequestId"]
    rapid.stop()

    lines = rapid.stdout.decode().splitlines()
    assert lines[0] == f"START RequestId: {first} Version: $LATEST"
    assert lines[1] == "in between"
    assert lines[2] == f"END RequestId: {first}"
    figures = (
        r"\tDuration: [0-9.]+ ms\tBilled Duration: \d+ ms\tMemory Size: 3008 MB"
        r"\tMax Memory Used: \d+ MB"
    )
    assert re.match(rf"REPORT RequestId: {first}{figures}\tInit Duration: [0-9.]+ ms", lines[3])
    assert lines[4:6] == [f"START RequestId: {second} Version: $LATEST", f"END RequestId: {second}"]
    assert re.fullmatch(rf"REPORT RequestId: {second}{figures}\t?", lines[6])
    assert len(lines) == 7


def test_no_reports_are_printed_otherwise(start_rapid: StartRapid) -> None:
    rapid = start_rapid(MISBEHAVE)
    rapid.do(do="print", text="in between\n")
    rapid.stop()

    assert rapid.stdout == b"in between\n"


# --- the end


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_ends_with_0_and_leaves_no_process(
    start_rapid: StartRapid, number: signal.Signals
) -> None:
    rapid = start_rapid(MISBEHAVE, RAPID_MAX_CONCURRENCY="2")
    rapid.do(do="spawn_child")
    orphan = rapid.do(do="spawn_orphan").json()
    assert is_alive(orphan)

    rapid.signal(number)

    assert rapid.wait_exit() == 0
    assert rapid.descendants() == []


def test_a_stop_leaves_no_process_of_a_shell_pipeline(start_rapid: StartRapid) -> None:
    rapid = start_rapid(BASH_ECHO)
    assert rapid.invoke(b"1").body == b"1"
    wait_until(lambda: len(rapid.descendants()) > 1, "curl to wait for the next event")

    assert rapid.stop() == 0
    assert rapid.descendants() == []


@pytest.mark.parametrize("kind", ["RequestResponse", "Event"])
def test_a_stop_waits_for_the_call_in_hand_and_refuses_new_ones(
    start_rapid: StartRapid, ledger: Ledger, pool: ThreadPoolExecutor, kind: str
) -> None:
    rapid = start_rapid(LEDGER, **ledger.environ)
    with rapid.client() as connected:
        assert connected.post(rapid.path, b"1").status == 200
        call = pool.submit(rapid.invoke, ledger.held, X_Amz_Invocation_Type=kind)
        ledger.wait_for(2)

        rapid.signal(signal.SIGTERM)
        rapid.wait_for_log("stopping")
        wait_until(lambda: connected.get("/readyz").status == 503, "rapid to be unready")
        refused = connected.post(rapid.path, b"2", X_Amz_Invocation_Type=kind)
        ledger.open()

        assert refused.status == 500
        assert refused.headers["x-amzn-ErrorType"] == "ServiceException"
    assert call.result().status == (200 if kind == "RequestResponse" else 202)
    assert rapid.wait_exit() == 0
    assert len(ledger.lines) == 2


def test_a_stop_waits_no_longer_than_it_may(
    start_rapid: StartRapid, ledger: Ledger, pool: ThreadPoolExecutor
) -> None:
    rapid = start_rapid(LEDGER, RAPID_DRAIN_TIMEOUT="0.2", **ledger.environ)
    call = pool.submit(rapid.invoke, ledger.held)
    ledger.wait_for(1)

    rapid.signal(signal.SIGTERM)
    answer = call.result(AT_ONCE_S)

    assert answer.status >= 500 or answer.headers["X-Amz-Function-Error"] == "Unhandled"
    assert rapid.wait_exit() == 0
    assert rapid.descendants() == []


def test_a_stop_during_init_leaves_no_process(start_rapid: StartRapid) -> None:
    rapid = start_rapid(MISBEHAVE, ready=False, MISBEHAVE_INIT="hang")
    wait_until(lambda: runtimes(rapid), "the runtime to start")

    assert rapid.stop() == 0
    assert rapid.descendants() == []


def test_a_function_that_ignores_sigterm_is_ended_all_the_same(
    start_rapid: StartRapid, tmp_path: Path
) -> None:
    deaf = tmp_path / "deaf"
    deaf.write_text(f"#!/bin/sh\ntrap '' TERM INT HUP\n{MISBEHAVE}\nsleep 600\n")
    deaf.chmod(0o755)
    rapid = start_rapid(str(deaf))
    assert rapid.do(do="echo").status == 200

    assert rapid.stop() == 0
    assert rapid.descendants() == []


# --- as the first process of a container


@pytest.fixture
def container() -> Iterator[tuple[Program, int]]:
    """Give a rapid that is PID 1 of its own process namespace, and its port."""
    if os.getuid() != 0:
        pytest.skip("a process namespace needs root")
    port, runtime_api_port = free_ports(2)
    program = Program(
        "rapid as PID 1",
        [*_NEW_NAMESPACE, *RAPID, MISBEHAVE],
        {
            "RAPID_INVOKE_API_HOST": LOOPBACK,
            "RAPID_PORT": str(port),
            "RAPID_RUNTIME_API_PORT": str(runtime_api_port),
            "RAPID_EXTENSIONS_DIR": "/nonexistent",
        },
    )
    with contextlib.closing(program):
        program.start()
        wait_for(lambda: _ready(port), "rapid to be ready")
        yield program, port


def _ready(port: int) -> bool | None:
    with contextlib.suppress(OSError), Client(port) as client:
        return client.get("/readyz").status == 200 or None
    return None


def _first_process(program: Program) -> int:
    """Return the PID, outside the namespace, of the namespace's PID 1."""
    return psutil.Process(program.pid).children()[0].pid


def test_pid_1_reaps_orphans_and_ends_with_0(container: tuple[Program, int]) -> None:
    program, port = container
    first = _first_process(program)
    path = "/2015-03-31/functions/function/invocations"

    with Client(port) as client:
        orphans = [client.post(path, b'{"do": "spawn_orphan", "s": 0.1}').json() for _ in range(5)]
        pid = client.post(path, b'{"do": "pid"}').json()
        wait_until(lambda: len(child_states(first)) == 1, "every orphan to be reaped")
        crashed = client.post(path, b'{"do": "exit", "code": 7}')
        again = client.post(path, b'{"do": "pid"}')

    assert all(0 < orphan < 1000 for orphan in orphans)  # numbers of a namespace of its own
    assert "exit status 7" in crashed.json()["errorMessage"]
    assert again.json() != pid
    wait_until(
        lambda: psutil.STATUS_ZOMBIE not in child_states(first).values(),
        "the crashed runtime to be reaped",
    )
    os.kill(first, signal.SIGTERM)
    assert program.wait_exit() == 0


def test_pid_1_kills_what_forks_and_leaves_its_session_all_the_time(
    container: tuple[Program, int],
) -> None:
    program, port = container
    first = _first_process(program)
    path = "/2015-03-31/functions/function/invocations"
    hops = "import os\nwhile True:\n    if os.fork():\n        os._exit(0)\n    os.setsid()"
    wish = {"do": "spawn_orphan", "argv": ["env", "-i", sys.executable, "-c", hops]}

    with Client(port) as client:
        before = client.post(path, b'{"do": "pid"}').json()
        for _ in range(3):
            client.post(path, json.dumps(wish).encode())
        client.post(path, b'{"do": "exit"}')
        wait_until(lambda: not child_states(first), "the end of every process")
        after = client.post(path, b'{"do": "pid"}').json()

    assert before != after
    assert not [line for line in program.log if "orphans left" in line]


def test_rapid_that_is_not_pid_1_reaps_orphans_too(start_rapid: StartRapid) -> None:
    rapid = start_rapid(MISBEHAVE)

    orphans = [rapid.do(do="spawn_orphan", s=0.1).json() for _ in range(5)]

    wait_until(lambda: not any(map(is_alive, orphans)), "the orphans' end")
    wait_until(lambda: len(child_states(rapid.pid)) == 1, "every orphan to be reaped")
