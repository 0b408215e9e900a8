"""A RabbitMQ consumer whose prefetch count can change without messages being redelivered.

RabbitMQ gives a consumer its prefetch once: another one takes a new consumer. A quorum queue then
takes back what was on its way to the old one and delivers it as redelivered, as if an instance had
died with it. So its consumer is cancelled when as much is here as the prefetch allows: then nothing
is on its way. A wider consumer is of no use before that; for a narrower one acknowledgements are
withheld until it is so. In a queue where little comes that could take long; there the cancel waits
for a pause, and a message that enters in that very millisecond may be taken back.
"""

from __future__ import annotations

import math
import threading
import time
from typing import Any, Final

from lambda_protocol.amqp_connection import AmqpConnection, Channel
from lambda_protocol.amqp_frames import Delivery, encode_ack, encode_reject
from lambda_protocol.queues import Queue

#: A queue from which nothing has come for this long has a pause, seconds: longer than a busy
#: broker or a busy machine holds its breath.
PAUSE_S: Final = 1.0
#: How long acknowledgements are withheld, seconds: at least, for what was sent just before to come,
#: and at most. A stop waits for a consumer that closes; any other has time.
CLOSE_S: Final = (0.05, 2.0)
NARROW_S: Final = (1.0, 10.0)
#: How long a quorum queue may take to accept a consumer, seconds. RabbitMQ 4.0 that has just
#: started never answers who asks before the queue has a leader; a new connection is answered.
QUORUM_CONSUME_S: Final = 5.0
#: What a queue takes back in spite of that comes again within this, seconds.
RETURN_S: Final = 1.0

#: Work that may take longer than this needs more than RabbitMQ's 30 minutes, seconds.
_LONG_S: Final = 1500.0
#: What comes on top of the longest work before a message is acknowledged, seconds.
_MARGIN_S: Final = 300.0


def consumer_arguments(longest_s: float) -> dict[str, Any]:
    """Return the arguments of a consumer whose messages may take so long to be done with.

    If a message is not acknowledged for 30 minutes, RabbitMQ up to 4.2 closes the channel, and 4.3
    cancels the consumer: all that is in hand is lost with it. A consumer may ask for another time,
    since 3.12; before, only ``consumer_timeout`` of rabbitmq.conf changes it.
    Source: RabbitMQ documentation, "Delivery Acknowledgement Timeout".
    """
    if longest_s <= _LONG_S:
        return {}
    return {"x-consumer-timeout": int((longest_s + _MARGIN_S) * 1000)}


