"""The queues and exchanges of ``memory_broker``: what waits in them, who consumes, what expires.

One thread, the broker's, for everything.
"""

from __future__ import annotations

import asyncio
import copy
import secrets
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from pika.spec import BasicProperties

NOT_IMPLEMENTED: Final = 540
_NOT_FOUND: Final = 404
_RESOURCE_LOCKED: Final = 405
_PRECONDITION_FAILED: Final = 406

#: The arguments of a queue, which a second declaration has to repeat. The last four have no effect
#: here: queues have no replicas, no maximum, and no limit of deliveries.
_ARGUMENTS: Final = (
    *("x-dead-letter-exchange", "x-dead-letter-routing-key", "x-expires", "x-message-ttl"),
    *("x-queue-type", "x-dead-letter-strategy", "x-delivery-limit", "x-overflow", "x-max-length"),
)


class Refused(Exception):
    """A method is refused, and closes its channel."""

    def __init__(self, code: int, text: str) -> None:
        """Keep the reply code and the reply text."""
        super().__init__(text)
        self.code, self.text = code, text


def require(condition: bool, text: str) -> None:
    """Raise ``Refused`` with PRECONDITION_FAILED, unless ``condition`` holds."""
    if not condition:
        raise Refused(_PRECONDITION_FAILED, f"PRECONDITION_FAILED - {text}")


@dataclass(slots=True, eq=False)
class Message:
    """A message in the broker."""

    exchange: str
    routing_key: str
    properties: BasicProperties
    body: bytes
    is_redelivered: bool = False
    expires_at: float | None = None  #: on the clock of ``MemoryQueues``


@dataclass(slots=True, eq=False)
class Consumer:
    """A consumer of a queue, or of direct replies."""

    queue: Queue | None
    deliver: Callable[[Message], None]
    end: Callable[[], None]  #: called when the queue is deleted
    prefetch: int  #: 0: any number
    unacknowledged: int = 0

    @property
    def has_room(self) -> bool:
        """Whether another message may be delivered."""
        return not self.prefetch or self.unacknowledged < self.prefetch


@dataclass(slots=True, eq=False)
class Queue:
    """A queue."""

    name: str
    is_durable: bool
    is_auto_delete: bool
    owner: object | None  #: the connection that has the queue for itself
    arguments: dict[str, Any]
    unused_since: float = 0.0  #: when it had a consumer, or was used, last
    messages: deque[Message] = field(default_factory=deque)
    consumers: deque[Consumer] = field(default_factory=deque)  #: the next one first


@dataclass(slots=True)
class _Exchange:
    kind: str
    bindings: set[tuple[str, str]] = field(default_factory=set)  # routing key, queue

    def routes(self, bound: str, key: str) -> bool:
        """Whether a message with ``key`` goes to a queue that is bound by ``bound``."""
        return self.kind == "fanout" or bound == key or (self.kind == "topic" and bound == "#")


