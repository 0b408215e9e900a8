"""One request to a function URL: the invocation that it makes, and the response to its outcome.

Both programs serve function URLs by this class, and differ in how they read and send.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from lambda_protocol.clock import now_ms
from lambda_protocol.errors import LambdaApiError
from lambda_protocol.function_name import FunctionRef
from lambda_protocol.function_url import UrlSettings
from lambda_protocol.http_answer import (
    BadAnswerError,
    Head,
    decode_answer,
    encode_url_error,
    forbidden,
    function_failed,
    no_websocket,
    unknown_url,
    with_ids,
)
from lambda_protocol.http_event import UrlRequest, asks_for_websocket, encode_event
from lambda_protocol.invocation import Invocation, Outcome, new_request_id
from lambda_protocol.invoke_http import HeaderLookup, HttpResponse
from lambda_protocol.validation import usable_trace_id

logger = logging.getLogger(__name__)


class UrlExchange:
    """The request's ids, and what its function URL says. One thread at a time."""

    __slots__ = ("_header", "origin", "request_id", "settings", "trace_id")

    def __init__(self, settings: UrlSettings | None, header: HeaderLookup) -> None:
        """``header`` looks up the request's headers."""
        self.settings = settings  #: of the function URL; None: there is no such URL
        self._header = header
        self.origin = header("origin")  #: of the web page that calls, if one does
        self.request_id = new_request_id()
        self.trace_id = usable_trace_id(header("x-amzn-trace-id"))

    def refusal(self, method: str) -> HttpResponse | None:
        """Return the answer to a request that makes no invocation; None for any other."""
        settings = self.settings
        if settings is None:
            return self._finished(unknown_url())
        if asks_for_websocket(self._header("upgrade")):
            return self._finished(no_websocket())
        if settings.cors is not None:
            answer = settings.cors.preflight(method, self._header)
            if answer is not None:
                return with_ids(answer, self.request_id, self.trace_id)
        return None if settings.is_open else self._finished(forbidden())

    def invocation(self, function: FunctionRef, **parts: Any) -> Invocation:
        """Return the invocation; ``parts`` are those of ``UrlRequest``.

        Raises ``RequestEntityTooLargeException``.
        """
        event = encode_event(
            UrlRequest(
                url_id=function.name,
                request_id=self.request_id,
                trace_id=self.trace_id,
                time_ms=now_ms(),
                **parts,
            )
        )
        return Invocation(
            request_id=self.request_id,
            function=function,
            payload=event,
            trace_id=self.trace_id,
        )

    def response(self, result: Outcome | LambdaApiError) -> HttpResponse:
        """Return the response to what became of the invocation."""
        if isinstance(result, LambdaApiError):
            return self._finished(encode_url_error(result))
        if result.function_error is not None:
            return self._finished(function_failed())
        return self._decoded(lambda: decode_answer(result.payload))

    def begun(self, head: Head) -> HttpResponse:
        """Return the response, without its body, to what the function has begun to stream."""
        fields = [field for field in head.headers if field[0].lower() != "x-accel-buffering"]
        fields.append(("X-Accel-Buffering", "no"))  # of nginx
        return self._finished(HttpResponse(head.status, fields, b""))

    def unsendable(self, error: BadAnswerError) -> HttpResponse:
        """Return the response to what the function has streamed, and cannot be sent; logs why."""
        return self._finished(self._refused(error))

    def _decoded(self, decode: Callable[[], HttpResponse]) -> HttpResponse:
        try:
            response = decode()
        except BadAnswerError as error:
            response = self._refused(error)
        return self._finished(response)

    def _refused(self, error: BadAnswerError) -> HttpResponse:
        logger.warning(
            "the function's answer cannot be sent",
            extra={"request_id": self.request_id, "error": str(error)},
        )
        return function_failed()

    def _finished(self, response: HttpResponse) -> HttpResponse:
        """Return ``response`` with what every answer has."""
        cors = None if self.settings is None else self.settings.cors
        if cors is not None:
            response = response._replace(headers=cors.applied(response.headers, self.origin))
        return with_ids(response, self.request_id, self.trace_id)
