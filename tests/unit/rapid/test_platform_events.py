from __future__ import annotations

import json
from typing import Any

import pytest

from rapid.telemetry import records as events
from rapid.telemetry.records import Ending, InvocationRef, Span, TelemetryRecord, iso_time
from rapid.telemetry.schema import Schema, render

AT = 1_769_860_800.123456
TRACE = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"


def rendered(event: TelemetryRecord, schema: Schema, *, logs_json: bool = False) -> list[Any]:
    return [json.loads(line) for line in render(event, schema, logs_json=logs_json)]


@pytest.mark.parametrize(
    ("at", "text"),
    [
        (0.0, "1970-01-01T00:00:00.000Z"),
        (1_769_860_800.0, "2026-01-31T12:00:00.000Z"),
        (1_769_860_800.9999, "2026-01-31T12:00:00.999Z"),
    ],
)
def test_times_are_utc_with_milliseconds(at: float, text: str) -> None:
    assert iso_time(at) == text


def test_an_invocations_trace_and_tenant_are_told() -> None:
    ref = InvocationRef(request_id="rid", trace_id=TRACE, tenant_id="blue")

    record = events.start(ref, version="7", at=AT).body

    assert record == {
        "requestId": "rid",
        "version": "7",
        "tracing": {"spanId": "53995c3f42cd8ad8", "type": "X-Amzn-Trace-Id", "value": TRACE},
        "tenantId": "blue",
    }


def test_a_trace_without_parent_has_no_span_id() -> None:
    ref = InvocationRef(request_id="rid", trace_id="Root=1")

    record: Any = events.start(ref, version="7", at=AT).body

    assert record["tracing"] == {"type": "X-Amzn-Trace-Id", "value": "Root=1"}


def test_a_span_has_name_start_and_duration() -> None:
    done = events.runtime_done(
        InvocationRef(request_id="rid"),
        Ending(),
        duration_ms=2.00049,
        produced_bytes=None,
        spans=[Span("responseLatency", AT, 1.23456)],
        at=AT,
    )

    assert done.body == {
        "requestId": "rid",
        "status": "success",
        "metrics": {"durationMs": 2.0},
        "spans": [
            {"name": "responseLatency", "start": "2026-01-31T12:00:00.123Z", "durationMs": 1.235}
        ],
    }


@pytest.mark.parametrize("schema", Schema)
def test_a_line_is_text_to_every_schema(schema: Schema) -> None:
    assert rendered(TelemetryRecord("function", "hello\n", AT), schema) == [
        {"time": "2026-01-31T12:00:00.123Z", "type": "function", "record": "hello\n"}
    ]


@pytest.mark.parametrize(
    ("line", "record"),
    [
        ('{"a": 1}\n', {"a": 1}),
        ('{"a": NaN}\n', '{"a": NaN}\n'),
        ("{" * 100_000, "{" * 100_000),
        ("[1]\n", "[1]\n"),
        ("1\n", "1\n"),
    ],
    ids=["object", "NaN", "deep", "list", "number"],
)
def test_only_json_objects_are_sent_as_such(line: str, record: object) -> None:
    (newer,) = rendered(
        TelemetryRecord("function", line, AT), Schema.TELEMETRY_2022_12, logs_json=True
    )
    (older,) = rendered(
        TelemetryRecord("function", line, AT), Schema.TELEMETRY_2022_07, logs_json=True
    )

    assert newer["record"] == record
    assert older["record"] == line


def test_a_fault_is_the_logs_apis_alone() -> None:
    fault = events.fault("rid", "Runtime.ExitError", "gone", at=AT)

    assert [bool(render(fault, schema)) for schema in Schema] == [True, True, False, False, False]


@pytest.mark.parametrize("is_logs_api", [True, False])
def test_each_api_tells_of_its_own_subscriptions(is_logs_api: bool) -> None:
    event = events.subscription("x", ["platform"], is_logs_api=is_logs_api, at=AT)

    told = [bool(render(event, schema)) for schema in Schema]

    assert told == [schema.is_logs_api == is_logs_api for schema in Schema]
