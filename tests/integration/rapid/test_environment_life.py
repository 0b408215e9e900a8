"""An execution environment from start to gone: a real rapid and real, mostly bad, processes."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from rapid.processes import child_pids, environ_of
from tests.conftest import StartRapid
from tests.support import (
    BASH_ECHO,
    ECHO,
    MISBEHAVE,
    MULTI,
    RECORDER_EXTENSION,
    Answer,
    Rapid,
    is_alive,
    running_now,
    wait_for,
    wait_until,
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


def test_a_runtime_keeps_its_memory_between_calls(misbehave: Rapid) -> None:
    assert [misbehave.do(do="counter").json() for _ in range(3)] == [1, 2, 3]


def test_a_runtime_of_several_at_once_is_one_process(start_rapid: StartRapid) -> None:
    rapid = start_rapid(MULTI, AWS_LAMBDA_MAX_CONCURRENCY="4")
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: rapid.invoke(b'{"s": 0.4}').json(), range(4)))

    assert len({answer["pid"] for answer in answers}) == 1
    assert len({answer["thread"] for answer in answers}) == 4


def test_several_environments_are_several_processes(start_rapid: StartRapid) -> None:
    rapid = start_rapid(MISBEHAVE, RAPID_MAX_CONCURRENCY="3")
    with ThreadPoolExecutor(3) as pool:
        for sleeping in [pool.submit(rapid.do, do="sleep", s=0.3) for _ in range(3)]:
            assert sleeping.result().status == 200

    assert len(rapid.descendants()) == 3


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


def test_the_call_after_a_death_runs_in_a_new_process(misbehave: Rapid) -> None:
    before = misbehave.do(do="pid").json()
    misbehave.do(do="exit")

    assert misbehave.do(do="pid").json() != before


def test_an_answer_before_the_death_counts(misbehave: Rapid) -> None:
    answer = misbehave.do(do="respond_then_exit", code=3)

    assert "X-Amz-Function-Error" not in answer.headers
    assert misbehave.do(do="counter").json() == 1


def test_a_death_between_calls_is_nobodys_failure(misbehave: Rapid) -> None:
    pid = misbehave.do(do="pid").json()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), "the process to be reaped")

    assert "X-Amz-Function-Error" not in misbehave.do(do="counter").headers


def test_files_outlive_a_death(misbehave: Rapid, tmp_path: Path) -> None:
    path = str(tmp_path / "file")
    misbehave.do(do="write_tmp", path=path, text="kept")
    misbehave.do(do="exit")

    assert misbehave.do(do="read_tmp", path=path).json() == "kept"


def test_a_timeout_kills_the_whole_process_group(start_rapid: StartRapid) -> None:
    rapid = start_rapid(MISBEHAVE, AWS_LAMBDA_FUNCTION_TIMEOUT="0.5")
    child = rapid.do(do="spawn_child").json()

    assert failure(rapid.do(do="sleep", s=60)) == (
        "Sandbox.Timedout",
        "Task timed out after 0.50 seconds",
    )
    wait_until(lambda: not is_alive(child), "the child's end")


@pytest.mark.parametrize("end", ["exit", "signal"])
def test_a_grandchild_that_left_the_group_dies_with_the_environment(
    misbehave: Rapid, end: str
) -> None:
    orphan = misbehave.do(do="spawn_orphan").json()
    assert is_alive(orphan)

    misbehave.do(do=end)

    wait_until(lambda: not is_alive(orphan), "the orphan's end")


def test_what_an_orphan_started_dies_with_the_environment(misbehave: Rapid) -> None:
    orphan = misbehave.do(do="spawn_orphan", argv=["sh", "-c", "sleep 600 & wait"]).json()
    (child,) = wait_for(lambda: child_pids(orphan) or None, "the orphan's child")

    misbehave.do(do="exit")

    wait_until(lambda: not is_alive(orphan) and not is_alive(child), "the end of both")


def test_orphans_of_one_environment_are_not_killed_with_another(
    start_rapid: StartRapid, pool: ThreadPoolExecutor
) -> None:
    rapid = start_rapid(MISBEHAVE, RAPID_MAX_CONCURRENCY="2")
    busy = pool.submit(rapid.do, do="sleep", s=0.5)
    wait_until(lambda: running_now(rapid) == 1, "the call to run")
    orphan = rapid.do(do="spawn_orphan").json()  # in the second environment
    busy.result()
    (first,) = [pid for pid in rapid.descendants() if runtime_api(pid) != runtime_api(orphan)]

    os.kill(first, signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{first}").exists(), "the first environment's end")
    rapid.invoke()

    assert is_alive(orphan)


def runtime_api(pid: int) -> bytes:
    (line,) = [line for line in environ_of(pid).split(b"\0") if b"AWS_LAMBDA_RUNTIME_API=" in line]
    return line


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


@pytest.mark.parametrize("init", ["error", "error-exit"])
def test_an_init_error_goes_to_the_caller_as_it_was_posted(
    start_rapid: StartRapid, init: str
) -> None:
    rapid = start_rapid(MISBEHAVE, ready=False, MISBEHAVE_INIT=init)

    answer = rapid.invoke()

    assert answer.body == (
        b'{"errorType":"Runtime.ImportModuleError","errorMessage":"no module named x"}'
    )
    assert answer.headers["X-Amz-Function-Error"] == "Unhandled"


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


def test_an_init_over_its_time_is_done_again_under_the_functions(
    start_rapid: StartRapid,
) -> None:
    rapid = start_rapid(
        MISBEHAVE,
        ready=False,
        MISBEHAVE_INIT="sleep:0.6",
        RAPID_INIT_TIMEOUT="0.2",
        AWS_LAMBDA_FUNCTION_TIMEOUT="10",
    )

    assert rapid.invoke(b"1").body == b"1"


def test_a_slow_init_holds_its_caller_up_and_no_longer(start_rapid: StartRapid) -> None:
    rapid = start_rapid(ECHO, ready=False, RAPID_EAGER_INIT="false")

    assert rapid.descendants() == []
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


# --- logs


def test_output_passes_untouched_to_its_own_stream(misbehave: Rapid) -> None:
    misbehave.do(do="print", hex="ff00c3", to="stdout")
    misbehave.do(do="print", text="to stderr, no line end", to="stderr")

    wait_until(lambda: misbehave.stdout == b"\xff\x00\xc3", "the output")
    wait_until(lambda: b"to stderr, no line end" in misbehave.stderr, "the error output")


def test_the_log_tail_is_the_invocations_own(misbehave: Rapid) -> None:
    misbehave.do(do="print", text="before\n")

    tail = log_tail(misbehave, do="print", text="mine\n")

    first, *middle, end, report = tail.decode().splitlines()
    assert first.startswith("START RequestId: ")
    assert middle == ["mine"]
    assert end.startswith("END RequestId: ")
    assert report.startswith("REPORT RequestId: ")


def test_the_log_tail_is_the_last_4_kib(misbehave: Rapid) -> None:
    tail = log_tail(misbehave, do="print", text="x" * 99 + "\n", times=1000)

    assert len(tail) == 4096
    assert tail.count(b"x" * 99 + b"\n") > 30
    assert tail.splitlines()[-1].startswith(b"REPORT ")


def test_the_log_tail_of_a_death_has_its_last_words(misbehave: Rapid) -> None:
    answer = misbehave.invoke(json.dumps({"do": "exit"}), X_Amz_Log_Type="Tail")
    tail = base64.b64decode(answer.headers["X-Amz-Log-Result"])

    assert tail.rstrip().endswith(b"\tStatus: error\tError Type: Runtime.ExitError")


def log_tail(rapid: Rapid, **event: Any) -> bytes:
    answer = rapid.invoke(json.dumps(event), X_Amz_Log_Type="Tail")
    return base64.b64decode(answer.headers["X-Amz-Log-Result"])


def test_reports_are_printed_when_asked_for(start_rapid: StartRapid) -> None:
    rapid = start_rapid(ECHO, RAPID_PRINT_REPORTS="true")
    for _ in range(2):
        rapid.invoke()
    wait_until(lambda: rapid.stdout.count(b"\nREPORT ") == 2, "two reports")

    lines = rapid.stdout.decode().splitlines()
    assert [line.split()[0] for line in lines] == ["START", "END", "REPORT"] * 2
    assert "Init Duration" in lines[2]
    assert "Init Duration" not in lines[5]
    assert len({line.split()[2] for line in lines[:3]}) == 1


def test_measured_memory_is_reported(start_rapid: StartRapid) -> None:
    rapid = start_rapid(ECHO)
    tail = log_tail(rapid)

    used_mb = int(tail.split(b"Max Memory Used: ")[1].split()[0])
    assert 3 <= used_mb <= 60


# --- external extensions


Install = Callable[..., dict[str, Any]]


@pytest.fixture
def install(tmp_path: Path) -> Install:
    """Give a function that installs extensions and returns the settings they need."""

    def install(*names: str, events: str = "INVOKE,SHUTDOWN", do: str = "") -> dict[str, Any]:
        folder = tmp_path / "extensions"
        folder.mkdir()
        for name in names:
            (folder / name).write_bytes(RECORDER_EXTENSION.read_bytes())
            (folder / name).chmod(0o755)
        return {
            "RAPID_EXTENSIONS_DIR": str(folder),
            "RECORDER_FILE": str(tmp_path / "record"),
            "RECORDER_EVENTS": events,
            "RECORDER_DO": do,
        }

    return install


class Record:
    """What the extensions wrote."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._path = Path(settings["RECORDER_FILE"])

    def lines(self) -> list[dict[str, Any]]:
        with contextlib.suppress(FileNotFoundError):
            text = self._path.read_text()
            return [json.loads(line) for line in text.splitlines(keepends=True) if "\n" in line]
        return []

    def events(self, kind: str) -> list[dict[str, Any]]:
        events = [line["event"] for line in self.lines() if "event" in line]
        return [event for event in events if event["eventType"] == kind]

    def wait_for_event(self, kind: str) -> dict[str, Any]:
        return wait_for(lambda: next(iter(self.events(kind)), None), f"the event {kind}")


