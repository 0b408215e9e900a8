"""How an event looks to a subscriber: the differences between the schemas, all in this place.

Source: Lambda developer guide, "Telemetry API Event schema reference" and "Lambda Logs API".
"""

from __future__ import annotations

import json
from enum import StrEnum

from rapid.telemetry.records import Event, Record


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


def render(event: Event, schema: Schema, *, logs_json: bool = False) -> list[bytes]:
    """Return ``event`` as JSON objects: one, or as the schema is, none or two.

    ``logs_json`` tells that the function's log format is JSON.
    """
    if isinstance(event.record, str):
        record = _line(event, event.record, schema, logs_json=logs_json)
    elif schema.is_logs_api:
        return [_object(event, kind, record) for kind, record in _for_logs_api(event, schema)]
    else:
        record = _for_telemetry_api(event.type, event.record, schema)
    return [] if record is None else [_object(event, event.type, record)]


def _line(event: Event, text: str, schema: Schema, *, logs_json: bool) -> Record | str | None:
    if event.type == "platform.fault":
        return text if schema.is_logs_api else None
    if logs_json and schema >= Schema.TELEMETRY_2022_12 and text.startswith("{"):
        try:
            record = json.loads(text, parse_constant=_no_json)
        except (ValueError, RecursionError):
            return text
        if isinstance(record, dict):
            return record
    return text


def _for_telemetry_api(kind: str, record: Record, schema: Schema) -> Record | None:
    if kind == "platform.logsSubscription":
        return None
    if kind == "platform.initStart" and schema < Schema.TELEMETRY_2025:
        return {name: value for name, value in record.items() if name != "functionArn"}
    return record


def _for_logs_api(event: Event, schema: Schema) -> list[tuple[str, Record | str]]:
    """The Logs API knows no init, ends with an event of its own, and says less of each."""
    assert isinstance(event.record, dict)
    kind, record = event.type, event.record
    request_id = {"requestId": record.get("requestId")}
    if kind == "platform.start":
        return [(kind, {**request_id, "version": record["version"]})]
    if kind == "platform.runtimeDone":
        if schema is Schema.LOGS_2020:
            return []
        return [(kind, {**request_id, "status": record["status"]})]
    if kind == "platform.report":
        return [
            ("platform.end", request_id),
            (kind, {**request_id, "metrics": record["metrics"]}),
        ]
    if kind in ("platform.extension", "platform.logsSubscription", "platform.logsDropped"):
        return [(kind, record)]
    return []


def _no_json(constant: str) -> object:
    raise ValueError(f"{constant} is not JSON")


def _object(event: Event, kind: str, record: Record | str) -> bytes:
    members = {"time": event.time, "type": kind, "record": record}
    return json.dumps(members, separators=(",", ":")).encode()
