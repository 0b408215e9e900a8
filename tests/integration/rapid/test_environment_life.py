"""An execution environment from start to gone: a real rapid and real, mostly bad, processes."""

from __future__ import annotations

import base64
import json
import shutil
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.conformance.conftest import StartPuppet
from tests.acceptance.conformance.puppet import make_extension
from tests.conftest import StartRapid
from tests.support import (
    BASH_ECHO,
    ECHO,
    MISBEHAVE,
    RECORDER_EXTENSION,
    Answer,
    Rapid,
)


def failure(answer: Answer) -> tuple[str, str]:
    """Return type and message of a function's failure, less the request id."""
    assert answer.status == 200
    assert answer.headers["X-Amz-Function-Error"] == "Unhandled"
    payload = answer.json()
    assert list(payload) == ["errorType", "errorMessage"]
    intro = f"RequestId: {answer.headers['x-amzn-RequestId']} Error: "
    assert payload["errorMessage"].startswith(intro)
    return payload["errorType"], payload["errorMessage"].removeprefix(intro)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


@pytest.fixture
def misbehave(start_rapid: StartRapid) -> Rapid:
    return start_rapid(MISBEHAVE)


# --- runtimes of every kind


@pytest.mark.parametrize("runtime", [ECHO, BASH_ECHO, MISBEHAVE], ids=["echo", "bash", "python"])
def test_a_runtime_serves_call_after_call(start_rapid: StartRapid, runtime: str) -> None:
    rapid = start_rapid(runtime)

    for count in range(20):
        assert rapid.invoke(json.dumps({"n": count})).json() == {"n": count}


# --- deaths


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ({"do": "exit", "code": 1}, "Runtime exited with error: exit status 1"),
        ({"do": "exit", "code": 0}, "Runtime exited without providing a reason"),
        ({"do": "signal", "name": "KILL"}, "Runtime exited with error: signal: killed"),
        ({"do": "signal", "name": "SEGV"}, "Runtime exited with error: signal: segmentation fault"),
        ({"do": "signal", "name": "TERM"}, "Runtime exited with error: signal: terminated"),
    ],
    ids=["exit-1", "exit-0", "SIGKILL", "SIGSEGV", "SIGTERM"],
)
def test_a_death_is_told_at_once_in_awss_words(
    misbehave: Rapid, event: dict[str, Any], message: str
) -> None:
    error_type, found = failure(misbehave.do(**event))

    assert error_type == "Runtime.ExitError"
    assert found.removesuffix(" (core dumped)") == message


def test_an_answer_before_the_death_counts(misbehave: Rapid) -> None:
    answer = misbehave.do(do="respond_then_exit", code=3)

    assert "X-Amz-Function-Error" not in answer.headers
    assert misbehave.do(do="counter").json() == 1


def test_the_memory_that_a_report_tells_is_measured(start_rapid: StartRapid) -> None:
    answer = start_rapid(ECHO).invoke(X_Amz_Log_Type="Tail")

    tail = base64.b64decode(answer.headers["X-Amz-Log-Result"])
    assert 3 <= int(tail.split(b"Max Memory Used: ")[1].split()[0]) <= 60


# --- init


@pytest.mark.parametrize(
    ("init", "error_type", "message"),
    [
        ("exit:3", "Runtime.ExitError", "Runtime exited with error: exit status 3"),
        ("exit0", "Runtime.ExitError", "Runtime exited without providing a reason"),
        ("kill", "Runtime.ExitError", "Runtime exited with error: signal: killed"),
        ("hang", "Sandbox.Timedout", "Task timed out after 0.50 seconds"),
    ],
)
def test_an_init_that_fails_twice_is_the_callers_failure(
    start_rapid: StartRapid, init: str, error_type: str, message: str
) -> None:
    limit_s = "0.5" if init == "hang" else "20"
    rapid = start_rapid(
        MISBEHAVE,
        ready=False,
        MISBEHAVE_INIT=init,
        RAPID_INIT_TIMEOUT=limit_s,
        AWS_LAMBDA_FUNCTION_TIMEOUT=limit_s,
    )

    assert failure(rapid.invoke()) == (error_type, message)


