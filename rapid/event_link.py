"""One connection of the consumer, as events need it: a channel that is told what arrived."""

from __future__ import annotations

from lambda_protocol.amqp_connection import Channel, ChannelClosedByBroker
from lambda_protocol.amqp_frames import Delivery
from lambda_protocol.event_amqp import dead_lettering
from rapid.amqp_link import AmqpLink
from rapid.amqp_window import Window
from rapid.confirmed_publisher import ConfirmedPublisher


class EventLink:
    """A channel for events. One thread, amqp-consumer, but for what says otherwise."""

    def __init__(self, link: AmqpLink, channel: Channel, queue: str, *, queue_type: str) -> None:
        """Publish on ``channel``, which is fresh, and consume ``queue`` there."""
        self.lose = link.lose
        self.publisher = ConfirmedPublisher(link.connection, channel)
        self.window = Window(link.connection, channel, queue, queue_type=queue_type)
        self._connection = link.connection
        self._channel = channel
        self._retry_exchanges: set[str] = set()  # that are there
        self._exchanges = {""}  # of destinations, that are there

    def acknowledge(self, delivery: Delivery) -> None:
        """Tell the broker that a message is done with. Any thread."""
        frame = self.window.acknowledge(delivery)
        if not frame:
            return
        try:
            self._connection.send(frame)
        except OSError as error:
            self.lose(repr(error))

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

        A fanout exchange with one queue, whose messages expire into the default exchange with the
        routing key that they came with: all functions share it, and no plugin is needed.
        """
        delay_ms = max(1, int(delay_s * 1000))
        # The two types of queue cannot share a name.
        name = f"lambda.retry.{delay_ms}" + ("" if queue_type == "quorum" else f".{queue_type}")
        if name not in self._retry_exchanges:
            arguments = dead_lettering(queue_type, None) | {"x-message-ttl": delay_ms}
            call, channel = self._connection.call, self._channel
            call(channel, "exchange_declare", exchange=name, exchange_type="fanout", durable=True)
            call(channel, "queue_declare", queue=name, durable=True, arguments=arguments)
            call(channel, "queue_bind", queue=name, exchange=name)
            self._retry_exchanges.add(name)
        return name
