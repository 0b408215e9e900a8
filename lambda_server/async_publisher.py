"""Publishes asynchronous invocations, and waits until RabbitMQ has confirmed each."""

from __future__ import annotations

import time
from collections import deque
from typing import Final

from lambda_protocol.amqp_connection import AmqpConnection, Channel
from lambda_protocol.amqp_frames import Properties
from lambda_protocol.amqp_stream import NotSentError
from lambda_protocol.async_amqp import encode_async
from lambda_protocol.confirmed_publisher import (
    CONFIRM_IN_ALARM_S,
    Confirm,
    ConfirmedPublisher,
    OnConfirm,
)
from lambda_protocol.errors import ServiceException, ServiceUnavailable
from lambda_protocol.function_name import FunctionRef, function_not_found
from lambda_protocol.invocation import AsyncInvocation, Invocation
from lambda_protocol.queues import async_queue_name
from lambda_server.link import Link
from lambda_server.queue_state import LOOK_AROUND_S, Queues, unreachable
from lambda_server.reply_channel import Waiter

#: Of so many channels that are used no more some may have confirms to come, from the oldest on.
_REPLACED: Final = 8


class AsyncPublisher:
    """A channel in confirm mode, opened on use. As thread-safe as its link."""

    def __init__(self, link: Link, queues: Queues, *, queue_timeout_s: float) -> None:
        """Open nothing yet."""
        self._link = link
        self._queues = queues
        self._queue_timeout_s = queue_timeout_s
        self._last: ConfirmedPublisher | None = None  # these two: the connection's owner
        self._replaced: deque[Channel] = deque()
        link.on_lost(self._fail)

    def publish(self, invocation: Invocation) -> None:
        """Publish an Event and wait for the broker's confirm; raises ``LambdaApiError``.

        404 when the function has no call queue, as for a call. RabbitMQ is asked for it first: an
        event in the socket of a broker that reads nothing would run long after it was refused.
        """
        function, queue = invocation.function, async_queue_name(invocation.function)
        self._link.probe()  # without it RabbitMQ answers in an alarm, too
        if not self._queues.ask(function.queue_name).exists:
            raise function_not_found(function)
        # If the call queue is on a node that is down, the async queue may still be reached.
        confirms: list[Confirm] = []
        waiter = Waiter()

        def on_confirm(confirm: Confirm) -> None:
            confirms.append(confirm)
            waiter.wake()

        properties = encode_async(AsyncInvocation.accepted(invocation))
        publisher = self._link.run(
            lambda connection: self._publish(
                connection, queue, properties, invocation.payload, on_confirm
            )
        )
        match self._await_confirm(publisher, function, waiter, confirms):
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
        self,
        publisher: ConfirmedPublisher,
        function: FunctionRef,
        waiter: Waiter,
        confirms: list[Confirm],
    ) -> Confirm:
        sent_at = time.monotonic()
        queue = async_queue_name(function)
        while not confirms:
            waited_s = time.monotonic() - sent_at
            is_blocked = self._link.blocked_reason is not None
            if waited_s >= (CONFIRM_IN_ALARM_S if is_blocked else self._queue_timeout_s):
                if not is_blocked:
                    self._replace(publisher)
                raise ServiceException(
                    "RabbitMQ did not confirm the invocation in time; it may have it."
                )
            if waited_s >= LOOK_AROUND_S and not is_blocked and self._queues.is_unreachable(queue):
                self._replace(publisher)
                raise unreachable(function)
            self._link.wait(waiter, min(self._queue_timeout_s - waited_s, LOOK_AROUND_S))
        return confirms[0]

    def _replace(self, publisher: ConfirmedPublisher) -> None:
        """Use another channel from now on; see :meth:`Link.discard`."""
        self._link.run(lambda _connection: self._forget(publisher))

    # --- the connection's owner

    def _publish(
        self,
        connection: AmqpConnection,
        queue: str,
        properties: Properties,
        body: bytes,
        on_confirm: OnConfirm,
    ) -> ConfirmedPublisher:
        if self._last is None or not self._last.channel.is_open:
            channel = connection.open_channel()
            self._last = publisher = ConfirmedPublisher(connection, channel)
            channel.add_on_close_callback(lambda *_: publisher.fail())
        self._last.publish("", queue, properties, body, on_confirm)
        return self._last

    def _forget(self, publisher: ConfirmedPublisher) -> None:
        """Publish nothing more by a channel; others may still wait for its confirms."""
        if self._last is not publisher:
            return
        self._last = None
        self._replaced.append(publisher.channel)
        while self._replaced and (len(self._replaced) > _REPLACED or not publisher.pending):
            channel = self._replaced.popleft()
            if channel.is_open:
                channel.close()

    def _fail(self) -> None:
        if self._last is not None:
            self._last.fail()
