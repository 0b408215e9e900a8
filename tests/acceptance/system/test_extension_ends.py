"""How a runtime and its extensions end: what each is asked, and what it may take."""

from __future__ import annotations

import os
import signal
from typing import Any

import psutil
import pytest

from tests.conftest import StartRapid
from tests.extensions import RecorderExtension
from tests.support import ECHO, MISBEHAVE, wait_until

#: A runtime that says when it is asked to end, and never asks for an event. The quotes keep what it
#: prints apart from its command line, which rapid logs.
TERMINABLE = (
    "sh",
    "-c",
    'trap "echo asked to end; exit" TERM; echo "runtime" runs; while :; do sleep 0.05; done',
)


@pytest.mark.parametrize("kind", ["none", "internal", "external"])
def test_a_runtime_is_asked_to_end_only_with_extensions(
    start_rapid: StartRapid, extension: RecorderExtension, kind: str
) -> None:
    environ = extension.environ if kind == "external" else {}
    rapid = start_rapid(*TERMINABLE, ready=False, **environ)
    rapid.wait_for_log("runtime runs")
    if kind == "internal":
        with rapid.runtime_api() as client:
            name = {"Lambda_Extension_Name": "internal"}
            assert client.post("/2020-01-01/extension/register", b"{}", **name).status == 200

    assert rapid.stop() == 0

    assert (b"asked to end\n" in rapid.stdout) == (kind != "none")


def test_environments_that_ended_leave_no_connection_of_their_extensions(
    start_rapid: StartRapid, extension: RecorderExtension
) -> None:
    # It is not told of the end.
    rapid = start_rapid(MISBEHAVE, RECORDER_EVENTS="", **extension.environ)
    assert rapid.do(do="counter").json() == 1
    process = psutil.Process(rapid.pid)
    connections = len(process.net_connections("all"))

    for _ in range(3):
        rapid.do(do="exit")
        assert rapid.do(do="counter").json() == 1

    wait_until(lambda: len(process.net_connections("all")) <= connections, "the connections' end")


def test_an_extension_without_shutdown_is_killed_unasked(
    start_rapid: StartRapid, extension: RecorderExtension
) -> None:
    rapid = start_rapid(ECHO, RECORDER_EVENTS="INVOKE", **extension.environ)
    rapid.invoke()
    wait_until(lambda: extension.written("event"), "the event")

    assert rapid.stop() == 0

    assert rapid.descendants() == []
    assert extension.written("signal") == []
    assert [event["eventType"] for event in extension.written("event")] == ["INVOKE"]


def test_the_caller_is_told_of_an_extension_that_does_not_register(
    start_rapid: StartRapid, extension: RecorderExtension
) -> None:
    limits: dict[str, Any] = {"RAPID_INIT_TIMEOUT": "0.5", "AWS_LAMBDA_FUNCTION_TIMEOUT": "0.5"}
    environ = {"RECORDER_DO": "no-register", **limits, **extension.environ}

    rapid = start_rapid(MISBEHAVE, ready=False, **environ)

    assert rapid.invoke().error_type == "Sandbox.Timedout"
    assert not any("exec '" in line for line in rapid.log)  # the runtime never starts


def test_an_extension_killed_while_idle_is_replaced_for_the_next_call(
    start_rapid: StartRapid, extension: RecorderExtension
) -> None:
    rapid = start_rapid(MISBEHAVE, **extension.environ)
    first = rapid.do(do="pid").json()
    (pid,) = extension.written("started")

    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: first not in rapid.descendants(), "the reset")

    assert rapid.do(do="pid").json() != first
    assert len(extension.written("started")) == 2
