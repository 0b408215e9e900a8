"""How a runtime and its extensions end: what each is asked, and what it may take."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import StartRapid
from tests.support import (
    ECHO,
    MISBEHAVE,
    RECORDER_EXTENSION,
    Rapid,
    wait_until,
)

#: A runtime that says when it is asked to end, and never asks for an event.
TERMINABLE = (
    "sh",
    "-c",
    'trap "echo asked to end; exit" TERM; echo runtime runs; while :; do sleep 0.05; done',
)


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """Give the settings for the recorder extension."""
    directory = tmp_path / "extensions"
    directory.mkdir()
    (directory / "recorder").symlink_to(RECORDER_EXTENSION)
    return {"RAPID_EXTENSIONS_DIR": str(directory), "RECORDER_FILE": str(tmp_path / "record")}


def recorded(tmp_path: Path) -> list[Any]:
    return [json.loads(line) for line in (tmp_path / "record").read_text().splitlines()]


@pytest.mark.parametrize("has_extension", [True, False])
def test_a_runtime_is_asked_to_end_only_with_extensions(
    start_rapid: StartRapid, has_extension: bool
) -> None:
    rapid = start_rapid(*TERMINABLE, ready=False)
    rapid.wait_for_log("runtime runs")
    if has_extension:
        with rapid.runtime_api() as client:
            name = {"Lambda_Extension_Name": "internal"}
            assert client.post("/2020-01-01/extension/register", b"{}", **name).status == 200

    assert rapid.stop() == 0

    assert (b"asked to end\n" in rapid.stdout) == has_extension


def test_environments_that_ended_leave_no_connection_of_their_extensions(
    start_rapid: StartRapid, environ: dict[str, str]
) -> None:
    environ["RECORDER_EVENTS"] = ""  # so that it is not told of the end
    rapid = start_rapid(MISBEHAVE, ready=True, flags=(), **environ)
    assert rapid.do(do="counter").json() == 1
    connections = sockets_of(rapid.pid)

    for _ in range(3):
        rapid.do(do="exit")
        assert rapid.do(do="counter").json() == 1

    wait_until(lambda: sockets_of(rapid.pid) <= connections, "the connections' end")


def sockets_of(pid: int) -> int:
    found = 0
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found += str(descriptor.readlink()).startswith("socket:")
    return found


def test_a_runtime_beside_an_external_extension_is_asked_first(
    start_rapid: StartRapid, environ: dict[str, str], tmp_path: Path
) -> None:
    rapid = start_rapid(*TERMINABLE, ready=False, flags=(), **environ)
    rapid.wait_for_log("runtime runs")

    rapid.stop()

    assert b"asked to end\n" in rapid.stdout
    assert recorded(tmp_path)[-1]["event"]["shutdownReason"] == "SPINDOWN"


def test_an_extension_without_shutdown_is_killed_unasked(
    start_rapid: StartRapid, environ: dict[str, str], tmp_path: Path
) -> None:
    rapid = start_rapid(ECHO, RECORDER_EVENTS="INVOKE", flags=(), ready=True, **environ)
    rapid.invoke()
    wait_until(lambda: any("event" in e for e in recorded(tmp_path)), "the event")

    assert rapid.stop() == 0

    assert rapid.descendants() == []
    heard = [entry for entry in recorded(tmp_path) if "signal" in entry]
    assert heard == []
    assert "SHUTDOWN" not in (tmp_path / "record").read_text()


def test_an_extension_that_does_not_end_is_killed_and_told_of(
    start_rapid: StartRapid, environ: dict[str, str]
) -> None:
    rapid = start_rapid(ECHO, RECORDER_DO="stubborn", flags=(), ready=True, **environ)

    assert rapid.stop() == 0

    assert rapid.descendants() == []
    rapid.wait_for_log("extensions killed")


def test_an_extension_that_does_not_register_lets_init_time_out(
    environ: dict[str, str],
) -> None:
    with Rapid(
        MISBEHAVE,
        ready=False,
        RECORDER_DO="no-register",
        RAPID_INIT_TIMEOUT="0.5",
        AWS_LAMBDA_FUNCTION_TIMEOUT="0.5",
        RAPID_PRINT_REPORTS="TRUE",
        **environ,
    ) as rapid:
        line = rapid.wait_for_log("INIT_REPORT")
        answer = rapid.invoke()

    assert line.endswith("\tPhase: init\tStatus: timeout")
    assert answer.error_type == "Sandbox.Timedout"
    assert not any("exec '" in line for line in rapid.log)  # the runtime never starts


def test_an_extension_killed_while_idle_is_replaced_for_the_next_call(
    start_rapid: StartRapid, environ: dict[str, str], tmp_path: Path
) -> None:
    rapid = start_rapid(MISBEHAVE, flags=(), ready=True, **environ)
    first = rapid.do(do="pid").json()
    (pid,) = [entry["started"] for entry in recorded(tmp_path) if "started" in entry]

    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: first not in rapid.descendants(), "the reset")

    assert rapid.do(do="pid").json() != first
    assert len([entry for entry in recorded(tmp_path) if "started" in entry]) == 2
