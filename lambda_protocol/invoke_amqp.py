"""The Invoke API over AMQP-RPC, both ways: call and reply as properties and body.

A call goes to the default exchange with the function's name as routing key; the reply's body is
the payload alone and everything else is in headers, so a plain AMQP-RPC client (queue name,
``reply_to``, ``correlation_id``) needs to know nothing of this module.
"""

from __future__ import annotations

import base64
import functools
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from lambda_protocol import headers as names
from lambda_protocol.amqp_frames import Delivery, HeaderValue, Properties
from lambda_protocol.errors import LambdaApiError, UnreadableReply, error_from_wire
from lambda_protocol.function_name import FunctionRef, with_qualifier
from lambda_protocol.invocation import (
    Invocation,
    Outcome,
    relayed_request_id,
)
from lambda_protocol.limits import ANNOUNCED_MAX_S, RESPONSE_PAYLOAD_BYTES, SYNC_PAYLOAD_BYTES
from lambda_protocol.validation import (
    decode_client_context,
    payload_too_large,
    relayed_outcome,
    require_json,
    require_tenant_id,
    usable_trace_id,
)

#: RabbitMQ's pseudo-queue: replies come back on the channel that published the call.
#: Source: RabbitMQ documentation, "Direct Reply-to".
DIRECT_REPLY_TO = "amq.rabbitmq.reply-to"

_REPLY_NODE = re.compile(rb"reply@[0-9]+")

#: Frames of a reply: a call takes long, or rapid asks whether it is still waited for.
_STARTED = "started"
_WANTED = "wanted"


@dataclass(frozen=True, slots=True, kw_only=True)
class IncomingCall:
    """A call as rapid finds it in the function's queue."""

    invocation: Invocation
    reply_to: str | None  #: None: nobody waits for a reply
    correlation_id: str | None  #: the caller's, given back as it came
    understands_frames: bool
    sent_s: float | None  #: when, on the caller's clock, of a caller that answers ``wanted``
    #: How much of a response it takes before it gives more credit, bytes; None: it wants one reply.
    credit_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Started:
    """The frame that says that an instance has the call, and when it is answered at the latest."""

    within_s: float  #: from now: a duration, because the two clocks may differ
    is_running: bool = False  #: else it waits in the instance


@dataclass(frozen=True, slots=True)
class Wanted:
    """The answer to the question whether a call is still waited for."""

    is_wanted: bool
    sent_s: float  #: when, on the clock that the call's own ``sent_s`` is of


def encode_call(
    invocation: Invocation, *, queue_timeout_s: float, credit_bytes: int | None = None
) -> Properties:
    """Return the properties of a call; ``queue_timeout_s`` is how long it may wait unstarted.

    ``credit_bytes`` asks for the response while it is written; see ``streamed_amqp``.
    """
    headers = {**call_headers(invocation), names.SENT_MS: _now_ms()}
    if credit_bytes is not None:
        headers[names.CREDIT] = credit_bytes
    return Properties(
        content_type="application/json",
        headers=headers,
        correlation_id=invocation.request_id,
        reply_to=DIRECT_REPLY_TO,
        expiration=str(int(queue_timeout_s * 1000)),
        timestamp=int(time.time()),
    )


def call_headers(invocation: Invocation) -> dict[str, HeaderValue]:
    """Return what a message says of an invocation beside its payload and request id."""
    headers: dict[str, HeaderValue] = {
        names.TRACE_ID: invocation.trace_id,
        names.FRAMES: 1,
        names.RELAYED: 1,
    }
    if invocation.client_context is not None:
        headers[names.CLIENT_CONTEXT] = invocation.client_context
    if invocation.wants_log_tail:
        headers[names.LOG_TYPE] = "Tail"
    if invocation.tenant_id is not None:
        headers[names.TENANT_ID] = invocation.tenant_id
    if invocation.function.qualifier is not None:
        headers[names.QUALIFIER] = invocation.function.qualifier
    return headers


