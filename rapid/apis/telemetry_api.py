"""The Telemetry API, version 2022-07-01, and the older Logs API, 2020-08-15: subscribing.

Source: Lambda developer guide, "Lambda Telemetry API reference" and "Lambda Logs API".
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from lambda_protocol.address import split_url
from rapid.apis.routes import Route, Routes
from rapid.environment.api_error import ApiError
from rapid.environment.requests import EnvironmentRequests
from rapid.exchange import JSON, Exchange
from rapid.telemetry.hub import STREAMS
from rapid.telemetry.schema import Schema
from rapid.telemetry.subscription import Endpoint, Subscription

_TELEMETRY: Final = "/2022-07-01/telemetry"
_LOGS: Final = "/2020-08-15/logs"
_IDENTIFIER: Final = "lambda-extension-identifier"
#: Names of the sandbox that a destination may have.
_HOSTS: Final = frozenset({"sandbox", "sandbox.localdomain"})

#: Least, default and most of each buffering setting.
#: Source: Lambda developer guide, Telemetry API reference, "Subscribe".
_BUFFERING: Final = {
    "maxItems": (1_000, 10_000, 10_000),
    "maxBytes": (262_144, 262_144, 1_048_576),
    "timeoutMs": (25, 1_000, 30_000),
}


class TelemetryApiError(ApiError):
    """A subscription that is refused; the error types of the Logs API have a prefix."""


class TelemetryApi:
    """The two routes; they share the listener of the Runtime API. Thread-safe."""

    def __init__(self, *, is_multi_concurrency: bool, is_served: Callable[[], bool]) -> None:
        """A runtime of several invocations at once has the newest schema alone."""
        self._is_served = is_served
        self._schemas = {
            _TELEMETRY: [schema for schema in Schema if not schema.is_logs_api],
            _LOGS: [schema for schema in Schema if schema.is_logs_api],
        }
        if is_multi_concurrency:
            self._schemas = {_TELEMETRY: [Schema.TELEMETRY_2025], _LOGS: []}

    def routes(self) -> Routes:
        """Return the routes."""
        return {
            f"{path}{slash}": Route(
                method="PUT",
                handler=functools.partial(self._subscribe, path),
                not_allowed=(JSON, b"{}"),
                is_served=self._is_served,
            )
            for path in self._schemas
            for slash in ("", "/")
        }

    def _subscribe(self, path: str, environment: EnvironmentRequests, exchange: Exchange) -> None:
        """Raises ``ApiError``, also for an identifier of no extension."""
        try:
            self._subscribe_to(path, environment, exchange)
        except TelemetryApiError as error:
            if path == _LOGS:
                error.error_type = f"Logs.{error.error_type}"
            raise

    def _subscribe_to(
        self, path: str, environment: EnvironmentRequests, exchange: Exchange
    ) -> None:
        identifier = exchange.request.headers.get(_IDENTIFIER)
        earlier = environment.subscription_of(identifier)
        default = None if path == _TELEMETRY else Schema.LOGS_2020
        subscription = parse_subscription(
            exchange.request.body, self._schemas[path], default, environment.runtime_api_port
        )
        if earlier is not None and earlier.schema.is_logs_api != (path == _LOGS):
            raise _invalid("the extension has subscribed by the other API already")
        if not environment.subscribe(identifier, subscription):
            if path == _LOGS:
                raise TelemetryApiError(
                    403, "SubscriptionClosed", "Logs API subscription is closed"
                )
            raise TelemetryApiError(
                403, "Telemetry.SubscriptionClosed", "Telemetry API subscription is closed"
            )
        exchange.answer(200, JSON, b'"OK"' if path == _TELEMETRY else b"OK")


def parse_subscription(
    body: bytes, schemas: list[Schema], default: Schema | None, forbidden_port: int
) -> Subscription:
    """Return what ``body`` asks for; raises ``TelemetryApiError``.

    ``schemas`` are the versions to be had, ``default`` the one meant when none is named.
    """
    try:
        members = json.loads(body)
    except (ValueError, RecursionError):
        members = None
    if not isinstance(members, dict):
        raise _invalid("the body is not a JSON object")
    buffering = members.get("buffering") or {}
    if not isinstance(buffering, dict):
        raise _invalid("buffering is not an object")
    limits = {name: _limit(buffering, name) for name in _BUFFERING}
    return Subscription(
        schema=_schema(members.get("schemaVersion", default), schemas),
        types=_types(members.get("types")),
        endpoint=_endpoint(members.get("destination"), forbidden_port),
        max_items=limits["maxItems"],
        max_bytes=limits["maxBytes"],
        timeout_s=limits["timeoutMs"] / 1000,
    )


def _schema(version: object, schemas: list[Schema]) -> Schema:
    for schema in schemas:
        if version == schema.value:
            return schema
    offered = ", ".join(schemas) or "none"
    raise _invalid(f"schemaVersion is {_shown(version)}; expected one of: {offered}")


def _types(types: object) -> tuple[str, ...]:
    if isinstance(types, list) and types and all(kind in STREAMS for kind in types):
        return tuple(kind for kind in STREAMS if kind in types)
    raise _invalid(f"types is {_shown(types)}; expected a list of {', '.join(STREAMS)}")


def _limit(buffering: Mapping[str, Any], name: str) -> int:
    least, default, most = _BUFFERING[name]
    value = buffering.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise _invalid(f"{name} is {_shown(value)}; expected a whole number from {least} to {most}")
    return value


def _endpoint(endpoint: object, forbidden_port: int) -> Endpoint:
    if not isinstance(endpoint, dict):
        raise _invalid(f"destination is {_shown(endpoint)}; expected an object")
    protocol = endpoint.get("protocol")
    if protocol == "TCP":
        return Endpoint(port=_port(endpoint.get("port"), forbidden_port))
    if protocol != "HTTP":
        raise _invalid(f"protocol is {_shown(protocol)}; expected HTTP or TCP")
    method, encoding = endpoint.get("method", "POST"), endpoint.get("encoding", "JSON")
    if method not in ("POST", "PUT") or encoding != "JSON":
        raise _invalid("method is POST or PUT, encoding JSON")
    uri = endpoint.get("URI")
    try:
        parts = split_url(uri if isinstance(uri, str) and uri.isascii() else "")
        port = 80 if parts.port is None else parts.port
    except ValueError:
        raise _invalid(f"URI is {_shown(uri)}") from None
    is_wrong = parts.scheme != "http" or parts.hostname not in _HOSTS or "@" in parts.netloc
    if is_wrong or " " in str(uri):
        raise _invalid(f"URI is {_shown(uri)}; expected http://sandbox.localdomain:PORT/PATH")
    path = parts.path or "/"
    return Endpoint(
        port=_port(port, forbidden_port),
        path=f"{path}?{parts.query}" if parts.query else path,
        host=parts.netloc,
        method=method,
    )


def _port(port: object, forbidden_port: int) -> int:
    if isinstance(port, bool) or not isinstance(port, int) or not 0 < port < 65536:
        raise _invalid(f"port is {_shown(port)}; expected 1 to 65535")
    if port == forbidden_port:
        raise _invalid(f"port {port} is the Runtime API's")
    return port


def _invalid(message: str) -> TelemetryApiError:
    return TelemetryApiError(400, "ValidationError", message)


def _shown(value: object) -> str:
    return repr(value)[:80]
