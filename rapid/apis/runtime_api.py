"""The Runtime API, version 2018-06-01: what a runtime calls, and its listener.

Source: Lambda developer guide, "Using the Lambda runtime API"; aws-lambda-rie, rapi.
"""

from __future__ import annotations

import base64
import json
import logging
import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote

from lambda_protocol.address import Address
from lambda_protocol.cors import comes_from_page
from lambda_protocol.errors import ErrorType
from lambda_protocol.http1 import Request
from lambda_protocol.http_head import BadRequestError
from lambda_protocol.limits import RESPONSE_PAYLOAD_BYTES, STREAMED_BYTES
from lambda_protocol.pace import Pace
from lambda_protocol.poller import Poller
from lambda_protocol.validation import decode_client_context, is_header_value
from rapid.apis.error_document import shorten
from rapid.apis.extensions_api import ExtensionsApi
from rapid.apis.metadata_api import PATH as METADATA
from rapid.apis.metadata_api import MetadataApi
from rapid.apis.routes import Route, Routes, error_body, not_found, refuse
from rapid.call import Call, Failure
from rapid.environment.api_error import ApiError
from rapid.environment.phases import PostedId
from rapid.environment.requests import EnvironmentRequests
from rapid.exchange import JSON, TEXT, Exchange
from rapid.http_service.service import HttpService
from rapid.settings.environment import EnvironmentSettings

logger = logging.getLogger(__name__)

_PREFIX: Final = "/2018-06-01"
_INVOCATION: Final = re.compile(rf"{_PREFIX}/runtime/invocation/([^/]+)/(response|error)")
_ACCEPTED: Final = b'{"status":"OK"}\n'
_INVOCATION_ID: Final = "lambda-runtime-invocation-id"
_ERROR_TYPE: Final = "lambda-runtime-function-error-type"
_ERROR_BODY: Final = "lambda-runtime-function-error-body"
_RESPONSE_MODE: Final = "lambda-runtime-function-response-mode"
#: A function that streams its response may pause.
PACE: Final = Pace(grace_s=30.0, bytes_per_s=0)
#: What an error type must contain to be taken as it is. Source: aws-lambda-rie, fatalerror.
_KNOWN_ERROR_TYPE: Final = re.compile(r"(Runtime|Function)\.[A-Z][a-zA-Z]+")


class RuntimeApiListener:
    """The address of one environment number, and which environment has it now.

    One listener an environment: which runtime calls is which socket it came in on.
    """

    def __init__(
        self,
        address: Address,
        index: int,
        *,
        poller: Poller,
        settings: EnvironmentSettings,
        max_connections: int,
    ) -> None:
        """Bind ``address``; raises ``OSError`` when it is taken."""
        self._environment: EnvironmentRequests | None = None
        self._routes: Routes = {
            **_runtime_routes(is_snap_start=settings.is_snap_start),
            METADATA: Route(method=None, handler=MetadataApi(settings.availability_zone_id).answer),
            **ExtensionsApi(settings).routes(),
        }
        self._service = HttpService(
            address,
            self.handle,
            name=f"runtime-api-{index}",
            poller=poller,
            max_body_bytes=RESPONSE_PAYLOAD_BYTES,
            keeps_oversize=lambda path: path.endswith("/error"),
            streams=self._is_streamed,
            pace=PACE,
            max_connections=max_connections,
            needs_host=False,  # runtimes written by hand, on loopback, leave it out
            render_error=lambda status, message: (JSON, error_body(_type_of(status), message)),
        )
        self._service.start()
        #: Where the processes of the environment reach it: AWS_LAMBDA_RUNTIME_API.
        self.address = Address(address.host, self._service.port).reached

    def attach(self, environment: EnvironmentRequests) -> Address:
        """Serve ``environment`` from now on; return the address."""
        self._environment = environment
        return self.address

    def stop(self) -> None:
        """Close the listener."""
        self._service.stop()

    def _is_streamed(self, request: Request) -> bool:
        """Whether a request is the response to a caller who wants it while it comes.

        The caller decides, not the runtime's mode header: aws-lambda-go never sends one.
        """
        environment = self._environment
        return (
            environment is not None
            and request.method == "POST"
            and request.path.endswith("/response")
            and environment.wants_stream(_posted_id(request).request_id)
        )

    def handle(self, exchange: Exchange) -> None:
        """Answer one request, or park it."""
        environment = self._environment
        if environment is None:
            return refuse(exchange, 500, *_INTERNAL_ERROR)
        request = exchange.request
        if comes_from_page(request.headers.get):  # on a developer's machine any page could
            return refuse(exchange, 403, "AccessDenied", "Web pages may not use this API")
        try:
            route = self._routes.get(request.path) or _invocation_route(request.path)
            if route is None:
                return not_found(exchange)
            return route.answer(environment, exchange)
        except ApiError as error:
            return refuse(exchange, error.status, error.error_type, str(error))
        except Exception as error:
            environment.fail_unexpectedly(error)
            return refuse(exchange, 500, *_INTERNAL_ERROR)


