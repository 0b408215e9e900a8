"""What a function answers to a function URL's event, as an HTTP response: payload format 2.0.

Source: Lambda developer guide, "Invoking Lambda function URLs", response payload format, and
"Response streaming"; answers of the live service recorded in public test suites (2025-11).
"""

from __future__ import annotations

import base64
import json
import re
from http import HTTPStatus
from typing import Any, Final, NamedTuple

from lambda_protocol import headers
from lambda_protocol.errors import (
    LambdaApiError,
    ResourceNotFoundException,
    ResourceNotReadyException,
)
from lambda_protocol.http_event import CONNECTION_HEADERS
from lambda_protocol.invoke_http import HttpResponse

#: The content type of a response that begins with a prelude.
INTEGRATION_TYPE: Final = "application/vnd.awslambda.http-integration-response"
#: What stands between a prelude and the body.
SEPARATOR: Final = bytes(8)
#: The most that a prelude may have, bytes: AWS allows 1 MB of headers.
PRELUDE_BYTES: Final = 1_048_576

Fields = list[tuple[str, str]]

#: Headers that the server writes itself.
_SERVERS: Final = CONNECTION_HEADERS | {
    "content-length",
    "date",
    "server",
    headers.REQUEST_ID.lower(),
    headers.TRACE_ID.lower(),
}
_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_STATUS: Final = re.compile(r"[2-5][0-9][0-9]")
#: What a header's value cannot have: it would be two headers, or none. Source: RFC 9112, 11.1.
_LINE_ENDS: Final = re.compile(r"[\r\n\0]")
#: Statuses whose response has no body. Source: RFC 9110, 6.4.1.
BODILESS: Final = frozenset({HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED})
_JSON: Final = ("Content-Type", "application/json")


class BadAnswerError(Exception):
    """The function's answer has no form that can be sent; the caller gets 502."""


class Head(NamedTuple):
    """Status and headers of a response."""

    status: int
    headers: Fields


def decode_answer(payload: bytes) -> HttpResponse:
    """Return the response that a function's payload describes; raises ``BadAnswerError``.

    An object with ``statusCode`` describes it. Any other JSON value is the body itself. A handler
    that streams has written a prelude, which JSON cannot contain, and its body.
    """
    prelude, separator, rest = payload.partition(SEPARATOR)
    if separator:
        head = decode_prelude(prelude)
        return HttpResponse(*head, b"" if head.status in BODILESS else rest)
    members = _json(payload)
    if not isinstance(members, dict) or "statusCode" not in members:
        text = members if isinstance(members, str) else _compact(members)
        return HttpResponse(200, [_JSON], _utf8(text))
    head = _head(members)
    if head.status in BODILESS:
        return HttpResponse(head.status, head.headers, b"")
    _add_default_type(head.headers, "application/json")
    body = members.get("body")
    if body is None:
        body = ""
    if not isinstance(body, str):
        raise BadAnswerError(f"body is {_kind(body)}; expected text")
    if members.get("isBase64Encoded") is not True:
        return HttpResponse(head.status, head.headers, _utf8(body))
    try:
        return HttpResponse(head.status, head.headers, base64.b64decode(body, validate=True))
    except ValueError:
        raise BadAnswerError("isBase64Encoded is true, and body is not base64") from None


class PreludeReader:
    """Finds the prelude of a streamed response, however its bytes are split. One thread."""

    def __init__(self, content_type: str | None) -> None:
        """``content_type`` is the runtime's: it tells whether there is a prelude."""
        kind = (content_type or "").partition(";")[0].strip().lower()
        self._buffer: bytearray | None = bytearray() if kind == INTEGRATION_TYPE else None
        self._plain_type = content_type or "application/octet-stream"

    def feed(self, data: bytes) -> tuple[Head, bytes] | None:
        """Return the head, and what of the body has come; None if more has to come.

        To be called until there is a head. Raises ``BadAnswerError``.
        """
        buffer = self._buffer
        if buffer is None:
            kind = _sendable("content-type", self._plain_type)
            return Head(200, [("Content-Type", kind)]), data
        searched = max(0, len(buffer) - len(SEPARATOR) + 1)
        buffer += data
        end = buffer.find(SEPARATOR, searched)
        if end > PRELUDE_BYTES or (end < 0 and len(buffer) > PRELUDE_BYTES + len(SEPARATOR)):
            raise BadAnswerError(f"the prelude has over {PRELUDE_BYTES} bytes")
        if end < 0:
            return None
        return decode_prelude(bytes(buffer[:end])), bytes(buffer[end + len(SEPARATOR) :])