class QueueConsumer:
    """The consumer of one queue. One thread, amqp-consumer, but for what says otherwise."""

    def __init__(
        self,
        connection: AmqpConnection,
        channel: Channel,
        queue: Queue,
        *,
        longest_s: float,
    ) -> None:
        """Consume nothing yet; ``longest_s`` is how long a message may take to be done with.

        If the queue is auto-delete, one consumer takes over from the other: without any the queue
        would end, and what waits in it.
        """
        self._connection = connection
        self._channel = channel
        self._queue = queue.name
        self._takes_back = queue.is_quorum
        self._is_auto_delete = queue.auto_delete
        self._arguments = consumer_arguments(longest_s)
        self._tag: str | None = None
        self._prefetch = 0
        self._withhold_s = CLOSE_S
        self._cancelled_at = float("-inf")
        self._last_delivery_at = float("-inf")
        self._opened_at = float("-inf")  # when a prefetch that was used up was so no longer
        self.quiet_s = 0.0  #: how long RabbitMQ could send a message, and did not, before the last
        self._last_delivery_tag = 0
        self._lock = threading.Lock()
        # guarded by _lock; but what only this thread changes it may read without:
        self._first_delivery_tag = 1  # that this consumer can have
        self._unacknowledged = 0  # of this consumer
        self._withheld: list[tuple[Delivery, bytes]] = []  # done with, and not yet said
        self._withholds_since: float | None = None

    @property
    def is_closed(self) -> bool:
        """Whether the queue is not consumed."""
        return self._tag is None

    @property
    def may_get_back(self) -> bool:
        """Whether a redelivered message may have never arrived here before."""
        return time.monotonic() - self._cancelled_at < RETURN_S

    @property
    def poll_limit_s(self) -> float:
        """How long a change that is under way may be left alone."""
        since = self._withholds_since
        return 3600.0 if since is None else max(0.0, self._cancels_at(since) - time.monotonic())

    def on_delivery(self, delivery: Delivery) -> None:
        """Count a message in."""
        now = time.monotonic()
        self.quiet_s = now - max(self._last_delivery_at, self._opened_at)
        self._last_delivery_at = now
        self._last_delivery_tag = delivery.delivery_tag
        with self._lock:
            self._unacknowledged += 1

    def acknowledge(self, delivery: Delivery) -> bytes:
        """Count a message out, and return what has to be sent for that. Any thread."""
        return self._count_out(delivery, encode_ack(delivery.channel, delivery.delivery_tag))

    def reject(self, delivery: Delivery) -> bytes:
        """The same for a message that its queue is to dead-letter. Any thread."""
        return self._count_out(delivery, encode_reject(delivery.channel, delivery.delivery_tag))

    def set_prefetch(self, prefetch: int) -> None:
        """Consume with this prefetch, as soon as that is safe; none means not at all.

        To be called again after :attr:`poll_limit_s`, and after each message that came.
        """
        self._withhold_s = NARROW_S if prefetch else CLOSE_S
        if prefetch >= self._prefetch:
            self._send_withheld()
        if prefetch == self._prefetch:
            return
        old = self._tag
        is_wider = prefetch > self._prefetch
        if old is not None and self._takes_back and not self._may_cancel(is_wider=is_wider):
            return
        if prefetch and self._is_auto_delete:
            self._consume(prefetch)
            self._cancel(old)
            return
        self._tag, self._prefetch = None, 0
        self._cancel(old)
        if prefetch:
            self._consume(prefetch)

    def _consume(self, prefetch: int) -> None:
        with self._lock:
            self._first_delivery_tag = self._last_delivery_tag + 1
            self._unacknowledged = 0
        self._prefetch = prefetch
        self._connection.call(self._channel, "basic_qos", prefetch_count=prefetch)
        self._opened_at = time.monotonic()
        self._tag = self._connection.consume(
            self._channel,
            self._queue,
            arguments=self._arguments,
            limit_s=QUORUM_CONSUME_S if self._takes_back else math.inf,
        )

    def _cancel(self, tag: str | None) -> None:
        if tag is None:
            return
        self._connection.call(self._channel, "basic_cancel", consumer_tag=tag)
        self._cancelled_at = time.monotonic()
        self._send_withheld()

    def _may_cancel(self, *, is_wider: bool) -> bool:
        """Return whether nothing is on its way; brings that about for a narrower consumer.

        From then on acknowledgements are withheld: one would have the next message sent.
        """
        now = time.monotonic()
        with self._lock:
            is_full = self._unacknowledged >= self._prefetch
            if self._withholds_since is None and (is_full or not is_wider):
                self._withholds_since = now
            if is_full:
                return True
            since = self._withholds_since
        return since is not None and now >= self._cancels_at(since)

    def _cancels_at(self, withholds_since: float) -> float:
        """Return when the consumer is taken for empty if it does not fill, monotonic seconds."""
        pause_s = self._last_delivery_at + PAUSE_S - withholds_since
        least_s, most_s = self._withhold_s
        return withholds_since + max(least_s, min(most_s, pause_s))

    def _send_withheld(self) -> None:
        if self._withholds_since is None:
            return
        with self._lock:
            self._withholds_since = None
            for delivery, _ in self._withheld:
                self._count_out_locked(delivery)
            frames = b"".join(frame for _, frame in self._withheld)
            self._withheld.clear()
        if frames:
            self._connection.send(frames)

    def _count_out(self, delivery: Delivery, frame: bytes) -> bytes:
        with self._lock:
            if self._withholds_since is not None:
                self._withheld.append((delivery, frame))
                return b""
            self._count_out_locked(delivery)
            return frame

    def _count_out_locked(self, delivery: Delivery) -> None:
        if self._unacknowledged >= self._prefetch:
            self._opened_at = time.monotonic()
        self._unacknowledged -= delivery.delivery_tag >= self._first_delivery_tag
