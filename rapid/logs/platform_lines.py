"""How platform events look in a log: START, END and REPORT lines, or JSON objects.

Source: Lambda developer guide, "Sending Lambda function logs to CloudWatch Logs", "Log format"
and "Log-level filtering"; the layout is that of recorded logs.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

from rapid.logs.lines import LEVELS
from rapid.telemetry.records import RecordBody, TelemetryRecord


class PlatformLines:
    """Renders the platform's lines for one function. Thread-safe."""

    def __init__(self, *, as_json: bool, level: str = "INFO") -> None:
        """``as_json`` is AWS_LAMBDA_LOG_FORMAT=JSON; only then ``level`` matters."""
        self.as_json = as_json
        self._level = level

    def render(self, record: TelemetryRecord) -> bytes:
        """Return what a log says of ``event``: its lines, or nothing."""
        assert isinstance(record.body, dict)
        if self.as_json:
            if LEVELS.index(level_of(record.type, record.body)) < LEVELS.index(self._level):
                return b""
            members = {"time": record.time, "type": record.type, "record": record.body}
            return json.dumps(members).encode() + b"\n"
        text = _TEXTS.get(record.type)
        return b"" if text is None else text(record.body).encode()


def level_of(kind: str, body: RecordBody) -> str:
    """Return the level of a platform event: what went wrong is a warning.

    Source: Lambda developer guide, "Log-level filtering", system log level event mapping.
    """
    if kind == "platform.logsDropped" or body.get("status", "success") != "success":
        return "WARN"
    if kind == "platform.initStart":
        return "INFO" if "runtimeVersion" in body else "DEBUG"
    if kind == "platform.initReport":
        return "DEBUG" if body["initializationType"] == "on-demand" else "INFO"
    return "DEBUG" if kind in ("platform.runtimeDone", "platform.initRuntimeDone") else "INFO"


def _start(body: Any) -> str:
    return f"START RequestId: {body['requestId']} Version: {body['version']}\n"


def _report(body: Any) -> str:
    metrics, status = body["metrics"], body["status"]
    line = (
        f"END RequestId: {body['requestId']}\n"
        f"REPORT RequestId: {body['requestId']}\tDuration: {metrics['durationMs']:.2f} ms\t"
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
        line += f"\tStatus: error\tError Type: {body['errorType']}"
    elif init_ms is not None:
        line += "\t"  # as recorded
    return f"{line}\n"


def _init_report(body: Any) -> str:
    """One that succeeded is in its first REPORT."""
    if body["status"] == "success":
        return ""
    error = f"\tError Type: {body['errorType']}" if "errorType" in body else ""
    return (
        f"INIT_REPORT Init Duration: {body['metrics']['durationMs']:.2f} ms\t"
        f"Phase: {body['phase']}\tStatus: {body['status']}{error}\n"
    )


def _extension(body: Any) -> str:
    error = f"\tError Type: {body['errorType']}" if "errorType" in body else ""
    events = ", ".join(body["events"])
    return f"EXTENSION\tName: {body['name']}\tState: {body['state']}\tEvents: [{events}]{error}\n"


def _subscription(body: Any) -> str:
    types = ", ".join(name.capitalize() for name in body["types"])
    return f"\tName: {body['name']}\tState: {body['state']}\tTypes: [{types}]\n"


_TEXTS: Final[dict[str, Callable[[Any], str]]] = {
    "platform.start": _start,
    "platform.report": _report,
    "platform.initReport": _init_report,
    "platform.extension": _extension,
    "platform.telemetrySubscription": lambda body: "TELEMETRY" + _subscription(body),
    "platform.logsSubscription": lambda body: "LOGS" + _subscription(body),
}
