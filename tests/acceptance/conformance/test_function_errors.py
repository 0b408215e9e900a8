from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.conformance.base_image import BaseImage
from tests.acceptance.conformance.conftest import OpenDoor
from tests.acceptance.conformance.doors import RESPONSE_BYTES, Door, assert_function_error
from tests.extensions import RecorderExtension
from tests.support import AWSLAMBDARIC, MISBEHAVE, Answer

conformance = pytest.mark.conformance


def assert_platform_error(answer: Answer, error_type: str, message: str) -> None:
    """Check the exact payload: members, order, and the request id in the message."""
    assert_function_error(answer)
    request_id = answer.headers["x-amzn-RequestId"]
    assert (
        answer.body
        == json.dumps(
            {"errorType": error_type, "errorMessage": f"RequestId: {request_id} Error: {message}"},
            separators=(",", ":"),
        ).encode()
    )


@conformance(39)
def test_a_handlers_error_is_the_bytes_the_runtime_posted(door: Door) -> None:
    posted = '{ "errorType":"Oops",\n "errorMessage" : "é" }'

    answer = door.do(do="raise", body=posted, type="Function.Oops")

    assert_function_error(answer)
    assert answer.body == posted.encode()
    assert answer.headers["X-Amz-Executed-Version"] == "$LATEST"


@pytest.mark.parametrize(
    ("event", "message"),
    [
        pytest.param(
            {"do": "exit", "code": 1}, "with error: exit status 1", marks=conformance(40), id="1"
        ),
        pytest.param(
            {"do": "exit", "code": 0}, "without providing a reason", marks=conformance(41), id="0"
        ),
        pytest.param(
            {"do": "signal", "name": "KILL"},
            "with error: signal: killed",
            marks=conformance(42),
            id="SIGKILL",
        ),
    ],
)
def test_a_death_is_an_exit_error(door: Door, event: dict[str, Any], message: str) -> None:
    assert_platform_error(door.do(**event), "Runtime.ExitError", f"Runtime exited {message}")


@conformance(43, 44)
def test_a_timeout_is_answered_at_its_deadline(open_door: OpenDoor) -> None:
    door = open_door(MISBEHAVE, AWS_LAMBDA_FUNCTION_TIMEOUT="1")
    assert door.result(do="pid") > 1

    for _ in range(5):  # the machine may be late, the daemon may not always be
        begun = time.monotonic()
        answer = door.do(do="sleep", s=60)
        took_s = time.monotonic() - begun

        assert_platform_error(answer, "Sandbox.Timedout", "Task timed out after 1.00 seconds")
        assert took_s >= 0.9
        if took_s <= 1.5:
            return
    pytest.fail("five answers came later than half a second after the deadline")


@conformance(45)
def test_after_a_timeout_a_fresh_process_finds_tmp_as_it_was(
    open_door: OpenDoor, tmp_path: Path
) -> None:
    door = open_door(MISBEHAVE, AWS_LAMBDA_FUNCTION_TIMEOUT="0.5")
    kept = str(tmp_path / "kept")
    before = door.result(do="pid")
    door.result(do="write_tmp", path=kept, text="kept")
    assert door.result(do="counter") == 3

    timed_out = door.do(do="sleep", s=60)

    assert assert_function_error(timed_out)["errorType"] == "Sandbox.Timedout"
    assert door.result(do="counter") == 1
    assert door.result(do="pid") != before
    assert door.result(do="read_tmp", path=kept) == "kept"


@conformance(46)
@pytest.mark.parametrize("code", [0, 1])
def test_after_an_exit_a_fresh_process_serves(door: Door, code: int) -> None:
    before = door.result(do="pid")

    door.do(do="exit", code=code)

    assert door.result(do="counter") == 1
    assert door.result(do="pid") != before


@conformance(47)
@pytest.mark.parametrize("how", ["error", "error-exit"])
def test_a_posted_init_error_is_the_answer(open_door: OpenDoor, how: str) -> None:
    door = open_door(MISBEHAVE, ready=False, MISBEHAVE_INIT=how)
    door.function.wait_for_log("init failed")

    answer = door.invoke()

    assert_function_error(answer)
    assert answer.body == (
        b'{"errorType":"Runtime.ImportModuleError","errorMessage":"no module named x"}'
    )


@conformance(47)
def test_a_missing_module_under_awslambdaric_is_its_init_error(open_door: OpenDoor) -> None:
    door = open_door(*AWSLAMBDARIC, "no_such_module.handler", ready=False)
    door.function.wait_for_log("init failed")

    members = assert_function_error(door.invoke())

    assert members["errorType"] == "Runtime.ImportModuleError"
    assert members["errorMessage"] == (
        "Unable to import module 'no_such_module': No module named 'no_such_module'"
    )


