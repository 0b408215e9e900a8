"""The AMQP channel of asynchronous invocations: consumes them, and publishes with confirms."""

from __future__ import annotations

import logging

from lambda_protocol.amqp_connection import Channel, ChannelClosedByBroker
from lambda_protocol.amqp_frames import Delivery, Properties
from lambda_protocol.confirmed_publisher import ConfirmedPublisher, OnConfirm
from lambda_protocol.queues import Queue, declare_delay, delay_queue
from rapid.broker.prefetch import QueueConsumer
from rapid.broker.reply_channel import ReplyChannel

logger = logging.getLogger(__name__)


class AsyncChannel:
    """The channel. One thread, amqp-consumer, but for what says otherwise."""

    def __init__(
        self,
        reply_channel: ReplyChannel,
        channel: Channel,
        queue: Queue,
        *,
        longest_s: float,
    ) -> None:
        """Publish on ``channel``, which is fresh, and consume ``queue`` there."""
        self.is_lost = False  #: whether the connection is gone
        self.lose = reply_channel.lose
        self._explain = reply_channel.explain
        self._calls_channel = reply_channel.channel
        self.publisher = ConfirmedPublisher(reply_channel.connection, channel)
        self.consumer = QueueConsumer(reply_channel.connection, channel, queue, longest_s=longest_s)
        self._connection = reply_channel.connection
        self._channel = channel
        self._retry_exchanges: set[str] = set()  # that are there
        self._exchanges = {""}  # of destinations, that are there
        self._records: ConfirmedPublisher | None = None  # to exchanges of destinations

    @property
    def pending(self) -> int:
        """How many messages the broker has not confirmed yet."""
        return sum(publisher.pending for publisher in self._publishers)

    def is_overdue(self) -> bool:
        """Whether the broker owes a confirm for too long."""
        return any(publisher.is_overdue() for publisher in self._publishers)

    @property
    def blocked_reason(self) -> str | None:
        """Why RabbitMQ reads nothing now; None: it reads. Any thread."""
        return self._connection.blocked_reason

    def ask(self) -> None:
        """Return when RabbitMQ has taken a message, or has an alarm. Raises one of ``BrokerLost``.

        What is written before the answer would be read whenever RabbitMQ goes on.
        """
        # Not on the channel of asynchronous invocations: RabbitMQ would confirm what is published
        # to find out.
        self._connection.check_publishing(self._calls_channel)

    def restart_clock(self) -> None:
        """Count the time for confirms from now on."""
        for publisher in self._publishers:
            publisher.restart_clock()

    def fail(self) -> None:
        """Report to each publisher that waits for a confirm that the connection is gone.

        RabbitMQ has every message again that is not acknowledged.
        """
        self.is_lost = True
        for publisher in self._publishers:
            publisher.fail()

    def publish_record(
        self,
        exchange: str,
        routing_key: str,
        properties: Properties,
        record: bytes,
        on_confirm: OnConfirm,
    ) -> None:
        """Publish to the exchange of a destination, on a channel for such records alone.

        RabbitMQ closes the channel when it refuses one: without permission to write, for example.
        """
        if self._records is None:
            channel = self._connection.open_channel()
            self._records = ConfirmedPublisher(self._connection, channel)
            channel.add_on_close_callback(self._on_records_refused)
        self._records.publish(exchange, routing_key, properties, record, on_confirm)

    @property
    def _publishers(self) -> list[ConfirmedPublisher]:
        return [p for p in (self.publisher, self._records) if p is not None]

    def _on_records_refused(self, _channel: Channel, reason: Exception) -> None:
        records, self._records = self._records, None
        if isinstance(reason, ChannelClosedByBroker):
            logger.error("RabbitMQ refuses a record", extra=self._explain(reason))
        if records is not None:
            records.fail()

    def acknowledge(self, delivery: Delivery) -> None:
        """Tell the broker that a message is done with. Any thread."""
        self._send(self.consumer.acknowledge(delivery))

    def reject(self, delivery: Delivery) -> None:
        """Have the broker itself move a message to the dead letters, as it is. Any thread."""
        self._send(self.consumer.reject(delivery))

    def has_exchange(self, name: str) -> bool:
        """Return whether there is such an exchange: publishing to none closes the channel."""
        if name not in self._exchanges:
            channel = self._connection.open_channel()
            try:
                self._connection.call(channel, "exchange_declare", exchange=name, passive=True)
            except ChannelClosedByBroker:
                return False
            channel.close()
            self._exchanges.add(name)
        return True

    def retry_exchange(self, delay_s: float, queue_type: str) -> str:
        """Return the exchange that brings a message back after ``delay_s``; declares it.

        See :func:`delay_queue`.
        """
        queue = delay_queue(delay_s, queue_type)
        if queue.name not in self._retry_exchanges:
            declare_delay(self._connection, self._channel, queue)
            self._retry_exchanges.add(queue.name)
        return queue.name

    def _send(self, frame: bytes) -> None:
        if not frame:
            return
        try:
            self._connection.send(frame)
        except OSError as error:
            self.lose(error)
