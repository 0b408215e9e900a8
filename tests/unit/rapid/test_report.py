from __future__ import annotations

import json
from typing import Any

import pytest

from rapid.logs.platform_lines import PlatformLines
from rapid.telemetry import records as events
from rapid.telemetry.records import Ending, InitRef, InvocationRef, TelemetryRecord

TEXT = PlatformLines(as_json=False, level="FATAL")  # levels are for JSON alone
JSON = PlatformLines(as_json=True)
EVERYTHING = PlatformLines(as_json=True, level="DEBUG")
WARNINGS = PlatformLines(as_json=True, level="WARN")
MIB = 1_048_576
REF = InvocationRef(request_id="rid")
INIT = InitRef(initialization_type="on-demand", phase="init")
AT = 1_769_860_800.123


def report(
    status: str = "success", error_type: str | None = None, **changes: Any
) -> TelemetryRecord:
    figures = {
        "duration_ms": 3.014,
        "init_ms": None,
        "memory_mb": 128,
        "peak_memory_bytes": 36 * MIB,
        "at": AT,
        **changes,
    }
    return events.report(REF, Ending(status=status, error_type=error_type), **figures)


def init_report(
    status: str = "error", error_type: str | None = "X.Y", **init: Any
) -> TelemetryRecord:
    ref = InitRef(**{"initialization_type": "on-demand", "phase": "init", **init})
    ending = Ending(status=status, error_type=error_type)
    return events.init_report(ref, ending, duration_ms=1236.04, at=AT)


START = events.start(REF, version="$LATEST", at=AT)
DONE = events.runtime_done(REF, Ending(), duration_ms=1.0, produced_bytes=2, spans=(), at=AT)
INIT_START = events.init_start(
    INIT, function_name="f", function_arn="a", version="1", instance_id="i", memory_mb=1, at=AT
)

WARM = (
    "END RequestId: rid\n"
    "REPORT RequestId: rid\tDuration: 3.01 ms\tBilled Duration: 4 ms\t"
    "Memory Size: 128 MB\tMax Memory Used: 36 MB"
)


@pytest.mark.parametrize(
    ("event", "lines"),
    [
        pytest.param(START, "START RequestId: rid Version: $LATEST\n", id="start"),
        pytest.param(report(), WARM + "\n", id="warm"),
        pytest.param(report("error", "ValueError"), WARM + "\n", id="handler-error"),
        pytest.param(report("timeout"), WARM + "\tStatus: timeout\n", id="timeout"),
        pytest.param(
            report("failure", "Runtime.ExitError"),
            WARM + "\tStatus: error\tError Type: Runtime.ExitError\n",
            id="crash",
        ),
        pytest.param(
            report(init_ms=110.1),
            WARM.replace("Billed Duration: 4 ms", "Billed Duration: 114 ms")
            + "\tInit Duration: 110.10 ms\t\n",
            id="cold",
        ),
        pytest.param(
            init_report(error_type="Extension.Crash"),
            "INIT_REPORT Init Duration: 1236.04 ms\tPhase: init\tStatus: error\t"
            "Error Type: Extension.Crash\n",
            id="failed-init",
        ),
        pytest.param(
            init_report("timeout", None, phase="invoke"),
            "INIT_REPORT Init Duration: 1236.04 ms\tPhase: invoke\tStatus: timeout\n",
            id="late-init",
        ),
        pytest.param(init_report("success", None), "", id="init"),
        pytest.param(
            events.extension("x", "Ready", ["SHUTDOWN", "INVOKE"], error_type=None, at=AT),
            "EXTENSION\tName: x\tState: Ready\tEvents: [INVOKE, SHUTDOWN]\n",
            id="extension",
        ),
        pytest.param(
            events.subscription("x", ["platform", "function"], is_logs_api=False, at=AT),
            "TELEMETRY\tName: x\tState: Subscribed\tTypes: [Platform, Function]\n",
            id="telemetry",
        ),
        pytest.param(
            events.subscription("x", ["function"], is_logs_api=True, at=AT),
            "LOGS\tName: x\tState: Subscribed\tTypes: [Function]\n",
            id="logs",
        ),
        pytest.param(DONE, "", id="runtime-done"),
    ],
)
def test_text_lines_are_those_of_recorded_logs(event: TelemetryRecord, lines: str) -> None:
    assert TEXT.render(event).decode() == lines