@conformance(48)
@pytest.mark.parametrize("command", [(), ("/no/such/bootstrap",)], ids=["none", "wrong"])
def test_a_missing_bootstrap_is_an_invalid_entrypoint(
    open_door: OpenDoor, command: tuple[str, ...]
) -> None:
    if any(Path(path).exists() for path in ("/var/task", "/opt/bootstrap", "/var/runtime")):
        pytest.skip("this machine is a Lambda base image")
    door = open_door(*command, ready=False)
    door.function.wait_for_log("init failed")

    for _ in range(2):
        members = assert_function_error(door.invoke())
        assert members["errorType"] == "Runtime.InvalidEntrypoint"
        assert "bootstrap" in members["errorMessage"]
    assert door.function.exit_code is None


@conformance(49)
def test_a_response_of_one_byte_too_many_is_too_large(door: Door) -> None:
    answer = door.do(do="size", n=RESPONSE_BYTES + 1)

    told = door.result(do="last")
    assert assert_function_error(answer) == {
        "errorType": "Function.ResponseSizeTooLarge",
        "errorMessage": "Response payload size exceeded maximum allowed payload size "
        "(6291556 bytes).",
    }
    assert told["status"] == 413
    assert json.loads(told["body"]) == {
        "errorType": "RequestEntityTooLarge",
        "errorMessage": "Exceeded maximum allowed payload size (6291556 bytes).",
    }


@conformance(49)
@pytest.mark.parametrize("excess", [1, 8_000_000, 30_000_000], ids=["1 byte", "8 MB", "30 MB"])
def test_an_error_over_the_limit_keeps_type_and_message(door: Door, excess: int) -> None:
    empty = '{"errorType":"Oversize","errorMessage":""}'
    count = RESPONSE_BYTES + excess - len(empty)

    answer = door.do(do="raise_much", type="Oversize", count=count)

    members = assert_function_error(answer)
    assert members["errorType"] == "Oversize"
    assert members["errorMessage"] == "x" * (RESPONSE_BYTES - len(empty))
    assert len(answer.body) == RESPONSE_BYTES
    assert door.do(do="echo").status == 200


@conformance(49)
def test_an_exception_of_python_over_the_limit_keeps_its_type(open_door: OpenDoor) -> None:
    door = open_door(*AWSLAMBDARIC, "handlers.fail_at_length")

    members = assert_function_error(door.invoke('{"n": 7000000}'))

    assert members["errorType"] == "ValueError"
    assert members["errorMessage"].startswith("xxx")
    assert len(members["errorMessage"]) > 6_000_000


@conformance(50)
def test_the_largest_response_passes(door: Door) -> None:
    answer = door.do(do="size", n=RESPONSE_BYTES)

    assert (answer.status, len(answer.body)) == (200, RESPONSE_BYTES)
    assert "X-Amz-Function-Error" not in answer.headers


@conformance(51)
def test_awslambdarics_exit_after_413_changes_nothing(open_door: OpenDoor) -> None:
    door = open_door(*AWSLAMBDARIC, "handlers.size")

    answer = door.invoke(json.dumps({"n": RESPONSE_BYTES + 1}))
    door.function.wait_for_log("Failed to post handler success response")
    following = door.invoke('{"n": 10}')

    assert assert_function_error(answer)["errorType"] == "Function.ResponseSizeTooLarge"
    assert (following.status, following.body) == (200, b'"xxxxxxxx"')
    assert "X-Amz-Function-Error" not in following.headers


@conformance(52)
def test_a_missing_exec_wrapper_is_exit_status_127(open_door: OpenDoor, tmp_path: Path) -> None:
    image = BaseImage(tmp_path / "root")
    door = open_door(
        str(image.bootstrap),
        ready=False,
        _HANDLER="handlers.echo",
        AWS_LAMBDA_EXEC_WRAPPER="/no/such/wrapper",
    )
    door.function.wait_for_log("init failed")

    answer = door.invoke()

    assert_platform_error(answer, "Runtime.ExitError", "Runtime exited with error: exit status 127")
    assert "/no/such/wrapper: does not exist" in "\n".join(door.function.log)


@conformance(53)
def test_the_answer_does_not_wait_for_extensions(
    open_door: OpenDoor, extension: RecorderExtension
) -> None:
    door = open_door(
        MISBEHAVE, RECORDER_DO="hang", AWS_LAMBDA_FUNCTION_TIMEOUT="900", **extension.environ
    )

    answer = door.invoke(b'"answered"')

    assert (answer.status, answer.body) == (200, b'"answered"')
