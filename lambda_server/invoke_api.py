"""The Invoke API: a Flask blueprint, and an accelerator in front of it.

Flask's dispatch costs as much as the way to the function and back. So the accelerator answers an
invocation before Flask sees it, by the same functions and with the same bytes. If the application
has hooks or error handlers of its own, the accelerator steps aside and Flask serves everything.
Source: API_Invoke, API_InvokeAsync, API_InvokeWithResponseStream.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from flask import Blueprint, Flask, Response, g, request

from lambda_protocol.byte_budget import FREE_BYTES, ByteBudget, Share, too_many_bytes
from lambda_protocol.errors import (
    InvalidRequestContentException,
    LambdaApiError,
    MethodNotAllowedException,
    ServiceException,
)
from lambda_protocol.function_name import parse_function_name
from lambda_protocol.http_head import METHODS
from lambda_protocol.invocation import Invocation, InvocationType, new_request_id
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
from lambda_protocol.response_stream import encode_parts, stream_headers
from lambda_protocol.validation import payload_too_large
from lambda_server.caller import IS_COUNTED, CallerGoneError, caller_of
from lambda_server.streamed_response import StreamedHttpResponse, cut_off

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse

    from lambda_server.config import Config
    from lambda_server.metrics import MeteredInvoker

logger = logging.getLogger(__name__)

#: How much of a payload over its limit is read and thrown away, so that the answer arrives, bytes.
DRAIN_BYTES: Final = 16 * 1_048_576

_WSGI_NAMES: Final = {name: "HTTP_" + name.upper().replace("-", "_") for name in REQUEST_HEADERS}
STATUS_LINES: Final = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus}


class InvokeApi:
    """Serves invocations from WSGI environments. Thread-safe."""

    def __init__(self, config: Config, invoker: MeteredInvoker) -> None:
        """Give invocations to ``invoker``."""
        self._config = config
        self._invoker = invoker
        self.budget = ByteBudget(config.worker_bytes_in_hand)  #: of payloads in hand

    def invoke(self, environ: dict[str, Any], path: InvokePath, request_id: str) -> HttpResponse:
        """Answer one request; raises ``LambdaApiError``, and ``CallerGoneError``."""
        if environ["REQUEST_METHOD"] != "POST":
            raise MethodNotAllowedException("The operation does not take this method.")
        with self._received(environ, path, request_id) as invocation:
            return encode_outcome(invocation, self._invoker.invoke(invocation, caller_of(environ)))

    def stream(
        self, environ: dict[str, Any], path: InvokePath, request_id: str
    ) -> HttpResponse | StreamedHttpResponse:
        """Answer a request for a response while it is written; raises as :meth:`invoke`."""
        if environ["REQUEST_METHOD"] != "POST":
            raise MethodNotAllowedException("The operation does not take this method.")
        caller = caller_of(environ)
        with self._received(environ, path, request_id) as invocation:
            if invocation.type is InvocationType.DRY_RUN:
                return encode_outcome(invocation, self._invoker.invoke(invocation, caller))
            streamed = self._invoker.stream(invocation, caller)
        parts = cut_off(encode_parts(streamed.parts), request_id)
        return StreamedHttpResponse(stream_headers(invocation, streamed.executed_version), parts)

    @contextlib.contextmanager
    def _received(
        self, environ: dict[str, Any], path: InvokePath, request_id: str
    ) -> Iterator[Invocation]:
        """Give the invocation that a POST asks for; its payload is counted for as long."""
        header = _header_lookup(environ)
        share = None if IS_COUNTED in environ else Share(self.budget)

        def read() -> bytes:
            return read_payload(environ, payload_limit(header, is_async=path.is_async), share)

        try:
            yield self.decode(path, header, read, request_id)
        finally:
            if share is not None:
                share.give()

    def decode(
        self, path: InvokePath, header: HeaderLookup, read: Callable[[], bytes], request_id: str
    ) -> Invocation:
        """Return the invocation that a POST asks for; raises ``LambdaApiError``.

        ``read`` returns the payload; it is asked for only if the path names a function.
        """
        config = self._config
        function = parse_function_name(
            path.function_name,
            path.qualifier,
            region=config.region,
            account_id=config.account_id,
        )
        return decode_request(
            header,
            read(),
            request_id=request_id,
            function=function,
            is_async=path.is_async,
            is_streaming=path.is_streaming,
            check_payload=config.checks_payload,
        )

    def blueprint(self) -> Blueprint:
        """Return the routes; an error is raised for the application's error handlers."""
        blueprint = Blueprint("invoke", __name__)

        def invoke(name: str) -> Response:
            path = _path_of(request.environ)
            assert path is not None, name
            g.request_id = new_request_id()
            answer = self.stream if path.is_streaming else self.invoke
            return to_flask(answer(request.environ, path, g.request_id))

        for rule in (
            "/2015-03-31/functions/<path:name>/invocations/",
            "/2014-11-13/functions/<path:name>/invoke-async/",
            "/2021-11-15/functions/<path:name>/response-streaming-invocations/",
        ):
            blueprint.add_url_rule(
                rule,
                endpoint=rule.split("/")[-2],
                view_func=invoke,
                methods=sorted(METHODS),
                strict_slashes=False,  # the slash at the end may be missing
                provide_automatic_options=False,
            )
        return blueprint


