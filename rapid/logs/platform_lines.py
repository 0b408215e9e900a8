"""How platform events look in a log: START, END and REPORT lines, or JSON objects.

Source: Lambda developer guide, "Sending Lambda function logs to CloudWatch Logs", "Log format"
and "Log-level filtering"; the layout is that of recorded logs.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

from rapid.logs.lines import LEVELS
from rapid.telemetry.records import Event, Record


class Reporter:
    """Renders the platform's lines for one function. Thread-safe."""

    def __init__(self, *, as_json: bool, level: str = "INFO") -> None:
        """``as_json`` is AWS_LAMBDA_LOG_FORMAT=JSON; only then ``level`` matters."""
        self.as_json = as_json
        self._level = level

    def render(self, event: Event) -> bytes:
        """Return what a log says of ``event``: its lines, or nothing."""
        assert isinstance(event.record, dict)
        if self.as_json:
            if LEVELS.index(level_of(event.type, event.record)) < LEVELS.index(self._level):
                return b""
            members = {"time": event.time, "type": event.type, "record": event.record}
            return json.dumps(members).encode() + b"\n"
        text = _TEXTS.get(event.type)
        return b"" if text is None else text(event.record).encode()


def level_of(kind: str, record: Record) -> str:
    """Return the level of a platform event: what went wrong is a warning.

    Source: Lambda developer guide, "Log-level filtering", system log level event mapping.
    """
    if kind == "platform.logsDropped" or record.get("status", "success") != "success":
        return "WARN"
    if kind == "platform.initStart":
        return "INFO" if "runtimeVersion" in record else "DEBUG"
    if kind == "platform.initReport":
        return "DEBUG" if record["initializationType"] == "on-demand" else "INFO"
    return "DEBUG" if kind in ("platform.runtimeDone", "platform.initRuntimeDone") else "INFO"


def _start(record: Any) -> str:
    return f"START RequestId: {record['requestId']} Version: {record['version']}\n"


def _report(record: Any) -> str:
    metrics, status = record["metrics"], record["status"]
    line = (
        f"END RequestId: {record['requestId']}\n"
        f"REPORT RequestId: {record['requestId']}\tDuration: {metrics['durationMs']:.2f} ms\t"
        f"Billed Duration: {metrics['billedDurationMs']} ms\t"
        f"Memory Size: {metrics['memorySizeMB']} MB\t"
        f"Max Memory Used: {metrics['maxMemoryUsedMB']} MB"
    )
    init_ms = metrics.get("initDurationMs")
    if init_ms is not None:
        line += f"\tInit Duration: {init_ms:.2f} ms"
    if status == "timeout":
        line += "\tStatus: timeout"
    elif status == "failure":
        line += f"\tStatus: error\tError Type: {record['errorType']}"
    elif init_ms is not None:
        line += "\t"  # as recorded
    return f"{line}\n"


def _init_report(record: Any) -> str:
    """One that succeeded is in its first REPORT."""
    if record["status"] == "success":
        return ""
    error = f"\tError Type: {record['errorType']}" if "errorType" in record else ""
    return (
        f"INIT_REPORT Init Duration: {record['metrics']['durationMs']:.2f} ms\t"
        f"Phase: {record['phase']}\tStatus: {record['status']}{error}\n"
    )


def _extension(record: Any) -> str:
    error = f"\tError Type: {record['errorType']}" if "errorType" in record else ""
    events = ", ".join(record["events"])
    return (
        f"EXTENSION\tName: {record['name']}\tState: {record['state']}\tEvents: [{events}]{error}\n"
    )


def _subscription(record: Any) -> str:
    types = ", ".join(name.capitalize() for name in record["types"])
    return f"\tName: {record['name']}\tState: {record['state']}\tTypes: [{types}]\n"


_TEXTS: Final[dict[str, Callable[[Any], str]]] = {
    "platform.start": _start,
    "platform.report": _report,
    "platform.initReport": _init_report,
    "platform.extension": _extension,
    "platform.telemetrySubscription": lambda record: "TELEMETRY" + _subscription(record),
    "platform.logsSubscription": lambda record: "LOGS" + _subscription(record),
}
