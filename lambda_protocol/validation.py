"""Checks what callers and instances send, whatever it came by: HTTP or AMQP.

A value that AWS refuses raises the ``LambdaApiError`` that AWS answers.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import Any, Final, NoReturn

from lambda_protocol.errors import (
    InvalidRequestContentException,
    RequestEntityTooLargeException,
    UnreadableReply,
    ValidationException,
)
from lambda_protocol.invocation import UNHANDLED, Outcome, new_trace_id
from lambda_protocol.json_check import require_json_text
from lambda_protocol.limits import ASYNC_PAYLOAD_BYTES, CLIENT_CONTEXT_BYTES

_TENANT = re.compile(r"[a-zA-Z0-9._:/=+\-@ ]{1,256}")
_HEADER_VALUE = re.compile(r"[\x20-\x7e]{1,255}")
_TRACE = re.compile(r"[\x20-\x7e]{1,8192}")


def payload_too_large(size: int, limit: int) -> RequestEntityTooLargeException:
    """Return AWS's error for a payload of ``size`` bytes over ``limit``."""
    if limit == ASYNC_PAYLOAD_BYTES:
        text = (
            f"{size} byte payload is too large for the Event invocation type (limit {limit} bytes)"
        )
    else:
        text = f"Request must be smaller than {limit} bytes for the InvokeFunction operation"
    return RequestEntityTooLargeException(text)


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
            text = body.decode()
            if not _is_json(text):
                _JSON.decode(text)  # tells what is wrong with it
    except RecursionError:
        raise _not_json("nested too deeply") from None
    except ValueError as error:
        raise _not_json(str(error)) from None


def _is_json(text: str) -> bool:
    """Whether ``text`` is one JSON text, without white space around it."""
    try:
        return _JSON.raw_decode(text)[1] == len(text)
    except ValueError:
        return False


def is_header_value(text: str) -> bool:
    """Whether a header of a response, or a property of a message, can carry ``text``."""
    return _HEADER_VALUE.fullmatch(text) is not None


def relayed_outcome(
    payload: bytes, *, has_failed: bool, executed_version: str | None, log_result: str | None
) -> Outcome:
    """Return the outcome that an instance's reply describes.

    Raises ``UnreadableReply`` for what no header of a response could carry.
    """
    if executed_version and not is_header_value(executed_version):
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


def _not_json(detail: str) -> InvalidRequestContentException:
    return InvalidRequestContentException(
        f"Could not parse request body into json: Could not parse payload into json: {detail}"
    )


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_SMALL_BODY_BYTES: Final = 65_536
#: Checks without converting: numbers stay text, so a long one costs nothing and is no error.
_JSON = json.JSONDecoder(parse_constant=_refuse_constant, parse_int=str, parse_float=str)
