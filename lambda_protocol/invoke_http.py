"""The Invoke API over HTTP: request to ``Invocation``, ``Outcome`` to response, and back.

The Lambda Server, rapid and the client between them share this codec, so they answer alike.
Source: API_Invoke, API_InvokeAsync, API_InvokeWithResponseStream.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple
from urllib.parse import parse_qsl, quote

from lambda_protocol import headers
from lambda_protocol.errors import (
    InvalidParameterValueException,
    LambdaApiError,
    ServiceException,
    error_from_wire,
)
from lambda_protocol.function_name import FunctionRef
from lambda_protocol.invocation import (
    Invocation,
    InvocationType,
    Outcome,
)
from lambda_protocol.limits import (
    ASYNC_PAYLOAD_BYTES,
    SYNC_PAYLOAD_BYTES,
)
from lambda_protocol.validation import (
    decode_client_context,
    payload_too_large,
    relayed_outcome,
    require_json,
    require_tenant_id,
    usable_trace_id,
)

#: Looks a request header up by its lower-case name.
HeaderLookup = Callable[[str], str | None]

INVOCATION_TYPE = headers.INVOCATION_TYPE.lower()
_LOG_TYPE = headers.LOG_TYPE.lower()
_CLIENT_CONTEXT = headers.CLIENT_CONTEXT.lower()
_TRACE_ID = headers.TRACE_ID.lower()
_TENANT_ID = headers.TENANT_ID.lower()
_ERROR_TYPE = headers.ERROR_TYPE.lower()
_FUNCTION_ERROR = headers.FUNCTION_ERROR.lower()
_EXECUTED_VERSION = headers.EXECUTED_VERSION.lower()
_LOG_RESULT = headers.LOG_RESULT.lower()
#: Ours: the request id a Lambda Server already gave the call it hands on.
RELAYED_REQUEST_ID = headers.RELAYED_REQUEST_ID.lower()
#: Every request header that the codec reads from a client.
REQUEST_HEADERS = (INVOCATION_TYPE, _LOG_TYPE, _CLIENT_CONTEXT, _TRACE_ID, _TENANT_ID)

_TYPES: Final = tuple(InvocationType)
_STREAMING_TYPES: Final = (InvocationType.REQUEST_RESPONSE, InvocationType.DRY_RUN)
#: The paths of the Invoke API. A name with a slash is malformed, not unknown: it matches, to be
#: told so.
INVOKE_PATH = re.compile(
    r"/(?:2015-03-31/functions/(?P<name>.+)/invocations"
    r"|2014-11-13/functions/(?P<async>.+)/invoke-async"
    r"|2021-11-15/functions/(?P<stream>.+)/response-streaming-invocations)/?"
)


class InvokePath(NamedTuple):
    """What the request line of an Invoke call says."""

    function_name: str  #: not yet parsed
    qualifier: str | None
    is_async: bool = False  #: the deprecated InvokeAsync operation
    is_streaming: bool = False  #: InvokeWithResponseStream


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
    operation = match.lastgroup
    assert operation is not None
    return InvokePath(
        match[operation],
        qualifier,
        is_async=operation == "async",
        is_streaming=operation == "stream",
    )


def payload_limit(header: HeaderLookup, *, is_async: bool = False) -> int:
    """Return the largest payload, bytes, that the request's invocation type allows."""
    if is_async or header(INVOCATION_TYPE) == InvocationType.EVENT:
        return ASYNC_PAYLOAD_BYTES
    return SYNC_PAYLOAD_BYTES


def decode_request(
    header: HeaderLookup,
    body: bytes,
    *,
    request_id: str,
    function: FunctionRef,
    is_async: bool = False,
    is_streaming: bool = False,
    check_payload: bool = True,
) -> Invocation:
    """Return the invocation that a request's headers and body describe.

    Raises a ``LambdaApiError`` for whatever AWS refuses: an unknown invocation or log type, a
    payload that is too large or not JSON, a client context that is no base64 JSON object.
    """
    types = _STREAMING_TYPES if is_streaming else _TYPES
    invocation_type = (
        InvocationType.EVENT if is_async else _invocation_type(header(INVOCATION_TYPE), types)
    )
    log_type = header(_LOG_TYPE)
    if log_type not in (None, "None", "Tail"):
        raise _not_in_enum(log_type, "logType", ["None", "Tail"])
    limit = ASYNC_PAYLOAD_BYTES if invocation_type is InvocationType.EVENT else SYNC_PAYLOAD_BYTES
    if len(body) > limit:
        raise payload_too_large(len(body), limit)
    if not body:
        body = b"{}"
    elif check_payload:
        require_json(body)
    client_context = header(_CLIENT_CONTEXT) or None
    if client_context is not None:
        decode_client_context(client_context)
    tenant_id = header(_TENANT_ID)
    if tenant_id is not None:
        require_tenant_id(tenant_id)
    return Invocation(
        request_id=request_id,
        function=function,
        payload=body,
        type=invocation_type,
        wants_log_tail=log_type == "Tail" and invocation_type is InvocationType.REQUEST_RESPONSE,
        client_context=client_context,
        trace_id=usable_trace_id(header(_TRACE_ID)),
        tenant_id=tenant_id,
    )


