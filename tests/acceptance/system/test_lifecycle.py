"""Processes come when a call would wait, and go when they are not needed; none is left behind."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from devtools.ports import LOOPBACK, free_ports
from tests.acceptance.system.conftest import Ledger
from tests.conftest import StartRapid
from tests.extensions import RecorderExtension
from tests.support import (
    BASH_ECHO,
    LIMIT_S,
    MISBEHAVE,
    RAPID,
    Rapid,
    RawConnection,
    child_states,
    is_alive,
    wait_until,
)

_NEW_NAMESPACE = ("unshare", "-p", "-f", "--mount-proc", "--kill-child")
_UNPRIVILEGED = (
    *("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"),
    *("--bounding-set=-all", "--no-new-privs", "--inh-caps=-all"),
)
needs_root = pytest.mark.skipif(os.getuid() != 0, reason="needs root, to have less or to unshare")


def runtimes(rapid: Rapid) -> list[int]:
    """Return the processes of the function."""
    return [pid for pid in rapid.descendants() if is_alive(pid)]


# --- how many environments there are


def test_an_environment_is_started_only_for_a_call_that_would_wait(
    ledger: Ledger, pool: ThreadPoolExecutor
) -> None:
    rapid = ledger.start(RAPID_MAX_CONCURRENCY="4")

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
    ledger: Ledger, pool: ThreadPoolExecutor
) -> None:
    rapid = ledger.start(RAPID_MAX_CONCURRENCY="8")
    event = json.loads(ledger.held)
    payloads = [json.dumps({**event, "n": number}) for number in range(64)]

    calls = [pool.submit(rapid.invoke, payload) for payload in payloads]
    ledger.wait_for(8)
    running = runtimes(rapid)
    started = len(ledger.lines)
    ledger.open()
    answers = [call.result() for call in calls]

    assert (started, len(running)) == (8, 8)
    assert [answer.body.decode() for answer in answers] == payloads
    assert len(ledger.lines) == 64
    assert ledger.pids == set(running)


def test_an_idle_environment_goes_a_busy_one_stays_and_the_next_call_starts_another(
    start_rapid: StartRapid,
) -> None:
    rapid = start_rapid(MISBEHAVE, AWS_LAMBDA_FUNCTION_IDLETIMEOUT="0.2")

    slow = rapid.do(do="sleep", s=0.6)
    wait_until(lambda: not runtimes(rapid), "the idle environment to go")

    assert "X-Amz-Function-Error" not in slow.headers
    assert rapid.do(do="counter").json() == 1
    assert rapid.get("/readyz").status == 200


@pytest.mark.parametrize(("setting", "count"), [("FALSE", 0), ("TRUE", 1)])
def test_eager_init_starts_the_function_before_the_first_call(
    start_rapid: StartRapid, setting: str, count: int
) -> None:
    rapid = start_rapid(MISBEHAVE, RAPID_EAGER_INIT=setting)
    before = runtimes(rapid)

    assert rapid.do(do="echo").status == 200

    assert (len(before), len(runtimes(rapid))) == (count, 1)


def test_a_next_whose_peer_is_gone_swallows_no_event(start_rapid: StartRapid) -> None:
    rapid = start_rapid(MISBEHAVE)
    wanted = b"GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: x\r\n\r\n"

    for requests in (1, 2):  # the second waits behind the first
        with RawConnection(rapid.runtime_api_port) as connection:
            connection.send(wanted * requests)
            connection.close_sending()
            assert connection.read_to_end() == b""

    assert rapid.do(do="echo").status == 200


# --- what the function may know


@pytest.mark.parametrize("prefix", ["RAPID_", ""])
def test_a_secret_of_rapid_never_reaches_the_function(
    start_rapid: StartRapid, extension: RecorderExtension, prefix: str
) -> None:
    settings: dict[str, Any] = {
        f"{prefix}AMQP_URI": f"amqp://user:in-the-uri@{LOOPBACK}:{free_ports(1)[0]}",
        f"{prefix}AMQP_USERNAME": "the-user",
        f"{prefix}AMQP_PASSWORD": "in-a-secret",
        "RAPID_ON_FAILURE": "queue:of-a-secret",
    }
    rapid = start_rapid(MISBEHAVE, ready=False, **settings, **extension.environ)

    environ = rapid.do(do="env").json()["environ"]
    rapid.wait_for_log("broker not reached")

    assert not [name for name in environ if name.startswith(("AMQP", "RAPID", "ON_FAILURE"))]
    for secret in ("in-the-uri", "in-a-secret", "of-a-secret"):
        assert secret not in json.dumps(environ)
        assert secret not in extension.file.read_text()
        assert secret not in "\n".join(rapid.log)


# --- the end


@pytest.mark.parametrize("kind", ["RequestResponse", "Event"])
def test_a_stop_waits_for_the_call_in_hand_and_refuses_new_ones(
    ledger: Ledger, pool: ThreadPoolExecutor, kind: str
) -> None:
    rapid = ledger.start()
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
    assert call.result(LIMIT_S).status == (200 if kind == "RequestResponse" else 202)
    assert rapid.wait_exit() == 0
    assert len(ledger.lines) == 2


@pytest.mark.parametrize(
    ("function", "number"),
    [
        ("with children", signal.SIGINT),
        ("a pipeline", signal.SIGTERM),
        ("ignores signals", signal.SIGTERM),
        ("within its init", signal.SIGTERM),
    ],
)
def test_a_stop_leaves_no_process(
    start_rapid: StartRapid, tmp_path: Path, function: str, number: signal.Signals
) -> None:
    if function == "with children":
        rapid = start_rapid(MISBEHAVE, RAPID_MAX_CONCURRENCY="2")
        rapid.do(do="spawn_child")
        assert is_alive(rapid.do(do="spawn_orphan").json())
    elif function == "a pipeline":
        rapid = start_rapid(BASH_ECHO)
        wait_until(lambda: len(runtimes(rapid)) > 1, "curl to wait for an event")
    elif function == "within its init":
        rapid = start_rapid(MISBEHAVE, ready=False, MISBEHAVE_INIT="hang")
        wait_until(lambda: runtimes(rapid), "the runtime to start")
    else:
        deaf = tmp_path / "deaf"
        deaf.write_text(f"#!/bin/sh\ntrap '' TERM INT HUP\n{MISBEHAVE}\nsleep 600\n")
        deaf.chmod(0o755)
        rapid = start_rapid(str(deaf))

    rapid.signal(number)

    assert rapid.wait_exit() == 0
    assert rapid.descendants() == []


# --- in a container


@needs_root
def test_neither_privileges_nor_accounts_nor_sockets_of_others_are_needed(
    start_rapid: StartRapid,
) -> None:
    rapid = start_rapid(MISBEHAVE, program=[*_UNPRIVILEGED, *RAPID])

    environ = rapid.do(do="env").json()["environ"]
    rapid.do(do="exit")

    assert not [name for name in environ if name.startswith("AWS_ACCESS")]
    assert rapid.do(do="counter").json() == 1
    assert rapid.stop() == 0


@pytest.fixture
def first_process(start_rapid: StartRapid) -> Iterator[tuple[Rapid, int]]:
    """Give a rapid that is PID 1 of its own process namespace, and its PID outside."""
    rapid = start_rapid(MISBEHAVE, program=[*_NEW_NAMESPACE, *RAPID])
    (child,) = psutil.Process(rapid.pid).children()
    yield rapid, child.pid
    assert not [line for line in rapid.log if "orphans left" in line]


@needs_root
def test_pid_1_reaps_orphans_and_ends_with_0(first_process: tuple[Rapid, int]) -> None:
    rapid, first = first_process

    orphans = [rapid.do(do="spawn_orphan", s=0.1).json() for _ in range(5)]
    pid = rapid.do(do="pid").json()
    wait_until(lambda: len(child_states(first)) == 1, "every orphan to be reaped")
    crashed = rapid.do(do="exit", code=7)
    again = rapid.do(do="pid").json()

    assert all(0 < orphan < 1000 for orphan in orphans)  # numbers of a namespace of its own
    assert "exit status 7" in crashed.json()["errorMessage"]
    assert again != pid
    wait_until(
        lambda: psutil.STATUS_ZOMBIE not in child_states(first).values(),
        "the crashed runtime to be reaped",
    )
    os.kill(first, signal.SIGTERM)
    assert rapid.wait_exit() == 0


@needs_root
def test_pid_1_kills_what_forks_and_leaves_its_session_all_the_time(
    first_process: tuple[Rapid, int],
) -> None:
    rapid, first = first_process
    hops = "import os\nwhile True:\n    if os.fork():\n        os._exit(0)\n    os.setsid()"

    before = rapid.do(do="pid").json()
    for _ in range(3):
        rapid.do(do="spawn_orphan", argv=["env", "-i", sys.executable, "-c", hops])
    rapid.do(do="exit")
    wait_until(lambda: not child_states(first), "the end of every process")

    assert rapid.do(do="pid").json() != before
