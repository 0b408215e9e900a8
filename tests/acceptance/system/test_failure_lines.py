"""A failure that rapid finds is one warning, at the level that rapid has by default."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from lambda_protocol.memory_cgroup import find_memory_cgroup
from tests.conftest import StartRapid
from tests.extensions import RecorderExtension
from tests.support import MISBEHAVE, RAPID, Rapid, wait_until

LIMIT_MB = 160


def warnings(rapid: Rapid) -> list[str]:
    """Return the warnings of rapid, from the message on."""
    return [line.partition("(rapid) ")[2] for line in rapid.log if "[WARNING] (rapid)" in line]


def only_warning(rapid: Rapid) -> dict[str, str]:
    """Return what the one warning says of a failed invocation."""
    rapid.wait_for_log("[WARNING] (rapid)")
    (line,) = warnings(rapid)
    found = re.fullmatch(
        r"invocation failed function=(?P<function>\S+) request_id=(?P<request_id>\S+) "
        r"after_ms=(?P<after_ms>[0-9.]+) cause=(?P<cause>.*?)"
        r"( memory_limit_mb=(?P<limit_mb>\d+))? peak_memory_mb=(?P<peak_mb>\d+)",
        line,
    )
    assert found, line
    return found.groupdict()


@pytest.mark.parametrize(
    ("event", "cause"),
    [
        ({"do": "sleep", "s": 60}, "timeout"),
        ({"do": "exit", "code": 3}, "exit status 3"),
        ({"do": "exit", "code": 0}, "exit status 0"),
        ({"do": "signal", "name": "SEGV"}, r"signal: segmentation fault( \(core dumped\))?"),
        ({"do": "signal", "name": "KILL"}, "signal: killed"),
        ({"do": "size", "n": 6_291_557}, "response too large"),
        ({"do": "truncate", "n": 5}, "truncated response"),
    ],
    ids=lambda value: str(value.get("do")) if isinstance(value, dict) else None,
)
@pytest.mark.parametrize("concurrency", ["", "2"], ids=["one at a time", "several at a time"])
def test_a_failed_invocation_is_one_warning(
    start_rapid: StartRapid, event: dict[str, Any], cause: str, concurrency: str
) -> None:
    rapid = start_rapid(
        MISBEHAVE,
        AWS_LAMBDA_FUNCTION_TIMEOUT="1",
        AWS_LAMBDA_MAX_CONCURRENCY=concurrency,
    )

    answer = rapid.do(**event)
    said = only_warning(rapid)

    assert said["function"] == rapid.function_name
    assert said["request_id"] == answer.headers["x-amzn-RequestId"]
    assert re.fullmatch(cause, said["cause"])
    assert 0 < float(said["after_ms"]) < 60_000
    assert (float(said["after_ms"]) >= 1000) is (cause == "timeout")
    assert 1 < int(said["peak_mb"]) < 1000
    assert said["limit_mb"] is None


def test_a_failed_init_is_the_cause_of_its_callers_failure(start_rapid: StartRapid) -> None:
    rapid = start_rapid(MISBEHAVE, ready=False, MISBEHAVE_INIT="exit:7")
    rapid.wait_for_log("init failed")

    answer = rapid.invoke()

    said = only_warning(rapid)
    assert said["cause"] == "init failure: exit status 7"
    assert said["request_id"] == answer.headers["x-amzn-RequestId"]
    line = rapid.wait_for_log("init failed")
    assert f"function={rapid.function_name} after_ms=" in line
    assert "cause=exit status 7" in line


def test_the_crash_of_an_extension_names_it(
    start_rapid: StartRapid, extension: RecorderExtension
) -> None:
    rapid = start_rapid(MISBEHAVE, RECORDER_DO="exit:7", **extension.environ)

    rapid.do(do="sleep", s=30)

    assert only_warning(rapid)["cause"] == "extension recorder: exit status 7"


def test_a_runtime_that_dies_between_invocations_is_a_warning_and_fails_no_call(
    start_rapid: StartRapid,
) -> None:
    rapid = start_rapid(MISBEHAVE)
    pid = rapid.do(do="pid").json()

    os.kill(pid, signal.SIGTERM)

    line = rapid.wait_for_log("[WARNING] (rapid)")
    about = f"execution environment failed function={rapid.function_name} cause=signal: terminated"
    assert about in line
    assert rapid.do(do="counter").json() == 1


def test_what_a_handler_raises_and_what_idles_out_is_no_warning(start_rapid: StartRapid) -> None:
    rapid = start_rapid(MISBEHAVE, AWS_LAMBDA_FUNCTION_IDLETIMEOUT="0.2")

    rapid.do(do="raise")
    wait_until(lambda: not rapid.descendants(), "the idle environment to go")
    rapid.invoke()
    rapid.stop()

    assert warnings(rapid) == []


@pytest.fixture
def limited() -> Iterator[tuple[str, ...]]:
    """Give the command line of a rapid whose control group has ``LIMIT_MB``."""
    cgroup = find_memory_cgroup()
    if cgroup is None:
        pytest.skip("no control group counts the memory of this process")
    folder = cgroup.mount / f"rapid-test-{os.getpid()}"
    limit = folder / ("memory.max" if cgroup.is_v2 else "memory.limit_in_bytes")
    try:
        folder.mkdir()
        limit.write_text(str(LIMIT_MB << 20))
    except OSError as error:
        with contextlib.suppress(OSError):
            folder.rmdir()
        pytest.skip(f"no control group can be made here: {error}")
    yield ("sh", "-c", f'echo $$ > {folder}/cgroup.procs && exec "$@"', "sh", *RAPID)
    wait_until(lambda: not (folder / "cgroup.procs").read_text(), "the processes to go")
    folder.rmdir()


@pytest.mark.parametrize(
    ("event", "error"),
    [
        ({}, "signal: killed"),
        ({"in_child": True}, "exit status 137"),
    ],
    ids=["the runtime", "its child, as of a shell"],
)
def test_a_process_that_the_kernel_kills_for_memory_is_out_of_memory(
    limited: tuple[str, ...], start_rapid: StartRapid, event: dict[str, Any], error: str
) -> None:
    rapid = start_rapid(MISBEHAVE, program=limited)

    answer = rapid.do(do="fill_memory", **event)

    request_id = answer.headers["x-amzn-RequestId"]
    assert answer.json() == {
        "errorType": "Runtime.ExitError",
        "errorMessage": f"RequestId: {request_id} Error: Runtime exited with error: {error}",
    }
    said = only_warning(rapid)
    assert (said["cause"], said["limit_mb"]) == ("out of memory", str(LIMIT_MB))
    assert said["request_id"] == request_id

    assert rapid.do(do="signal", name="KILL").json()["errorType"] == "Runtime.ExitError"
    assert "cause=signal: killed" in rapid.wait_for_log("[WARNING] (rapid)", count=2)


def test_memory_that_cannot_be_enforced_is_one_warning(start_rapid: StartRapid) -> None:
    cgroup = find_memory_cgroup()
    if cgroup is not None and cgroup.is_v2:
        pytest.skip("memory is counted by control groups of version 2 here")
    rapid = start_rapid(MISBEHAVE, RAPID_ENFORCE_MEMORY="TRUE", RAPID_MAX_CONCURRENCY="2")

    rapid.do(do="exit")
    rapid.do(do="echo")

    lines = [line for line in warnings(rapid) if "RAPID_ENFORCE_MEMORY" in line]
    assert lines == [
        "RAPID_ENFORCE_MEMORY: memory is not limited "
        "reason=memory is not counted by control groups of version 2"
    ]
