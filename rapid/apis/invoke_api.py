"""The Invoke API of one function on port 8080, with health checks and metrics."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from lambda_protocol.address import Address
from lambda_protocol.byte_budget import ByteBudget, too_many_bytes
from lambda_protocol.cors import AllowedOrigins
from lambda_protocol.errors import (
    BadRequestException,
    InvalidRequestContentException,
    LambdaApiError,
    MethodNotAllowedException,
    ServiceException,
    ServiceUnavailable,
    UnknownOperationException,
)
from lambda_protocol.function_name import FunctionRef, function_not_found, parse_function_name
from lambda_protocol.http1 import Request
from lambda_protocol.invocation import (
    Invocation,
    InvocationType,
    Outcome,
    new_request_id,
    relayed_request_id,
)
from lambda_protocol.invoke_http import (
    RELAYED_REQUEST_ID,
    HttpResponse,
    InvokePath,
    decode_request,
    encode_error,
    encode_outcome,
    parse_invoke_path,
    payload_limit,
)
from lambda_protocol.limits import SYNC_PAYLOAD_BYTES
from lambda_protocol.poller import Poller
from lambda_protocol.validation import payload_too_large
from rapid.apis.response_streaming import streamed_call
from rapid.call import Call, OnOutcome
from rapid.connection_limits import INVOKE_API_CONNECTIONS
from rapid.exchange import JSON, Exchange, Headers
from rapid.http_service.service import HttpService

if TYPE_CHECKING:
    from rapid.apis.function_url import FunctionUrl

logger = logging.getLogger(__name__)

#: The name every existing script for aws-lambda-rie uses.
RIE_FUNCTION_NAME: Final = "function"

#: What is answered beside invocations.
_OTHER_PATHS: Final = ("/healthz", "/readyz", "/metrics", "/ping")
_OPENFAAS_PATHS: Final = ("/", "/_/health", "/_/ready")

Submit = Callable[[Call], None]
#: Takes an event, and tells once, from any thread, that it is safe, or why it is not.
AcceptEvent = Callable[[Invocation, Callable[[LambdaApiError | None], None]], None]


class InvokeApi:
    """The routes of the Invoke API. Thread-safe."""

    _is_refusing = False

    def __init__(
        self,
        address: Address,
        *,
        poller: Poller,
        function: FunctionRef,
        version: str,
        submit: Submit,
        abandon: Callable[[Call], object],
        accept_async: AcceptEvent,
        is_ready: Callable[[], str | None],
        render_metrics: Callable[[], tuple[str, bytes]],
        accepts_any_name: bool,
        checks_payload: bool,
        has_openfaas: bool,
        allowed_origins: AllowedOrigins,
        function_url: FunctionUrl | None = None,
        max_connections: int = INVOKE_API_CONNECTIONS,
        health_port: Address | None = None,
        budget: ByteBudget | None = None,
    ) -> None:
        """Bind ``address``; ``is_ready`` returns None, or what is not ready.

        ``abandon`` drops a call whose caller is gone, unless it has started.
        """
        self._function = function
        self._version = version
        self._submit = submit
        self._abandon = abandon
        self._accept_async = accept_async
        self._is_ready = is_ready
        self._render_metrics = render_metrics
        self._accepts_any_name = accepts_any_name
        self._checks_payload = checks_payload
        self._has_openfaas = has_openfaas
        self._allowed_origins = allowed_origins
        self._function_url = function_url
        self._service = HttpService(
            address,
            self.handle,
            name="invoke-api",
            poller=poller,
            long_paths=("/metrics",),
            max_body_bytes=SYNC_PAYLOAD_BYTES,
            budget=budget,
            max_connections=max_connections,
            has_health=True,
            health_port=health_port,
            render_error=_render_error,
        )

    @property
    def port(self) -> int:
        """The port that is bound."""
        return self._service.port

    def start(self) -> None:
        """Accept calls from now on."""
        self._service.start()

    def refuse_invocations(self) -> None:
        """Answer invocations 500 from now on, and go on telling health and figures."""
        self._is_refusing = True

    def stop(self, limit_s: float = 0.0) -> bool:
        """Accept no more connections; True if answers were taken within ``limit_s``. Idempotent."""
        return self._service.stop(limit_s)

    def handle(self, exchange: Exchange) -> None:
        """Answer one request, or have it answered when its function is done."""
        request = exchange.request
        url = self._function_url
        if url is not None and url.takes(request.path, self._is_own):
            url.handle(exchange, is_refusing=self._is_refusing)
            return
        request_id = relayed_request_id(request.headers.get(RELAYED_REQUEST_ID))
        try:
            admission = self._allowed_origins.admit(
                request.method, request.path, request.headers.get
            )
            exchange.extra_headers = admission.headers
            if admission.is_preflight:
                exchange.answer(HTTPStatus.NO_CONTENT)
                return
            path = parse_invoke_path(_decoded(request.path), request.query)
            if path is not None:
                self._invoke(exchange, path, request_id)
            elif not self._handle_other(exchange, request_id):
                raise UnknownOperationException(f"No operation has the path {request.path[:200]}")
        except LambdaApiError as error:
            _send(exchange, encode_error(error, request_id))

    def _invoke(self, exchange: Exchange, path: InvokePath, request_id: str) -> None:
        request = exchange.request
        if request.method != "POST":
            raise MethodNotAllowedException(f"{request.method} is not a method of this operation")
        if self._is_refusing:
            raise ServiceException("The function's instance is shutting down.")
        invocation = self._decode(request, path, request_id)
        if path.is_streaming and invocation.type is InvocationType.REQUEST_RESPONSE:
            self._run(exchange, streamed_call(exchange, invocation, self._version))
            return
        if invocation.type is InvocationType.REQUEST_RESPONSE:
            self._run(exchange, Call(invocation, _answer_with(exchange, invocation)))
            return
        if invocation.type is InvocationType.EVENT:
            self._accept_async(invocation, _accept_with(exchange, invocation))
            return
        _send(exchange, encode_outcome(invocation, Outcome()))

    def _run(self, exchange: Exchange, call: Call) -> None:
        exchange.on_disconnect = lambda: self._abandon(call)
        exchange.is_unstarted = lambda: call.started_at == 0.0
        self._submit(call)

    def _decode(self, request: Request, path: InvokePath, request_id: str) -> Invocation:
        named = parse_function_name(
            path.function_name,
            path.qualifier,
            region=self._function.region,
            account_id=self._function.account_id,
        )
        known = (self._function.name, RIE_FUNCTION_NAME)
        if named.name not in known and not self._accepts_any_name:
            raise function_not_found(named)
        header = request.headers.get
        if request.is_oversize:
            limit = payload_limit(header, is_async=path.is_async)
            raise payload_too_large(request.body_size, limit)
        if request.is_truncated:
            raise InvalidRequestContentException("The request ended before its body did.")
        return decode_request(
            header,
            request.body,
            request_id=request_id,
            function=self._named(named),
            is_async=path.is_async,
            is_streaming=path.is_streaming,
            check_payload=self._checks_payload,
        )

    def _is_own(self, path: str) -> bool:
        """Return whether a path is answered here, whatever the method."""
        if path in _OTHER_PATHS or (self._has_openfaas and path in _OPENFAAS_PATHS):
            return True
        return parse_invoke_path(_decoded(path)) is not None

    def _named(self, named: FunctionRef) -> FunctionRef:
        """Return the function under its own name, which a caller need not use."""
        if named.name == self._function.name:
            return named
        return replace(named, name=self._function.name)

    def _handle_other(self, exchange: Exchange, request_id: str) -> bool:
        """Answer health, metrics and OpenFaaS paths; False when the path is none of these."""
        request = exchange.request
        if request.path == "/" and self._has_openfaas and request.method == "POST":
            self._invoke(exchange, InvokePath(self._function.name, None), request_id)
            return True
        if self._has_openfaas and request.path in ("/_/health", "/_/ready"):
            is_ready = request.path == "/_/health" or self._is_ready() is None
            exchange.answer(200 if is_ready else 503, _TEXT, b"OK" if is_ready else b"NOT READY")
            return True
        if request.path not in _OTHER_PATHS:
            return False
        if request.method not in ("GET", "HEAD"):
            raise MethodNotAllowedException(f"{request.method} is not a method of {request.path}")
        if request.path == "/metrics":
            content_type, body = self._render_metrics()
            exchange.answer(200, (("Content-Type", content_type),), body)
        elif request.path == "/readyz":
            missing = self._is_ready()
            status = {"status": "ready" if missing is None else missing}
            exchange.answer(200 if missing is None else 503, JSON, json.dumps(status).encode())
        else:
            exchange.answer(200, JSON, b'{"status": "ok"}')
        return True


def _decoded(path: str) -> str:
    return unquote(path) if "%" in path else path


def _answer_with(exchange: Exchange, invocation: Invocation) -> OnOutcome:
    def on_outcome(outcome: Outcome | LambdaApiError) -> None:
        if isinstance(outcome, LambdaApiError):
            _send(exchange, encode_error(outcome, invocation.request_id))
        else:
            _send(exchange, encode_outcome(invocation, outcome))

    return on_outcome


def _accept_with(
    exchange: Exchange, invocation: Invocation
) -> Callable[[LambdaApiError | None], None]:
    def on_accepted(error: LambdaApiError | None) -> None:
        if error is not None:
            _send(exchange, encode_error(error, invocation.request_id))
        else:
            _send(exchange, encode_outcome(invocation, Outcome()))

    return on_accepted


def _send(exchange: Exchange, response: HttpResponse) -> None:
    exchange.answer(response.status, response.headers, response.body)


def _render_error(status: int, message: str) -> tuple[Headers, bytes]:
    """Render what went wrong below the API: bytes that are no HTTP, or a fault of ours."""
    error: LambdaApiError = ServiceException("An internal error occurred.")
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        error = too_many_bytes()
    elif status < 500:
        error = BadRequestException(message)
    elif status == HTTPStatus.SERVICE_UNAVAILABLE:
        error = ServiceUnavailable(message)
    response = encode_error(error, new_request_id())
    return response.headers, response.body


_TEXT: Final = (("Content-Type", "text/plain; charset=utf-8"),)
