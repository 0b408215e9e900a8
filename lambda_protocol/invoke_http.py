"""The Invoke API over HTTP: request to ``Invocation``, ``Outcome`` to response, and back.

One codec serves the Lambda Server, rapid and the client between them, so all doors answer alike.
Source: API_Invoke, API_InvokeAsync.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable
from typing import Any, Final, NamedTuple, NoReturn
from urllib.parse import parse_qsl, quote

from lambda_protocol.errors import (
    InvalidParameterValueException,
    InvalidRequestContentException,
    LambdaApiError,
    RequestEntityTooLargeException,
    ServiceException,
    UnreadableReply,
    ValidationException,
    error_from_wire,
)
from lambda_protocol.function_name import FunctionRef
from lambda_protocol.invocation import (
    UNHANDLED,
    Invocation,
    InvocationType,
    Outcome,
    new_trace_id,
)
from lambda_protocol.json_check import require_json_text
from lambda_protocol.limits import (
    ASYNC_PAYLOAD_BYTES,
    CLIENT_CONTEXT_BYTES,
    SYNC_PAYLOAD_BYTES,
)

#: Looks a request header up by its lower-case name.
HeaderLookup = Callable[[str], str | None]

INVOCATION_TYPE = "x-amz-invocation-type"
LOG_TYPE = "x-amz-log-type"
CLIENT_CONTEXT = "x-amz-client-context"
TRACE_ID = "x-amzn-trace-id"
TENANT_ID = "x-amz-tenant-id"
#: Ours: the request id a Lambda Server already gave the call it hands on.
RELAYED_REQUEST_ID = "x-lambda-request-id"
#: Every request header that the codec reads from a client.
REQUEST_HEADERS = (INVOCATION_TYPE, LOG_TYPE, CLIENT_CONTEXT, TRACE_ID, TENANT_ID)

#: The paths of the Invoke API. A name with a slash is malformed, not unknown: it matches, to be
#: told so.
INVOKE_PATH = re.compile(
    r"/(?:2015-03-31/functions/(?P<name>.+)/invocations"
    r"|2014-11-13/functions/(?P<async>.+)/invoke-async)/?"
)
_TENANT = re.compile(r"[a-zA-Z0-9._:/=+\-@ ]{1,256}")
_HEADER_VALUE = re.compile(r"[\x20-\x7e]{1,1024}")
_TRACE = re.compile(r"[\x20-\x7e]{1,8192}")


class InvokePath(NamedTuple):
    """What the request line of an Invoke call says."""

    function_name: str  #: not yet parsed
    qualifier: str | None
    is_async: bool  #: the deprecated InvokeAsync operation


class HttpResponse(NamedTuple):
    """A response still apart from any HTTP library."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


def parse_invoke_path(path: str, query: str = "") -> InvokePath | None:
    """Return what a decoded ``path`` and a raw ``query`` ask for; None: no Invoke call."""
    match = INVOKE_PATH.fullmatch(path)
    if match is None:
        return None
    qualifier = None
    if query:
        qualifier = dict(parse_qsl(query, keep_blank_values=True)).get("Qualifier")
    name = match["name"]
    if name is None:
        return InvokePath(match["async"], qualifier, True)
    return InvokePath(name, qualifier, False)


def payload_limit(header: HeaderLookup, *, is_async: bool = False) -> int:
    """Return the largest payload, bytes, that the request's invocation type allows."""
    if is_async or header(INVOCATION_TYPE) == InvocationType.EVENT:
        return ASYNC_PAYLOAD_BYTES
    return SYNC_PAYLOAD_BYTES


def payload_too_large(size: int, limit: int) -> RequestEntityTooLargeException:
    """Return AWS's error for a payload of ``size`` bytes over ``limit``."""
    if limit == ASYNC_PAYLOAD_BYTES:
        text = (
            f"{size} byte payload is too large for the Event invocation type (limit {limit} bytes)"
        )
    else:
        text = f"Request must be smaller than {limit} bytes for the InvokeFunction operation"
    return RequestEntityTooLargeException(text)