def test_an_extension_registers_and_hears_of_each_invocation(
    start_rapid: StartRapid, install: Install
) -> None:
    settings = install("one")
    rapid = start_rapid(ECHO, **settings)
    record = Record(settings)
    answers = [rapid.invoke() for _ in range(3)]
    wait_until(lambda: len(record.events("INVOKE")) == 3, "three events")

    events = record.events("INVOKE")

    assert [event["requestId"] for event in events] == [
        answer.headers["x-amzn-RequestId"] for answer in answers
    ]
    assert events[0]["invokedFunctionArn"].endswith(f":function:{rapid.function_name}")
    assert events[0]["tracing"]["type"] == "X-Amzn-Trace-Id"
    assert events[0]["deadlineMs"] > time.time() * 1000


def test_a_registration_is_answered_with_the_function(
    start_rapid: StartRapid, install: Install
) -> None:
    settings = install("one")
    rapid = start_rapid(ECHO, **settings)

    (registered,) = [line for line in Record(settings).lines() if "registered" in line]

    assert registered["status"] == 200
    assert registered["registered"] == {
        "functionName": rapid.function_name,
        "functionVersion": "$LATEST",
        "handler": "",
        "accountId": "123456789012",
    }


def test_the_runtime_starts_after_every_extension_has_registered(
    start_rapid: StartRapid, install: Install
) -> None:
    settings = install("one", do="no-register")
    rapid = start_rapid(ECHO, ready=False, RAPID_INIT_TIMEOUT="1", **settings)
    record = Record(settings)
    wait_until(record.lines, "the extension's start")

    rapid.wait_for_log("init failed")

    assert not [line for line in rapid.log if "exec '" in line]


