"""Invokes one function by HTTP, at any server that has the Invoke API.

Source: API_Invoke.
"""

from __future__ import annotations

import base64
import json
import ssl
from dataclasses import dataclass
from http.client import HTTPException
from urllib.parse import quote, urlsplit

from lambda_protocol import headers as names
from lambda_protocol.address import Address
from lambda_protocol.http_client import BoundedConnection
from lambda_protocol.invocation import InvocationType
from lambda_protocol.limits import FUNCTION_TIMEOUT_LIMIT_S, RESPONSE_PAYLOAD_BYTES

#: How much longer than the longest function timeout an answer may take, seconds.
_GRACE_S = 60.0


class InvokeError(Exception):
    """There is no result: the server was not reached, or it refused the invocation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the server answered to an invocation that it took."""

    payload: bytes
    log_tail: bytes | None
    has_failed: bool  #: the function did; the payload is its error


def invoke(
    endpoint_url: str,
    name: str,
    payload: bytes,
    *,
    qualifier: str | None = None,
    invocation_type: InvocationType = InvocationType.REQUEST_RESPONSE,
    wants_log_tail: bool = False,
) -> Answer:
    """Invoke the function ``name`` at ``endpoint_url``.

    Raises ``ValueError`` for a URL without scheme, host and port, and ``InvokeError``.
    """
    path = f"/2015-03-31/functions/{quote(name, safe='')}/invocations"
    if qualifier is not None:
        path += f"?Qualifier={quote(qualifier, safe='')}"
    headers = {"Content-Type": "application/json"}
    if invocation_type is not InvocationType.REQUEST_RESPONSE:
        headers[names.INVOCATION_TYPE] = invocation_type
    if wants_log_tail:
        headers[names.LOG_TYPE] = "Tail"
    address = Address.of_url(endpoint_url)
    tls = ssl.create_default_context() if urlsplit(endpoint_url).scheme == "https" else None
    connection = BoundedConnection(address, tls=tls)
    connection.begin(FUNCTION_TIMEOUT_LIMIT_S + _GRACE_S)
    try:
        connection.request("POST", path, payload, headers)
        response, body = connection.read_answer(RESPONSE_PAYLOAD_BYTES)
    except (OSError, HTTPException) as error:
        raise InvokeError(f"{endpoint_url} did not answer: {error}") from error
    finally:
        connection.close()
    if response.status >= 300:
        code = response.headers.get(names.ERROR_TYPE, f"HTTP {response.status}")
        raise InvokeError(f"{code}: {_message(body)}")
    log_result = response.headers.get(names.LOG_RESULT)
    return Answer(
        payload=body,
        log_tail=None if log_result is None else base64.b64decode(log_result),
        has_failed=bool(response.headers.get(names.FUNCTION_ERROR)),
    )


def _message(body: bytes) -> str:
    try:
        members = json.loads(body)
        return str(members.get("Message") or members.get("message"))
    except (ValueError, AttributeError):
        return body.decode("utf-8", "replace")
