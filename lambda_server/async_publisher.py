"""Publishes asynchronous invocations, and waits until RabbitMQ has confirmed each."""

from __future__ import annotations

import time
from collections.abc import Callable

from lambda_protocol.amqp_connection import (
    AmqpConnection,
    Channel,
    ChannelClosed,
    ChannelClosedByBroker,
    is_missing,
)
from lambda_protocol.amqp_stream import NotSentError
from lambda_protocol.async_amqp import encode_async
from lambda_protocol.confirmed_publisher import CONFIRM_IN_ALARM_S, Confirm, ConfirmedPublisher
from lambda_protocol.errors import ServiceException, ServiceUnavailable
from lambda_protocol.function_name import FunctionRef, function_not_found
from lambda_protocol.invocation import AsyncInvocation, Invocation
from lambda_protocol.queues import async_queue_name
from lambda_server.queue_state import LOOK_AROUND_S, Queues, unreachable


class AsyncPublisher:
    """A channel in confirm mode, opened on use. One thread: the connection's owner."""

    def __init__(
        self,
        connection: AmqpConnection,
        queues: Queues,
        *,
        probe: Callable[[], None],
        queue_timeout_s: float,
    ) -> None:
        """Open nothing yet; ``probe`` has RabbitMQ say soon whether it has an alarm."""
        self._connection = connection
        self._queues = queues
        self._probe = probe
        self._queue_timeout_s = queue_timeout_s
        self._last: ConfirmedPublisher | None = None
        self._closed_by: Exception | None = None  # why the last channel was

    def publish(self, invocation: Invocation) -> None:
        """Publish an Event and wait for the broker's confirm; raises ``LambdaApiError``.

        404 when the function has no call queue, as for a call. RabbitMQ is asked for it first: an
        event in the socket of a broker that reads nothing would run long after it was refused.
        """
        function, queue = invocation.function, async_queue_name(invocation.function)
        channel = self._publisher().channel
        try:
            self._probe()  # without it RabbitMQ answers in an alarm, too
            self._connection.call(channel, "queue_declare", queue=function.queue_name, passive=True)
        except ChannelClosedByBroker as error:
            if is_missing(error):
                raise function_not_found(function) from error
            # The call queue is on a node that is down, say. The async queue may be reached.
        confirms: list[Confirm] = []
        publisher = self._publisher()
        publisher.publish(
            "",
            queue,
            encode_async(AsyncInvocation.accepted(invocation)),
            invocation.payload,
            confirms.append,
        )
        match self._await_confirm(publisher, function, confirms):
            case Confirm.NOT_SENT:
                raise NotSentError("the broker connection is closed")
            case Confirm.LOST:
                raise ConnectionError("the broker connection was lost")
            case Confirm.RETURNED if self._queues.ask(queue).fault is not None:
                raise unreachable(function)
            case Confirm.RETURNED:
                raise ServiceUnavailable(
                    f"The function {function.name} takes no asynchronous invocations: "
                    f"its queue {queue} does not exist."
                )
            case Confirm.REFUSED:
                raise ServiceUnavailable("The broker refused the invocation.")

    def _await_confirm(
        self, publisher: ConfirmedPublisher, function: FunctionRef, confirms: list[Confirm]
    ) -> Confirm:
        sent_at = time.monotonic()
        channel = publisher.channel
        while not confirms:
            waited_s = time.monotonic() - sent_at
            is_blocked = self._connection.blocked_reason is not None
            if waited_s >= (CONFIRM_IN_ALARM_S if is_blocked else self._queue_timeout_s):
                if not is_blocked:
                    channel.close()  # see RpcClient._discard
                raise ServiceException(
                    "RabbitMQ did not confirm the invocation in time; it may have it."
                )
            queue = async_queue_name(function)
            if waited_s >= LOOK_AROUND_S and not is_blocked and self._queues.is_unreachable(queue):
                channel.close()
                raise unreachable(function)
            self._connection.poll(min(self._queue_timeout_s - waited_s, LOOK_AROUND_S))
            if channel.is_closed:
                raise self._closed_by or ChannelClosed(0, "the async channel was closed")
        return confirms[0]

    def _publisher(self) -> ConfirmedPublisher:
        if self._last is None or not self._last.channel.is_open:
            channel = self._connection.open_channel()
            channel.add_on_close_callback(self._on_closed)
            self._last = ConfirmedPublisher(self._connection, channel)
        return self._last

    def _on_closed(self, _channel: Channel, reason: Exception) -> None:
        self._closed_by = reason
