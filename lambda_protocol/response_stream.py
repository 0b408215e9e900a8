"""A response that comes while its function writes it, as InvokeWithResponseStream gives it.

Source: API_InvokeWithResponseStream.
"""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Final, Protocol

from lambda_protocol import eventstream, headers
from lambda_protocol.errors import ErrorType, LambdaApiError, UnreadableReply, error_from_wire
from lambda_protocol.eventstream import Message
from lambda_protocol.http_peer import HttpPeer
from lambda_protocol.invocation import UNHANDLED, Invocation, Outcome
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


#: The parts of a response as they come, to be closed if they are not wanted to the end; then its
#: outcome, whose payload is what is left, or the error of the function. Raises ``LambdaApiError``
#: if the response breaks off for a fault of the service.
Parts = Generator[bytes, None, Outcome]


@dataclass(frozen=True, slots=True, kw_only=True)
class Streamed:
    """A response that has begun."""

    content_type: str  #: what the runtime says of it
    executed_version: str
    parts: Parts

    @classmethod
    def whole(cls, outcome: Outcome, content_type: str = "application/json") -> Streamed:
        """Return a response that has come whole, as the instance of a buffered call gives it."""
        return cls(
            content_type=content_type,
            executed_version=outcome.executed_version,
            parts=_no_parts(outcome),
        )


class StreamingInvoker(Protocol):
    """The port for responses that are wanted while they are written; see ``Invoker``."""

    def stream(self, invocation: Invocation, caller: HttpPeer | None = None) -> Streamed:
        """Run ``invocation``; return when its response begins. Thread-safe; one thread an answer.

        Raises ``LambdaApiError`` when it could not be run, and ``CallerGoneError``.
        """


def stream_headers(invocation: Invocation, executed_version: str) -> list[tuple[str, str]]:
    """Return the headers of the 200 that answers ``invocation``."""
    return [
        (headers.REQUEST_ID, invocation.request_id),
        (headers.TRACE_ID, invocation.trace_id),
        ("Content-Type", eventstream.CONTENT_TYPE),
        (headers.EXECUTED_VERSION, executed_version),
        ("X-Accel-Buffering", "no"),  # nginx passes each part on
    ]


def encode_chunk(data: bytes) -> bytes:
    """Return the messages that carry ``data``."""
    if len(data) <= MAX_CHUNK_BYTES:
        return eventstream.encode(_CHUNK, data)
    starts = range(0, len(data), MAX_CHUNK_BYTES)
    return b"".join(eventstream.encode(_CHUNK, data[at : at + MAX_CHUNK_BYTES]) for at in starts)


def encode_end(outcome: Outcome) -> bytes:
    """Return the last messages of a response that its function has ended."""
    members: dict[str, str] = {}
    if outcome.function_error is not None:
        members["ErrorCode"] = _error_code(outcome.payload)
        members["ErrorDetails"] = outcome.payload.decode("utf-8", "replace")
    if outcome.log_tail is not None:
        members["LogResult"] = base64.b64encode(outcome.log_tail).decode()
    complete = eventstream.encode(_COMPLETE, json.dumps(members).encode())
    if outcome.function_error is None and outcome.payload:
        return encode_chunk(outcome.payload) + complete
    return complete


def encode_fault(error: LambdaApiError) -> bytes:
    """Return the last message of a response that breaks off: clients of AWS raise its error."""
    fields = {
        ":message-type": "error",
        ":error-code": error.code,
        ":error-message": error.message[:_SHOWN_CHARS],
    }
    return eventstream.encode(eventstream.encode_headers(fields), b"")


def encode_parts(parts: Parts) -> Iterator[bytes]:
    """Yield the messages of a response; raises the ``LambdaApiError`` by which it breaks off."""
    with contextlib.closing(parts):
        while True:
            try:
                part = next(parts)
            except StopIteration as end:
                yield encode_end(end.value)
                return
            except LambdaApiError as error:
                yield encode_fault(error)
                raise
            yield encode_chunk(part)


def decode_part(message: Message, executed_version: str) -> bytes | Outcome:
    """Return a part of a response, or how it ended; raises the ``LambdaApiError`` it relays."""
    fields = message.headers
    if fields.get(":message-type") == "error":
        text = json.dumps({"message": fields.get(":error-message", "")}).encode()
        raise error_from_wire(fields.get(":error-code", ""), 500, text)
    if fields.get(":event-type") == "PayloadChunk":
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


def _no_parts(outcome: Outcome) -> Parts:
    return outcome
    yield b""  # a generator has one


def _error_code(payload: bytes) -> str:
    if len(payload) <= _TOLD_BYTES:
        try:
            error_type = json.loads(payload)["errorType"]
        except (ValueError, TypeError, LookupError):
            return UNHANDLED
        if error_type in _TOLD:
            return str(error_type)
    return UNHANDLED