def decode_request(
    header: HeaderLookup,
    body: bytes,
    *,
    request_id: str,
    function: FunctionRef,
    is_async: bool = False,
    check_payload: bool = True,
) -> Invocation:
    """Return the invocation that a request's headers and body describe.

    Raises a ``LambdaApiError`` for whatever AWS refuses: an unknown invocation or log type, a
    payload that is too large or not JSON, a client context that is no base64 JSON object.
    """
    kind = header(INVOCATION_TYPE)
    invocation_type = (
        InvocationType.EVENT
        if is_async
        else InvocationType.REQUEST_RESPONSE
        if kind is None
        else _member(InvocationType, kind, "invocationType")
    )
    log_type = header(LOG_TYPE)
    if log_type not in (None, "None", "Tail"):
        raise _not_in_enum(log_type, "logType", ["None", "Tail"])
    limit = ASYNC_PAYLOAD_BYTES if invocation_type is InvocationType.EVENT else SYNC_PAYLOAD_BYTES
    if len(body) > limit:
        raise payload_too_large(len(body), limit)
    if not body:
        body = b"{}"
    elif check_payload:
        require_json(body)
    client_context = header(CLIENT_CONTEXT) or None
    if client_context is not None:
        decode_client_context(client_context)
    tenant_id = header(TENANT_ID)
    if tenant_id is not None:
        require_tenant_id(tenant_id)
    return Invocation(
        request_id=request_id,
        function=function,
        payload=body,
        type=invocation_type,
        wants_log_tail=log_type == "Tail" and invocation_type is InvocationType.REQUEST_RESPONSE,
        client_context=client_context,
        trace_id=usable_trace_id(header(TRACE_ID)),
        tenant_id=tenant_id,
    )


def require_tenant_id(tenant_id: str) -> None:
    """Raise ``ValidationException`` for a tenant id of another form than the API's."""
    if _TENANT.fullmatch(tenant_id) is None:
        raise ValidationException(
            f"1 validation error detected: Value '{tenant_id[:256]}' at 'tenantId' failed to "
            f"satisfy constraint: Member must satisfy regular expression pattern: {_TENANT.pattern}"
        )


def usable_trace_id(received: str | None) -> str:
    """Return ``received`` verbatim when it can stand in a header, else a fresh trace id."""
    if received is not None and _TRACE.fullmatch(received):
        return received
    return new_trace_id()


def decode_client_context(encoded: str) -> dict[str, Any]:
    """Return the JSON object in ``X-Amz-Client-Context``.

    Raises ``InvalidRequestContentException`` with AWS's text for anything else.
    """
    try:
        if len(encoded) > CLIENT_CONTEXT_BYTES:
            raise ValueError(encoded)
        text = base64.b64decode(encoded, validate=True)
        if text.count(b"[") + text.count(b"{") > _CONTEXT_BRACKETS:
            raise ValueError("nested too deeply")
        context = json.loads(text)
        if isinstance(context, dict):
            return context
    except (ValueError, RecursionError, binascii.Error):
        pass
    raise InvalidRequestContentException(
        "Client context must be a valid Base64-encoded JSON object."
    )


#: A context is written again for the runtime, which could fail at the depth that is just readable.
_CONTEXT_BRACKETS: Final = 500


def require_json(body: bytes) -> None:
    """Raise ``InvalidRequestContentException`` unless ``body`` is one JSON text in UTF-8.

    ``json`` is the faster one, and builds objects: so it has the small bodies only.
    """
    try:
        if len(body) > _SMALL_BODY_BYTES:
            require_json_text(body)
        else:
            _JSON.decode(body.decode())
    except RecursionError:
        raise _not_json("nested too deeply") from None
    except ValueError as error:
        raise _not_json(str(error)) from None


def encode_outcome(invocation: Invocation, outcome: Outcome) -> HttpResponse:
    """Return the 200, 202 or 204 that ``outcome`` makes for ``invocation``'s type."""
    headers = [
        ("x-amzn-RequestId", invocation.request_id),
        ("X-Amzn-Trace-Id", invocation.trace_id),
    ]
    if invocation.type is InvocationType.EVENT:
        return HttpResponse(202, headers, b"")
    if invocation.type is InvocationType.DRY_RUN:
        return HttpResponse(204, headers, b"")
    headers.append(("Content-Type", "application/json"))
    headers.append(("X-Amz-Executed-Version", outcome.executed_version))
    if outcome.function_error is not None:
        headers.append(("X-Amz-Function-Error", outcome.function_error))
    if outcome.log_tail is not None:
        headers.append(("X-Amz-Log-Result", base64.b64encode(outcome.log_tail).decode()))
    return HttpResponse(200, headers, outcome.payload)


