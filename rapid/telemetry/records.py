"""What the platform tells of an environment, as data: one small function an event.

Each returns an :class:`Event` with everything the newest schema has. How that looks in a log is
in ``report.py``, how it looks to a subscriber of which schema in ``telemetry_schema.py``.
Source: Lambda developer guide, "Telemetry API Event schema reference".
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

#: AWS's reason in platform.logsDropped.
DROP_REASON: Final = (
    "Some logs were dropped because the downstream consumer is slower than the logs production rate"
)

RecordBody = dict[str, object]


@dataclass(frozen=True, slots=True)
class TelemetryRecord:
    """Something that happened, or a line that was printed."""

    type: str  #: ``platform.start`` …, ``function`` or ``extension``
    body: RecordBody | str  #: a line's text with its line end
    at: float  #: epoch seconds

    @property
    def stream(self) -> str:
        """What one subscribes to: platform, function or extension."""
        return self.type.partition(".")[0]

    @property
    def weight(self) -> int:
        """About how many bytes it takes in memory and on the wire."""
        return len(self.body) + 64 if isinstance(self.body, str) else 512

    @property
    def time(self) -> str:
        """When, as records have it."""
        return iso_time(self.at)


def iso_time(at: float) -> str:
    """Return epoch seconds as ``2026-01-31T12:00:00.123Z``."""
    ms = int(at * 1000)
    return f"{_iso_second(ms // 1000)}.{ms % 1000:03d}Z"


@functools.lru_cache(maxsize=16)
def _iso_second(second: int) -> str:
    """Return the part that many times of one call have in common."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


@dataclass(frozen=True, slots=True)
class Span:
    """A part of an invocation."""

    name: str  #: responseLatency, responseDuration, runtimeOverhead or extensionOverhead
    start: float  #: epoch seconds
    duration_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class InvocationRef:
    """Which invocation an event is about."""

    request_id: str
    trace_id: str | None = None  #: ``X-Amzn-Trace-Id``
    tenant_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How something ended: an init, a runtime's turn, an invocation."""

    status: str = "success"  #: success, error (the handler's), failure or timeout
    error_type: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class InitRef:
    """Which init an event is about."""

    initialization_type: str  #: on-demand …
    phase: str  #: init, or invoke when a failed init is done again for a call


def init_start(
    init: InitRef,
    *,
    function_name: str,
    function_arn: str,
    version: str,
    instance_id: str,
    memory_mb: int,
    at: float,
) -> TelemetryRecord:
    """An environment begins; what version the runtime has is not known here."""
    return TelemetryRecord(
        "platform.initStart",
        {
            **_init(init),
            "functionName": function_name,
            "functionArn": function_arn,
            "functionVersion": version,
            "instanceId": instance_id,
            "instanceMaxMemory": memory_mb * 1_048_576,
        },
        at,
    )


def init_runtime_done(init: InitRef, ending: Ending, *, at: float) -> TelemetryRecord:
    """The runtime has asked for its first event, or never will."""
    return TelemetryRecord("platform.initRuntimeDone", {**_init(init), **_ending(ending)}, at)


def init_report(init: InitRef, ending: Ending, *, duration_ms: float, at: float) -> TelemetryRecord:
    """The init phase is over, extensions included."""
    metrics = {"durationMs": round(duration_ms, 3)}
    return TelemetryRecord(
        "platform.initReport", {**_init(init), **_ending(ending), "metrics": metrics}, at
    )


def start(ref: InvocationRef, *, version: str, at: float) -> TelemetryRecord:
    """An invocation begins."""
    return TelemetryRecord(
        "platform.start",
        {"requestId": ref.request_id, "version": version, **_tracing(ref), **_tenant(ref)},
        at,
    )


def runtime_done(
    ref: InvocationRef,
    ending: Ending,
    *,
    duration_ms: float,
    produced_bytes: int | None,
    spans: Iterable[Span],
    at: float,
) -> TelemetryRecord:
    """The runtime is done with an invocation, well or not."""
    metrics: RecordBody = {"durationMs": round(duration_ms, 3)}
    if produced_bytes is not None:
        metrics["producedBytes"] = produced_bytes
    return _of_ended("platform.runtimeDone", ref, ending, metrics, spans, at)


