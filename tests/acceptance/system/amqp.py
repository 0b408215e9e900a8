"""A plain AMQP-RPC client and a look at queues, as a user of the broker has them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, NamedTuple, Self

import pika
import pika.exceptions
import pika.spec

from tests.support import LIMIT_S

#: The pseudo-queue of RabbitMQ's direct reply-to.
DIRECT_REPLY_TO = "amq.rabbitmq.reply-to"
#: What rapid declares its function's queue with, when it is told nothing else.
QUEUE_ARGUMENTS: Mapping[str, Any] = {"x-queue-type": "classic", "x-expires": 1_800_000}


class Reply(NamedTuple):
    """What came back."""

    properties: pika.BasicProperties
    body: bytes

    @property
    def headers(self) -> Mapping[str, Any]:
        """The reply's headers, empty when it has none."""
        return self.properties.headers or {}


class AmqpClient:
    """One connection, one channel, one queue for replies. One thread."""

    def __init__(self, uri: str, *, direct: bool = False) -> None:
        """``direct`` takes replies by direct reply-to instead of a queue of its own."""
        # The stubs take a limit for whole seconds and every count for missing.
        self.connection: Any = pika.BlockingConnection(pika.URLParameters(uri))
        self.channel: Any = self.connection.channel()
        self.replies: list[Reply] = []
        if direct:
            self.reply_to = DIRECT_REPLY_TO
        else:
            declared = self.channel.queue_declare("", exclusive=True)
            self.reply_to = str(declared.method.queue)
        self.channel.basic_consume(self.reply_to, self._on_reply, auto_ack=True)

    def publish(
        self, queue: str, body: bytes = b"{}", properties: pika.BasicProperties | None = None
    ) -> None:
        """Publish to a queue; without ``properties`` a call that nobody waits for."""
        self.channel.basic_publish("", queue, body, properties)

    def call(
        self,
        queue: str,
        body: bytes = b"{}",
        *,
        headers: Mapping[str, Any] | None = None,
        correlation_id: str = "of-the-caller",
    ) -> Reply:
        """Publish a call and return the next reply."""
        properties = pika.BasicProperties(
            reply_to=self.reply_to,
            correlation_id=correlation_id,
            headers=None if headers is None else dict(headers),
        )
        self.publish(queue, body, properties)
        return self.next_reply()

    def next_reply(self, limit_s: float = LIMIT_S) -> Reply:
        """Wait for the next reply."""
        deadline = time.monotonic() + limit_s
        while not self.replies:
            if time.monotonic() > deadline:
                raise AssertionError(f"no reply within {limit_s:g} s")
            self.connection.process_data_events(0.1)
        return self.replies.pop(0)

    def collect(self, for_s: float) -> list[Reply]:
        """Return every reply that comes within ``for_s``."""
        deadline = time.monotonic() + for_s
        while (left := deadline - time.monotonic()) > 0:
            self.connection.process_data_events(left)
        replies, self.replies = self.replies, []
        return replies

    def declare(self, queue: str) -> None:
        """Declare a function's queue as rapid does."""
        self.channel.queue_declare(queue, durable=True, arguments=dict(QUEUE_ARGUMENTS))

    def delete(self, queue: str) -> None:
        """Delete a queue."""
        self.channel.queue_delete(queue)

    def waiting(self, queue: str) -> int:
        """Return how many messages the queue holds that nobody has."""
        return int(self.channel.queue_declare(queue, passive=True).method.message_count)

    def consumers(self, queue: str) -> int:
        """Return how many consume from the queue."""
        return int(self.channel.queue_declare(queue, passive=True).method.consumer_count)

    def close(self) -> None:
        """Close the connection, whatever has become of it."""
        with contextlib.suppress(pika.exceptions.AMQPError, OSError):
            self.connection.close()

    def _on_reply(
        self, _channel: Any, _method: Any, properties: pika.BasicProperties, body: bytes
    ) -> None:
        self.replies.append(Reply(properties, body))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
