"""Carries out what follows an attempt of an asynchronous invocation, by RabbitMQ.

A message is acknowledged only when its invocation needs no further attempt, or when RabbitMQ has
confirmed what follows: the next attempt, a record for a destination, or a dead letter.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from lambda_protocol.amqp_connection import BrokerLost
from lambda_protocol.amqp_frames import PERSISTENT, Delivery, Properties
from lambda_protocol.async_amqp import encode_async, encode_dead_letter
from lambda_protocol.confirmed_publisher import Confirm
from lambda_protocol.errors import LambdaApiError
from lambda_protocol.invocation import AsyncInvocation, Invocation, Outcome
from lambda_protocol.limits import ASYNC_PAYLOAD_BYTES
from lambda_protocol.queues import async_queue_name
from rapid.broker.async_channel import AsyncChannel
from rapid.broker.commands import Commands
from rapid.invocations.attempts import Attempt
from rapid.invocations.destinations import (
    AmqpDestination,
    Destination,
    FunctionDestination,
    HttpDestination,
    OnDelivered,
    SendByHttp,
    record_invocation,
)
from rapid.invocations.retry_policy import Condition, Retry, error_message
from rapid.metrics import Metrics

logger = logging.getLogger(__name__)


class AsyncCall(Attempt):
    """An attempt, with what the acknowledgement of its message needs."""

    __slots__ = ("channel", "delivery", "key")

    def __init__(
        self,
        channel: AsyncChannel,
        delivery: Delivery,
        async_invocation: AsyncInvocation,
        *,
        key: int,
        on_outcome: Callable[[AsyncCall, Outcome | LambdaApiError], None],
    ) -> None:
        """``key`` tells the attempt from others."""
        self.channel = channel
        self.delivery = delivery
        self.key = key
        super().__init__(async_invocation, lambda outcome: on_outcome(self, outcome))


class AsyncTransport:
    """The transport of attempts. One thread, amqp-consumer, but for what says otherwise."""

    def __init__(
        self,
        *,
        queue: str,
        dead_letters: str,
        queue_type: str,
        commands: Commands,
        metrics: Metrics,
        send_by_http: SendByHttp,
    ) -> None:
        """Attempts come from ``queue``; delays are queues of ``queue_type``."""
        self._queue = queue
        self._dead_letters = dead_letters
        self._queue_type = queue_type
        self._commands = commands
        self._metrics = metrics
        self._send_by_http = send_by_http

    def retry(self, attempt: AsyncCall, step: Retry) -> None:
        """Publish the next attempt to the exchange that delays it, then acknowledge this one."""
        exchange = attempt.channel.retry_exchange(step.delay_s, self._queue_type)
        properties = encode_async(step.async_invocation)
        self.publish(attempt, exchange, self._queue, properties, attempt.invocation.payload)

    def send_record(
        self,
        attempt: AsyncCall,
        destination: Destination,
        record: bytes,
        on_delivered: OnDelivered,
    ) -> None:
        """Deliver a record by HTTP, or publish it."""
        channel = attempt.channel
        match destination:
            case HttpDestination():

                def on_posted(is_delivered: bool) -> None:
                    self.defer(channel, attempt.delivery, lambda: on_delivered(is_delivered))

                self._send_by_http(destination, record, on_posted)
            case FunctionDestination() if len(record) > ASYNC_PAYLOAD_BYTES:
                on_delivered(False)
            case FunctionDestination(function):
                invocation = record_invocation(record, function, attempt.invocation)
                properties = encode_async(AsyncInvocation.accepted(invocation))
                channel.publisher.publish(
                    "",
                    async_queue_name(function),
                    properties,
                    record,
                    lambda confirm: on_delivered(confirm is Confirm.TAKEN),
                )
            case AmqpDestination(exchange, routing_key):
                if channel.has_exchange(exchange):
                    properties = _record_properties(attempt.invocation)
                    channel.publish_record(
                        exchange,
                        routing_key,
                        properties,
                        record,
                        lambda confirm: on_delivered(confirm is Confirm.TAKEN),
                    )
                else:
                    on_delivered(False)

    def dead_letter(
        self, attempt: AsyncCall, condition: Condition, outcome: Outcome | None
    ) -> None:
        """Publish the payload to the dead-letter queue, then acknowledge the message."""
        if not attempt.channel.is_lost:
            self.publish_dead_letter(attempt, error_message(condition, outcome))

    def finish(self, attempt: AsyncCall) -> None:
        """Acknowledge the message. Any thread."""
        attempt.channel.acknowledge(attempt.delivery)

    def publish_dead_letter(self, call: AsyncCall, message: str) -> None:
        """Publish an invocation to the dead-letter queue, then acknowledge its message."""
        self._metrics.on_dead_letter()
        properties = encode_dead_letter(call.async_invocation, message)
        self.publish(call, "", self._dead_letters, properties, call.invocation.payload)

    def publish(
        self,
        call: AsyncCall,
        exchange: str,
        routing_key: str,
        properties: Properties,
        body: bytes,
    ) -> None:
        """Publish what follows an attempt; acknowledge its message when RabbitMQ has confirmed."""

        def on_confirm(confirm: Confirm) -> None:
            if confirm is Confirm.TAKEN:
                self.finish(call)
            elif not call.channel.is_lost:
                # Nothing is lost: the message is not acknowledged, so it comes again.
                call.channel.lose(f"the broker took no message for {exchange or routing_key}")

        call.channel.publisher.publish(exchange, routing_key, properties, body, on_confirm)

    def defer(self, channel: AsyncChannel, delivery: Delivery, action: Callable[[], None]) -> None:
        """Have the consumer's thread do something with one message. Any thread."""
        self._commands.defer(lambda: self.attend(channel, delivery, action))

    def attend(self, channel: AsyncChannel, delivery: Delivery, action: Callable[[], None]) -> None:
        """Do something with one message; a fault of ours makes it a dead letter, and no more.

        RabbitMQ itself moves the message then, so that nothing of it has to be read or written.
        """
        try:
            action()
        except BrokerLost:
            raise
        except Exception:
            correlation_id = delivery.properties.correlation_id
            logger.exception(
                "asynchronous invocation failed", extra={"correlation_id": correlation_id}
            )
            self._metrics.on_dead_letter()
            channel.reject(delivery)


def _record_properties(cause: Invocation) -> Properties:
    return Properties(
        content_type="application/json",
        delivery_mode=PERSISTENT,
        correlation_id=cause.request_id,
        timestamp=int(time.time()),
    )
