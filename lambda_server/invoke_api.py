"""The Invoke API as a Flask blueprint. Source: API_Invoke, API_InvokeAsync."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from flask import Blueprint, Response, request

from lambda_protocol.errors import InvalidRequestContentException, LambdaApiError
from lambda_protocol.function_name import parse_function_name
from lambda_protocol.invocation import Invoker, new_request_id
from lambda_protocol.invoke_http import (
    REQUEST_HEADERS,
    HttpResponse,
    decode_request,
    encode_error,
    encode_outcome,
    payload_limit,
    payload_too_large,
)

if TYPE_CHECKING:
    from lambda_server.config import Config

#: How much of a payload over its limit is read and thrown away, so that the answer arrives, bytes.
DRAIN_BYTES: Final = 16 * 1_048_576

_WSGI_NAMES: Final = {
    name: "HTTP_" + name.upper().replace("-", "_") for name in REQUEST_HEADERS
}


def make_blueprint(config: Config, invoker: Invoker) -> Blueprint:
    """Return the routes, which hand every invocation to ``invoker``."""
    blueprint = Blueprint("invoke_api", __name__)

    def invoke(name: str, *, is_async: bool = False) -> Response:
        request_id = new_request_id()
        environ = request.environ
        try:
            function = parse_function_name(
                name,
                request.args.get("Qualifier") if environ.get("QUERY_STRING") else None,
                region=config.region,
                account_id=config.account_id,
            )
            header = _header_lookup(environ)
            invocation = decode_request(
                header,
                _read_payload(environ, payload_limit(header, is_async=is_async)),
                request_id=request_id,
                function=function,
                is_async=is_async,
                check_payload=config.checks_payload,
            )
            return to_flask(encode_outcome(invocation, invoker.invoke(invocation)))
        except LambdaApiError as error:
            return to_flask(encode_error(error, request_id))

    # A name with a slash is malformed, not unknown: ``path`` lets it through to be told so.
    blueprint.add_url_rule(
        "/2015-03-31/functions/<path:name>/invocations",
        "invoke",
        invoke,
        methods=["POST"],
        strict_slashes=False,
    )
    blueprint.add_url_rule(
        "/2014-11-13/functions/<path:name>/invoke-async",
        "invoke_async",
        lambda name: invoke(name, is_async=True),
        methods=["POST"],
        strict_slashes=False,
    )
    return blueprint


def to_flask(response: HttpResponse) -> Response:
    """Return the response as Flask sends it."""
    return Response(response.body, response.status, response.headers)


def _header_lookup(environ: dict[str, Any]) -> Callable[[str], str | None]:
    return lambda name: environ.get(_WSGI_NAMES[name])


def _read_payload(environ: dict[str, Any], limit: int) -> bytes:
    """Return the body, decided on before it is read; raises the 413 of one that is too large."""
    length = environ.get("CONTENT_LENGTH")
    stream = environ["wsgi.input"]
    if length is None:
        if environ.get("HTTP_TRANSFER_ENCODING") is None:
            return b""
        body: bytes = stream.read(limit + 1)
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