def decode_prelude(prelude: bytes) -> Head:
    """Return status and headers of a streamed response; raises ``BadAnswerError``."""
    members = _json(prelude)
    if not isinstance(members, dict):
        raise BadAnswerError(f"the prelude is {_kind(members)}; expected an object")
    head = _head({"statusCode": 200, **members})
    if head.status not in BODILESS:
        _add_default_type(head.headers, "application/octet-stream")
    return head


def with_ids(response: HttpResponse, request_id: str, trace_id: str) -> HttpResponse:
    """Return ``response`` with the ids that every answer has."""
    ids = [(headers.REQUEST_ID, request_id), (headers.TRACE_ID, trace_id)]
    return response._replace(headers=[*response.headers, *ids])


def function_failed() -> HttpResponse:
    """Return the answer for a function that failed, or answered what cannot be sent."""
    return HttpResponse(502, [("Content-Type", "text/plain")], b"Internal Server Error")


def forbidden() -> HttpResponse:
    """Return the answer for a caller that ``AWS_IAM`` does not let in."""
    fields = [_JSON, (headers.ERROR_TYPE, "AccessDeniedException")]
    return HttpResponse(403, fields, b'{"Message":"Forbidden"}')


def unknown_url() -> HttpResponse:
    """Return the answer for a function URL that does not exist."""
    fields = [_JSON, (headers.ERROR_TYPE, "AccessDeniedException")]
    return HttpResponse(403, fields, b'{"Message":null}')


def no_websocket() -> HttpResponse:
    """Return the answer to a request for a WebSocket."""
    return HttpResponse(
        501, [("Content-Type", "text/plain")], b"Function URLs do not offer WebSocket.\n"
    )


def encode_url_error(error: LambdaApiError) -> HttpResponse:
    """Return the answer for an invocation that could not be run."""
    if isinstance(error, ResourceNotFoundException):
        return unknown_url()
    status = 503 if isinstance(error, ResourceNotReadyException) else error.status
    body = json.dumps({"Message": error.message}, separators=(",", ":")).encode()
    return HttpResponse(status, [_JSON, (headers.ERROR_TYPE, error.code)], body)


def _head(members: dict[str, Any]) -> Head:
    status = _status(members["statusCode"])
    given = members.get("headers") or {}
    cookies = members.get("cookies") or []
    if not isinstance(given, dict):
        raise BadAnswerError(f"headers is {_kind(given)}; expected an object")
    if not isinstance(cookies, list):
        raise BadAnswerError(f"cookies is {_kind(cookies)}; expected an array of texts")
    fields = [
        (name, _sendable(name, value))
        for name, value in given.items()
        if value is not None and name.lower() not in _SERVERS
    ]
    for name, _ in fields:
        if not _NAME.fullmatch(name):
            raise BadAnswerError(f"{name[:80]!r} is no name of a header")
    fields += [("Set-Cookie", _sendable("Set-Cookie", cookie)) for cookie in cookies]
    return Head(status, fields)


def _status(value: object) -> int:
    """Return a status: a number, or the text of one."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value) if isinstance(value, int | str) else ""
    if not _STATUS.fullmatch(text):
        raise BadAnswerError(f"statusCode is {str(value)[:80]!r}; expected 200 to 599")
    return int(text)


def _sendable(name: str, value: object) -> str:
    """Return the value of a header, its UTF-8 bytes as HTTP has them: each a character."""
    if isinstance(value, bool | int | float):
        value = json.dumps(value)
    if not isinstance(value, str) or _LINE_ENDS.search(value):
        found = "text with line ends" if isinstance(value, str) else _kind(value)
        raise BadAnswerError(f"the header {name[:80]!r} is {found}; expected one line of text")
    return value if value.isascii() else _utf8(value).decode("latin-1")


def _add_default_type(fields: Fields, kind: str) -> None:
    if not any(name.lower() == "content-type" for name, _ in fields):
        fields.append(("Content-Type", kind))


def _json(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise BadAnswerError("the answer is not JSON") from None


def _compact(value: object) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    except (ValueError, RecursionError):
        raise BadAnswerError("the answer cannot be written as JSON") from None


def _utf8(text: str) -> bytes:
    """Return the bytes of a text; half a surrogate pair, which JSON can have, becomes a mark."""
    return text.encode("utf-8", "replace")


def _kind(value: object) -> str:
    names = {dict: "an object", list: "an array", str: "text", bool: "a boolean"}
    return names.get(type(value), "null" if value is None else "a number")
