"""A broker in memory, for tests: an invocation by AMQP needs no RabbitMQ then.

::

    with MemoryBroker() as broker:
        ...  # AMQP_URI=broker.uri for a rapid, a Lambda Server, or any AMQP client

``MemoryBroker`` does what RabbitMQ does with classic queues, as far as this project uses them. Any
other method is refused by NOT_IMPLEMENTED. Each queue is a classic one, and ends with the process.
A contract test runs the same operations against RabbitMQ. The programs do not import this module.
Source: AMQP 0-9-1 specification; RabbitMQ documentation, "Protocol Extensions".
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import secrets
import threading
from collections.abc import Callable
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from pika import frame, spec

from lambda_protocol.memory_queues import (
    NOT_IMPLEMENTED,
    Consumer,
    MemoryQueues,
    Message,
    Queue,
    Refused,
    require,
)

_Result = TypeVar("_Result")

_LOOPBACK: Final = "127.0.0.1"
_LOGIN: Final = b"\0guest\0guest"
_ACCESS_REFUSED: Final = 403
_NO_ROUTE: Final = 312
_REPLY_TO: Final = "amq.rabbitmq.reply-to"
#: How an Erlang process id of the node ``reply@1`` begins: NEW_PID_EXT, SMALL_ATOM_UTF8_EXT.
_REPLY_PID: Final = b"\x83Xw\x07reply@1"
_FRAME_MAX: Final = 131_072
_FRAME_OVERHEAD: Final = 8
_SHORT_MAX: Final = 255  # bytes of a short string
_CAPABILITIES: Final = (
    *("authentication_failure_close", "basic.nack", "connection.blocked"),
    *("consumer_cancel_notify", "per_consumer_qos", "publisher_confirms"),
)


class MemoryBroker:
    """The broker. It listens on a free port of 127.0.0.1. Thread-safe."""

    def __init__(self) -> None:
        """Listen. User and password are ``guest``."""
        self._loop = asyncio.new_event_loop()
        self._queues = MemoryQueues(self._loop)
        self._connections: set[_Connection] = set()
        self._server = self._loop.run_until_complete(
            self._loop.create_server(self._accept, _LOOPBACK, 0)
        )
        self._port = self._server.sockets[0].getsockname()[1]
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="memory-broker", daemon=True
        )
        self._thread.start()

    @property
    def uri(self) -> str:
        """The address, with user and password, for ``AMQP_URI``."""
        return f"amqp://guest:guest@{_LOOPBACK}:{self._port}/"

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return self._run(lambda: len(self._connections))

    def waiting(self, queue: str) -> int | None:
        """Return how many messages wait in ``queue`` for a consumer; None if there is no queue."""
        return self._run(lambda: self._queues.waiting(queue))

    def advance(self, seconds: float) -> None:
        """Move the clock of messages and queues forward: what is due expires."""
        self._run(lambda: self._queues.advance(seconds))

    def set_alarm(self, reason: str | None) -> None:
        """Read nothing more from each connection that publishes; None ends the alarm."""
        self._run(lambda: self._set_alarm(reason))

    def drop_connections(self) -> None:
        """Break every connection, as a network that is gone."""
        self._run(self._drop_connections)

    def close(self) -> None:
        """Break every connection, and listen no more. Idempotent."""
        if not self._loop.is_closed():
            self._run(self._server.close)
            self.drop_connections()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the broker."""
        self.close()

    def _run(self, action: Callable[[], _Result]) -> _Result:
        """Run ``action`` in the broker's thread, and return what it returns."""
        result: Future[_Result] = Future()
        self._loop.call_soon_threadsafe(lambda: result.set_result(action()))
        return result.result()

    def _accept(self) -> _Connection:
        return _Connection(self._loop, self._queues, self._connections)

    def _set_alarm(self, reason: str | None) -> None:
        self._queues.alarm = reason
        for connection in list(self._connections):
            connection.unblock()

    def _drop_connections(self) -> None:
        for connection in list(self._connections):
            connection.abort()