def encode_error(error: LambdaApiError, request_id: str) -> HttpResponse:
    """Return the response for ``error``: every SDK reads its class from ``x-amzn-ErrorType``."""
    headers = [
        ("Content-Type", "application/json"),
        ("x-amzn-ErrorType", error.code),
        ("x-amzn-RequestId", request_id),
    ]
    return HttpResponse(error.status, headers, error.body())


def encode_request(invocation: Invocation) -> tuple[str, dict[str, str]]:
    """Return path and headers that hand ``invocation`` on to a rapid; the body is its payload."""
    path = f"/2015-03-31/functions/{quote(invocation.function.name)}/invocations"
    if invocation.function.qualifier is not None:
        path += f"?Qualifier={quote(invocation.function.qualifier)}"
    headers = {
        "Content-Type": "application/json",
        "X-Amz-Invocation-Type": invocation.type.value,
        "X-Amzn-Trace-Id": invocation.trace_id,
        RELAYED_REQUEST_ID: invocation.request_id,
    }
    if invocation.wants_log_tail:
        headers["X-Amz-Log-Type"] = "Tail"
    if invocation.client_context is not None:
        headers["X-Amz-Client-Context"] = invocation.client_context
    if invocation.tenant_id is not None:
        headers["X-Amz-Tenant-Id"] = invocation.tenant_id
    return path, headers


def decode_response(status: int, header: HeaderLookup, body: bytes) -> Outcome:
    """Return the outcome a rapid's response carries; raises the ``LambdaApiError`` it relays."""
    code = header("x-amzn-errortype")
    if code is not None:
        raise error_from_wire(code, status, body)
    if status not in (200, 202, 204):
        raise ServiceException(f"The function's instance answered HTTP {status}.")
    return relayed_outcome(
        body,
        has_failed=bool(header("x-amz-function-error")),
        executed_version=header("x-amz-executed-version"),
        log_result=header("x-amz-log-result"),
    )


def relayed_outcome(
    payload: bytes, *, has_failed: bool, executed_version: str | None, log_result: str | None
) -> Outcome:
    """Return the outcome that an instance's reply describes.

    Raises ``UnreadableReply`` for what no header of a response could carry.
    """
    if executed_version and not _HEADER_VALUE.fullmatch(executed_version):
        raise UnreadableReply("The function's instance named its version in no printable form.")
    try:
        log_tail = None if log_result is None else base64.b64decode(log_result, validate=True)
    except ValueError:
        raise UnreadableReply(
            "The function's instance sent a log tail that is no base64."
        ) from None
    return Outcome(
        payload=payload,
        function_error=UNHANDLED if has_failed else None,
        executed_version=executed_version or "$LATEST",
        log_tail=log_tail,
    )


def _member(enum: type[InvocationType], value: str, member: str) -> InvocationType:
    try:
        return enum(value)
    except ValueError:
        raise _not_in_enum(value, member, [*enum]) from None


def _not_in_enum(value: object, member: str, values: list[Any]) -> InvalidParameterValueException:
    return InvalidParameterValueException(
        f"1 validation error detected: Value '{str(value)[:256]}' at '{member}' failed to satisfy "
        f"constraint: Member must satisfy enum value set: [{', '.join(values)}]"
    )


def _not_json(detail: str) -> InvalidRequestContentException:
    return InvalidRequestContentException(
        f"Could not parse request body into json: Could not parse payload into json: {detail}"
    )


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_SMALL_BODY_BYTES: Final = 65_536
#: Checks without converting: numbers stay text, so a long one costs nothing and is no error.
_JSON = json.JSONDecoder(parse_constant=_refuse_constant, parse_int=str, parse_float=str)
