from __future__ import annotations

import base64
import json
import re
from typing import Any

import pytest

from tests.conftest import StartRapid
from tests.support import MISBEHAVE, Answer, Rapid

conformance = pytest.mark.conformance


def tail_of(answer: Answer) -> bytes:
    return base64.b64decode(answer.headers["X-Amz-Log-Result"])


def tail_lines(rapid: Rapid, event: bytes = b"{}") -> tuple[list[str], str]:
    """Return the tail of one call, and its request id."""
    answer = rapid.invoke(event, X_Amz_Log_Type="Tail")
    return tail_of(answer).decode().splitlines(), str(answer.headers["x-amzn-RequestId"])


@conformance(119)
def test_start_end_and_report_share_the_request_id(start_rapid: StartRapid) -> None:
    rapid = start_rapid(MISBEHAVE, PRINT_REPORTS="true")

    calls = [tail_lines(rapid) for _ in range(2)]

    figures = (
        r"Duration: \d+\.\d\d ms\tBilled Duration: \d+ ms\tMemory Size: 3008 MB\t"
        r"Max Memory Used: \d+ MB"
    )
    for ((start, end, report), request_id), cold in zip(calls, [True, False], strict=True):
        assert start == f"START RequestId: {request_id} Version: $LATEST"
        assert end == f"END RequestId: {request_id}"
        init = r"\tInit Duration: \d+\.\d\d ms\t" if cold else ""
        assert re.fullmatch(rf"REPORT RequestId: {request_id}\t{figures}{init}", report)
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
    rapid = start_rapid(MISBEHAVE, PRINT_REPORTS="true", AWS_LAMBDA_LOG_FORMAT="JSON")

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
    printed = [json.loads(line) for line in rapid.stdout.decode().splitlines()]
    assert [line["type"] for line in printed] == ["platform.start", "platform.report"] * 2


@conformance(120)
def test_a_failed_init_is_an_object_with_log_format_json(start_rapid: StartRapid) -> None:
    rapid = start_rapid(
        MISBEHAVE,
        ready=False,
        MISBEHAVE_INIT="exit",
        PRINT_REPORTS="true",
        AWS_LAMBDA_LOG_FORMAT="JSON",
    )

    line = json.loads(rapid.wait_for_log("platform.initReport"))

    assert set(line) == {"time", "type", "record"}
    assert (line["record"]["phase"], line["record"]["status"]) == ("init", "error")
    assert line["record"]["errorType"] == "Runtime.ExitError"


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

    assert (rapid.stdout if to == "stdout" else rapid.stderr) == output * times
    assert len(tail) <= 4096
    head, _, report = tail.rstrip(b"\n").rpartition(b"\n")
    request_id = answer.headers["x-amzn-RequestId"].encode()
    assert report.startswith(b"REPORT RequestId: " + request_id)
    seen, _, _ = head.rpartition(b"END RequestId: " + request_id)
    assert seen.endswith((output * times)[-3000:])
