from __future__ import annotations

import json
import re
from typing import Any

import pytest

from rapid.report import Report, Reporter

TEXT = Reporter(function_name="f", version="$LATEST", as_json=False)
JSON = Reporter(function_name="f", version="7", as_json=True)
MIB = 1_048_576


def report(**changes: Any) -> Report:
    return Report(
        **{
            "request_id": "rid",
            "duration_ms": 3.014,
            "init_ms": None,
            "memory_mb": 128,
            "peak_memory_bytes": 36 * MIB,
            **changes,
        }
    )


WARM = (
    "END RequestId: rid\n"
    "REPORT RequestId: rid\tDuration: 3.01 ms\tBilled Duration: 4 ms\t"
    "Memory Size: 128 MB\tMax Memory Used: 36 MB"
)


def test_the_start_line_names_request_and_version() -> None:
    assert TEXT.start("rid") == b"START RequestId: rid Version: $LATEST\n"


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        pytest.param({}, WARM + "\n", id="warm"),
        pytest.param({"status": "error"}, WARM + "\n", id="handler-error"),
        pytest.param({"status": "timeout"}, WARM + "\tStatus: timeout\n", id="timeout"),
        pytest.param(
            {"status": "failure", "error_type": "Runtime.ExitError"},
            WARM + "\tStatus: error\tError Type: Runtime.ExitError\n",
            id="crash",
        ),
        pytest.param(
            {"init_ms": 110.1},
            WARM.replace("Billed Duration: 4 ms", "Billed Duration: 114 ms")
            + "\tInit Duration: 110.10 ms\t\n",
            id="cold",
        ),
    ],
)
def test_the_report_line_is_that_of_recorded_logs(changes: dict[str, Any], line: str) -> None:
    assert TEXT.end(report(**changes)).decode() == line


@pytest.mark.parametrize(
    ("duration_ms", "init_ms", "billed"),
    [(0.0, None, 0), (0.01, None, 1), (4.0, None, 4), (1049.63, 1293.83, 2344)],
)
def test_billed_duration_is_the_next_whole_millisecond_init_included(
    duration_ms: float, init_ms: float | None, billed: int
) -> None:
    line = TEXT.end(report(duration_ms=duration_ms, init_ms=init_ms)).decode()

    assert f"\tBilled Duration: {billed} ms\t" in line


@pytest.mark.parametrize(
    ("peak_bytes", "shown"), [(0, 1), (1, 1), (36 * MIB, 36), (36 * MIB + 1, 37)]
)
def test_memory_used_is_rounded_up(peak_bytes: int, shown: int) -> None:
    assert f"Max Memory Used: {shown} MB" in TEXT.end(report(peak_memory_bytes=peak_bytes)).decode()


def test_a_failed_init_has_a_line_of_its_own() -> None:
    line = TEXT.init_report(
        init_ms=1236.04, phase="init", status="error", error_type="Extension.Crash"
    )

    assert line == (
        b"INIT_REPORT Init Duration: 1236.04 ms\tPhase: init\tStatus: error\t"
        b"Error Type: Extension.Crash\n"
    )


def test_an_init_that_timed_out_names_no_error_type() -> None:
    line = TEXT.init_report(init_ms=10_005.33, phase="init", status="timeout", error_type=None)

    assert line == b"INIT_REPORT Init Duration: 10005.33 ms\tPhase: init\tStatus: timeout\n"


# --- JSON


def record_of(line: bytes, kind: str) -> dict[str, Any]:
    assert line.endswith(b"\n")
    members = json.loads(line)
    assert list(members) == ["time", "type", "record"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", members["time"])
    assert members["type"] == kind
    record: dict[str, Any] = members["record"]
    return record


def test_json_start_is_a_platform_start_event() -> None:
    assert record_of(JSON.start("rid"), "platform.start") == {"requestId": "rid", "version": "7"}


def test_json_report_is_a_platform_report_event() -> None:
    line = JSON.end(report(init_ms=110.1, status="failure", error_type="Runtime.ExitError"))

    assert record_of(line, "platform.report") == {
        "requestId": "rid",
        "status": "failure",
        "errorType": "Runtime.ExitError",
        "metrics": {
            "durationMs": 3.014,
            "billedDurationMs": 114,
            "memorySizeMB": 128,
            "maxMemoryUsedMB": 36,
            "initDurationMs": 110.1,
        },
    }


def test_json_report_of_a_warm_success_has_no_more_than_it_needs() -> None:
    record = record_of(JSON.end(report()), "platform.report")

    assert set(record) == {"requestId", "status", "metrics"}
    assert "initDurationMs" not in record["metrics"]


def test_json_init_report_is_a_platform_init_report_event() -> None:
    line = JSON.init_report(init_ms=1.0, phase="invoke", status="error", error_type="X.Y")

    assert record_of(line, "platform.initReport") == {
        "initializationType": "on-demand",
        "phase": "invoke",
        "status": "error",
        "errorType": "X.Y",
        "metrics": {"durationMs": 1.0},
    }