def report(
    ref: InvocationRef,
    ending: Ending,
    *,
    duration_ms: float,
    init_ms: float | None,
    memory_mb: int,
    peak_memory_bytes: int,
    spans: Iterable[Span] = (),
    at: float,
) -> TelemetryRecord:
    """An invocation is over; ``init_ms`` is given for the first after an init.

    What is billed is the next whole millisecond, init included.
    """
    metrics: RecordBody = {
        "durationMs": round(duration_ms, 3),
        "billedDurationMs": math.ceil(duration_ms + (init_ms or 0.0)),
        "memorySizeMB": memory_mb,
        "maxMemoryUsedMB": max(1, math.ceil(peak_memory_bytes / 1_048_576)),
    }
    if init_ms is not None:
        metrics["initDurationMs"] = round(init_ms, 3)
    return _of_ended("platform.report", ref, ending, metrics, spans, at)


def report_of_one_of_many(
    ref: InvocationRef, ending: Ending, *, duration_ms: float, spans: Iterable[Span], at: float
) -> TelemetryRecord:
    """An invocation is over that was not alone in its runtime: its duration is all one can say."""
    metrics: RecordBody = {"durationMs": round(duration_ms, 3)}
    return _of_ended("platform.report", ref, ending, metrics, spans, at)


def fault(request_id: str, error_type: str, message: str, *, at: float) -> TelemetryRecord:
    """An invocation ended because something broke; for the Logs API alone."""
    return TelemetryRecord(
        "platform.fault", f"RequestId: {request_id} Error: {message}\n{error_type}", at
    )


def extension(
    name: str, state: str, events: Iterable[str], *, error_type: str | None, at: float
) -> TelemetryRecord:
    """An extension stands so at the end of init."""
    body: RecordBody = {"name": name, "state": state, "events": sorted(events)}
    if error_type is not None:
        body["errorType"] = error_type
    return TelemetryRecord("platform.extension", body, at)


def subscription(
    name: str, types: Iterable[str], *, is_logs_api: bool, at: float
) -> TelemetryRecord:
    """An extension has subscribed."""
    kind = "platform.logsSubscription" if is_logs_api else "platform.telemetrySubscription"
    return TelemetryRecord(kind, {"name": name, "state": "Subscribed", "types": list(types)}, at)


def logs_dropped(records: int, size: int, *, at: float) -> TelemetryRecord:
    """A subscriber was too slow, and has missed so much."""
    return TelemetryRecord(
        "platform.logsDropped",
        {"droppedBytes": size, "droppedRecords": records, "reason": DROP_REASON},
        at,
    )


def _init(init: InitRef) -> RecordBody:
    return {"initializationType": init.initialization_type, "phase": init.phase}


def _of_ended(
    kind: str,
    ref: InvocationRef,
    ending: Ending,
    metrics: RecordBody,
    spans: Iterable[Span],
    at: float,
) -> TelemetryRecord:
    body: RecordBody = {"requestId": ref.request_id, **_ending(ending), "metrics": metrics}
    return TelemetryRecord(kind, {**body, **_spans(spans), **_tracing(ref), **_tenant(ref)}, at)


def _ending(ending: Ending) -> RecordBody:
    if ending.error_type is None:
        return {"status": ending.status}
    return {"status": ending.status, "errorType": ending.error_type}


def _spans(spans: Iterable[Span]) -> Mapping[str, object]:
    items = [
        {
            "name": span.name,
            "start": iso_time(span.start),
            "durationMs": round(span.duration_ms, 3),
        }
        for span in spans
    ]
    return {"spans": items} if items else {}


def _tracing(ref: InvocationRef) -> Mapping[str, object]:
    if ref.trace_id is None:
        return {}
    tracing = {"type": "X-Amzn-Trace-Id", "value": ref.trace_id}
    for part in ref.trace_id.split(";"):
        name, _, value = part.partition("=")
        if name == "Parent" and value:
            tracing = {"spanId": value, **tracing}
    return {"tracing": tracing}


def _tenant(ref: InvocationRef) -> Mapping[str, object]:
    return {} if ref.tenant_id is None else {"tenantId": ref.tenant_id}
