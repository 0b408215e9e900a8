"""SIGHUP says that there is new code: what runs ends, and the next call starts afresh."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rapid.processes import child_pids
from tests.acceptance.system.conftest import Ledger
from tests.conftest import StartRapid
from tests.extensions import RecorderExtension
from tests.support import (
    IN_A_TERMINAL,
    MISBEHAVE,
    MULTI,
    RAPID,
    Rapid,
    is_alive,
    running_now,
    wait_until,
)

NOTED = "new code: the next invocations start fresh environments"


def renew(rapid: Rapid, count: int = 1) -> None:
    """Send SIGHUP, and return when rapid has taken note of it."""
    rapid.signal(signal.SIGHUP)
    rapid.wait_for_log(NOTED, count=count)


def test_the_next_call_runs_the_new_code(start_rapid: StartRapid, tmp_path: Path) -> None:
    code = tmp_path / "code"
    function = tmp_path / "function"
    function.write_text(f'#!/bin/sh\nCODE="$(cat {code})" exec {MISBEHAVE}\n')
    function.chmod(0o755)
    code.write_text("old")
    rapid = start_rapid(str(function))
    before = rapid.do(do="env").json()["environ"]["CODE"]

    code.write_text("new")
    renew(rapid)

    assert before == "old"
    assert rapid.do(do="env").json()["environ"]["CODE"] == "new"
    assert rapid.get("/readyz").status == 200


def test_idle_environments_go_at_once_and_working_ones_when_they_are_done(
    ledger: Ledger, pool: ThreadPoolExecutor
) -> None:
    rapid = ledger.start(RAPID_MAX_CONCURRENCY="2")
    running = pool.submit(rapid.invoke, ledger.held)
    ledger.wait_for(1)
    assert rapid.invoke(b"1").status == 200  # by the second environment
    (busy, idle) = (int(line.split()[0]) for line in ledger.lines)

    renew(rapid)
    wait_until(lambda: not is_alive(idle), "the end of the idle environment")
    following = rapid.invoke(b"2")
    is_still_there = is_alive(busy)
    ledger.open()

    assert following.status == 200
    assert is_still_there
    assert running.result().body.decode() == ledger.held
    wait_until(lambda: not is_alive(busy), "the end of the environment that was at work")
    assert len(ledger.pids) == 3


def test_a_call_that_waits_for_an_environment_at_work_gets_a_fresh_one(
    ledger: Ledger, pool: ThreadPoolExecutor
) -> None:
    rapid = ledger.start()
    running = pool.submit(rapid.invoke, ledger.held)
    ledger.wait_for(1)
    waiting = pool.submit(rapid.invoke, b"2")

    renew(rapid)
    ledger.open()

    assert running.result().status == 200
    assert waiting.result().body == b"2"
    assert len(ledger.pids) == 2


def test_a_runtime_of_several_at_once_ends_with_the_last_of_them(
    start_rapid: StartRapid, pool: ThreadPoolExecutor
) -> None:
    rapid = start_rapid(MULTI, AWS_LAMBDA_MAX_CONCURRENCY="4")
    calls = [pool.submit(rapid.invoke, json.dumps({"s": seconds})) for seconds in (0.5, 1.5)]
    wait_until(lambda: running_now(rapid) == 2, "both calls to run")

    renew(rapid)
    following = rapid.invoke(b'{"s": 0}').json()["pid"]

    (old,) = {call.result().json()["pid"] for call in calls}
    assert following != old
    wait_until(lambda: not is_alive(old), "the end of the old runtime")


def test_a_runtime_of_several_at_once_need_not_come_back(start_rapid: StartRapid) -> None:
    rapid = start_rapid(MISBEHAVE, AWS_LAMBDA_MAX_CONCURRENCY="1")
    assert rapid.do(do="slow_next", s=600).status == 200

    renew(rapid)

    assert rapid.do(do="counter").json() == 1


def test_extensions_are_told_of_a_spindown_and_start_again(
    start_rapid: StartRapid, extension: RecorderExtension
) -> None:
    rapid = start_rapid(MISBEHAVE, **extension.environ)
    before = rapid.do(do="pid").json()

    renew(rapid)
    after = rapid.do(do="pid").json()

    events = extension.written("event")
    assert after != before
    assert [event["shutdownReason"] for event in events if "shutdownReason" in event] == [
        "SPINDOWN"
    ]
    assert len(extension.written("registered")) == 2


@pytest.mark.parametrize("init", ["hang", "exit:1", "error"])
def test_an_init_of_the_old_code_is_done_again(
    start_rapid: StartRapid, tmp_path: Path, init: str
) -> None:
    rapid = start_rapid(
        MISBEHAVE,
        ready=False,
        MISBEHAVE_INIT=f"once:{init}",
        MISBEHAVE_STATE=str(tmp_path / "state"),
    )
    wait_until((tmp_path / "state").exists, "the first init")
    if init != "hang":
        rapid.wait_for_log("init failed")

    renew(rapid)

    rapid.wait_ready()
    assert rapid.do(do="counter").json() == 1


def test_several_signals_are_as_one(start_rapid: StartRapid) -> None:
    rapid = start_rapid(MISBEHAVE, RAPID_MAX_CONCURRENCY="2")
    for _ in range(20):
        rapid.signal(signal.SIGHUP)
        assert rapid.do(do="echo").status == 200

    assert rapid.stop() == 0
    assert rapid.descendants() == []


def test_nohup_works_as_ever() -> None:
    with Rapid(MISBEHAVE, program=["nohup", *RAPID]) as rapid:
        pid = rapid.do(do="pid").json()

        rapid.signal(signal.SIGHUP)

        assert [rapid.do(do="counter").json() for _ in range(3)] == [2, 3, 4]
        assert rapid.do(do="pid").json() == pid
        assert not [line for line in rapid.log if NOTED in line]


def test_a_terminal_that_is_closed_ends_rapid() -> None:
    with Rapid(MISBEHAVE, program=[*IN_A_TERMINAL, *RAPID]) as terminal:
        (rapid,) = child_pids(terminal.pid)
        os.kill(rapid, signal.SIGHUP)
        terminal.wait_for_log(NOTED)
        assert terminal.do(do="counter").json() == 1  # the terminal is there: it was new code

        os.kill(terminal.pid, signal.SIGKILL)

        wait_until(lambda: not is_alive(rapid), "the end of rapid")
        with contextlib.suppress(ProcessLookupError):
            wait_until(lambda: not terminal.descendants(), "the end of its processes")
