"""Publishes messages with publisher confirms: RabbitMQ says of each whether it has it."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from lambda_protocol.amqp_connection import AmqpConnection, Channel
from lambda_protocol.amqp_frames import Properties, publish_pieces
from lambda_protocol.amqp_stream import NotSentError

#: How long the broker may take to confirm a message, seconds.
CONFIRM_LIMIT_S: Final = 30.0
#: How long RabbitMQ may take to confirm what it read before an alarm began, seconds.
CONFIRM_IN_ALARM_S: Final = 2.0


class Confirm(StrEnum):
    """What became of a message."""

    TAKEN = "taken"  #: routed to a queue and, if persistent, on disk
    RETURNED = "returned"  #: routed to no queue
    REFUSED = "refused"  #: by the queue
    NOT_SENT = "not sent"  #: the connection was gone before the first byte
    LOST = "lost"  #: the connection ended, and RabbitMQ may have the message


#: Gets what became of a message, once.
OnConfirm = Callable[[Confirm], None]


@dataclass(slots=True)
class _Pending:
    routing_key: str
    correlation_id: str | None
    on_confirm: OnConfirm
    sent_at: float
    is_returned: bool = False


class ConfirmedPublisher:
    """A channel in confirm mode. One thread: the connection's owner.

    Every message's ``on_confirm`` is called once. Source: RabbitMQ documentation, "Publisher
    Confirms": a message that goes to no queue is returned first, and confirmed then.
    """

    def __init__(self, connection: AmqpConnection, channel: Channel) -> None:
        """Put ``channel``, on which nothing was published yet, into confirm mode."""
        self.channel = channel
        self._connection = connection
        self._number = channel.channel_number
        self._tags = itertools.count(1)
        self._pending: dict[int, _Pending] = {}  # by tag; the oldest first
        channel.add_on_return_callback(self._on_return)
        connection.call(channel, "confirm_delivery", ack_nack_callback=self._on_confirm)

    @property
    def pending(self) -> int:
        """How many messages the broker has not confirmed yet."""
        return len(self._pending)

    def publish(
        self,
        exchange: str,
        routing_key: str,
        properties: Properties,
        body: bytes,
        on_confirm: OnConfirm,
    ) -> None:
        """Publish a message; ``on_confirm`` also hears that the connection is gone."""
        frames = publish_pieces(
            self._number,
            routing_key,
            properties,
            body,
            frame_max=self._connection.frame_max,
            mandatory=True,
            exchange=exchange,
        )
        tag = next(self._tags)
        self._pending[tag] = _Pending(
            routing_key, properties.correlation_id, on_confirm, time.monotonic()
        )
        try:
            self._connection.send(frames)
        except OSError as error:
            self._pending.pop(tag)
            on_confirm(Confirm.NOT_SENT if isinstance(error, NotSentError) else Confirm.LOST)

    def is_overdue(self) -> bool:
        """Whether the broker owes a confirm for too long."""
        oldest = next(iter(self._pending.values()), None)
        return oldest is not None and time.monotonic() - oldest.sent_at > CONFIRM_LIMIT_S

    def restart_clock(self) -> None:
        """Count from now on: RabbitMQ had an alarm, and read nothing until now."""
        for message in self._pending.values():
            message.sent_at = time.monotonic()

    def fail(self) -> None:
        """Call every ``on_confirm`` that still waits: the connection is gone."""
        pending, self._pending = self._pending, {}
        for message in pending.values():
            message.on_confirm(Confirm.LOST)

    def _on_return(self, _channel: Any, method: Any, properties: Any, _body: bytes) -> None:
        for message in self._pending.values():
            if (message.routing_key, message.correlation_id) == (
                method.routing_key,
                properties.correlation_id,
            ):
                message.is_returned = True

    def _on_confirm(self, frame: Any) -> None:
        tag, is_ack = int(frame.method.delivery_tag), frame.method.NAME == "Basic.Ack"
        tags = [t for t in self._pending if t <= tag] if frame.method.multiple else [tag]
        for confirmed in tags:
            message = self._pending.pop(confirmed, None)
            if message is not None and message.is_returned:
                message.on_confirm(Confirm.RETURNED)
            elif message is not None:
                message.on_confirm(Confirm.TAKEN if is_ack else Confirm.REFUSED)
