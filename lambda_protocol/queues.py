"""The queues and exchanges of a function in RabbitMQ: their names, and how they are declared.

All are durable. RabbitMQ refuses a declaration with other arguments than the first one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from lambda_protocol.function_name import FunctionRef

if TYPE_CHECKING:
    from lambda_protocol.amqp_connection import AmqpConnection, Channel

#: The topic exchange of announcements. The routing key is the function's name.
ANNOUNCEMENTS: Final = "lambda.functions"
#: How often a rapid announces its function, seconds.
ANNOUNCE_EVERY_S: Final = 5.0
#: How many announcements wait for a Lambda Server at most. Of more RabbitMQ drops the oldest.
_WAITING_ANNOUNCEMENTS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue, as it is declared."""

    name: str
    arguments: dict[str, Any]
    auto_delete: bool = False

    @property
    def is_quorum(self) -> bool:
        """Whether it is replicated by Raft."""
        return bool(self.arguments["x-queue-type"] == "quorum")


def async_queue_name(function: FunctionRef) -> str:
    """Return the name of the queue of a function's asynchronous invocations."""
    return f"{function.queue_name}.events"


def dead_letter_queue_name(function: FunctionRef) -> str:
    """Return the name of the queue of invocations that could not be run."""
    return f"{function.queue_name}.dead"


def call_queue(function: FunctionRef, queue_type: str, expires_s: float | None) -> Queue:
    """Return the queue of a function's calls.

    It ends ``expires_s`` after its last consumer; None: with it.
    """
    arguments: dict[str, Any] = {"x-queue-type": queue_type}
    if expires_s is not None:
        arguments["x-expires"] = int(expires_s * 1000)
    return Queue(function.queue_name, arguments, auto_delete=expires_s is None)


def async_queue(function: FunctionRef, queue_type: str) -> Queue:
    """Return the queue of a function's asynchronous invocations.

    It does not expire: RabbitMQ would delete it with what is in it. Whatever the broker itself
    takes out (too old, or delivered too often: RabbitMQ 4 stops after 20 times) goes to the
    dead letters. Source: RabbitMQ documentation, "Queue TTL", "Dead Letter Exchanges".
    """
    arguments = _dead_lettering(queue_type, dead_letter_queue_name(function))
    return Queue(async_queue_name(function), arguments)


def dead_letter_queue(function: FunctionRef, queue_type: str) -> Queue:
    """Return the queue of invocations that could not be run.

    ``lambda-server dead list`` reads dead letters and requeues them. RabbitMQ 4 drops a message
    of a quorum queue that was requeued 20 times. ``x-delivery-limit`` sets another number.
    """
    arguments: dict[str, Any] = {"x-queue-type": queue_type}
    if queue_type == "quorum":
        arguments["x-delivery-limit"] = 1_000_000
    return Queue(dead_letter_queue_name(function), arguments)


def delay_queue(delay_s: float, queue_type: str) -> Queue:
    """Return the queue that brings a message back after ``delay_s``.

    It is bound to a fanout exchange of its name. Its messages expire into the default exchange with
    the routing key that they came with: all functions share it, and no plugin is needed.
    """
    delay_ms = max(1, int(delay_s * 1000))
    # The two types of queue cannot share a name.
    name = f"lambda.retry.{delay_ms}" + ("" if queue_type == "quorum" else f".{queue_type}")
    return Queue(name, _dead_lettering(queue_type, None) | {"x-message-ttl": delay_ms})


def declare(connection: AmqpConnection, channel: Channel, queue: Queue) -> None:
    """Declare ``queue``. The connection's thread; raises one of ``BrokerLost``."""
    connection.call(
        channel,
        "queue_declare",
        queue=queue.name,
        durable=True,
        auto_delete=queue.auto_delete,
        arguments=queue.arguments,
    )


def declare_delay(connection: AmqpConnection, channel: Channel, queue: Queue) -> None:
    """Declare a delay queue and its exchange; see :func:`declare`."""
    name = queue.name
    connection.call(
        channel, "exchange_declare", exchange=name, exchange_type="fanout", durable=True
    )
    declare(connection, channel, queue)
    connection.call(channel, "queue_bind", queue=name, exchange=name)


def declare_announcements(connection: AmqpConnection, channel: Channel) -> None:
    """Declare the exchange of announcements; see :func:`declare`."""
    connection.call(
        channel, "exchange_declare", exchange=ANNOUNCEMENTS, exchange_type="topic", durable=True
    )


def subscribe_to_announcements(connection: AmqpConnection, channel: Channel) -> str:
    """Declare a queue of this connection alone that gets every announcement; return its name."""
    declare_announcements(connection, channel)
    answer = connection.call(
        channel,
        "queue_declare",
        queue="",
        exclusive=True,
        arguments={"x-max-length": _WAITING_ANNOUNCEMENTS},
    )
    queue = str(answer.method.queue)
    connection.call(channel, "queue_bind", queue=queue, exchange=ANNOUNCEMENTS, routing_key="#")
    return queue


def _dead_lettering(queue_type: str, routing_key: str | None) -> dict[str, Any]:
    """Return the arguments of a queue that hands on what expires, by the default exchange.

    ``routing_key`` None keeps the message's own. A quorum queue keeps a message until its
    successor has it. Source: RabbitMQ documentation, "At-Least-Once Dead Lettering".
    """
    arguments: dict[str, Any] = {"x-queue-type": queue_type, "x-dead-letter-exchange": ""}
    if routing_key is not None:
        arguments["x-dead-letter-routing-key"] = routing_key
    if queue_type == "quorum":
        arguments["x-dead-letter-strategy"] = "at-least-once"
        arguments["x-overflow"] = "reject-publish"  # which that strategy asks for
    return arguments