class MemoryQueues:
    """All queues and exchanges."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Time passes as in ``loop``, and by :meth:`advance`."""
        self.alarm: str | None = None  #: why nothing is read from clients that publish
        self.reply_consumers: dict[str, Consumer] = {}  #: by their address
        self._loop = loop
        self._ahead_s = 0.0
        self._queues: dict[str, Queue] = {}
        self._exchanges: dict[str, _Exchange] = {}

    # --- time

    def advance(self, seconds: float) -> None:
        """Move the clock forward."""
        self._ahead_s += seconds
        self.pump()

    def pump(self) -> None:
        """Let expire what is due, and deliver what consumers have room for."""
        now = self._now()
        for queue in list(self._queues.values()):
            if queue.consumers:
                queue.unused_since = now
            expires_ms = queue.arguments.get("x-expires")
            if expires_ms is not None and queue.unused_since + expires_ms / 1000 <= now:
                self._end(queue)
        has_moved = True
        while has_moved:  # a message that has expired may be due in its next queue
            has_moved = any([self._expire(queue, now) for queue in list(self._queues.values())])
        for queue in self._queues.values():
            _deliver(queue)

    def _expire(self, queue: Queue, now: float) -> bool:
        """Dead-letter what has expired: of messages only the first one can, as in RabbitMQ."""
        before = len(queue.messages)
        while queue.messages and (at := queue.messages[0].expires_at) is not None and at <= now:
            self.dead_letter(queue, queue.messages.popleft())
        return len(queue.messages) != before

    def _now(self) -> float:
        return self._loop.time() + self._ahead_s

    def _pump_in(self, delay_ms: float) -> None:
        self._loop.call_later((delay_ms + 1) / 1000, self.pump)  # the loop may be early by 1 ms

    # --- messages

    def publish(self, message: Message) -> bool:
        """Route a message; return whether a queue took it."""
        key = message.routing_key
        if not message.exchange and key in self.reply_consumers:
            self.reply_consumers[key].deliver(message)
            return True
        if not message.exchange:
            names = {key} & self._queues.keys()
        else:
            exchange = self._exchange(message.exchange)
            names = {name for bound, name in exchange.bindings if exchange.routes(bound, key)}
        for name in names:
            self._put(self._queues[name], copy.copy(message))
        return bool(names)

    def _put(self, queue: Queue, message: Message) -> None:
        limits_ms = (message.properties.expiration, queue.arguments.get("x-message-ttl"))
        given_ms = [int(limit) for limit in limits_ms if limit is not None]
        if given_ms:
            message.expires_at = self._now() + min(given_ms) / 1000
            self._pump_in(min(given_ms))
        queue.messages.append(message)

    def dead_letter(self, queue: Queue, message: Message) -> None:
        """Bring a message to the dead-letter exchange of ``queue``, if there is one."""
        exchange = queue.arguments.get("x-dead-letter-exchange")
        if exchange is None or (exchange and exchange not in self._exchanges):
            return
        key = queue.arguments.get("x-dead-letter-routing-key", message.routing_key)
        properties = copy.copy(message.properties)
        properties.expiration = None  # else the message would expire in the next queue, too
        self.publish(Message(exchange, key, properties, message.body))

    # --- queues

    def waiting(self, name: str) -> int | None:
        """Return how many messages wait in a queue; None if there is no such queue."""
        self.pump()
        return len(self._queues[name].messages) if name in self._queues else None

    def find(self, name: str, connection: object) -> Queue:
        """Return a queue for use by ``connection``. Raises ``Refused``."""
        queue = self._queues.get(name)
        if queue is None:
            raise Refused(_NOT_FOUND, f"NOT_FOUND - no queue '{name}' in vhost '/'")
        if queue.owner not in (None, connection):
            text = f"cannot obtain exclusive access to locked queue '{name}' in vhost '/'"
            raise Refused(_RESOURCE_LOCKED, f"RESOURCE_LOCKED - {text}")
        queue.unused_since = self._now()
        return queue

    def declare(self, method: Any, *, owner: object) -> Queue:
        """Return the queue that a ``Queue.Declare`` names, and make it if it is not there."""
        name = method.queue or f"amq.gen-{secrets.token_urlsafe(16)}"
        if method.passive:
            return self.find(name, owner)
        arguments = dict(method.arguments or {})
        if unknown := arguments.keys() - set(_ARGUMENTS):
            raise Refused(NOT_IMPLEMENTED, f"NOT_IMPLEMENTED - {sorted(unknown)}")
        exclusive_to = owner if method.exclusive else None
        wanted = Queue(name, method.durable, method.auto_delete, exclusive_to, arguments)
        if name in self._queues:
            queue = self.find(name, owner)
            _require_equal(queue, wanted)
            return queue
        self._queues[name] = wanted
        self._start_expiry(wanted)
        return wanted

    def cancel(self, consumer: Consumer) -> None:
        """End a consumer, and the queue that ends with it."""
        queue = consumer.queue
        if queue is not None:
            queue.consumers.remove(consumer)
            if queue.is_auto_delete and not queue.consumers:
                self._end(queue)
            self._start_expiry(queue)

    def _start_expiry(self, queue: Queue) -> None:
        queue.unused_since = self._now()
        if "x-expires" in queue.arguments:
            self._pump_in(queue.arguments["x-expires"])

    def delete(self, name: str, connection: object) -> int:
        """Delete a queue, if it is there; return how many messages were in it."""
        return self._end(self.find(name, connection)) if name in self._queues else 0

    def delete_exclusive(self, owner: object) -> None:
        """Delete the queues that ``owner`` had for itself."""
        for queue in [queue for queue in self._queues.values() if queue.owner is owner]:
            self._end(queue)

    def _end(self, queue: Queue) -> int:
        del self._queues[queue.name]
        for exchange in self._exchanges.values():
            exchange.bindings = {each for each in exchange.bindings if each[1] != queue.name}
        for consumer in queue.consumers:
            consumer.end()
        queue.consumers.clear()
        return len(queue.messages)

    # --- exchanges

    def declare_exchange(self, method: Any) -> None:
        """Make the exchange that an ``Exchange.Declare`` names, unless it is there."""
        name, kind = method.exchange, method.type
        if method.passive:
            self._exchange(name)
        elif kind not in ("direct", "fanout", "topic"):
            raise Refused(NOT_IMPLEMENTED, f"NOT_IMPLEMENTED - an exchange of type '{kind}'")
        else:
            found = self._exchanges.setdefault(name, _Exchange(kind)).kind
            _require_same("type", "exchange", name, found, kind)

    def bind(self, queue: Queue, exchange: str, routing_key: str) -> None:
        """Let messages of ``exchange`` come to ``queue``."""
        found = self._exchange(exchange)
        is_pattern = found.kind == "topic" and {"*", "#"} & set(routing_key.split("."))
        if is_pattern and routing_key != "#":
            raise Refused(NOT_IMPLEMENTED, f"NOT_IMPLEMENTED - the pattern '{routing_key}'")
        found.bindings.add((routing_key, queue.name))

    def _exchange(self, name: str) -> _Exchange:
        if name not in self._exchanges:
            raise Refused(_NOT_FOUND, f"NOT_FOUND - no exchange '{name}' in vhost '/'")
        return self._exchanges[name]


def _deliver(queue: Queue) -> None:
    """Give one message to each consumer in turn, while one has room."""
    while queue.messages:
        consumer = next((each for each in queue.consumers if each.has_room), None)
        if consumer is None:
            return
        queue.consumers.remove(consumer)
        queue.consumers.append(consumer)
        consumer.deliver(queue.messages.popleft())


def _require_equal(queue: Queue, wanted: Queue) -> None:
    _require_same("durable", "queue", queue.name, queue.is_durable, wanted.is_durable)
    _require_same("auto_delete", "queue", queue.name, queue.is_auto_delete, wanted.is_auto_delete)
    for name in _ARGUMENTS:
        found = queue.arguments.get(name)
        _require_same(name, "queue", queue.name, found, wanted.arguments.get(name))


def _require_same(argument: str, kind: str, name: str, found: object, given: object) -> None:
    text = f"received '{given}' but current is '{found}'"
    require(
        found == given, f"inequivalent arg '{argument}' for {kind} '{name}' in vhost '/': {text}"
    )