def as_api_error(error: Exception, request_id: str) -> LambdaApiError:
    """Return the API error for an exception. Logs an unexpected one."""
    if isinstance(error, LambdaApiError):
        return error
    if isinstance(error, CallerGoneError):
        return ServiceException("The caller hung up.")
    logger.error("request failed", extra={"request_id": request_id}, exc_info=error)
    return ServiceException("An internal error occurred.")


class FlaskResponse(Response):
    """A response that has the headers that it is given, and a length."""

    default_mimetype = None


def to_flask(response: HttpResponse | StreamedHttpResponse) -> FlaskResponse:
    """Return ``response`` as Flask has it."""
    if isinstance(response, StreamedHttpResponse):
        return FlaskResponse(response.parts, status_line(response.status), response.headers)
    return FlaskResponse(response.body, status_line(response.status), response.headers)


def status_line(status: int) -> str:
    """Return a status as WSGI has it; a function may answer one that has no name."""
    return STATUS_LINES.get(status) or f"{status} "


class Accelerator:
    """WSGI middleware that answers invocations without Flask. Thread-safe."""

    def __init__(self, app: Flask, api: InvokeApi) -> None:
        """Stand in front of ``app``, whose own hooks are in place."""
        self._app = app
        self._api = api
        self._others = app.wsgi_app
        self._own_hooks = count_hooks(app)

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request, as WSGI asks."""
        if environ["REQUEST_METHOD"] not in METHODS:  # gthread hands on any word
            return _refuse_method(start_response)
        path = _path_of(environ)
        if path is None or path.is_streaming or self.has_hooks():
            return self._others(environ, start_response)
        request_id = new_request_id()
        try:
            response = self._api.invoke(environ, path, request_id)
        except Exception as error:
            response = encode_error(as_api_error(error, request_id), request_id)
        headers = response.headers
        if response.status != HTTPStatus.NO_CONTENT:
            headers.append(("Content-Length", str(len(response.body))))
        start_response(STATUS_LINES[response.status], headers)
        return (response.body,)

    def has_hooks(self) -> bool:
        """Whether the application has more hooks and error handlers than ours."""
        return count_hooks(self._app) != self._own_hooks


def count_hooks(app: Flask) -> int:
    """Return how many functions Flask calls around the requests of ``app``."""
    hooks = (
        app.before_request_funcs,
        app.after_request_funcs,
        app.teardown_request_funcs,
        app.url_value_preprocessors,
    )
    count = sum(len(functions) for registry in hooks for functions in registry.values())
    for by_code in app.error_handler_spec.values():
        count += sum(map(len, by_code.values()))
    return count


def _path_of(environ: dict[str, Any]) -> InvokePath | None:
    decoded = environ["PATH_INFO"]
    if not decoded.isascii():  # WSGI gives the bytes as Latin-1
        decoded = decoded.encode("latin-1").decode("utf-8", "replace")
    return parse_invoke_path(decoded, environ.get("QUERY_STRING", ""))


def _refuse_method(start_response: StartResponse) -> Iterable[bytes]:
    """Answer a method that HTTP does not have, before the exporter makes a time series of it."""
    response = encode_error(ServiceException("unknown method"), new_request_id())
    length = ("Content-Length", str(len(response.body)))
    start_response("501 Not Implemented", [*response.headers, length])
    return (response.body,)


def _header_lookup(environ: dict[str, Any]) -> HeaderLookup:
    return lambda name: environ.get(_WSGI_NAMES[name])


def read_payload(environ: dict[str, Any], limit: int, share: Share | None) -> bytes:
    """Return the body of a request. Raises 413 before the body is read, if it is too large.

    ``share`` takes the bytes of the body first, and raises 429 if it cannot.
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
