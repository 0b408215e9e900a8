"""A response that comes while its function writes it, as InvokeWithResponseStream gives it.

Source: API_InvokeWithResponseStream.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Final

from lambda_protocol import eventstream
from lambda_protocol.errors import ErrorType, LambdaApiError, UnreadableReply, error_from_wire
from lambda_protocol.eventstream import Message
from lambda_protocol.invocation import UNHANDLED, Outcome
from lambda_protocol.validation import relayed_outcome

#: The largest payload of one ``PayloadChunk``, bytes; the clients of AWS take more.
MAX_CHUNK_BYTES: Final = 1_048_576

_CHUNK: Final = eventstream.encode_headers(
    {
        ":event-type": "PayloadChunk",
        ":content-type": "application/octet-stream",
        ":message-type": "event",
    }
)
_COMPLETE: Final = eventstream.encode_headers(
    {
        ":event-type": "InvokeComplete",
        ":content-type": "application/json",
        ":message-type": "event",
    }
)
#: Errors of the platform that the caller is told by their own code. Others are ``Unhandled``.
_TOLD: Final = frozenset({ErrorType.TIMED_OUT, ErrorType.RESPONSE_TOO_LARGE})
#: The most that is told of a fault, characters.
_SHOWN_CHARS: Final = 1_024
#: A longer error is a handler's own, bytes.
_TOLD_BYTES: Final = 4_096


@dataclass(frozen=True, slots=True, kw_only=True)
class Streamed:
    """A response that has begun."""

    content_type: str  #: what the runtime says of it
    executed_version: str
    #: Its parts as they come, to be closed if they are not wanted to the end. The outcome's payload
    #: is the error of a function that failed, or else empty. Raises ``LambdaApiError`` when it
    #: breaks off for a fault of the service.
    parts: Generator[bytes, None, Outcome]


def encode_chunk(data: bytes) -> bytes:
    """Return the messages that carry ``data``."""
    if len(data) <= MAX_CHUNK_BYTES:
        return eventstream.encode(_CHUNK, data)
    starts = range(0, len(data), MAX_CHUNK_BYTES)
    return b"".join(eventstream.encode(_CHUNK, data[at : at + MAX_CHUNK_BYTES]) for at in starts)


def encode_end(outcome: Outcome) -> bytes:
    """Return the last message of a response that its function has ended."""
    members: dict[str, str] = {}
    if outcome.function_error is not None:
        members["ErrorCode"] = _error_code(outcome.payload)
        members["ErrorDetails"] = outcome.payload.decode("utf-8", "replace")
    if outcome.log_tail is not None:
        members["LogResult"] = base64.b64encode(outcome.log_tail).decode()
    return eventstream.encode(_COMPLETE, json.dumps(members).encode())


def encode_fault(error: LambdaApiError) -> bytes:
    """Return the last message of a response that breaks off: clients of AWS raise its error."""
    headers = {
        ":message-type": "error",
        ":error-code": error.code,
        ":error-message": error.message[:_SHOWN_CHARS],
    }
    return eventstream.encode(eventstream.encode_headers(headers), b"")


def encode_parts(parts: Generator[bytes, None, Outcome]) -> Iterator[bytes]:
    """Yield the messages of a response; raises the ``LambdaApiError`` by which it breaks off."""
    try:
        while True:
            yield encode_chunk(next(parts))
    except StopIteration as end:
        yield encode_end(end.value)
    except LambdaApiError as error:
        yield encode_fault(error)
        raise
    finally:
        parts.close()


def decode_part(message: Message, executed_version: str) -> bytes | Outcome:
    """Return a part of a response, or how it ended; raises the ``LambdaApiError`` it relays."""
    headers = message.headers
    if headers.get(":message-type") == "error":
        text = json.dumps({"message": headers.get(":error-message", "")}).encode()
        raise error_from_wire(headers.get(":error-code", ""), 500, text)
    if headers.get(":event-type") == "PayloadChunk":
        return message.payload
    try:
        members = json.loads(message.payload)
        details = str(members.get("ErrorDetails", "")).encode()
        has_failed, log_result = "ErrorCode" in members, members.get("LogResult")
    except (ValueError, AttributeError, RecursionError) as error:
        raise UnreadableReply("The end of the instance's answer is no JSON.") from error
    return relayed_outcome(
        details, has_failed=has_failed, executed_version=executed_version, log_result=log_result
    )


def _error_code(payload: bytes) -> str:
    if len(payload) <= _TOLD_BYTES:
        try:
            error_type = json.loads(payload)["errorType"]
        except (ValueError, TypeError, LookupError):
            return UNHANDLED
        if error_type in _TOLD:
            return str(error_type)
    return UNHANDLED