class _Connection(asyncio.Protocol):
    """A client's connection. Like all below it runs in the broker's thread."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        queues: MemoryQueues,
        connections: set[_Connection],
    ) -> None:
        self._loop = loop
        self.queues = queues
        self._connections = connections
        self._buffer = b""
        self._channels: dict[int, _Channel] = {}
        self._is_blocked = False
        self._heartbeat: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        if self._heartbeat is not None:
            self._heartbeat.cancel()
        for channel in self._channels.values():
            channel.end()
        self.queues.delete_exclusive(self)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while not self._is_blocked and not self._transport.is_closing():
            consumed, decoded = frame.decode_frame(self._buffer)
            self._buffer = self._buffer[consumed:]
            if decoded is None:
                return
            self._on_frame(decoded)

    def send(self, number: int, method: Any, message: Message | None = None) -> None:
        """Write a method, and the message that belongs to it."""
        frames = [frame.Method(number, method).marshal()]
        if message is not None:
            body, step = message.body, _FRAME_MAX - _FRAME_OVERHEAD
            frames.append(frame.Header(number, len(body), message.properties).marshal())
            for start in range(0, len(body), step):
                frames.append(frame.Body(number, body[start : start + step]).marshal())
        self._transport.write(b"".join(frames))

    def block(self, reason: str) -> None:
        """Read nothing more: there is an alarm, and the client publishes."""
        self._is_blocked = True
        self._transport.pause_reading()
        self.send(0, spec.Connection.Blocked(reason))

    def unblock(self) -> None:
        """Read on, unless there is an alarm."""
        if self._is_blocked and self.queues.alarm is None:
            self._is_blocked = False
            self.send(0, spec.Connection.Unblocked())
            self._transport.resume_reading()
            self.data_received(b"")

    def abort(self) -> None:
        """Break the connection."""
        self._transport.abort()

    def _on_frame(self, decoded: Any) -> None:
        if isinstance(decoded, frame.ProtocolHeader):
            properties = {"capabilities": dict.fromkeys(_CAPABILITIES, True)}
            self.send(0, spec.Connection.Start(server_properties=properties))
        elif isinstance(decoded, frame.Heartbeat):
            return
        elif decoded.channel_number == 0:
            self._on_method(decoded.method)
        else:
            self._on_channel_frame(decoded)

    def _on_method(self, method: Any) -> None:
        match method:
            case spec.Connection.StartOk() if method.response in (_LOGIN, _LOGIN.decode()):
                self.send(0, spec.Connection.Tune(2047, _FRAME_MAX, 0))
            case spec.Connection.StartOk():
                text = "ACCESS_REFUSED - Login was refused"
                self.send(0, spec.Connection.Close(_ACCESS_REFUSED, text, 0, 0))
            case spec.Connection.TuneOk():
                if method.heartbeat:
                    self._beat(method.heartbeat / 2)
            case spec.Connection.Open():
                self.send(0, spec.Connection.OpenOk())
            case spec.Connection.Close():
                self.send(0, spec.Connection.CloseOk())
                self._transport.close()
            case spec.Connection.CloseOk():
                self._transport.close()

    def _beat(self, interval_s: float) -> None:
        self._transport.write(frame.Heartbeat().marshal())
        self._heartbeat = self._loop.call_later(interval_s, self._beat, interval_s)

    def _on_channel_frame(self, decoded: Any) -> None:
        number = decoded.channel_number
        method = getattr(decoded, "method", None)
        if isinstance(method, spec.Channel.Open):
            self._channels[number] = _Channel(self, number)
            self.send(number, spec.Channel.OpenOk())
        elif isinstance(method, spec.Channel.Close):
            self._channels.pop(number).end()
            self.send(number, spec.Channel.CloseOk())
        elif number in self._channels:  # else it was closed by us, and the client did not know
            try:
                self._channels[number].on_frame(decoded, method)
            except Refused as refused:
                self._channels.pop(number).end()
                text = refused.text.encode()[:_SHORT_MAX].decode(errors="ignore")
                self.send(number, spec.Channel.Close(refused.code, text, 0, 0))
        self.queues.pump()


class _Channel:
    """A channel of a connection."""

    def __init__(self, connection: _Connection, number: int) -> None:
        self._connection = connection
        self._queues = connection.queues
        self._number = number
        self._prefetch = 0
        self._consumers: dict[str, Consumer] = {}
        self._unacknowledged: dict[int, tuple[Queue, Message, Consumer | None]] = {}  # by tag
        self._delivery_tags = itertools.count(1)
        self._publish_tags: itertools.count[int] | None = None  # in confirm mode
        self._reply_address = ""
        self._publish: Any = None  # the method of a message that comes, and its header
        self._header: Any = None
        self._body = b""

    def end(self) -> None:
        """Consume no more, and give back what is unacknowledged."""
        self._queues.reply_consumers.pop(self._reply_address, None)
        for consumer in self._consumers.values():
            self._queues.cancel(consumer)
        self._consumers.clear()
        self._give_back(list(self._unacknowledged))

    def on_frame(self, decoded: Any, method: Any) -> None:
        """Do what the client asks for. Raises ``Refused``."""
        if isinstance(method, spec.Basic.Publish):
            self._publish, self._body = method, b""
            if self._queues.alarm is not None:
                self._connection.block(self._queues.alarm)
        elif method is None:
            if isinstance(decoded, frame.Header):
                self._header = decoded
            else:
                self._body += decoded.fragment
            if len(self._body) == self._header.body_size:
                self._on_published(self._publish, self._header.properties)
        elif type(method) not in self._METHODS:
            raise Refused(NOT_IMPLEMENTED, f"NOT_IMPLEMENTED - {method.NAME}")
        else:
            answer = self._METHODS[type(method)](self, method)
            if answer is not None:
                self._connection.send(self._number, answer)

    # --- publishing

    def _on_published(self, method: Any, properties: Any) -> None:
        if properties.reply_to == _REPLY_TO:
            require(bool(self._reply_address), "fast reply consumer does not exist")
            properties.reply_to = self._reply_address
        message = Message(method.exchange, method.routing_key, properties, self._body)
        if not self._queues.publish(message) and method.mandatory:
            text = "NO_ROUTE"
            returned = spec.Basic.Return(_NO_ROUTE, text, method.exchange, method.routing_key)
            self._connection.send(self._number, returned, message)
        if self._publish_tags is not None:
            self._connection.send(self._number, spec.Basic.Ack(next(self._publish_tags)))

    def _confirm(self, _method: Any) -> Any:
        self._publish_tags = self._publish_tags or itertools.count(1)
        return spec.Confirm.SelectOk()

    # --- consuming

    def _set_qos(self, method: Any) -> Any:
        if method.global_qos:
            raise Refused(NOT_IMPLEMENTED, "NOT_IMPLEMENTED - basic.qos global")
        self._prefetch = method.prefetch_count
        return spec.Basic.QosOk()

    def _consume(self, method: Any) -> Any:
        tag = method.consumer_tag or f"amq.ctag-{secrets.token_urlsafe(16)}"
        is_direct = method.queue == _REPLY_TO
        queue = None if is_direct else self._queues.find(method.queue, self._connection)
        prefetch = 0 if method.no_ack else self._prefetch

        def deliver(message: Message) -> None:
            number = self._keep(None if method.no_ack else queue, message, consumer)
            facts = (number, message.is_redelivered, message.exchange, message.routing_key)
            self._connection.send(self._number, spec.Basic.Deliver(tag, *facts), message)

        def end() -> None:
            del self._consumers[tag]
            self._connection.send(self._number, spec.Basic.Cancel(tag))  # type: ignore[arg-type]  # a tag is text

        consumer = Consumer(queue, deliver, end, prefetch)
        if queue is None:
            require(method.no_ack, "reply consumer cannot acknowledge")
            pid = base64.b64encode(_REPLY_PID + secrets.token_bytes(12)).decode()
            self._reply_address = f"{_REPLY_TO}.{pid}.{secrets.token_hex(8)}"
            self._queues.reply_consumers[self._reply_address] = consumer
        else:
            queue.consumers.append(consumer)
            self._consumers[tag] = consumer
        return spec.Basic.ConsumeOk(tag)  # type: ignore[arg-type]  # a tag is text

    def _cancel(self, method: Any) -> Any:
        consumer = self._consumers.pop(method.consumer_tag, None)
        if consumer is not None:
            self._queues.cancel(consumer)
        return spec.Basic.CancelOk(method.consumer_tag)

    def _get(self, method: Any) -> Any:
        queue = self._queues.find(method.queue, self._connection)
        if not queue.messages:
            return spec.Basic.GetEmpty()
        message = queue.messages.popleft()
        number = self._keep(None if method.no_ack else queue, message, None)
        facts = (number, message.is_redelivered, message.exchange, message.routing_key)
        got = spec.Basic.GetOk(*facts, len(queue.messages))
        self._connection.send(self._number, got, message)
        return None

    def _keep(self, queue: Queue | None, message: Message, consumer: Consumer | None) -> int:
        """Return the tag of a delivery, which the client has to acknowledge if ``queue`` is set."""
        number = next(self._delivery_tags)
        if queue is not None:
            self._unacknowledged[number] = (queue, message, consumer)
            if consumer is not None:
                consumer.unacknowledged += 1
        return number

    def _acknowledge(self, method: Any) -> None:
        for tag in self._meant_by(method):
            self._pop(tag)

    def _reject(self, method: Any) -> None:
        tags = self._meant_by(method)
        if method.requeue:
            self._give_back(tags)
        else:
            for tag in tags:
                self._queues.dead_letter(*self._pop(tag))

    def _meant_by(self, method: Any) -> list[int]:
        last, is_multiple = method.delivery_tag, getattr(method, "multiple", False)
        tags = self._unacknowledged
        require(is_multiple or last in tags, f"unknown delivery tag {last}")
        return [tag for tag in tags if tag <= last or not last] if is_multiple else [last]

    def _give_back(self, tags: list[int]) -> None:
        for tag in reversed(tags):  # so that the first is the first again
            queue, message = self._pop(tag)
            message.is_redelivered = True
            queue.messages.appendleft(message)

    def _pop(self, tag: int) -> tuple[Queue, Message]:
        queue, message, consumer = self._unacknowledged.pop(tag)
        if consumer is not None:
            consumer.unacknowledged -= 1
        return queue, message

    # --- queues and exchanges

    def _declare_queue(self, method: Any) -> Any:
        if method.passive and method.queue in self._queues.reply_consumers:
            return spec.Queue.DeclareOk(method.queue, 0, 1)
        queue = self._queues.declare(method, owner=self._connection)
        return spec.Queue.DeclareOk(queue.name, len(queue.messages), len(queue.consumers))

    def _delete_queue(self, method: Any) -> Any:
        return spec.Queue.DeleteOk(self._queues.delete(method.queue, self._connection))

    def _purge_queue(self, method: Any) -> Any:
        messages = self._queues.find(method.queue, self._connection).messages
        count = len(messages)
        messages.clear()
        return spec.Queue.PurgeOk(count)

    def _bind_queue(self, method: Any) -> Any:
        queue = self._queues.find(method.queue, self._connection)
        self._queues.bind(queue, method.exchange, method.routing_key)
        return spec.Queue.BindOk()

    def _declare_exchange(self, method: Any) -> Any:
        self._queues.declare_exchange(method)
        return spec.Exchange.DeclareOk()

    _METHODS: Final[dict[type, Callable[[_Channel, Any], Any]]] = {
        spec.Basic.Ack: _acknowledge,
        spec.Basic.Cancel: _cancel,
        spec.Basic.Consume: _consume,
        spec.Basic.Get: _get,
        spec.Basic.Nack: _reject,
        spec.Basic.Qos: _set_qos,
        spec.Basic.Reject: _reject,
        spec.Confirm.Select: _confirm,
        spec.Exchange.Declare: _declare_exchange,
        spec.Queue.Bind: _bind_queue,
        spec.Queue.Declare: _declare_queue,
        spec.Queue.Delete: _delete_queue,
        spec.Queue.Purge: _purge_queue,
    }
