"""The function's URL: an HTTP request to rapid's own port becomes an invocation.

Imported only if the function has a URL.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Final
from urllib.parse import unquote

from lambda_protocol.errors import (
    InvalidRequestContentException,
    LambdaApiError,
    ServiceUnavailable,
)
from lambda_protocol.function_name import FunctionRef, with_qualifier
from lambda_protocol.function_url import ASKS_FOR_SETTINGS, PATH_PREFIX
from lambda_protocol.http1 import Request
from lambda_protocol.http_event import request_too_large
from lambda_protocol.invocation import Invocation, Outcome
from lambda_protocol.invoke_http import HttpResponse
from lambda_protocol.url_exchange import UrlExchange
from rapid.call import Call
from rapid.exchange import JSON, Exchange
from rapid.settings.function_url import FunctionUrlConfig

_ASKS_FOR_SETTINGS: Final = ASKS_FOR_SETTINGS.lower()


class FunctionUrl:
    """Serves the function's URL. Thread-safe."""

    def __init__(
        self,
        config: FunctionUrlConfig,
        *,
        function: FunctionRef,
        submit: Callable[[Call], None],
        abandon: Callable[[Call], object],
    ) -> None:
        """``abandon`` drops a call whose caller is gone, unless it has started."""
        self._settings = config.settings
        self._is_default = config.is_default
        self._function = function
        self._submit = submit
        self._abandon = abandon

    def takes(self, path: str, is_own: Callable[[str], bool]) -> bool:
        """Return whether a request to ``path`` is the URL's; ``is_own`` tells rapid's own paths."""
        if path.startswith(PATH_PREFIX):
            return True
        return self._is_default and path.startswith("/") and not is_own(path)

    def handle(self, exchange: Exchange, *, is_refusing: bool) -> None:
        """Answer a request, or have it answered when its function is done."""
        request = exchange.request
        function, path, prefix = self._target(request.path)
        if prefix and _ASKS_FOR_SETTINGS in request.headers and function is not None:
            exchange.answer(200, JSON, json.dumps(self._settings.members()).encode())
            return
        url = UrlExchange(None if function is None else self._settings, request.headers.get)
        refusal = url.refusal(request.method)
        if refusal is not None:
            _send(exchange, refusal)
            return
        assert function is not None  # else it was refused
        try:
            if is_refusing:
                raise ServiceUnavailable("The function's instance is shutting down.")
            _require_whole(request)
            invocation = url.invocation(
                function,
                method=request.method,
                path=path,
                query=request.query,
                headers=request.headers.items(),
                body=request.body,
                source_ip=exchange.peer_address,
                protocol=request.version,
                prefix=prefix,
            )
        except LambdaApiError as error:
            _send(exchange, url.response(error))
            return
        request.body = b""  # the event has it

        call = self._call(exchange, url, invocation)
        exchange.on_disconnect = lambda: self._abandon(call)
        exchange.is_unstarted = lambda: call.started_at == 0.0
        self._submit(call)

    def _call(self, exchange: Exchange, url: UrlExchange, invocation: Invocation) -> Call:
        if self._settings.streams:
            from rapid.apis.url_stream import UrlStream

            stream = UrlStream(exchange, url)
            return Call(invocation, stream.on_outcome, sink=stream)

        def on_outcome(outcome: Outcome | LambdaApiError) -> None:
            _send(exchange, url.response(outcome))

        return Call(invocation, on_outcome)

    def _target(self, path: str) -> tuple[FunctionRef | None, str, str]:
        """Return the function that a path names, the path that it gets, and what was cut off.

        The function is None if it is another one.
        """
        if not path.startswith(PATH_PREFIX):
            return self._function, path, ""
        named, slash, rest = path.removeprefix(PATH_PREFIX).partition("/")
        name, _, qualifier = unquote(named).partition(":")
        prefix = PATH_PREFIX + named
        if name != self._function.name:
            return None, slash + rest, prefix
        if not qualifier:
            return self._function, slash + rest, prefix
        try:
            return with_qualifier(self._function, qualifier), slash + rest, prefix
        except LambdaApiError:
            return None, slash + rest, prefix


def _require_whole(request: Request) -> None:
    """Raise ``LambdaApiError`` for a body that is too large, or broke off."""
    if request.is_oversize:
        raise request_too_large()
    if request.is_truncated:
        raise InvalidRequestContentException("The request ended before its body did.")


def _send(exchange: Exchange, response: HttpResponse) -> None:
    exchange.answer(response.status, response.headers, response.body)