@pytest.mark.parametrize("init", ["exit:1", "kill", "error"])
def test_an_init_that_fails_once_is_done_again(
    start_rapid: StartRapid, init: str, tmp_path: Path
) -> None:
    rapid = start_rapid(
        MISBEHAVE,
        ready=False,
        MISBEHAVE_INIT=f"once:{init}",
        MISBEHAVE_STATE=str(tmp_path / "state"),
    )

    assert rapid.invoke(b"1").body == b"1"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["/nonexistent/bootstrap"], "fork/exec /nonexistent/bootstrap: no such file or directory"),
        (["/tmp"], "fork/exec /tmp: permission denied: it is a directory"),
    ],
    ids=["missing", "folder"],
)
def test_a_command_that_cannot_be_started_is_an_invalid_entrypoint(
    start_rapid: StartRapid, command: list[str], message: str
) -> None:
    rapid = start_rapid(*command, ready=False)

    assert failure(rapid.invoke()) == ("Runtime.InvalidEntrypoint", message)
    assert rapid.exit_code is None


def test_without_a_bootstrap_the_places_are_named(start_rapid: StartRapid) -> None:
    if any(Path("/", place, "bootstrap").exists() for place in ("var/task", "opt", "var/runtime")):
        pytest.skip("this machine has a bootstrap")
    rapid = start_rapid(ready=False)

    assert failure(rapid.invoke()) == (
        "Runtime.InvalidEntrypoint",
        "Couldn't find valid bootstrap(s): [/var/task/bootstrap /opt/bootstrap]",
    )


# --- external extensions


@pytest.fixture
def recorder(tmp_path: Path) -> Path:
    """Give an extension, in a folder of its own."""
    folder = tmp_path / "extensions"
    folder.mkdir()
    return Path(shutil.copy(RECORDER_EXTENSION, folder / "one"))


def test_an_init_error_of_an_extension_is_the_callers_failure(
    start_rapid: StartRapid, recorder: Path, tmp_path: Path
) -> None:
    rapid = start_rapid(
        ECHO,
        ready=False,
        RAPID_EXTENSIONS_DIR=str(recorder.parent),
        RECORDER_FILE=str(tmp_path / "record"),
        RECORDER_DO="init-error",
    )

    assert failure(rapid.invoke()) == ("Extension.InitError", "Extension.OnPurpose")


@pytest.mark.parametrize("name", ["zero", "README.md", ".hidden"])
def test_a_file_among_the_extensions_that_is_not_executable_is_a_launch_error(
    start_rapid: StartRapid, recorder: Path, name: str
) -> None:
    file = recorder.with_name(name)
    file.write_text("not a program")
    rapid = start_rapid(ECHO, ready=False, RAPID_EXTENSIONS_DIR=str(recorder.parent))

    error_type, message = failure(rapid.invoke())

    assert error_type == "Extension.LaunchError"
    assert message.startswith(f"fork/exec {file}: permission denied: it is not executable, chmod")


def test_an_extension_at_work_gets_its_shutdown_when_it_asks(
    start_puppet: StartPuppet, tmp_path: Path
) -> None:
    make_extension(tmp_path / "extensions", "one")
    puppet = start_puppet(RAPID_EXTENSIONS_DIR=str(tmp_path / "extensions"))
    extension = puppet.extension("one", ["INVOKE", "SHUTDOWN"])
    with extension.park(puppet.raw()) as at_work:
        turn = puppet.take()
        assert at_work.read_answer().json()["eventType"] == "INVOKE"
        puppet.runtime.post(turn.response_path, b"{}")
        turn.outcome()

        puppet.rapid.signal(signal.SIGTERM)
        puppet.rapid.wait_for_log("stopping")

        assert extension.next().json()["shutdownReason"] == "SPINDOWN"
