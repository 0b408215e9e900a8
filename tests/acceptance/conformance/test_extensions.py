from __future__ import annotations

import json
import re
import select
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.acceptance.conformance.conftest import StartFunction, StartPuppet
from tests.acceptance.conformance.doors import Calls, Gate, assert_function_error
from tests.acceptance.conformance.puppet import EXTENSION, RUNTIME, Puppet, Turn, make_extension
from tests.support import (
    LIMIT_S,
    MISBEHAVE,
    RECORDER_EXTENSION,
    Answer,
    RawConnection,
    wait_for,
    wait_until,
)

conformance = pytest.mark.conformance

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
UNKNOWN_ID = "11111111-2222-4333-8444-555555555555"
TRACE = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Give a folder for external extensions."""
    folder = tmp_path / "extensions"
    folder.mkdir()
    return folder


@pytest.fixture
def recorded(directory: Path, tmp_path: Path) -> Callable[[], list[Any]]:
    """Put the recorder extension into the folder; give what it has heard so far."""
    (directory / "recorder").symlink_to(RECORDER_EXTENSION)
    file = tmp_path / "record"

    def read() -> list[Any]:
        entries = [json.loads(line) for line in file.read_text().splitlines()]
        return [entry["event"] for entry in entries if "event" in entry]

    return read


@pytest.fixture
def environ(directory: Path, tmp_path: Path) -> dict[str, str]:
    """Give the settings for the folder and the recorder in it."""
    return {"RAPID_EXTENSIONS_DIR": str(directory), "RECORDER_FILE": str(tmp_path / "record")}


def assert_refused(answer: Answer, error_type: str) -> None:
    assert (answer.status, answer.error_type) == (403, error_type)
    assert answer.json()["errorMessage"]
    assert answer.headers["Content-Type"] == "application/json"


def is_silent(connection: RawConnection) -> bool:
    """Return whether nothing has come on ``connection`` for a moment."""
    return not select.select([connection.socket], [], [], 0.2)[0]


def last_shutdown(recorded: Callable[[], list[Any]]) -> Any:
    return wait_for(
        lambda: next((e for e in recorded() if e["eventType"] == "SHUTDOWN"), None), "SHUTDOWN"
    )


# 101-106: register


@conformance(101)
def test_the_runtime_starts_once_every_extension_has_registered(
    start_puppet: StartPuppet, directory: Path, environ: dict[str, str]
) -> None:
    for name in ("one", "two"):
        make_extension(directory, name)
    puppet = start_puppet(**environ)
    rapid = puppet.rapid
    wait_until(lambda: len(rapid.descendants()) == 2, "both extensions")

    puppet.extension("one", ["INVOKE"])
    extensions = set(rapid.descendants())
    registered_at = time.clock_gettime(time.CLOCK_BOOTTIME)
    puppet.extension("two", [])
    wait_until(lambda: len(rapid.descendants()) == 3, "the runtime")

    assert len(extensions) == 2
    (runtime,) = set(rapid.descendants()) - extensions
    assert started_at(runtime) >= registered_at - 0.02  # the kernel counts in hundredths


def started_at(pid: int) -> float:
    """Return when a process started, seconds since boot."""
    return psutil.Process(pid).create_time() - psutil.boot_time()


@conformance(102)
def test_register_answers_an_id_and_the_function(
    start_puppet: StartPuppet, directory: Path, environ: dict[str, str]
) -> None:
    make_extension(directory, "one")
    puppet = start_puppet(**environ, AWS_LAMBDA_FUNCTION_HANDLER="app.handler")

    answer = puppet.register("one", {"events": ["INVOKE", "SHUTDOWN"]})

    assert answer.status == 200
    assert UUID.fullmatch(answer.headers["Lambda-Extension-Identifier"])
    assert answer.json() == {
        "functionName": puppet.rapid.function_name,
        "functionVersion": "$LATEST",
        "handler": "app.handler",
    }


@conformance(102)
def test_register_answers_the_account_id_on_request(puppet: Puppet) -> None:
    answer = puppet.register("internal", Lambda_Extension_Accept_Feature="other, accountId")

    assert answer.json()["accountId"] == "123456789012"


@conformance(103)
@pytest.mark.parametrize("name", [None, ""])
def test_an_extension_without_a_name_is_refused(puppet: Puppet, name: str | None) -> None:
    assert_refused(puppet.register(name), "Extension.InvalidExtensionName")


@conformance(104)
@pytest.mark.parametrize("event", ["FOO", "SHUTDOWN"])
def test_an_event_that_is_not_for_internal_extensions_is_refused(
    puppet: Puppet, event: str
) -> None:
    answer = puppet.register("internal", {"events": ["INVOKE", event]})

    assert_refused(answer, "Extension.InvalidEventType")
    assert answer.json()["errorMessage"].startswith(f"{event}: ")


@conformance(104)
def test_an_unknown_event_is_refused_for_an_external_extension(
    start_puppet: StartPuppet, directory: Path, environ: dict[str, str]
) -> None:
    make_extension(directory, "one")
    puppet = start_puppet(**environ)

    assert_refused(puppet.register("one", {"events": ["FOO"]}), "Extension.InvalidEventType")


@conformance(105)
def test_a_second_registration_is_refused(puppet: Puppet) -> None:
    assert puppet.register("internal").status == 200

    assert_refused(puppet.register("internal"), "Extension.InvalidExtensionState")


@conformance(105)
def test_an_eleventh_extension_is_refused(puppet: Puppet) -> None:
    for number in range(10):
        assert puppet.register(f"internal-{number}").status == 200

    assert_refused(puppet.register("internal-10"), "Extension.TooManyExtensions")


@conformance(105)
def test_a_registration_after_the_runtimes_next_is_refused(puppet: Puppet) -> None:
    with puppet.park():
        puppet.rapid.wait_ready()

        assert_refused(puppet.register("internal"), "Extension.RegistrationClosed")


@conformance(106)
def test_null_events_register_and_their_next_counts_for_init(puppet: Puppet, calls: Calls) -> None:
    extension = puppet.extension("internal", None)
    caller = calls.start(puppet.rapid)
    with puppet.park() as runtime:
        assert is_silent(runtime)  # init is not done
        assert puppet.rapid.get("/readyz").status == 503

        with extension.park(puppet.raw()) as connection:
            event = runtime.read_answer()
            path = f"{RUNTIME}/invocation/{event.headers['Lambda-Runtime-Aws-Request-Id']}/response"
            assert puppet.runtime.post(path, b"1").status == 202
            assert caller.result(LIMIT_S).body == b"1"
            assert is_silent(connection)  # no event is for it


# 107-111: events


@conformance(107)
def test_an_invoke_event_tells_of_the_invocation(puppet: Puppet, calls: Calls) -> None:
    extension = puppet.extension("internal", ["INVOKE"])
    with puppet.park() as runtime, extension.park(puppet.raw()) as connection:
        caller = calls.start(puppet.rapid, X_Amzn_Trace_Id=TRACE)
        given = runtime.read_answer().headers
        answer = connection.read_answer()

        request_id = given["Lambda-Runtime-Aws-Request-Id"]
        path = f"{RUNTIME}/invocation/{request_id}/response"
        assert puppet.runtime.post(path, b"1").status == 202
        assert caller.result(LIMIT_S).status == 200

    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")
    assert UUID.fullmatch(answer.headers["Lambda-Extension-Event-Identifier"])
    assert answer.json() == {
        "eventType": "INVOKE",
        "deadlineMs": int(given["Lambda-Runtime-Deadline-Ms"]),
        "requestId": request_id,
        "invokedFunctionArn": given["Lambda-Runtime-Invoked-Function-Arn"],
        "tracing": {"type": "X-Amzn-Trace-Id", "value": TRACE},
    }


@conformance(108)
def test_the_next_call_waits_for_every_invoke_extension(puppet: Puppet, calls: Calls) -> None:
    extension = puppet.extension("internal", ["INVOKE"])
    with extension.park(puppet.raw()) as connection:
        first = puppet.take(b"1")
        connection.read_answer()
        assert puppet.runtime.post(first.response_path, b"1").status == 202
        assert first.outcome().status == 200

        second = calls.start(puppet.rapid, b"2")
        with puppet.park() as runtime:
            assert is_silent(runtime)

            extension.park(connection)
            event = runtime.read_answer()

            assert event.body == b"2"
            request_id = event.headers["Lambda-Runtime-Aws-Request-Id"]
            path = f"{RUNTIME}/invocation/{request_id}/response"
            assert puppet.runtime.post(path, b"2").status == 202
            assert second.result(LIMIT_S).body == b"2"


@conformance(109, 110)
def test_an_extension_that_does_not_come_back_times_out(
    start_function: StartFunction, environ: dict[str, str], recorded: Callable[[], list[Any]]
) -> None:
    rapid = start_function(
        MISBEHAVE, RECORDER_DO="slow:60", AWS_LAMBDA_FUNCTION_TIMEOUT="1", **environ
    )
    first_pid = rapid.do(do="pid").json()
    begun = time.monotonic()

    second_pid = rapid.do(do="pid").json()  # waits for the reset that the deadline brings

    assert second_pid != first_pid
    assert time.monotonic() - begun > 0.8
    rapid.wait_for_log("exec '", count=2)


@conformance(110)
@pytest.mark.parametrize(
    ("event", "reason"),
    [('{"do":"sleep","s":60}', "TIMEOUT"), ('{"do":"exit"}', "FAILURE")],
    ids=["timeout", "crash"],
)
def test_shutdown_tells_the_reason(
    start_function: StartFunction,
    environ: dict[str, str],
    recorded: Callable[[], list[Any]],
    event: str,
    reason: str,
) -> None:
    rapid = start_function(MISBEHAVE, AWS_LAMBDA_FUNCTION_TIMEOUT="1", **environ)

    assert rapid.invoke(event).headers["X-Amz-Function-Error"] == "Unhandled"

    told = last_shutdown(recorded)
    assert told["shutdownReason"] == reason
    assert abs(told["deadlineMs"] - time.time() * 1000) < 3000


@conformance(111)
@pytest.mark.parametrize(("code", "text"), [(0, "exit code 0"), (3, "exit status 3")])
def test_an_extensions_exit_is_a_crash_and_a_reset(
    start_puppet: StartPuppet,
    calls: Calls,
    directory: Path,
    environ: dict[str, str],
    code: int,
    text: str,
) -> None:
    make_extension(directory, "one", f"#!/bin/sh\nread _ < {directory.parent}/go\nexit {code}\n")
    gate = Gate(directory.parent / "go")
    puppet = start_puppet(**environ)
    extension = puppet.extension("one", ["INVOKE"])
    puppet.rapid.wait_for_log("exec '")
    with extension.park(puppet.raw()) as connection:
        turn = puppet.take()
        connection.read_answer()

        gate.open("\n")
        answer = turn.outcome()

    request_id = answer.headers["x-amzn-RequestId"]
    assert assert_function_error(answer) == {
        "errorType": "Extension.Crash",
        "errorMessage": f"RequestId: {request_id} Error: {text}",
    }
    following = calls.start(puppet.rapid, b'"again"')
    gate.wait_reached()  # a second extension runs
    fresh = puppet.extension("one", [])
    with puppet.park() as runtime, fresh.park(puppet.raw()):
        again = Turn(runtime.read_answer(), following)
        assert puppet.runtime.post(again.response_path, again.event.body).status == 202
        assert again.outcome().body == b'"again"'


# 112, 113: errors


@conformance(112)
@pytest.mark.parametrize("kind", ["init", "exit"])
def test_reporting_an_error_needs_its_type(puppet: Puppet, kind: str) -> None:
    extension = puppet.extension("internal", ["INVOKE"])

    without = extension.post_error(kind)
    with_type = extension.post_error(
        kind, Lambda_Extension_Function_Error_Type="Extension.OnPurpose"
    )

    assert_refused(without, "Extension.MissingHeader")
    assert (with_type.status, with_type.json()) == (202, {"status": "OK"})


@conformance(113)
@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "event/next"), ("POST", "init/error"), ("POST", "exit/error")],
)
@pytest.mark.parametrize(
    ("identifier", "error_type"),
    [
        (None, "Extension.MissingExtensionIdentifier"),
        ("no-uuid", "Extension.InvalidExtensionIdentifier"),
        (UNKNOWN_ID, "Extension.UnknownExtensionIdentifier"),
    ],
    ids=["missing", "invalid", "unknown"],
)
def test_an_identifier_that_is_none_is_refused(
    puppet: Puppet, method: str, path: str, identifier: str | None, error_type: str
) -> None:
    headers = {"Lambda-Extension-Function-Error-Type": "Extension.OnPurpose"}
    if identifier is not None:
        headers["Lambda-Extension-Identifier"] = identifier

    answer = puppet.runtime.request(method, f"{EXTENSION}/{path}", b"{}", headers)

    assert_refused(answer, error_type)
