"""What goes between the programs, for both codecs: each of them writes it and reads it again."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Any

import pytest

from lambda_protocol.amqp_frames import Delivery, Properties
from lambda_protocol.errors import ServiceUnavailable, TooManyRequestsException
from lambda_protocol.function_name import FunctionRef
from lambda_protocol.invocation import Outcome
from tests.support import make_invocation


def delivered(properties: Properties, body: bytes = b"{}", **changes: Any) -> Delivery:
    """Return the message as a consumer gets it."""
    plain = Delivery(
        channel=1,
        delivery_tag=1,
        redelivered=False,
        routing_key="echo",
        properties=properties,
        body=body,
        body_size=len(body),
    )
    return replace(plain, **changes)


CONTEXT = base64.b64encode(b'{"custom":{"k":"v"}}').decode()
FUNCTION = FunctionRef(name="echo", region="eu-west-1", account_id="111122223333")
QUALIFIED = FunctionRef(
    name="echo", qualifier="$LATEST", region="eu-west-1", account_id="111122223333"
)

CALLS = [
    pytest.param(make_invocation(function=FUNCTION, trace_id="Root=1-5;  weird=~"), id="plain"),
    pytest.param(make_invocation(function=FUNCTION, wants_log_tail=True), id="tail"),
    pytest.param(make_invocation(function=FUNCTION, client_context=CONTEXT), id="client-context"),
    pytest.param(make_invocation(function=FUNCTION, tenant_id="a.b:/=+-@ 9_"), id="tenant"),
    pytest.param(make_invocation(function=QUALIFIED), id="qualifier"),
]
OUTCOMES = [
    pytest.param(Outcome(payload=b"1"), id="plain"),
    pytest.param(Outcome(payload=b"", executed_version="12"), id="empty"),
    pytest.param(Outcome(payload=b"{}", function_error="Unhandled"), id="failure"),
    pytest.param(Outcome(payload=b"{}", log_tail=b"\x00\xff\n"), id="tail"),
    pytest.param(Outcome(payload=b"{}", log_tail=b""), id="empty-tail"),
]
ERRORS = [TooManyRequestsException("Slow down."), ServiceUnavailable("Away.")]