def _runtime_routes(*, is_snap_start: bool) -> Routes:
    routes = {
        f"{_PREFIX}/runtime/invocation/next": Route(method="GET", handler=_next),
        f"{_PREFIX}/runtime/init/error": Route(method="POST", handler=_fail_init),
        f"{_PREFIX}/runtime/restore/error": Route(method="POST", handler=_fail_init),
        f"{_PREFIX}/ping": Route(method=None, handler=_ping),
    }
    if is_snap_start:
        routes[f"{_PREFIX}/runtime/restore/next"] = Route(method="GET", handler=_restore)
    return routes


def _invocation_route(path: str) -> Route | None:
    match = _INVOCATION.fullmatch(path)
    return None if match is None else _INVOCATION_ROUTES[match[2]]


class _Next:
    """A parked ``next``: the event is its answer."""

    __slots__ = ("_exchange",)

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def deliver(self, call: Call) -> bool:
        """Answer with the event of ``call``; False if the runtime is gone."""
        return self._exchange.answer(200, next_headers(call), call.invocation.payload)


def _next(environment: EnvironmentRequests, exchange: Exchange) -> None:
    parked = _Next(exchange)
    exchange.on_disconnect = lambda: environment.unpark(parked)
    environment.park(parked)


def next_headers(call: Call) -> list[tuple[str, str]]:
    """Return what ``next`` says of the event; optional headers are absent, never empty.

    Content-Type is always exactly ``application/json``: awslambdaric compares it.
    Source: Runtime API, "Next invocation".
    """
    invocation = call.invocation
    headers = [
        ("Content-Type", "application/json"),
        ("Lambda-Runtime-Aws-Request-Id", invocation.request_id),
        ("Lambda-Runtime-Invocation-Id", call.invocation_id),
        ("Lambda-Runtime-Deadline-Ms", str(call.deadline_ms)),
        ("Lambda-Runtime-Invoked-Function-Arn", invocation.function.invoked_arn),
        ("Lambda-Runtime-Trace-Id", invocation.trace_id),
    ]
    if invocation.client_context is not None:
        # As ASCII on one line: the runtimes differ in how they read other bytes.
        context = json.dumps(decode_client_context(invocation.client_context))
        headers.append(("Lambda-Runtime-Client-Context", context))
    if invocation.tenant_id is not None:
        headers.append(("Lambda-Runtime-Aws-Tenant-Id", invocation.tenant_id))
    return headers


def _fail_init(environment: EnvironmentRequests, exchange: Exchange) -> None:
    environment.fail_init(_posted_failure(exchange, "Runtime.InitError"))
    _accept(exchange)


def _ping(_environment: EnvironmentRequests, exchange: Exchange) -> None:
    exchange.answer(200, TEXT, b"pong")


def _restore(environment: EnvironmentRequests, exchange: Exchange) -> None:
    environment.restore()
    exchange.answer(200, JSON)


def _posted_id(request: Request) -> PostedId:
    request_id = request.path.removeprefix(f"{_PREFIX}/runtime/invocation/").partition("/")[0]
    if "%" in request_id:
        request_id = unquote(request_id)
    return PostedId(request_id, request.headers.get(_INVOCATION_ID) or None)


def _respond(environment: EnvironmentRequests, exchange: Exchange) -> None:
    request = exchange.request
    posted = _posted_id(request)
    if environment.wants_stream(posted.request_id):
        return _respond_in_parts(environment, exchange, posted)
    if request.is_oversize:
        environment.respond_error(posted, _RESPONSE_TOO_LARGE, request.began_at)
        return refuse(
            exchange,
            413,
            "RequestEntityTooLarge",
            f"Exceeded maximum allowed payload size ({RESPONSE_PAYLOAD_BYTES} bytes).",
        )
    if request.is_truncated:
        environment.respond_error(posted, _TRUNCATED, request.began_at)
        return _refuse_truncated(exchange)
    if _has_unknown_mode(request):
        environment.respond_error(posted, _INVALID_MODE, request.began_at)
        return _refuse_mode(exchange)
    failure = _trailed_failure(request.trailers)
    if failure is not None:
        environment.respond_error(posted, failure, request.began_at)
    else:
        environment.respond(posted, request.body, request.began_at)
    _accept(exchange)