def decode_call(
    delivery: Delivery,
    function: FunctionRef,
    *,
    check_payload: bool = False,
    max_payload_bytes: int = SYNC_PAYLOAD_BYTES,
) -> IncomingCall:
    """Return the call in ``delivery`` for ``function``, whose queue it came from.

    A payload over ``max_payload_bytes`` raises ``RequestEntityTooLargeException``.
    ``check_payload`` refuses a payload that is no JSON, unless a Lambda Server has checked it.
    What a header cannot carry on is refused or replaced: a client context that is no JSON object,
    a malformed qualifier or tenant id raise a ``LambdaApiError``; an unusable trace id gives way
    to a fresh one.
    """
    properties = delivery.properties
    headers = properties.headers
    understands_frames = headers.get(names.FRAMES) == 1
    if delivery.body_size > max_payload_bytes:
        raise payload_too_large(delivery.body_size, max_payload_bytes)
    is_relayed = headers.get(names.RELAYED) == 1
    if check_payload and not is_relayed and delivery.body:
        require_json(delivery.body)
    client_context = _text(headers.get(names.CLIENT_CONTEXT))
    if client_context is not None:
        decode_client_context(client_context)
    qualifier = _text(headers.get(names.QUALIFIER))
    if qualifier is not None:
        function = with_qualifier(function, qualifier)
    tenant_id = _text(headers.get(names.TENANT_ID))
    if tenant_id is not None:
        require_tenant_id(tenant_id)
    relayed_id = properties.correlation_id if is_relayed else None
    invocation = Invocation(
        request_id=relayed_request_id(relayed_id),
        function=function,
        payload=delivery.body or b"{}",
        wants_log_tail=headers.get(names.LOG_TYPE) == "Tail",
        client_context=client_context,
        trace_id=usable_trace_id(_text(headers.get(names.TRACE_ID))),
        tenant_id=tenant_id,
    )
    return IncomingCall(
        invocation=invocation,
        reply_to=properties.reply_to,
        correlation_id=properties.correlation_id,
        understands_frames=understands_frames,
        sent_s=_sent_s(headers) if understands_frames else None,
        credit_bytes=_credit(headers) if understands_frames else None,
    )


def encode_outcome(correlation_id: str | None, outcome: Outcome) -> Properties:
    """Return the properties of the reply whose body is ``outcome.payload``."""
    headers: dict[str, HeaderValue] = {
        names.STATUS: 200,
        names.EXECUTED_VERSION: outcome.executed_version,
    }
    if outcome.function_error is not None:
        headers[names.FUNCTION_ERROR] = outcome.function_error
    if outcome.log_tail is not None:
        headers[names.LOG_RESULT] = base64.b64encode(outcome.log_tail).decode()
    return _reply(correlation_id, headers)


def encode_error(correlation_id: str | None, error: LambdaApiError) -> Properties:
    """Return the properties of the reply whose body is ``error.body()``."""
    return _reply(correlation_id, {names.STATUS: error.status, names.ERROR_CODE: error.code})


def encode_started(
    correlation_id: str | None, within_s: float, *, is_running: bool = False
) -> Properties:
    """Return the properties of the empty frame that says when the answer is due at the latest."""
    headers: dict[str, HeaderValue] = {
        names.FRAME: _STARTED,
        names.ANSWERED_WITHIN_MS: int(within_s * 1000),
    }
    if is_running:
        headers[names.RUNNING] = 1
    return _reply(correlation_id, headers)


def encode_question(correlation_id: str | None) -> Properties:
    """Return the properties of the empty frame that asks whether a call is still waited for."""
    return Properties(
        headers={names.FRAME: _WANTED}, correlation_id=correlation_id, reply_to=DIRECT_REPLY_TO
    )


def is_question(delivery: Delivery) -> bool:
    """Whether a frame asks if a call is still waited for."""
    headers = delivery.properties.headers
    return headers.get(names.FRAME) == _WANTED and names.WANTED not in headers


def encode_wanted(correlation_id: str | None, *, is_wanted: bool) -> Properties:
    """Return the properties of the empty answer to a question."""
    headers: dict[str, HeaderValue] = {
        names.FRAME: _WANTED,
        names.WANTED: int(is_wanted),
        names.SENT_MS: _now_ms(),
    }
    return Properties(headers=headers, correlation_id=correlation_id)


