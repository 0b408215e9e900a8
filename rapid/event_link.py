"""One connection of the consumer, as events need it: a channel that is told what arrived."""

from __future__ import annotations

import time
from typing import Final

from lambda_protocol.amqp_connection import Channel, ChannelClosedByBroker
from lambda_protocol.amqp_frames import Delivery, encode_ack
from lambda_protocol.event_amqp import dead_lettering
from rapid.amqp_link import AmqpLink
from rapid.confirmed_publisher import ConfirmedPublisher

#: What a cancelled consumer gives back comes again within this, seconds.
_RETURN_S: Final = 1.0


class EventLink:
    """A channel for events. One thread, amqp-consumer, but for what says otherwise."""

    def __init__(self, link: AmqpLink, channel: Channel) -> None:
        """Publish and consume on ``channel``, which is fresh."""
        self.lose = link.lose
        self.publisher = ConfirmedPublisher(link.connection, channel)
        self._connection = link.connection
        self._channel = channel
        self._tag: str | None = None
        self._prefetch = 0
        self._cancelled_at = float("-inf")
        self._retry_exchanges: set[str] = set()  # that are there
        self._exchanges = {""}  # of destinations, that are there

    def consume(self, queue: str, prefetch: int) -> None:
        """Consume with this prefetch; none means not at all."""
        if prefetch == self._prefetch:
            return
        tag, self._tag, self._prefetch = self._tag, None, prefetch
        if tag is not None:
            self._connection.call(self._channel, "basic_cancel", consumer_tag=tag)
            self._cancelled_at = time.monotonic()
        if prefetch:
            self._connection.call(self._channel, "basic_qos", prefetch_count=prefetch)
            self._tag = self._connection.consume(self._channel, queue)

    @property
    def may_get_back(self) -> bool:
        """Whether a redelivered message may be one that never came here.

        A quorum queue takes back what is on its way to a consumer that is cancelled, and a change
        of the prefetch is a new consumer.
        """
        return time.monotonic() - self._cancelled_at < _RETURN_S

    def acknowledge(self, delivery: Delivery) -> None:
        """Tell the broker that a message is done with. Any thread."""
        try:
            self._connection.send(encode_ack(delivery.channel, delivery.delivery_tag))
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
