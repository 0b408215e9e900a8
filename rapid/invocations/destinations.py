"""Destinations of asynchronous invocations: a function, a queue, an exchange or an HTTP address."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from lambda_protocol.address import Address
from lambda_protocol.environ import ConfigError
from lambda_protocol.errors import LambdaApiError
from lambda_protocol.function_name import FunctionRef, parse_function_name
from lambda_protocol.invocation import Invocation, InvocationType, new_request_id

EXPECTED: Final = "expected function:NAME, queue:NAME, exchange:NAME/ROUTING_KEY or http(s)://..."


@dataclass(frozen=True, slots=True)
class FunctionDestination:
    """Another function, invoked asynchronously with the record."""

    function: FunctionRef


@dataclass(frozen=True, slots=True)
class AmqpDestination:
    """A message; the default exchange, "", takes it to the queue of that name."""

    exchange: str
    routing_key: str


@dataclass(frozen=True, slots=True)
class HttpDestination:
    """An address that the record is posted to."""

    url: str


Destination = FunctionDestination | AmqpDestination | HttpDestination

#: Gets whether a delivery has succeeded, once, from any thread.
OnDelivered = Callable[[bool], None]
#: Posts a record to an HTTP destination, soon.
SendByHttp = Callable[[HttpDestination, bytes, OnDelivered], None]


def parse_destination(name: str, text: str, own: FunctionRef) -> Destination:
    """Return the destination that the setting ``name`` has; raises ``ConfigError``.

    A function cannot be its own destination: its failures would never end.
    Source: API_PutFunctionEventInvokeConfig.
    """
    scheme, colon, rest = text.partition(":")
    # The value may hold a password, so it is never shown.
    if scheme == "queue" and rest:
        return AmqpDestination("", rest)
    if scheme == "exchange" and rest:
        exchange, _, routing_key = rest.partition("/")
        return AmqpDestination(exchange, routing_key)
    if scheme in ("http", "https"):
        try:
            Address.of_url(text)
        except ValueError:
            raise ConfigError(f"{name} is no URL with a host and port; {EXPECTED}") from None
        return HttpDestination(text)
    if colon and scheme in ("function", "arn"):
        try:
            function = parse_function_name(text, region=own.region, account_id=own.account_id)
        except LambdaApiError as error:
            raise ConfigError(f"{name}: {error.message}") from None
        if function.name == own.name:
            raise ConfigError(f"{name} is the function itself; expected another one")
        return FunctionDestination(function)
    raise ConfigError(f"{name} begins with {scheme[:20]!r}; {EXPECTED}")


def record_invocation(record: bytes, function: FunctionRef, cause: Invocation) -> Invocation:
    """Return the invocation of a function that is the destination of ``cause``."""
    return Invocation(
        request_id=new_request_id(),
        function=function,
        payload=record,
        type=InvocationType.EVENT,
        trace_id=cause.trace_id,
    )