def decode_wanted(delivery: Delivery) -> Wanted | None:
    """Return what an answer to a question says; None when it is none."""
    headers = delivery.properties.headers
    is_wanted, sent_s = headers.get(names.WANTED), _sent_s(headers)
    if is_wanted not in (0, 1) or sent_s is None:
        return None
    return Wanted(is_wanted == 1, sent_s)


def decode_reply(delivery: Delivery) -> Outcome | Started:
    """Return what a reply says; raises the ``LambdaApiError`` it relays, or ``UnreadableReply``."""
    headers = delivery.properties.headers
    if headers.get(names.FRAME) == _STARTED:
        within_ms = headers.get(names.ANSWERED_WITHIN_MS)
        within_s = within_ms / 1000 if isinstance(within_ms, int) else 0.0
        within_s = min(max(within_s, 0.0), ANNOUNCED_MAX_S)
        return Started(within_s, headers.get(names.RUNNING) == 1)
    code = _text(headers.get(names.ERROR_CODE))
    if code is not None:
        status = headers.get(names.STATUS)
        raise error_from_wire(code, status if isinstance(status, int) else 0, delivery.body)
    if delivery.body_size > RESPONSE_PAYLOAD_BYTES:
        raise UnreadableReply(f"The function's instance replied {delivery.body_size} bytes.")
    return relayed_outcome(
        delivery.body,
        has_failed=bool(headers.get(names.FUNCTION_ERROR)),
        executed_version=_text(headers.get(names.EXECUTED_VERSION)),
        log_result=_text(headers.get(names.LOG_RESULT)),
    )


class ReplyAddress(NamedTuple):
    """Where a reply goes."""

    queue: str
    node: bytes | None  #: of a direct address: the node of the broker it belongs to


@functools.lru_cache(maxsize=4096)
def parse_reply_to(reply_to: str | None) -> ReplyAddress | None:
    """Return where a call's reply goes. None: there is no ``reply_to``, or it is malformed.

    If a client publishes to a malformed direct reply-to address, RabbitMQ closes the client's
    connection. So an address has to look like those that RabbitMQ makes.
    """
    if not reply_to:
        return None
    if not reply_to.startswith(DIRECT_REPLY_TO):
        return ReplyAddress(reply_to, None)
    pid, _, key = reply_to.removeprefix(f"{DIRECT_REPLY_TO}.").partition(".")
    try:
        node = _node_of(base64.b64decode(pid, validate=True))
    except ValueError:
        return None
    return ReplyAddress(reply_to, node) if node is not None and key else None


def _node_of(term: bytes) -> bytes | None:
    """Return the node of an Erlang process id as RabbitMQ writes it: ``reply@HASH``.

    Source: RabbitMQ, pid_recomposition; Erlang external term format, NEW_PID_EXT.
    """
    if term[:3] in (b"\x83Xd", b"\x83Xv"):  # the node is an atom with a length of two bytes
        start, size = 5, int.from_bytes(term[3:5], "big")
    elif term[:3] == b"\x83Xw":  # of one byte
        start, size = 4, int.from_bytes(term[3:4], "big")
    else:
        return None
    node = term[start : start + size]
    if len(term) != start + size + 12 or not _REPLY_NODE.fullmatch(node):
        return None
    return node


def _reply(correlation_id: str | None, headers: dict[str, HeaderValue]) -> Properties:
    return Properties(
        content_type="application/json", headers=headers, correlation_id=correlation_id
    )


def _credit(headers: Mapping[str, HeaderValue]) -> int | None:
    credit = headers.get(names.CREDIT)
    return credit if isinstance(credit, int) and credit > 0 else None


def _text(value: str | int | None) -> str | None:
    return value if isinstance(value, str) else None


def _now_ms() -> int:
    return int(time.monotonic() * 1000)


def _sent_s(headers: Mapping[str, HeaderValue]) -> float | None:
    sent_ms = headers.get(names.SENT_MS)
    return sent_ms / 1000 if isinstance(sent_ms, int) else None
