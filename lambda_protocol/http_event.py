"""The HTTP request to a function URL, as the event that the function gets: payload format 2.0.

No sockets here: a front reads the request, and gives its parts.
Source: Lambda developer guide, "Invoking Lambda function URLs", request payload format.
"""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl, quote

from lambda_protocol.errors import RequestEntityTooLargeException
from lambda_protocol.limits import SYNC_PAYLOAD_BYTES

#: The function's account where callers have none, as with ``AuthType`` NONE.
ANONYMOUS: Final = "anonymous"

#: Headers of one connection, not of the request. Source: RFC 9110, 7.6.1.
CONNECTION_HEADERS: Final = frozenset(
    {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding",
     "upgrade"}
)  # fmt: skip
#: Headers that the event has anew, or in another form.
_REPLACED: Final = CONNECTION_HEADERS | {"content-length", "cookie", "expect"}
#: Content types whose bodies are text; others come as base64.
_TEXT_TYPE: Final = re.compile(
    r"text/[^;]+|application/(json|xml|javascript)|[^;/]+/[^;]+\+(json|xml)"
)
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun",
                  "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")  # fmt: skip
_SCHEME: Final = re.compile(r"https?")
_PORT: Final = re.compile(r"[0-9]{1,5}")
_HOST_PORT: Final = re.compile(r"(?P<name>\[[^\]]*\]|[^:]*)(?::(?P<port>[0-9]*))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class UrlRequest:
    """A request to a function URL. Text is as HTTP has it: each character is a byte."""

    url_id: str  #: of the function URL: the function's name
    method: str
    path: str  #: undecoded, without ``prefix``
    query: str = ""  #: undecoded
    headers: Iterable[tuple[str, str]]  #: in the order in which they came, names in any case
    body: bytes = b""
    source_ip: str  #: of the connection's other end
    scheme: str = "http"  #: of the connection
    protocol: str = "HTTP/1.1"
    prefix: str = ""  #: what was cut from the path
    account_id: str = ANONYMOUS
    request_id: str
    trace_id: str
    time_ms: int  #: epoch milliseconds


def encode_event(request: UrlRequest) -> bytes:
    """Return the event, as JSON.

    Raises ``RequestEntityTooLargeException`` if it is over the limit of a payload.
    """
    fields = _joined(request.headers)
    cookies = fields.get("cookie")
    host = _HOST_PORT.match(fields.get("host", ""))
    assert host is not None  # it matches every text
    path, query = _ascii(request.path) or "/", _ascii(request.query)
    members: dict[str, Any] = {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": query,
    }
    if cookies is not None:
        members["cookies"] = [c for each in cookies.split(";") if (c := each.strip(" \t"))]
    members["headers"] = _event_headers(request, fields, host["port"] or "")
    if query:
        members["queryStringParameters"] = _parameters(query)
    members["requestContext"] = {
        "accountId": request.account_id,
        "apiId": request.url_id,
        "authentication": None,
        "domainName": host["name"] or request.url_id,
        "domainPrefix": request.url_id,
        "http": {
            "method": request.method,
            "path": path,
            "protocol": request.protocol,
            "sourceIp": request.source_ip,
            "userAgent": fields.get("user-agent", ""),
        },
        "requestId": request.request_id,
        "routeKey": "$default",
        "stage": "$default",
        "time": _time(request.time_ms),
        "timeEpoch": request.time_ms,
    }
    text = _as_text(request.body, fields)
    if request.body:
        members["body"] = base64.b64encode(request.body).decode() if text is None else text
    members["isBase64Encoded"] = bool(request.body) and text is None
    event = json.dumps(members, ensure_ascii=False, separators=(",", ":")).encode()
    if len(event) > SYNC_PAYLOAD_BYTES:
        raise request_too_large()
    return event


def request_too_large() -> RequestEntityTooLargeException:
    """Return the error for a request whose event would be over the limit of a payload."""
    return RequestEntityTooLargeException(
        f"Request must be smaller than {SYNC_PAYLOAD_BYTES} bytes for the InvokeFunction operation"
    )


def asks_for_websocket(upgrade: str | None) -> bool:
    """Return whether a header ``Upgrade`` asks for what function URLs do not offer.

    Any other protocol may be left alone: the request is answered by HTTP/1.1. Source: RFC 9110,
    7.8.
    """
    if upgrade is None:
        return False
    return any(name.strip().lower() == "websocket" for name in upgrade.split(","))


def _joined(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the headers by lower-case name. Values of one name are joined in their order."""
    fields: dict[str, str] = {}
    for name, value in headers:
        name, value = name.lower(), _text(value)
        if name in fields:
            separator = ";" if name == "cookie" else ","
            value = f"{fields[name]}{separator}{value}"
        fields[name] = value
    return fields


def _event_headers(request: UrlRequest, fields: dict[str, str], port: str) -> dict[str, str]:
    """Return the headers of the event: the request's own, and those that AWS adds."""
    named = fields.get("connection", "").lower()
    dropped = _REPLACED | {name.strip() for name in named.split(",")} if named else _REPLACED
    headers = {name: value for name, value in fields.items() if name not in dropped}
    if request.body:
        headers["content-length"] = str(len(request.body))
    came_by = headers.get("x-forwarded-for")
    headers["x-forwarded-for"] = f"{came_by}, {request.source_ip}" if came_by else request.source_ip
    proto = headers.get("x-forwarded-proto", "").partition(",")[0].strip().lower()
    if not _SCHEME.fullmatch(proto):
        proto = request.scheme
    headers["x-forwarded-proto"] = proto
    if not _PORT.fullmatch(headers.get("x-forwarded-port", "")):
        headers["x-forwarded-port"] = port or ("443" if proto == "https" else "80")
    headers["x-amzn-trace-id"] = request.trace_id
    if request.prefix:
        headers["x-forwarded-prefix"] = headers.get("x-forwarded-prefix", "") + request.prefix
    return headers


def _parameters(query: str) -> dict[str, str]:
    parameters: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        parameters[name] = f"{parameters[name]},{value}" if name in parameters else value
    return parameters


def _as_text(body: bytes, fields: dict[str, str]) -> str | None:
    """Return a body as text if its content type says that it is, and its bytes do not differ."""
    kind = fields.get("content-type", "").lower().partition(";")[0].strip()
    if "content-encoding" in fields or not _TEXT_TYPE.fullmatch(kind):
        return None
    try:
        return body.decode()
    except UnicodeDecodeError:
        return None


def _time(time_ms: int) -> str:
    """Return the time as ``27/Nov/2026:20:03:58 +0000``, whatever the locale."""
    at = time.gmtime(time_ms // 1000)
    clock = f"{at.tm_hour:02}:{at.tm_min:02}:{at.tm_sec:02}"
    return f"{at.tm_mday:02}/{_MONTHS[at.tm_mon - 1]}/{at.tm_year}:{clock} +0000"


def _ascii(target: str) -> str:
    """Return a path or a query as it came. A byte that no URL can have is percent-encoded."""
    if target.isascii():
        return target
    return quote(target.encode("latin-1"), safe=_ASCII)


def _text(value: str) -> str:
    """Return a header's value, decoded if its bytes are UTF-8."""
    if value.isascii():
        return value
    try:
        return value.encode("latin-1").decode()
    except UnicodeDecodeError:
        return value


_ASCII: Final = "".join(map(chr, range(128)))
