#!/usr/bin/env python3
"""Calls a function over RabbitMQ by plain AMQP-RPC, with no Lambda Server between.

    amqp_rpc.py [--timeout SECONDS] [FUNCTION [PAYLOAD [AMQP_URI]]]

Prints the answer, and on standard error the headers that came with it. Exit status: 0 the function
answered, 1 it failed, 2 the call failed.
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import sys
import time
import uuid
from dataclasses import dataclass

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import AMQPError, UnroutableError
from pika.spec import Basic, BasicProperties

FUNCTION_FAILED = 1
CALL_FAILED = 2

#: A name that stands for no queue: the broker hands the reply straight to the channel that called.
#: Source: RabbitMQ documentation, "Direct Reply-to".
REPLY_TO = "amq.rabbitmq.reply-to"


class CallFailed(Exception):
    """The function gave no answer; the message says why."""


@dataclass(frozen=True)
class Reply:
    """What came back: the payload alone, and everything else in headers."""

    payload: bytes
    headers: dict[str, object]

    @property
    def status(self) -> int:
        """The HTTP status that a Lambda Server would answer with."""
        return int(str(self.headers.get("X-Lambda-Status", 200)))

    @property
    def function_error(self) -> object | None:
        """``Unhandled`` when the function failed, else None."""
        return self.headers.get("X-Amz-Function-Error")


def call(amqp_uri: str, function_name: str, payload: bytes, timeout_s: float) -> Reply:
    """Publish to the queue with the function's name and wait for the reply.

    Raises ``CallFailed``, and ``AMQPError`` or ``OSError`` when the broker is not there or is lost.
    """
    with pika.BlockingConnection(pika.URLParameters(amqp_uri)) as connection:
        return _call(connection, function_name, payload, timeout_s)


def _call(
    connection: pika.BlockingConnection, function_name: str, payload: bytes, timeout_s: float
) -> Reply:
    deadline = time.monotonic() + timeout_s
    correlation_id = str(uuid.uuid4())
    replies: list[Reply] = []

    def on_reply(
        _channel: BlockingChannel, _method: Basic.Deliver, found: BasicProperties, body: bytes
    ) -> None:
        if found.correlation_id == correlation_id:
            replies.append(Reply(body, dict(found.headers or {})))

    channel = connection.channel()
    # Before the call: direct replies need a consumer that is already there.
    channel.basic_consume(REPLY_TO, on_reply, auto_ack=True)
    # With confirms pika waits until the broker has the call, and raises when it gave it back.
    channel.confirm_delivery()
    properties = BasicProperties(
        content_type="application/json",
        reply_to=REPLY_TO,
        correlation_id=correlation_id,
        # A call that still waits when nobody waits for its answer is dropped, not run.
        expiration=str(int(timeout_s * 1000)),
    )
    try:
        channel.basic_publish("", function_name, payload, properties, mandatory=True)
    except UnroutableError:
        raise CallFailed(f"unknown function: the broker has no queue {function_name}") from None
    while not replies:
        left = deadline - time.monotonic()
        if left <= 0:
            raise CallFailed(f"{function_name} did not answer within {timeout_s:g} s")
        connection.process_data_events(math.ceil(left))
    return replies[0]


def main() -> int:
    """Make one call as the command line says; return the exit status."""
    parser = argparse.ArgumentParser(description="Call a function over RabbitMQ.")
    parser.add_argument("function", nargs="?", default="echo-lambda")
    parser.add_argument("payload", nargs="?", default='{"hello": "world"}')
    parser.add_argument(
        "amqp_uri",
        nargs="?",
        default=os.environ.get("AMQP_URI") or "amqp://guest:guest@127.0.0.1",
        help="the broker; without it the variable AMQP_URI",
    )
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds (%(default)g)")
    wish = parser.parse_args()
    logging.getLogger("pika").setLevel(logging.CRITICAL)  # it logs what it raises, too
    try:
        reply = call(wish.amqp_uri, wish.function, wish.payload.encode(), wish.timeout)
    except CallFailed as error:
        print(error, file=sys.stderr)
        return CALL_FAILED
    except (AMQPError, OSError) as error:
        print(f"the broker cannot be reached or was lost: {error!r}", file=sys.stderr)
        return CALL_FAILED
    sys.stdout.buffer.write(reply.payload + b"\n")
    for name, value in sorted(reply.headers.items()):
        print(f"{name}: {value}", file=sys.stderr)
    if reply.status >= 300:
        return CALL_FAILED
    return 0 if reply.function_error is None else FUNCTION_FAILED


if __name__ == "__main__":
    sys.exit(main())