def _respond_in_parts(
    environment: EnvironmentRequests, exchange: Exchange, posted: PostedId
) -> None:
    """Pass the response on while it comes; a part that has come whole is no exception."""
    request = exchange.request
    if _has_unknown_mode(request):
        request.is_last = request.is_last or request.read_into is not None  # its body is not read
        environment.respond_error(posted, _INVALID_MODE, request.began_at)
        return _refuse_mode(exchange)
    content_type = request.headers.get("content-type", "")
    if not is_header_value(content_type):
        content_type = "application/octet-stream"
    response = environment.begin_response(posted, content_type)
    if request.read_into is None:
        response.take(request.body)
    else:
        try:
            request.read_into(response)
        except BadRequestError:  # its trailers are none
            request.is_truncated = request.is_last = True
    if request.is_oversize:
        response.end(_STREAM_TOO_LARGE)
        return refuse(
            exchange,
            413,
            "RequestEntityTooLarge",
            f"Exceeded maximum allowed payload size ({STREAMED_BYTES} bytes).",
        )
    if request.is_truncated:
        response.end(_TRUNCATED)
        return _refuse_truncated(exchange)
    response.end(_trailed_failure(request.trailers))
    _accept(exchange)


def _has_unknown_mode(request: Request) -> bool:
    return request.headers.get(_RESPONSE_MODE, "") not in ("streaming", "")


def _refuse_mode(exchange: Exchange) -> None:
    refuse(exchange, 400, "InvalidFunctionResponseMode", "Invalid function response mode")


def _refuse_truncated(exchange: Exchange) -> None:
    refuse(exchange, 400, "TruncatedHTTPRequest", "HTTP request detected as truncated")


def _respond_error(environment: EnvironmentRequests, exchange: Exchange) -> None:
    request = exchange.request
    posted = _posted_id(request)
    if request.is_truncated:
        environment.respond_error(posted, _TRUNCATED, request.began_at)
        return _refuse_truncated(exchange)
    failure = _posted_failure(exchange, ErrorType.UNKNOWN)
    environment.respond_error(posted, failure, request.began_at)
    _accept(exchange)


def _posted_failure(exchange: Exchange, default_type: str) -> Failure:
    """Return the failure a runtime posted: its body goes to the invoker as it came, if it may."""
    request = exchange.request
    body = request.body
    declared = request.headers.get(_ERROR_TYPE, "")
    if request.is_oversize:
        body = shorten(body, RESPONSE_PAYLOAD_BYTES, declared or default_type)
    elif request.headers.get("content-type") == "application/vnd.aws.lambda.error.cause+json":
        body = _without_cause(body)
    return _failure(declared, body, default_type)


def _trailed_failure(trailers: Mapping[str, str]) -> Failure | None:
    """Return the error that ended a streamed response, or None; its body is base64.

    Source: Lambda developer guide, "Building a custom runtime", response streaming.
    """
    declared, encoded = trailers.get(_ERROR_TYPE, ""), trailers.get(_ERROR_BODY, "")
    if not declared and not encoded:
        return None
    try:
        body = base64.b64decode(encoded, validate=True)
    except ValueError:
        message = "The trailer Lambda-Runtime-Function-Error-Body is not base64"
        body = error_body(declared or ErrorType.UNKNOWN, message)
    return _failure(declared, body, ErrorType.UNKNOWN)


def _failure(declared: str, body: bytes, default_type: str) -> Failure:
    match = _KNOWN_ERROR_TYPE.search(declared)
    if match is not None:
        error_type = declared
    else:
        error_type = "Function.Unknown" if declared.startswith("Function.") else ErrorType.UNKNOWN
    if not body:
        body = error_body(declared or default_type, "The runtime gave no reason")
    return Failure(error_type, payload=body)


def _without_cause(body: bytes) -> bytes:
    try:
        members = json.loads(body)
        members.pop("errorCause", None)
        return json.dumps(members).encode()
    except (ValueError, AttributeError, TypeError):
        return body


def _accept(exchange: Exchange) -> None:
    exchange.answer(202, JSON, _ACCEPTED)


def _type_of(status: int) -> str:
    return "InternalServerError" if status >= 500 else "InvalidRequest"


_INTERNAL_ERROR: Final = ("InternalServerError", "Internal Server Error")


def _too_large(limit_bytes: int) -> Failure:
    members = {
        "errorMessage": "Response payload size exceeded maximum allowed payload size "
        f"({limit_bytes} bytes).",
        "errorType": ErrorType.RESPONSE_TOO_LARGE,
    }
    payload = json.dumps(members, separators=(",", ":")).encode()
    return Failure(ErrorType.RESPONSE_TOO_LARGE, payload=payload, cause="response too large")


_RESPONSE_TOO_LARGE: Final = _too_large(RESPONSE_PAYLOAD_BYTES)
_STREAM_TOO_LARGE: Final = _too_large(STREAMED_BYTES)
_TRUNCATED: Final = Failure(
    ErrorType.TRUNCATED_RESPONSE, "HTTP request detected as truncated", cause="truncated response"
)
_INVALID_MODE: Final = Failure(
    ErrorType.INVALID_RESPONSE_MODE,
    "Invalid function response mode",
    cause="invalid response mode",
)
_INVOCATION_ROUTES: Final = {
    "response": Route(method="POST", handler=_respond),
    "error": Route(method="POST", handler=_respond_error),
}
