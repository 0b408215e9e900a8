"""The Invoke API as WSGI middleware: its two operations here, everything else to Flask.

Flask's dispatch costs as much as the way to the function and back, so the operations that are
called thousands of times a second stand in front of it. Source: API_Invoke, API_InvokeAsync.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from lambda_protocol.byte_budget import FREE_BYTES, ByteBudget, Share, too_many_bytes
from lambda_protocol.errors import (
    InvalidRequestContentException,
    LambdaApiError,
    MethodNotAllowedException,
    ServiceException,
)
from lambda_protocol.function_name import parse_function_name
from lambda_protocol.http1 import METHODS
from lambda_protocol.invocation import Invoker, new_request_id
from lambda_protocol.invoke_http import (
    REQUEST_HEADERS,
    HeaderLookup,
    HttpResponse,
    InvokePath,
    decode_request,
    encode_error,
    encode_outcome,
    parse_invoke_path,
    payload_limit,
)
from lambda_protocol.validation import payload_too_large
from lambda_server.caller import CallerGoneError, caller_of

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication

    from lambda_server.config import Config

logger = logging.getLogger(__name__)

#: How much of a payload over its limit is read and thrown away, so that the answer arrives, bytes.
DRAIN_BYTES: Final = 16 * 1_048_576

#: In the WSGI environment of a worker that counts the bytes of payloads before it reads them.
IS_COUNTED: Final = "lambda_server.is_counted"

_WSGI_NAMES: Final = {name: "HTTP_" + name.upper().replace("-", "_") for name in REQUEST_HEADERS}
_STATUS_LINES: Final = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus}


class InvokeApi:
    """Answers invocations and hands every other request on. Thread-safe."""

    def __init__(self, config: Config, invoker: Invoker, others: WSGIApplication) -> None:
        """Give invocations to ``invoker`` and everything else to ``others``."""
        self._config = config
        self._invoker = invoker
        self._others = others
        self._budget = ByteBudget(config.worker_bytes_in_hand)

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request, as WSGI asks."""
        if environ["REQUEST_METHOD"] not in METHODS:  # gthread hands on any word
            return _refuse_method(start_response)
        decoded = environ["PATH_INFO"]
        if not decoded.isascii():  # WSGI gives the bytes as Latin-1
            decoded = decoded.encode("latin-1").decode("utf-8", "replace")
        path = parse_invoke_path(decoded, environ.get("QUERY_STRING", ""))
        if path is None:
            return self._others(environ, start_response)
        request_id = new_request_id()
        try:
            response = self._invoke(environ, path, request_id)
        except LambdaApiError as error:
            response = encode_error(error, request_id)
        except CallerGoneError:
            response = encode_error(ServiceException("The caller hung up."), request_id)
        except Exception:
            logger.exception("invocation failed", extra={"request_id": request_id})
            fault = ServiceException("An internal error occurred.")
            response = encode_error(fault, request_id)
        headers = response.headers
        if response.status != HTTPStatus.NO_CONTENT:
            headers.append(("Content-Length", str(len(response.body))))
        start_response(_STATUS_LINES[response.status], headers)
        return (response.body,)

    def _invoke(self, environ: dict[str, Any], path: InvokePath, request_id: str) -> HttpResponse:
        if environ["REQUEST_METHOD"] != "POST":
            raise MethodNotAllowedException("The operation does not take this method.")
        config = self._config
        function = parse_function_name(
            path.function_name,
            path.qualifier,
            region=config.region,
            account_id=config.account_id,
        )
        header = _header_lookup(environ)
        share = None if IS_COUNTED in environ else Share(self._budget)
        try:
            invocation = decode_request(
                header,
                _read_payload(environ, payload_limit(header, is_async=path.is_async), share),
                request_id=request_id,
                function=function,
                is_async=path.is_async,
                check_payload=config.checks_payload,
            )
            return encode_outcome(invocation, self._invoker.invoke(invocation, caller_of(environ)))
        finally:
            if share is not None:
                share.give()


def _refuse_method(start_response: StartResponse) -> Iterable[bytes]:
    """Answer a method that HTTP does not have, before the exporter makes a time series of it."""
    response = encode_error(ServiceException("unknown method"), new_request_id())
    length = ("Content-Length", str(len(response.body)))
    start_response("501 Not Implemented", [*response.headers, length])
    return (response.body,)


def _header_lookup(environ: dict[str, Any]) -> HeaderLookup:
    return lambda name: environ.get(_WSGI_NAMES[name])


def _read_payload(environ: dict[str, Any], limit: int, share: Share | None) -> bytes:
    """Return the body, decided on before it is read; raises the 413 of one that is too large.

    ``share`` takes its bytes before that; 429 when it cannot.
    """
    length = environ.get("CONTENT_LENGTH")
    stream = environ["wsgi.input"]
    if share is not None and (length or environ.get("HTTP_TRANSFER_ENCODING")):
        most = min(int(length or limit), limit)
        if most > FREE_BYTES and not share.take(most):
            if length:  # chunks may never end
                _drain(stream)
            raise too_many_bytes()
    if not length:
        # Chunked, or none at all: the stream ends by itself (wsgi.input_terminated).
        body: bytes = stream.read(limit + 1) if environ.get("HTTP_TRANSFER_ENCODING") else b""
        if len(body) > limit:
            _drain(stream)
            raise payload_too_large(len(body), limit)
        return body
    size = int(length)
    if size > limit:
        _drain(stream)
        raise payload_too_large(size, limit)
    body = stream.read(size)
    if len(body) < size:
        raise InvalidRequestContentException("The request ended before its body did.")
    return body


def _drain(stream: Any) -> None:
    left = DRAIN_BYTES
    while left > 0:
        data = stream.read(min(left, 65_536))
        if not data:
            return
        left -= len(data)
