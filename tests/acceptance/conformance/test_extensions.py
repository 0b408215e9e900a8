from __future__ import annotations

import re
import select
import time
from pathlib import Path

import psutil
import pytest

from tests.acceptance.conformance.conftest import StartPuppet
from tests.acceptance.conformance.doors import Calls, Gate, assert_function_error
from tests.acceptance.conformance.puppet import (
    EXTENSION,
    LOGS,
    TELEMETRY,
    Puppet,
    Turn,
    make_extension,
)
from tests.conftest import StartRapid
from tests.extensions import RecorderExtension
from tests.support import (
    MISBEHAVE,
    Answer,
    RawConnection,
    wait_until,
)

conformance = pytest.mark.conformance

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
UNKNOWN_ID = "11111111-2222-4333-8444-555555555555"
TRACE = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Give a folder for external extensions."""
    folder = tmp_path / "external"
    folder.mkdir()
    return folder


@pytest.fixture
def environ(directory: Path) -> dict[str, str]:
    """Give the settings for the folder."""
    return {"RAPID_EXTENSIONS_DIR": str(directory)}


def assert_refused(answer: Answer, error_type: str) -> None:
    assert (answer.status, answer.error_type) == (403, error_type)
    assert answer.json()["errorMessage"]
    assert answer.headers["Content-Type"] == "application/json"


def respond(puppet: Puppet, turn: Turn, body: bytes) -> None:
    """Answer the call as its runtime, and see that its caller got that."""
    assert puppet.runtime.post(turn.response_path, body).status == 202
    assert turn.outcome().body == body


def is_silent(connection: RawConnection) -> bool:
    """Return whether nothing has come on ``connection`` for a moment."""
    return not select.select([connection.socket], [], [], 0.2)[0]


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
            respond(puppet, Turn(runtime.read_answer(), caller), b"1")
            assert is_silent(connection)  # no event is for it


# 107-111: events


@conformance(107)
def test_an_invoke_event_tells_of_the_invocation(puppet: Puppet, calls: Calls) -> None:
    extension = puppet.extension("internal", ["INVOKE"])
    with puppet.park() as runtime, extension.park(puppet.raw()) as connection:
        caller = calls.start(puppet.rapid, X_Amzn_Trace_Id=TRACE)
        turn = Turn(runtime.read_answer(), caller)
        event = connection.read_answer()
        respond(puppet, turn, b"1")

    given = turn.event.headers
    assert (event.status, event.headers["Content-Type"]) == (200, "application/json")
    assert UUID.fullmatch(event.headers["Lambda-Extension-Event-Identifier"])
    assert event.json() == {
        "eventType": "INVOKE",
        "deadlineMs": int(given["Lambda-Runtime-Deadline-Ms"]),
        "requestId": turn.request_id,
        "invokedFunctionArn": given["Lambda-Runtime-Invoked-Function-Arn"],
        "tracing": {"type": "X-Amzn-Trace-Id", "value": TRACE},
    }


@conformance(108)
def test_the_next_call_waits_for_every_invoke_extension(puppet: Puppet, calls: Calls) -> None:
    extension = puppet.extension("internal", ["INVOKE"])
    with extension.park(puppet.raw()) as connection:
        first = puppet.take(b"1")
        connection.read_answer()
        respond(puppet, first, b"1")

        second = calls.start(puppet.rapid, b"2")
        with puppet.park() as runtime:
            assert is_silent(runtime)

            extension.park(connection)
            turn = Turn(runtime.read_answer(), second)

            assert turn.event.body == b"2"
            respond(puppet, turn, b"2")


@conformance(109, 110)
def test_an_extension_that_does_not_come_back_times_out(
    start_rapid: StartRapid, extension: RecorderExtension
) -> None:
    rapid = start_rapid(
        MISBEHAVE, RECORDER_DO="slow:60", AWS_LAMBDA_FUNCTION_TIMEOUT="1", **extension.environ
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
    start_rapid: StartRapid, extension: RecorderExtension, event: str, reason: str
) -> None:
    rapid = start_rapid(MISBEHAVE, AWS_LAMBDA_FUNCTION_TIMEOUT="1", **extension.environ)

    before_ms = time.time() * 1000

    assert rapid.invoke(event).headers["X-Amz-Function-Error"] == "Unhandled"

    wait_until(lambda: extension.written("event")[-1]["eventType"] == "SHUTDOWN", "SHUTDOWN")
    told = extension.written("event")[-1]
    assert told["shutdownReason"] == reason
    assert before_ms < told["deadlineMs"] <= time.time() * 1000 + 2000


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
        respond(puppet, again, b'"again"')


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


@conformance(113, 114)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", f"{EXTENSION}/event/next"),
        ("POST", f"{EXTENSION}/init/error"),
        ("POST", f"{EXTENSION}/exit/error"),
        ("PUT", TELEMETRY),
        ("PUT", LOGS),
    ],
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

    answer = puppet.runtime.request(method, path, b"{}", headers)

    assert_refused(answer, error_type)
