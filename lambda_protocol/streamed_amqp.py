"""A response over AMQP while it is written: frames with the call's correlation id.

``head`` is the first: its body is the first part. ``chunk`` has another part. The last frame,
``end``, is a reply like any other, and its body is what is left of the response, or the error of
the function. Frames are numbered, so that a lost one is noticed. A response that has come whole is
the one reply of a plain call.

The caller gives credit as its own reader takes what has come: a slow reader fills neither the
broker nor rapid. Credit goes to the ``reply_to`` of the head, with the request id in the head as
correlation id; so does ``cancel``, when the reader is gone.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final, NamedTuple

from lambda_protocol import headers as names
from lambda_protocol.amqp_frames import Delivery, HeaderValue, Properties
from lambda_protocol.errors import UnreadableReply
from lambda_protocol.invocation import Invocation, Outcome
from lambda_protocol.invoke_amqp import (
    DIRECT_REPLY_TO,
    ReplyAddress,
    Started,
    decode_reply,
    encode_outcome,
    parse_reply_to,
)
from lambda_protocol.limits import ANNOUNCED_MAX_S
from lambda_protocol.validation import is_header_value

#: What a caller lets come before its reader has taken any of it, bytes.
WINDOW_BYTES: Final = 4 * 1_048_576
#: How much is sent in one frame, bytes, and how long less than that waits for more, seconds.
PART_BYTES: Final = 131_072
GATHER_S: Final = 0.02

_HEAD, _CHUNK, _END, _CREDIT, _CANCEL = "head", "chunk", "end", "credit", "cancel"


class Head(NamedTuple):
    """How a response begins."""

    content_type: str
    executed_version: str
    address: ReplyAddress | None  #: where credit goes
    request_id: str  #: as the instance knows the call
    within_s: float  #: when the response has ended at the latest, from now
    data: bytes


class Part(NamedTuple):
    """A part of a response."""

    number: int
    data: bytes


class End(NamedTuple):
    """The last frame, or the one reply."""

    number: int
    outcome: Outcome
    content_type: str


def encode_head(
    correlation_id: str | None,
    invocation: Invocation,
    *,
    content_type: str,
    executed_version: str,
    within_s: float,
) -> Properties:
    """Return the properties of the first frame."""
    fields: dict[str, HeaderValue] = {
        names.FRAME: _HEAD,
        names.SEQUENCE: 0,
        names.EXECUTED_VERSION: executed_version,
        names.RELAYED_REQUEST_ID: invocation.request_id,
        names.ANSWERED_WITHIN_MS: int(within_s * 1000),
    }
    return Properties(
        content_type=content_type,
        headers=fields,
        correlation_id=correlation_id,
        reply_to=DIRECT_REPLY_TO,
    )


def encode_part(correlation_id: str | None, number: int) -> Properties:
    """Return the properties of a further frame with a part."""
    fields: dict[str, HeaderValue] = {names.FRAME: _CHUNK, names.SEQUENCE: number}
    return Properties(headers=fields, correlation_id=correlation_id)


def encode_end(correlation_id: str | None, number: int, outcome: Outcome) -> Properties:
    """Return the properties of the last frame, whose body is ``outcome.payload``."""
    properties = encode_outcome(correlation_id, outcome)
    fields = {**properties.headers, names.FRAME: _END, names.SEQUENCE: number}
    return replace(properties, headers=fields)


def encode_whole(correlation_id: str | None, outcome: Outcome, content_type: str) -> Properties:
    """Return the properties of the one reply for a response that has come whole."""
    return replace(encode_outcome(correlation_id, outcome), content_type=content_type)


def encode_credit(request_id: str, total_bytes: int) -> Properties:
    """Return the properties of the empty message that lets so many bytes be sent in all."""
    fields: dict[str, HeaderValue] = {names.FRAME: _CREDIT, names.CREDIT: total_bytes}
    return Properties(headers=fields, correlation_id=request_id)


def encode_cancel(request_id: str) -> Properties:
    """Return the properties of the empty message that says that the reader is gone."""
    return Properties(headers={names.FRAME: _CANCEL}, correlation_id=request_id)


def decode_credit(delivery: Delivery) -> int | None:
    """Return how many bytes may be sent in all; None: the reader is gone, 0: it is no credit."""
    fields = delivery.properties.headers
    if fields.get(names.FRAME) == _CANCEL:
        return None
    total_bytes = fields.get(names.CREDIT)
    return total_bytes if isinstance(total_bytes, int) else 0


def decode_frame(delivery: Delivery) -> Head | Part | End | Started:
    """Return what a frame says; raises the ``LambdaApiError`` it relays, or ``UnreadableReply``."""
    fields = delivery.properties.headers
    frame, number = fields.get(names.FRAME), fields.get(names.SEQUENCE, 0)
    content_type = _usable(delivery.properties.content_type, "application/octet-stream")
    if frame not in (_HEAD, _CHUNK):
        reply = decode_reply(delivery)
        if isinstance(reply, Started):
            return reply
        return End(number if isinstance(number, int) else -1, reply, content_type)
    if not isinstance(number, int) or len(delivery.body) != delivery.body_size:
        raise UnreadableReply("A frame of the instance's answer is malformed.")
    if frame == _CHUNK:
        return Part(number, delivery.body)
    within_ms = fields.get(names.ANSWERED_WITHIN_MS)
    within_s = within_ms / 1000 if isinstance(within_ms, int) else 0.0
    return Head(
        content_type=content_type,
        executed_version=_usable(fields.get(names.EXECUTED_VERSION), "$LATEST"),
        address=parse_reply_to(delivery.properties.reply_to),
        request_id=_usable(fields.get(names.RELAYED_REQUEST_ID), ""),
        within_s=min(max(within_s, 0.0), ANNOUNCED_MAX_S),
        data=delivery.body,
    )


def _usable(value: HeaderValue | None, default: str) -> str:
    return value if isinstance(value, str) and is_header_value(value) else default
