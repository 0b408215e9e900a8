from __future__ import annotations

import base64
import json
import re
from typing import Any

import pytest

from tests.conftest import StartRapid
from tests.extensions import RecorderExtension
from tests.support import MISBEHAVE, Answer, Rapid, wait_until

conformance = pytest.mark.conformance


def tail_of(answer: Answer) -> bytes:
    return base64.b64decode(answer.headers["X-Amz-Log-Result"])


def tail_lines(rapid: Rapid, event: bytes = b"{}") -> tuple[list[str], str]:
    """Return the tail of one call, and its request id."""
    answer = rapid.invoke(event, X_Amz_Log_Type="Tail")
    return tail_of(answer).decode().splitlines(), str(answer.headers["x-amzn-RequestId"])


@conformance(119)
def test_start_end_and_report_share_the_request_id(start_rapid: StartRapid) -> None:
    rapid = start_rapid(MISBEHAVE, RAPID_PRINT_REPORTS="true")

    calls = [tail_lines(rapid, b'{"do":"print","text":"in between\\n"}') for _ in range(2)]

    figures = (
        r"Duration: \d+\.\d\d ms\tBilled Duration: \d+ ms\tMemory Size: 3008 MB\t"
        r"Max Memory Used: \d+ MB"
    )
    for ((start, between, end, report), request_id), cold in zip(calls, [True, False], strict=True):
        assert start == f"START RequestId: {request_id} Version: $LATEST"
        assert (between, end) == ("in between", f"END RequestId: {request_id}")
        init = r"\tInit Duration: \d+\.\d\d ms\t" if cold else ""
        assert re.fullmatch(rf"REPORT RequestId: {request_id}\t{figures}{init}", report)
    rapid.wait_for_log("REPORT RequestId", count=2)  # the output's own thread writes it
    printed = rapid.stdout.decode().splitlines()
    assert printed == [line for lines, _ in calls for line in lines]


@conformance(119)
@pytest.mark.parametrize(
    ("event", "ending"),
    [
        (b'{"do":"exit"}', "\tStatus: error\tError Type: Runtime.ExitError"),
        (b'{"do":"sleep","s":60}', "\tStatus: timeout"),
    ],
    ids=["exit", "timeout"],
)
def test_a_failed_call_says_so_in_its_report(
    start_rapid: StartRapid, event: bytes, ending: str
) -> None:
    rapid = start_rapid(MISBEHAVE, AWS_LAMBDA_FUNCTION_TIMEOUT="0.5")
    tail_lines(rapid)

    (start, end, report), request_id = tail_lines(rapid, event)

    assert request_id in start
    assert request_id in end
    assert report.startswith(f"REPORT RequestId: {request_id}\t")
    assert report.endswith(ending)


@conformance(120)
def test_platform_lines_are_objects_with_log_format_json(start_rapid: StartRapid) -> None:
    rapid = start_rapid(MISBEHAVE, RAPID_PRINT_REPORTS="true", AWS_LAMBDA_LOG_FORMAT="JSON")

    calls = [tail_lines(rapid) for _ in range(2)]

    for (lines, request_id), cold in zip(calls, [True, False], strict=True):
        objects: list[Any] = [json.loads(line) for line in lines]
        start, report = objects[0], objects[-1]
        assert [set(item) for item in objects] == [{"time", "type", "record"}] * len(objects)
        assert [item["type"] for item in (start, report)] == ["platform.start", "platform.report"]
        for item in objects:
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", item["time"])
            assert item["record"]["requestId"] == request_id
        assert start["record"]["version"] == "$LATEST"
        assert report["record"]["status"] == "success"
        assert ("initDurationMs" in report["record"]["metrics"]) == cold
    rapid.wait_for_log('"platform.report"', count=2)  # the output's own thread writes it
    printed = [json.loads(line) for line in rapid.stdout.decode().splitlines()]
    assert [line["type"] for line in printed] == ["platform.start", "platform.report"] * 2


@conformance(120)
def test_a_failed_init_is_an_object_with_log_format_json(start_rapid: StartRapid) -> None:
    rapid = start_rapid(
        MISBEHAVE,
        ready=False,
        MISBEHAVE_INIT="exit",
        RAPID_PRINT_REPORTS="true",
        AWS_LAMBDA_LOG_FORMAT="JSON",
    )

    line = json.loads(rapid.wait_for_log("platform.initReport"))

    assert set(line) == {"time", "type", "record"}
    assert (line["record"]["phase"], line["record"]["status"]) == ("init", "error")
    assert line["record"]["errorType"] == "Runtime.ExitError"


