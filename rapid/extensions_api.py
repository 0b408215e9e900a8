"""The Extensions API, version 2020-01-01: what an extension calls.

Source: Lambda developer guide, "Using the Lambda Extensions API"; aws-lambda-rie, rapi.
"""

from __future__ import annotations

import json
from typing import Any, Final

from lambda_protocol.http1 import Request
from rapid.environment import ExecutionEnvironment
from rapid.extensions import ExtensionsApiError
from rapid.http_service import JSON, Exchange

_PREFIX: Final = "/2020-01-01/extension"
_IDENTIFIER: Final = "lambda-extension-identifier"
_ERROR_TYPE: Final = "lambda-extension-function-error-type"


class ExtensionsApi:
    """The routes; they share the listener of the Runtime API."""

    def handle(self, environment: ExecutionEnvironment, exchange: Exchange) -> bool:
        """Answer or park a request of this API; False when it is none."""
        request = exchange.request
        route = self._ROUTES.get(request.path)
        if route is None:
            return False
        method, handler = route
        if request.method != method:
            exchange.answer(405, JSON, b"{}")
            return True
        try:
            handler(environment, exchange)
        except ExtensionsApiError as error:
            body = {"errorMessage": str(error), "errorType": error.error_type}
            exchange.answer(403, JSON, json.dumps(body).encode())
        return True

    @staticmethod
    def _register(environment: ExecutionEnvironment, exchange: Exchange) -> None:
        request = exchange.request
        name = request.headers.get("lambda-extension-name", "")
        members = _registration(request)
        extension = environment.register_extension(name, members.get("events"))
        features = request.headers.get("lambda-extension-accept-feature", "")
        answer = environment.describe_function(
            with_account_id="accountId" in features.replace(" ", "").split(",")
        )
        headers = (*JSON, ("Lambda-Extension-Identifier", extension.id))
        exchange.answer(200, headers, json.dumps(answer).encode())

    @staticmethod
    def _next(environment: ExecutionEnvironment, exchange: Exchange) -> None:
        environment.park_extension(exchange.request.headers.get(_IDENTIFIER), exchange)

    @staticmethod
    def _init_error(environment: ExecutionEnvironment, exchange: Exchange) -> None:
        _report_error(environment, exchange, is_init=True)

    @staticmethod
    def _exit_error(environment: ExecutionEnvironment, exchange: Exchange) -> None:
        _report_error(environment, exchange, is_init=False)

    _ROUTES: Final[dict[str, tuple[str, Any]]] = {
        f"{_PREFIX}/register": ("POST", _register),
        f"{_PREFIX}/event/next": ("GET", _next),
        f"{_PREFIX}/init/error": ("POST", _init_error),
        f"{_PREFIX}/exit/error": ("POST", _exit_error),
    }


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


def _report_error(environment: ExecutionEnvironment, exchange: Exchange, *, is_init: bool) -> None:
    headers = exchange.request.headers
    error_type = headers.get(_ERROR_TYPE)
    environment.fail_extension(headers.get(_IDENTIFIER), error_type, is_init=is_init)
    exchange.answer(202, JSON, b'{"status":"OK"}\n')