@pytest.mark.parametrize(
    ("duration_ms", "init_ms", "billed"),
    [(0.0, None, 0), (0.01, None, 1), (4.0, None, 4), (1049.63, 1293.83, 2344)],
)
def test_billed_duration_is_the_next_whole_millisecond_init_included(
    duration_ms: float, init_ms: float | None, billed: int
) -> None:
    line = TEXT.render(report(duration_ms=duration_ms, init_ms=init_ms)).decode()

    assert f"\tBilled Duration: {billed} ms\t" in line


@pytest.mark.parametrize(
    ("peak_bytes", "shown"), [(0, 1), (1, 1), (36 * MIB, 36), (36 * MIB + 1, 37)]
)
def test_memory_used_is_rounded_up(peak_bytes: int, shown: int) -> None:
    line = TEXT.render(report(peak_memory_bytes=peak_bytes)).decode()

    assert f"Max Memory Used: {shown} MB" in line


# --- JSON

FIGURES = {
    "durationMs": 3.014, "billedDurationMs": 4, "memorySizeMB": 128, "maxMemoryUsedMB": 36
}  # fmt: skip


@pytest.mark.parametrize(
    ("event", "kind", "record"),
    [
        pytest.param(
            report(),
            "platform.report",
            {"requestId": "rid", "status": "success", "metrics": FIGURES},
            id="warm",
        ),
        pytest.param(
            report("failure", "Runtime.ExitError", init_ms=110.1),
            "platform.report",
            {
                "requestId": "rid",
                "status": "failure",
                "errorType": "Runtime.ExitError",
                "metrics": {**FIGURES, "billedDurationMs": 114, "initDurationMs": 110.1},
            },
            id="failed",
        ),
        pytest.param(
            init_report(phase="invoke"),
            "platform.initReport",
            {
                "initializationType": "on-demand",
                "phase": "invoke",
                "status": "error",
                "errorType": "X.Y",
                "metrics": {"durationMs": 1236.04},
            },
            id="init",
        ),
    ],
)
def test_json_lines_are_platform_events(
    event: TelemetryRecord, kind: str, record: dict[str, Any]
) -> None:
    line = JSON.render(event)

    members = json.loads(line)
    assert line.endswith(b"\n")
    assert list(members) == ["time", "type", "record"]
    assert (members["type"], members["record"]) == (kind, record)
    assert members["time"] == "2026-01-31T12:00:00.123Z"


@pytest.mark.parametrize(
    ("event", "level"),
    [
        pytest.param(INIT_START, "DEBUG", id="init-start"),
        pytest.param(events.init_runtime_done(INIT, Ending(), at=AT), "DEBUG", id="init-done"),
        pytest.param(init_report("success", None), "DEBUG", id="init-report"),
        pytest.param(
            init_report("success", None, initialization_type="provisioned-concurrency"),
            "INFO",
            id="init-report-provisioned",
        ),
        pytest.param(init_report(), "WARN", id="failed-init"),
        pytest.param(START, "INFO", id="start"),
        pytest.param(DONE, "DEBUG", id="runtime-done"),
        pytest.param(
            events.runtime_done(
                REF,
                Ending(status="error"),
                duration_ms=1.0,
                produced_bytes=None,
                spans=(),
                at=AT,
            ),
            "WARN",
            id="runtime-failed",
        ),
        pytest.param(report(), "INFO", id="report"),
        pytest.param(report("timeout"), "WARN", id="report-timeout"),
        pytest.param(
            events.extension("x", "Ready", [], error_type=None, at=AT), "INFO", id="extension"
        ),
        pytest.param(events.logs_dropped(1, 2, at=AT), "WARN", id="dropped"),
    ],
)
def test_each_event_has_awss_level(event: TelemetryRecord, level: str) -> None:
    """Source: Lambda developer guide, "Log-level filtering", system log level event mapping."""
    seen_from = [
        name
        for name, reporter in (("DEBUG", EVERYTHING), ("INFO", JSON), ("WARN", WARNINGS))
        if reporter.render(event)
    ]

    assert seen_from[-1] == level
