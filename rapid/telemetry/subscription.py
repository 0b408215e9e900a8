"""What an extension asks for when it subscribes to telemetry."""

from __future__ import annotations

from dataclasses import dataclass

from rapid.telemetry.schema import Schema


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where records go: HTTP to ``path`` or, with no path, TCP; always on this machine."""

    port: int
    path: str | None = None
    host: str = ""  #: the Host header
    method: str = "POST"


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """What an extension asked for."""

    schema: Schema
    types: tuple[str, ...]
    endpoint: Endpoint
    max_items: int
    max_bytes: int
    timeout_s: float