def encode_outcome(invocation: Invocation, outcome: Outcome) -> HttpResponse:
    """Return the 200, 202 or 204 that ``outcome`` makes for ``invocation``'s type."""
    fields = [
        (headers.REQUEST_ID, invocation.request_id),
        (headers.TRACE_ID, invocation.trace_id),
    ]
    if invocation.type is InvocationType.EVENT:
        return HttpResponse(202, fields, b"")
    if invocation.type is InvocationType.DRY_RUN:
        return HttpResponse(204, fields, b"")
    fields.append(("Content-Type", "application/json"))
    fields.append((headers.EXECUTED_VERSION, outcome.executed_version))
    if outcome.function_error is not None:
        fields.append((headers.FUNCTION_ERROR, outcome.function_error))
    if outcome.log_tail is not None:
        fields.append((headers.LOG_RESULT, base64.b64encode(outcome.log_tail).decode()))
    return HttpResponse(200, fields, outcome.payload)


def encode_error(error: LambdaApiError, request_id: str) -> HttpResponse:
    """Return the response for ``error``: every SDK reads its class from ``x-amzn-ErrorType``."""
    fields = [
        ("Content-Type", "application/json"),
        (headers.ERROR_TYPE, error.code),
        (headers.REQUEST_ID, request_id),
    ]
    return HttpResponse(error.status, fields, error.body())


def encode_request(
    invocation: Invocation, *, is_streaming: bool = False
) -> tuple[str, dict[str, str]]:
    """Return path and fields that hand ``invocation`` on to a rapid; the body is its payload."""
    path = f"/2015-03-31/functions/{quote(invocation.function.name)}/invocations"
    if is_streaming:
        path = (
            f"/2021-11-15/functions/{quote(invocation.function.name)}"
            "/response-streaming-invocations"
        )
    if invocation.function.qualifier is not None:
        path += f"?Qualifier={quote(invocation.function.qualifier)}"
    fields = {
        "Content-Type": "application/json",
        headers.INVOCATION_TYPE: invocation.type.value,
        headers.TRACE_ID: invocation.trace_id,
        headers.RELAYED_REQUEST_ID: invocation.request_id,
    }
    if invocation.wants_log_tail:
        fields[headers.LOG_TYPE] = "Tail"
    if invocation.client_context is not None:
        fields[headers.CLIENT_CONTEXT] = invocation.client_context
    if invocation.tenant_id is not None:
        fields[headers.TENANT_ID] = invocation.tenant_id
    return path, fields


def decode_response(status: int, header: HeaderLookup, body: bytes) -> Outcome:
    """Return the outcome a rapid's response carries; raises the ``LambdaApiError`` it relays."""
    code = header(_ERROR_TYPE)
    if code is not None:
        raise error_from_wire(code, status, body)
    if status not in (200, 202, 204):
        raise ServiceException(f"The function's instance answered HTTP {status}.")
    return relayed_outcome(
        body,
        has_failed=bool(header(_FUNCTION_ERROR)),
        executed_version=header(_EXECUTED_VERSION),
        log_result=header(_LOG_RESULT),
    )


def _invocation_type(value: str | None, types: tuple[InvocationType, ...]) -> InvocationType:
    if value is None:
        return InvocationType.REQUEST_RESPONSE
    for each in types:
        if each == value:
            return each
    raise _not_in_enum(value, "invocationType", types)


def _not_in_enum(
    value: object, member: str, values: Sequence[str]
) -> InvalidParameterValueException:
    return InvalidParameterValueException(
        f"1 validation error detected: Value '{str(value)[:256]}' at '{member}' failed to satisfy "
        f"constraint: Member must satisfy enum value set: [{', '.join(values)}]"
    )