@conformance(120)
def test_a_json_log_with_system_level_debug_tells_of_init_and_runtime(
    start_rapid: StartRapid,
) -> None:
    rapid = start_rapid(
        MISBEHAVE,
        RAPID_PRINT_REPORTS="true",
        AWS_LAMBDA_LOG_FORMAT="JSON",
        AWS_LAMBDA_SYSTEM_LOG_LEVEL="DEBUG",
    )

    lines, _ = tail_lines(rapid)

    rapid.wait_for_log('"platform.report"')  # the output's own thread writes it
    printed = [json.loads(line) for line in rapid.stdout.decode().splitlines()]
    assert [line["type"] for line in printed] == [
        "platform.initStart",
        "platform.initRuntimeDone",
        "platform.initReport",
        "platform.start",
        "platform.runtimeDone",
        "platform.report",
    ]
    assert [json.loads(line) for line in lines] == printed[3:]


@conformance(120)
def test_a_json_log_tells_of_the_runtime_when_it_failed(start_rapid: StartRapid) -> None:
    rapid = start_rapid(MISBEHAVE, AWS_LAMBDA_LOG_FORMAT="JSON", AWS_LAMBDA_SYSTEM_LOG_LEVEL="WARN")

    fine, _ = tail_lines(rapid)
    failed, _ = tail_lines(rapid, b'{"do":"exit"}')

    assert fine == []
    records = [json.loads(line) for line in failed]
    assert [each["type"] for each in records] == ["platform.runtimeDone", "platform.report"]
    assert {each["record"]["status"] for each in records} == {"failure"}


def test_with_reports_extensions_and_their_subscriptions_are_printed(
    start_rapid: StartRapid, extension: RecorderExtension
) -> None:
    subscription = {
        "schemaVersion": "2022-12-13",
        "types": ["function", "platform"],
        "destination": {"protocol": "TCP", "port": 1},
    }
    settings = {"RECORDER_SUBSCRIBE": json.dumps(subscription), **extension.environ}
    rapid = start_rapid(MISBEHAVE, RAPID_PRINT_REPORTS="true", **settings)
    rapid.invoke()

    rapid.wait_for_log("EXTENSION")
    assert rapid.stdout.decode().splitlines()[:2] == [
        "TELEMETRY\tName: recorder\tState: Subscribed\tTypes: [Platform, Function]",
        "EXTENSION\tName: recorder\tState: Ready\tEvents: [INVOKE, SHUTDOWN]",
    ]


@conformance(122)
@pytest.mark.parametrize("to", ["stdout", "stderr"])
@pytest.mark.parametrize(
    ("output", "times"),
    [
        (b"no line end", 1),
        (b"x", 1_048_576),
        (b"\xff\xfe\x00\xc3(\n", 1),
        (b"\xe9" * 7 + b"\n", 100_000),
    ],
    ids=["partial", "1 MB line", "invalid UTF-8", "much invalid UTF-8"],
)
def test_odd_output_passes_unchanged_also_in_the_tail(
    start_rapid: StartRapid, to: str, output: bytes, times: int
) -> None:
    rapid = start_rapid(MISBEHAVE, flags=("--log-level", "error"))
    event = {"do": "print", "hex": output.hex(), "times": times, "to": to}

    answer = rapid.invoke(json.dumps(event), X_Amz_Log_Type="Tail")
    tail = tail_of(answer)

    wait_until(
        lambda: (rapid.stdout if to == "stdout" else rapid.stderr) == output * times, "the output"
    )
    assert len(tail) <= 4096
    head, _, report = tail.rstrip(b"\n").rpartition(b"\n")
    request_id = answer.headers["x-amzn-RequestId"].encode()
    assert report.startswith(b"REPORT RequestId: " + request_id)
    seen, _, _ = head.rpartition(b"END RequestId: " + request_id)
    end = b"" if output.endswith(b"\n") else b"\n"  # END begins a line
    assert seen.endswith((output * times)[-3000:] + end)