def test_the_next_call_waits_for_the_extensions(start_rapid: StartRapid, install: Install) -> None:
    settings = install("one", do="slow:0.4")
    rapid = start_rapid(ECHO, **settings)
    started = time.monotonic()
    rapid.invoke()
    rapid.invoke()

    assert time.monotonic() - started >= 0.4


def test_an_extension_that_crashes_ends_the_environment(
    start_rapid: StartRapid, install: Install
) -> None:
    rapid = start_rapid(MISBEHAVE, **install("one", do="exit:7"))

    assert failure(rapid.do(do="sleep", s=5)) == ("Extension.Crash", "exit status 7")


def test_an_init_error_of_an_extension_is_the_callers_failure(
    start_rapid: StartRapid, install: Install
) -> None:
    rapid = start_rapid(ECHO, ready=False, **install("one", do="init-error"))

    assert failure(rapid.invoke()) == ("Extension.InitError", "Extension.OnPurpose")


@pytest.mark.parametrize("name", ["zero", "README.md", ".hidden"])
def test_a_file_among_the_extensions_that_is_not_executable_is_a_launch_error(
    start_rapid: StartRapid, install: Install, name: str
) -> None:
    settings = install("one")
    file = Path(settings["RAPID_EXTENSIONS_DIR"]) / name
    file.write_text("not a program")
    rapid = start_rapid(ECHO, ready=False, **settings)

    error_type, message = failure(rapid.invoke())

    assert error_type == "Extension.LaunchError"
    assert message.startswith(f"fork/exec {file}: permission denied: it is not executable, chmod")


