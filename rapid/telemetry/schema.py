"""How an event looks to a subscriber: the differences between the schemas, all in this place.

Source: Lambda developer guide, "Telemetry API Event schema reference" and "Lambda Logs API".
"""

from __future__ import annotations

import json
from enum import StrEnum

from rapid.telemetry.records import RecordBody, TelemetryRecord


class Schema(StrEnum):
    """The versions a subscriber may ask for, by date: the first two are the Logs API's."""

    LOGS_2020 = "2020-08-15"
    LOGS_2021 = "2021-03-18"  #: adds platform.runtimeDone
    TELEMETRY_2022_07 = "2022-07-01"
    TELEMETRY_2022_12 = "2022-12-13"  #: lines that are JSON objects are sent as such
    TELEMETRY_2025 = "2025-01-29"  #: initStart has the function's ARN

    @property
    def is_logs_api(self) -> bool:
        """Whether the older API has it."""
        return self in (Schema.LOGS_2020, Schema.LOGS_2021)


def render(record: TelemetryRecord, schema: Schema, *, logs_json: bool = False) -> list[bytes]:
    """Return ``event`` as JSON objects: one, or as the schema is, none or two.

    ``logs_json`` tells that the function's log format is JSON.
    """
    if isinstance(record.body, str):
        body = _line(record, record.body, schema, logs_json=logs_json)
    elif schema.is_logs_api:
        return [_object(record, kind, body) for kind, body in _for_logs_api(record, schema)]
    else:
        body = _for_telemetry_api(record.type, record.body, schema)
    return [] if body is None else [_object(record, record.type, body)]


def _line(
    record: TelemetryRecord, text: str, schema: Schema, *, logs_json: bool
) -> RecordBody | str | None:
    if record.type == "platform.fault":
        return text if schema.is_logs_api else None
    if logs_json and schema >= Schema.TELEMETRY_2022_12 and text.startswith("{"):
        try:
            body = json.loads(text, parse_constant=_no_json)
        except (ValueError, RecursionError):
            return text
        if isinstance(body, dict):
            return body
    return text


def _for_telemetry_api(kind: str, body: RecordBody, schema: Schema) -> RecordBody | None:
    if kind == "platform.logsSubscription":
        return None
    if kind == "platform.initStart" and schema < Schema.TELEMETRY_2025:
        return {name: value for name, value in body.items() if name != "functionArn"}
    return body


def _for_logs_api(record: TelemetryRecord, schema: Schema) -> list[tuple[str, RecordBody | str]]:
    """The Logs API knows no init, ends with an event of its own, and says less of each."""
    assert isinstance(record.body, dict)
    kind, body = record.type, record.body
    request_id = {"requestId": body.get("requestId")}
    if kind == "platform.start":
        return [(kind, {**request_id, "version": body["version"]})]
    if kind == "platform.runtimeDone":
        if schema is Schema.LOGS_2020:
            return []
        return [(kind, {**request_id, "status": body["status"]})]
    if kind == "platform.report":
        return [
            ("platform.end", request_id),
            (kind, {**request_id, "metrics": body["metrics"]}),
        ]
    if kind in ("platform.extension", "platform.logsSubscription", "platform.logsDropped"):
        return [(kind, body)]
    return []


def _no_json(constant: str) -> object:
    raise ValueError(f"{constant} is not JSON")


def _object(record: TelemetryRecord, kind: str, body: RecordBody | str) -> bytes:
    members = {"time": record.time, "type": kind, "record": body}
    return json.dumps(members, separators=(",", ":")).encode()
