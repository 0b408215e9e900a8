"""The Extensions API, version 2020-01-01: what an extension calls.

Source: Lambda developer guide, "Using the Lambda Extensions API"; aws-lambda-rie, rapi.
"""

from __future__ import annotations

import json
from typing import Any, Final

from lambda_protocol.http1 import Request
from rapid.apis.routes import Handler, Route, Routes
from rapid.apis.telemetry_api import TelemetryApi
from rapid.environment.extensions import ExtensionsApiError, answer_event, are_disabled
from rapid.environment.requests import EnvironmentRequests
from rapid.exchange import JSON, Exchange
from rapid.settings.environment import EnvironmentSettings

_PREFIX: Final = "/2020-01-01/extension"
_IDENTIFIER: Final = "lambda-extension-identifier"
_ERROR_TYPE: Final = "lambda-extension-function-error-type"


class ExtensionsApi:
    """The routes, telemetry's included; they share the Runtime API's listener. Thread-safe."""

    def __init__(self, settings: EnvironmentSettings) -> None:
        """Serve the extensions of one environment."""
        self._about = settings.about
        self._extensions_dir = settings.extensions_dir
        self._telemetry = TelemetryApi(
            is_multi_concurrency=settings.is_multi_concurrency, is_served=self._is_served
        )

    def routes(self) -> Routes:
        """Return the routes."""
        own: dict[str, tuple[str, Handler]] = {
            f"{_PREFIX}/register": ("POST", self._register),
            f"{_PREFIX}/event/next": ("GET", self._next),
            f"{_PREFIX}/init/error": ("POST", self._init_error),
            f"{_PREFIX}/exit/error": ("POST", self._exit_error),
        }
        return {
            path: Route(
                method=method,
                handler=handler,
                not_allowed=(JSON, b"{}"),
                is_served=self._is_served,
            )
            for path, (method, handler) in own.items()
        } | {**self._telemetry.routes()}

    def _is_served(self) -> bool:
        return not are_disabled(self._extensions_dir)

    def _register(self, environment: EnvironmentRequests, exchange: Exchange) -> None:
        request = exchange.request
        name = request.headers.get("lambda-extension-name", "")
        events = _registration(request).get("events")
        extension = environment.change_extensions(lambda known: known.register(name, events))
        about = dict(self._about)
        features = request.headers.get("lambda-extension-accept-feature", "")
        if "accountId" not in features.replace(" ", "").split(","):
            del about["accountId"]
        headers = (*JSON, ("Lambda-Extension-Identifier", extension.id))
        exchange.answer(200, headers, json.dumps(about).encode())

    def _next(self, environment: EnvironmentRequests, exchange: Exchange) -> None:
        identifier = exchange.request.headers.get(_IDENTIFIER)
        event = environment.park_extension(identifier, exchange)
        if event is not None:
            answer_event(exchange, event)

    def _init_error(self, environment: EnvironmentRequests, exchange: Exchange) -> None:
        self._report_error(environment, exchange, is_init=True)

    def _exit_error(self, environment: EnvironmentRequests, exchange: Exchange) -> None:
        self._report_error(environment, exchange, is_init=False)

    @staticmethod
    def _report_error(
        environment: EnvironmentRequests, exchange: Exchange, *, is_init: bool
    ) -> None:
        headers = exchange.request.headers
        failure = environment.change_extensions(
            lambda known: known.report_error(
                headers.get(_IDENTIFIER), headers.get(_ERROR_TYPE), is_init=is_init
            )
        )
        exchange.answer(202, JSON, b'{"status":"OK"}\n')
        if failure is not None:
            environment.fail_extension(failure)


def _registration(request: Request) -> dict[str, Any]:
    try:
        members = json.loads(request.body or b"{}")
    except (ValueError, RecursionError):
        members = None
    if not isinstance(members, dict):
        raise ExtensionsApiError("InvalidRequestFormat", "the body is not a JSON object")
    if members.get("configurationKeys"):
        raise ExtensionsApiError(
            "InvalidRequestFormat",
            "configurationKeys are deprecated; use environment variables instead",
        )
    return members