def test_a_folder_among_the_extensions_is_skipped(
    start_rapid: StartRapid, install: Install
) -> None:
    settings = install("one")
    (Path(settings["RAPID_EXTENSIONS_DIR"]) / "lib").mkdir()
    rapid = start_rapid(ECHO, **settings)

    assert rapid.invoke(b"1").body == b"1"


@pytest.mark.parametrize(
    ("event", "reason"), [({"do": "exit"}, "FAILURE"), ({"do": "sleep", "s": 60}, "TIMEOUT")]
)
def test_extensions_hear_why_the_environment_ends(
    start_rapid: StartRapid, install: Install, event: dict[str, Any], reason: str
) -> None:
    settings = install("one")
    rapid = start_rapid(MISBEHAVE, AWS_LAMBDA_FUNCTION_TIMEOUT="0.5", **settings)
    rapid.do(**event)

    shutdown = Record(settings).wait_for_event("SHUTDOWN")

    assert shutdown["shutdownReason"] == reason


def test_a_stop_is_a_spindown_for_extensions(start_rapid: StartRapid, install: Install) -> None:
    settings = install("one", "two")
    rapid = start_rapid(ECHO, **settings)

    code = rapid.stop()

    shutdowns = Record(settings).events("SHUTDOWN")
    assert code == 0
    assert [event["shutdownReason"] for event in shutdowns] == ["SPINDOWN"] * 2
    assert rapid.descendants() == []


def test_an_extension_that_does_not_end_is_killed_after_2_seconds(
    start_rapid: StartRapid, install: Install
) -> None:
    rapid = start_rapid(ECHO, **install("one", do="stubborn"))
    started = time.monotonic()

    code = rapid.stop()

    assert code == 0
    assert time.monotonic() - started > 1.5
    assert rapid.descendants() == []


def test_an_extension_sees_less_of_the_environment_than_the_runtime(
    start_rapid: StartRapid, install: Install
) -> None:
    settings = install("one")
    start_rapid(ECHO, _MINE="x", MY_SETTING="y", **settings)

    environ = Record(settings).lines()[0]["environ"]

    assert environ["MY_SETTING"] == "y"
    assert not {"_MINE", "LAMBDA_TASK_ROOT", "AWS_LAMBDA_LOG_GROUP_NAME"} & environ.keys()


# --- stop


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_when_idle_is_prompt_and_leaves_nothing(
    misbehave: Rapid, number: signal.Signals
) -> None:
    misbehave.do(do="spawn_orphan")
    misbehave.do(do="spawn_child")

    misbehave.signal(number)
    code = misbehave.wait_exit()

    assert code == 0
    assert misbehave.descendants() == []


def test_a_stop_lets_a_running_call_end(misbehave: Rapid, pool: ThreadPoolExecutor) -> None:
    running = pool.submit(misbehave.do, do="sleep", s=0.6)
    wait_until(lambda: running_now(misbehave) == 1, "the call to run")

    code = misbehave.stop()

    assert code == 0
    assert running.result().json() == {"do": "sleep", "s": 0.6}


def test_a_stop_ends_a_call_that_outlives_the_drain(
    start_rapid: StartRapid, pool: ThreadPoolExecutor
) -> None:
    rapid = start_rapid(MISBEHAVE, RAPID_DRAIN_TIMEOUT="0.2")
    running = pool.submit(rapid.do, do="sleep", s=60)
    wait_until(lambda: running_now(rapid) == 1, "the call to run")

    code = rapid.stop()

    assert code == 0
    assert running.result().status in (200, 500)
    assert rapid.descendants() == []
