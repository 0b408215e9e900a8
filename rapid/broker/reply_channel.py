"""The AMQP channel of replies: sends a reply and the acknowledgement of its call in one write.

A direct reply-to address names a process on a node of RabbitMQ. If that node is down, RabbitMQ
closes the connection of the client that publishes to the address, and all calls in hand are lost.
RabbitMQ 3.10 does so, and a caller's node may die while its call runs. So rapid sends the first
reply to a node over a connection of its own. If it arrives, the others go over the usual one.
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from lambda_protocol import queues
from lambda_protocol.amqp_connection import (
    AmqpConnection,
    BrokerLost,
    Channel,
    ChannelClosed,
    ChannelClosedByBroker,
    Parameters,
)
from lambda_protocol.amqp_frames import Delivery, Piece, Properties, publish_pieces
from lambda_protocol.invoke_amqp import ReplyAddress, encode_question, parse_reply_to
from lambda_protocol.queues import Queue
from rapid.broker.prefetch import QueueConsumer

logger = logging.getLogger(__name__)

#: How soon a reply that could not be sent is tried again, seconds.
LATE_REPLY_S: Final = 1.0


class ReplyChannel:
    """A connection and its channel. Thread-safe, but for what says otherwise.

    What is sent after the connection is lost is dropped.
    """

    def __init__(
        self,
        parameters: Parameters,
        connection: AmqpConnection,
        channel: Channel,
        consumer: QueueConsumer,
        defer: Callable[[Callable[[], None]], None],
        explain: Callable[[Exception], dict[str, object]],
    ) -> None:
        """``defer`` runs something soon in the consumer's thread, one after the other.

        Not while RabbitMQ reads nothing. ``explain`` returns what the log says of an error.
        """
        self.connection = connection
        self.channel = channel
        self.consumer = consumer
        self.explain = explain
        self.lost_by: Exception | None = None
        self._parameters = parameters
        self.defer = defer
        self._nodes: set[bytes] = set()  # of the broker, that a reply has reached
        self._backlog: deque[bytes | list[Piece]] = deque()  # of an alarm
        self._late: list[Callable[[], None]] = []  # replies; the consumer's thread
        self._late_at = math.inf  # when they are tried again, monotonic seconds
        self._number = channel.channel_number
        self._frame_max = connection.frame_max

    def lose(self, reason: Exception | str) -> None:
        """Note that the connection is of no more use."""
        self.lost_by = reason if isinstance(reason, Exception) else ChannelClosed(0, reason)

    def declare(self, channel: Channel, queue: Queue, *, settings: str) -> None:
        """Declare a queue; ``settings`` are those that decide how. The consumer's thread.

        Raises one of ``BrokerLost``, with a note that names the settings.
        """
        try:
            queues.declare(self.connection, channel, queue)
        except ChannelClosedByBroker as error:
            error.add_note(f"set by {settings}")
            raise

    def reply(
        self, delivery: Delivery, reply_to: str | None, properties: Properties, body: bytes
    ) -> None:
        """Send the reply, if the call has a reply address, and acknowledge the call."""
        address = parse_reply_to(reply_to)
        ack = self.consumer.acknowledge(delivery)
        if address is None:
            self._send(ack)
        elif self._is_reached(address):
            self._send([*self._encode(address.queue, properties, body), ack])
        else:
            self.defer(lambda: self._reply_aside(address, properties, body, ack))

    def send_started(self, reply_to: str | None, properties: Properties) -> None:
        """Send the frame that says the call takes long."""
        address = parse_reply_to(reply_to)
        if address is None:
            return
        if self._is_reached(address):
            self._send(self._encode(address.queue, properties, b""))
        else:
            self.defer(lambda: self._reply_aside(address, properties, b"", b""))

    def reach(self, address: ReplyAddress, on_known: Callable[[bool], None]) -> None:
        """Find out whether frames can be sent to ``address``, and tell that once.

        Now, or soon in the consumer's thread.
        """
        if self._is_reached(address):
            on_known(True)
            return

        def reach() -> None:
            nothing = replace(encode_question(None), reply_to=None)  # not to be answered
            self._reply_aside(address, nothing, b"", b"")
            on_known(self._is_reached(address))

        self.defer(reach)

    def send_frame(
        self,
        channel: int,
        address: ReplyAddress,
        properties: Properties,
        body: bytes,
        *,
        last_of: Delivery | None = None,
    ) -> None:
        """Send a frame to an address that was reached; the last one acknowledges its call."""
        frames = self._encode(address.queue, properties, body, channel)
        if last_of is not None:
            frames.append(self.consumer.acknowledge(last_of))
        self._send(frames)

    def drop(self, delivery: Delivery) -> None:
        """Acknowledge a call without a reply."""
        self._send(self.consumer.acknowledge(delivery))

    def hand_back(self, delivery: Delivery, queue: str) -> None:
        """Put a call at the end of its queue as a fresh message."""
        frames = self._encode(queue, delivery.properties, delivery.body)
        self._send([*frames, self.consumer.acknowledge(delivery)])

    @property
    def poll_limit_s(self) -> float:
        """When :meth:`send_late` has something to do. The consumer's thread."""
        return max(0.0, self._late_at - time.monotonic())

    def send_late(self) -> None:
        """Try again to send replies that could not be sent. The consumer's thread."""
        if time.monotonic() >= self._late_at:
            late, self._late, self._late_at = self._late, [], math.inf
            for send in late:
                send()

    def _is_reached(self, address: ReplyAddress) -> bool:
        return address.node is None or address.node in self._nodes

    def _reply_aside(
        self, address: ReplyAddress, properties: Properties, body: bytes, ack: bytes
    ) -> None:
        """Reply over a connection that may be lost; one thread, the consumer's.

        Without such a connection the reply cannot be sent, so the call is not acknowledged.
        """
        assert address.node is not None
        if address.node in self._nodes:  # reached since
            self._send([*self._encode(address.queue, properties, body), ack])
            return
        try:
            aside = AmqpConnection(self._parameters, lambda _delivery: None)
        except BrokerLost as error:
            logger.warning("reply not sent; trying again", extra=self.explain(error))
            if ack:
                self._late.append(lambda: self._reply_aside(address, properties, body, ack))
                self._late_at = time.monotonic() + LATE_REPLY_S
            return
        try:
            channel = aside.open_channel()
            aside.send(self._encode(address.queue, properties, body, channel.channel_number))
            aside.call(channel, "basic_qos")  # answered only if the reply was survived
            self._nodes.add(address.node)
        except BrokerLost as error:
            logger.warning("reply dropped: its caller is gone", extra=self.explain(error))
        finally:
            aside.shut_down()
        self._send(ack)

    def _encode(
        self, queue: str, properties: Properties, body: bytes, channel: int | None = None
    ) -> list[Piece]:
        number = self._number if channel is None else channel
        return publish_pieces(number, queue, properties, body, frame_max=self._frame_max)

    def _send(self, frames: bytes | list[Piece]) -> None:
        if not frames:
            return
        if self.connection.blocked_reason is not None or self._backlog:
            # RabbitMQ would not read them, and a full socket holds up the thread that writes. After
            # an alarm they keep their order: frames of one response follow each other.
            self._backlog.append(frames)
            self.defer(self._send_backlog)
        else:
            self._send_now(frames)

    def _send_backlog(self) -> None:
        while self._backlog and self.connection.blocked_reason is None:
            self._send_now(self._backlog[0])
            self._backlog.popleft()  # only now: what comes meanwhile stays behind it

    def _send_now(self, frames: bytes | list[Piece]) -> None:
        try:
            self.connection.send(frames)
        except OSError as error:
            logger.warning("reply dropped: the broker is gone", extra={"error": repr(error)})
            self.lose(error)
