"""An error that nobody foresaw costs one environment: its caller is answered, the slot is kept."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support import IS_ONE_FILE, MISBEHAVE, Rapid, wait_until

StartFaulty = Callable[..., Rapid]
ERROR = "ZeroDivisionError: on purpose"
PRINT = {"do": "print", "text": "hello\n", "s": 600}


@pytest.fixture
def start_faulty() -> Iterator[StartFaulty]:
    """Give a function that starts a rapid in which calls of one function fail."""
    if IS_ONE_FILE:
        pytest.skip("the static file cannot be given a fault")
    with ExitStack() as stack:

        def start(fault: str, *, calls: int = 1, **environ: str) -> Rapid:
            program = [sys.executable, str(Path(__file__).with_name("faulty_rapid.py"))]
            rapid = Rapid(MISBEHAVE, program=[*program, fault, str(calls)], ready=False, **environ)
            return stack.enter_context(rapid)

        yield start


@pytest.mark.parametrize(
    "fault",
    [
        "rapid.environment.process_life:discover",
        "rapid.environment.outcomes:InvocationLog",
        "rapid.environment.launch:Launch.start_runtime",
        "rapid.environment.phases:RuntimeProgress.on_next",
        "rapid.apis.runtime_api:next_headers",
    ],
    ids=["start", "log", "launch", "next", "delivery"],
)
@pytest.mark.parametrize("calls", [1, 50], ids=["once", "always"])
def test_it_ends_the_environment_and_not_the_slot(
    start_faulty: StartFaulty, fault: str, calls: int
) -> None:
    rapid = start_faulty(fault, calls=calls)

    first = rapid.do(do="echo")

    assert first.status == 200
    if calls > 1:
        assert first.error_type == "Runtime.Unknown"
        assert ERROR in first.json()["errorMessage"]
        wait_until(lambda: not rapid.descendants(), "the end of its processes")
        return
    assert rapid.do(do="counter").json() in (1, 2)
    assert logged(rapid) == 1


@pytest.mark.parametrize(
    ("fault", "event", "error_type"),
    [
        ("rapid.logs.capture:LogCapture._pump_locked", PRINT, "Runtime.Unknown"),
        ("rapid.environment.requests:PostedId", {"do": "echo"}, "Runtime.Unknown"),
        ("rapid.environment.invocation_log:InvocationLog.begin", {"do": "echo"}, "Runtime.Unknown"),
        ("rapid.environment.invocation_log:InvocationLog.end", {"do": "echo"}, None),
        ("rapid.environment.environment:timed_out", {"do": "sleep", "s": 600}, "Runtime.Unknown"),
        ("rapid.environment.environment:_runtime_exit", {"do": "exit"}, "Runtime.Unknown"),
        ("rapid.environment.process_life:shut_down", {"do": "exit"}, "Runtime.ExitError"),
        ("rapid.environment.sandbox:Sandbox.kill_orphans", {"do": "exit"}, "Runtime.ExitError"),
    ],
    ids=["logs", "answer", "before", "report", "clock", "exit", "shutdown", "kill"],
)
def test_it_is_answered_and_logged_once_and_the_next_call_works(
    start_faulty: StartFaulty, fault: str, event: dict[str, Any], error_type: str | None
) -> None:
    rapid = start_faulty(fault, AWS_LAMBDA_FUNCTION_TIMEOUT="1")

    broken = rapid.invoke(json.dumps(event), X_Amz_Log_Type="Tail")
    following = rapid.do(do="counter")

    assert broken.status == 200
    assert ("X-Amz-Function-Error" in broken.headers) == (error_type is not None)
    if error_type is not None:
        assert broken.error_type == error_type
    assert following.json() == 1
    assert rapid.get("/readyz").status == 200
    assert logged(rapid) == 1


def test_an_answer_that_cannot_be_written_is_a_500(start_faulty: StartFaulty) -> None:
    rapid = start_faulty("rapid.apis.invoke_api:encode_outcome")

    assert rapid.do(do="echo").status == 500
    assert rapid.do(do="counter").json() == 2
    assert logged(rapid) == 1


@pytest.mark.parametrize(
    "fault",
    [
        "scheduling.scheduler:Scheduler.drain",
        "scheduling.scheduler:Scheduler.stop",
        "invocations.memory_queue:MemoryQueue.drain",
    ],
)
def test_a_stop_goes_on_with_its_other_parts(start_faulty: StartFaulty, fault: str) -> None:
    rapid = start_faulty(f"rapid.{fault}", calls=50)
    assert rapid.do(do="spawn_child").status == 200

    assert rapid.stop() == 0

    assert logged(rapid) == 1
    wait_until(lambda: not rapid.descendants(), "the end of its processes")


def logged(rapid: Rapid) -> int:
    return sum(ERROR in line for line in rapid.log)


def test_a_folder_that_was_made_anew_is_used(tmp_path: Path) -> None:
    folder = tmp_path / "function"

    def make() -> None:
        folder.mkdir()
        shutil.copy(MISBEHAVE, folder / "bootstrap")

    make()
    rapid = Rapid("./bootstrap")
    rapid.cwd = folder
    with rapid:
        assert rapid.do(do="echo").status == 200
        shutil.rmtree(folder)
        make()
        assert rapid.do(do="exit").error_type == "Runtime.ExitError"

        again = rapid.do(do="env")

        assert again.json()["cwd"] == str(folder)
        assert rapid.get("/readyz").status == 200


def test_a_folder_that_is_gone_is_told_and_may_come_back(tmp_path: Path) -> None:
    folder = tmp_path / "function"
    folder.mkdir()
    rapid = Rapid(MISBEHAVE)
    rapid.cwd = folder
    with rapid:
        folder.rmdir()
        rapid.do(do="exit")

        missing = rapid.do(do="echo")
        folder.mkdir()

        assert missing.error_type == "Runtime.InvalidWorkingDir"
        assert str(folder) in missing.json()["errorMessage"]
        assert rapid.do(do="echo").json() == {"do": "echo"}
