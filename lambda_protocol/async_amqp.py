"""An asynchronous invocation on its way through RabbitMQ: its properties and headers.

It waits in the queue ``F.events`` until an instance of the function ``F`` takes it. If it cannot be
run, it ends in the queue ``F.dead``. Headers carry the number of the attempt and the time of
acceptance, so any instance can go on with it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

from lambda_protocol import headers as names
from lambda_protocol.amqp_frames import PERSISTENT, Delivery, HeaderValue, Properties
from lambda_protocol.clock import now_ms
from lambda_protocol.function_name import FunctionRef
from lambda_protocol.invocation import AsyncInvocation, InvocationType
from lambda_protocol.invoke_amqp import call_headers, decode_call
from lambda_protocol.limits import ASYNC_PAYLOAD_BYTES, EVENT_AGE_MAX_S


def encode_async(async_invocation: AsyncInvocation) -> Properties:
    """Return the properties of an asynchronous invocation on its way to a function."""
    age_s = async_invocation.age_s(now_ms())
    return Properties(
        content_type="application/json",
        headers=_headers(async_invocation),
        delivery_mode=PERSISTENT,
        correlation_id=async_invocation.invocation.request_id,
        expiration=str(max(1, int((EVENT_AGE_MAX_S - age_s) * 1000))),
        timestamp=int(time.time()),
    )


def decode_async(
    delivery: Delivery, function: FunctionRef, *, check_payload: bool = False
) -> AsyncInvocation:
    """Return the asynchronous invocation in ``delivery``.

    Raises ``LambdaApiError`` for a message that no function could run. A message of another client,
    without our headers, counts as accepted now.
    """
    headers = delivery.properties.headers
    invocation = decode_call(
        delivery,
        function,
        check_payload=check_payload,
        max_payload_bytes=ASYNC_PAYLOAD_BYTES,
    ).invocation
    async_invocation = AsyncInvocation.accepted(
        replace(invocation, type=InvocationType.EVENT, wants_log_tail=False)
    )
    return replace(
        async_invocation,
        first_queued_ms=_number(headers, names.FIRST_QUEUED_MS, async_invocation.first_queued_ms),
        attempt=_number(headers, names.ATTEMPT, 1),
        backoffs=_number(headers, names.BACKOFFS, 0),
    )


def encode_dead_letter(async_invocation: AsyncInvocation, error_message: str) -> Properties:
    """Return the properties of a dead letter, whose body is the asynchronous invocation's payload.

    Source: Lambda developer guide, "Dead-letter queues": the first KB of the message.
    """
    headers = _headers(async_invocation) | {
        names.DEAD_REQUEST_ID: async_invocation.invocation.request_id,
        names.DEAD_ERROR_CODE: 200,
        names.DEAD_ERROR_MESSAGE: error_message.encode(errors="replace")[:1024].decode(
            errors="ignore"
        ),
    }
    return Properties(
        content_type="application/json",
        headers=headers,
        delivery_mode=PERSISTENT,
        correlation_id=async_invocation.invocation.request_id,
        timestamp=int(time.time()),
    )


def _headers(async_invocation: AsyncInvocation) -> dict[str, HeaderValue]:
    headers = call_headers(async_invocation.invocation)
    headers[names.FIRST_QUEUED_MS] = async_invocation.first_queued_ms
    headers[names.ATTEMPT] = async_invocation.attempt
    if async_invocation.backoffs:
        headers[names.BACKOFFS] = async_invocation.backoffs
    return headers


def _number(headers: Mapping[str, HeaderValue], name: str, default: int) -> int:
    value = headers.get(name)
    return value if isinstance(value, int) and 0 <= value < 1 << 62 else default
