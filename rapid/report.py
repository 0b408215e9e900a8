"""START, END and REPORT: what the platform says of an invocation, as text or JSON lines.

Source: Lambda developer guide, "Sending Lambda function logs to CloudWatch Logs" and
"Log format"; the layout is that of recorded logs.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The figures of one finished invocation."""

    request_id: str
    duration_ms: float
    init_ms: float | None  #: only on the first invocation after a cold init
    memory_mb: int
    peak_memory_bytes: int
    status: str = "success"  #: success, error, failure or timeout
    error_type: str | None = None


class Reporter:
    """Writes the platform's lines for one function. Thread-safe."""

    def __init__(self, *, function_name: str, version: str, as_json: bool) -> None:
        """Write for one function; ``as_json`` is AWS_LAMBDA_LOG_FORMAT=JSON."""
        self._function_name = function_name
        self._version = version
        self._as_json = as_json

    def start(self, request_id: str) -> bytes:
        """Return the line that opens an invocation."""
        if self._as_json:
            return _json_line("platform.start", {"requestId": request_id, "version": self._version})
        return f"START RequestId: {request_id} Version: {self._version}\n".encode()

    def end(self, report: Report) -> bytes:
        """Return the lines that close an invocation."""
        billed_ms = math.ceil(report.duration_ms + (report.init_ms or 0.0))
        peak_mb = max(1, math.ceil(report.peak_memory_bytes / 1_048_576))
        if self._as_json:
            metrics: dict[str, object] = {
                "durationMs": round(report.duration_ms, 3),
                "billedDurationMs": billed_ms,
                "memorySizeMB": report.memory_mb,
                "maxMemoryUsedMB": peak_mb,
            }
            if report.init_ms is not None:
                metrics["initDurationMs"] = round(report.init_ms, 3)
            record: dict[str, object] = {
                "requestId": report.request_id,
                "status": report.status,
                "metrics": metrics,
            }
            if report.error_type is not None:
                record["errorType"] = report.error_type
            return _json_line("platform.report", record)
        line = (
            f"END RequestId: {report.request_id}\n"
            f"REPORT RequestId: {report.request_id}\tDuration: {report.duration_ms:.2f} ms\t"
            f"Billed Duration: {billed_ms} ms\tMemory Size: {report.memory_mb} MB\t"
            f"Max Memory Used: {peak_mb} MB"
        )
        if report.init_ms is not None:
            line += f"\tInit Duration: {report.init_ms:.2f} ms"
        if report.status == "timeout":
            line += "\tStatus: timeout"
        elif report.status == "failure":
            line += f"\tStatus: error\tError Type: {report.error_type}"
        elif report.init_ms is not None:
            line += "\t"  # as recorded
        return f"{line}\n".encode()

    def init_report(
        self, *, init_ms: float, phase: str, status: str, error_type: str | None
    ) -> bytes:
        """Return the line for an init that failed: ``phase`` is init or invoke."""
        if self._as_json:
            record: dict[str, object] = {
                "initializationType": "on-demand",
                "phase": phase,
                "status": status,
                "metrics": {"durationMs": round(init_ms, 3)},
            }
            if error_type is not None:
                record["errorType"] = error_type
            return _json_line("platform.initReport", record)
        error = "" if error_type is None else f"\tError Type: {error_type}"
        return (
            f"INIT_REPORT Init Duration: {init_ms:.2f} ms\tPhase: {phase}\tStatus: {status}"
            f"{error}\n"
        ).encode()


def _json_line(kind: str, record: dict[str, object]) -> bytes:
    now = time.time()
    when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now * 1000) % 1000:03d}Z"
    return json.dumps({"time": when, "type": kind, "record": record}).encode() + b"\n"
