"""The broker in memory does what RabbitMQ does: each operation here runs against both."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import pika
import pika.exceptions
import pytest

from lambda_protocol.amqp_connection import AmqpConnection, connection_parameters, is_missing
from lambda_protocol.environ import BrokerAddress
from lambda_protocol.invoke_amqp import DIRECT_REPLY_TO, parse_reply_to
from lambda_protocol.memory_broker import MemoryBroker
from lambda_protocol.queues import Queue, declare, declare_delay, delay_queue
from tests.support import LIMIT_S, unique_name, wait_for, wait_until

#: RabbitMQ 4.3 lets queues that are neither durable nor exclusive be no more.
EXPIRES = {"x-expires": 60_000}

Open = Callable[[], Any]


@pytest.fixture
def open_channel(either_broker: str) -> Iterator[Open]:
    """Give channels, each of a connection of its own, as a plain client has them."""
    with contextlib.ExitStack() as stack:

        def open_channel() -> Any:
            connection = pika.BlockingConnection(pika.URLParameters(either_broker))
            stack.enter_context(contextlib.suppress(pika.exceptions.ConnectionWrongStateError))
            stack.callback(connection.close)
            return connection.channel()

        yield open_channel


@pytest.fixture
def channel(open_channel: Open) -> Any:
    return open_channel()


@pytest.fixture
def queue(channel: Any) -> str:
    return declared(channel)


def declared(channel: Any, **arguments: Any) -> str:
    name = unique_name()
    channel.queue_declare(name, durable=True, arguments=EXPIRES | arguments)
    return name


def publish(channel: Any, queue: str, *bodies: bytes, **properties: Any) -> None:
    for body in bodies:
        channel.basic_publish("", queue, body, pika.BasicProperties(**properties))


def waiting(channel: Any, queue: str) -> int:
    return int(channel.queue_declare(queue, passive=True).method.message_count)


def get(channel: Any, queue: str) -> Any:
    return channel.basic_get(queue, auto_ack=True)


class Inbox:
    """A consumer, and what came to it."""

    def __init__(self, channel: Any, queue: str, *, prefetch: int = 0, auto_ack: bool = False):
        self._connection = channel.connection
        self.deliveries: list[Any] = []
        self.bodies: list[bytes] = []
        self.properties: list[pika.BasicProperties] = []
        channel.basic_qos(prefetch_count=prefetch)
        self.tag = channel.basic_consume(queue, self._on_message, auto_ack=auto_ack)

    def _on_message(self, _channel: Any, method: Any, properties: Any, body: bytes) -> None:
        self.deliveries.append(method)
        self.properties.append(properties)
        self.bodies.append(body)

    def expect(self, *bodies: bytes) -> None:
        """Wait for these messages, in this order, and no more."""
        deadline = time.monotonic() + LIMIT_S
        while len(self.bodies) < len(bodies) and time.monotonic() < deadline:
            self._connection.process_data_events(0.05)
        self._connection.process_data_events(0)
        assert self.bodies == list(bodies)


def refused(code: int, text: str) -> Any:
    return pytest.raises(pika.exceptions.ChannelClosedByBroker, match=rf"\({code}, .*{text}")


# --- consuming


def test_messages_come_in_their_order_as_they_were_sent(channel: Any, queue: str) -> None:
    sent = {
        "content_type": "x/y", "headers": {"text": "ä", "number": -7}, "delivery_mode": 2,
        "correlation_id": "c", "reply_to": "r", "timestamp": 1,
    }  # fmt: skip
    publish(channel, queue, b"", b"2", b"x" * 300_000, **sent)

    inbox = Inbox(channel, queue)

    inbox.expect(b"", b"2", b"x" * 300_000)
    properties = inbox.properties[2]
    assert {name: getattr(properties, name) for name in sent} == sent
    assert [delivery.delivery_tag for delivery in inbox.deliveries] == [1, 2, 3]
    assert not any(delivery.redelivered for delivery in inbox.deliveries)


def test_no_more_comes_than_the_prefetch_until_one_is_acknowledged(
    channel: Any, queue: str
) -> None:
    publish(channel, queue, b"1", b"2", b"3", b"4")
    inbox = Inbox(channel, queue, prefetch=2)
    inbox.expect(b"1", b"2")
    assert waiting(channel, queue) == 2

    channel.basic_ack(inbox.deliveries[1].delivery_tag)
    inbox.expect(b"1", b"2", b"3")

    channel.basic_ack(0, multiple=True)
    inbox.expect(b"1", b"2", b"3", b"4")


def test_consumers_take_turns(open_channel: Open, channel: Any, queue: str) -> None:
    inboxes = [Inbox(open_channel(), queue) for _ in range(2)]

    publish(channel, queue, b"1", b"2", b"3", b"4")

    inboxes[0].expect(b"1", b"3")
    inboxes[1].expect(b"2", b"4")


def test_what_is_not_acknowledged_comes_back_first_and_says_so(
    open_channel: Open, channel: Any, queue: str
) -> None:
    publish(channel, queue, b"1", b"2", b"3")
    lost = open_channel()
    Inbox(lost, queue, prefetch=2).expect(b"1", b"2")

    lost.connection.close()

    inbox = Inbox(channel, queue)
    inbox.expect(b"1", b"2", b"3")
    assert [delivery.redelivered for delivery in inbox.deliveries] == [True, True, False]


def test_a_cancelled_consumer_gets_nothing_and_may_still_acknowledge(
    channel: Any, queue: str
) -> None:
    publish(channel, queue, b"1")
    inbox = Inbox(channel, queue)
    inbox.expect(b"1")

    channel.basic_cancel(inbox.tag)
    publish(channel, queue, b"2")
    channel.basic_ack(inbox.deliveries[0].delivery_tag)

    assert get(channel, queue)[2] == b"2"
    inbox.expect(b"1")


@pytest.mark.parametrize("method", ["basic_reject", "basic_nack"])
def test_what_is_refused_goes_back_or_away(channel: Any, queue: str, method: str) -> None:
    publish(channel, queue, b"1")
    for requeue in (True, False):
        tag = channel.basic_get(queue)[0].delivery_tag
        getattr(channel, method)(tag, requeue=requeue)

    assert waiting(channel, queue) == 0


def test_an_unknown_delivery_tag_closes_the_channel(channel: Any, queue: str) -> None:
    channel.basic_ack(7)

    with refused(406, "PRECONDITION_FAILED - unknown delivery tag 7"):
        waiting(channel, queue)


def test_a_deleted_queue_cancels_its_consumers(
    open_channel: Open, channel: Any, queue: str
) -> None:
    publish(channel, queue, b"1", b"2")
    inbox = Inbox(other := open_channel(), queue, prefetch=1)
    inbox.expect(b"1")

    assert channel.queue_delete(queue).method.message_count == 1

    other.connection.process_data_events(LIMIT_S)
    assert other.consumer_tags == []
    with refused(404, f"NOT_FOUND - no queue '{queue}' in vhost '/'"):
        Inbox(channel, queue)


# --- publishing


def test_a_message_for_no_queue_is_returned_where_that_is_asked_for(channel: Any) -> None:
    channel.confirm_delivery()
    channel.basic_publish("", unique_name(), b"to nobody")

    with pytest.raises(pika.exceptions.UnroutableError) as raised:
        channel.basic_publish("", unique_name(), b"to somebody", mandatory=True)

    (returned,) = raised.value.messages
    assert (returned.method.reply_code, returned.method.reply_text) == (312, "NO_ROUTE")
    assert returned.body == b"to somebody"


def test_a_confirmed_message_is_in_the_queue(open_channel: Open, channel: Any, queue: str) -> None:
    publisher = open_channel()
    publisher.confirm_delivery()
    for count in range(1, 4):
        publisher.basic_publish("", queue, b"{}", mandatory=True)
        assert waiting(channel, queue) == count


def test_an_exchange_that_is_not_there_closes_the_channel(open_channel: Open) -> None:
    name = unique_name()
    channel = open_channel()
    channel.basic_publish(name, "key", b"{}")
    with refused(404, f"NOT_FOUND - no exchange '{name}' in vhost '/'"):
        channel.queue_declare("", exclusive=True)

    with refused(404, f"NOT_FOUND - no exchange '{name}' in vhost '/'"):
        open_channel().exchange_declare(name, passive=True)


@pytest.mark.parametrize(("kind", "is_routed"), [("fanout", True), ("direct", False)])
def test_an_exchange_routes_by_its_kind(channel: Any, kind: str, is_routed: bool) -> None:
    exchange = unique_name()
    queues = [declared(channel) for _ in range(2)]
    channel.exchange_declare(exchange, kind, auto_delete=True)
    for queue in queues:
        channel.queue_bind(queue, exchange, routing_key=f"to {queue}")

    channel.basic_publish(exchange, f"to {queues[0]}", b"1")

    assert get(channel, queues[0])[2] == b"1"
    assert get(channel, queues[1])[2] == (b"1" if is_routed else None)
    with refused(406, "PRECONDITION_FAILED - inequivalent arg 'type' for exchange"):
        channel.exchange_declare(exchange, "direct" if kind == "fanout" else "fanout")


def test_a_topic_exchange_routes_by_the_key_or_everything(channel: Any) -> None:
    exchange = unique_name()
    every, one = declared(channel), declared(channel)
    channel.exchange_declare(exchange, "topic", auto_delete=True)
    channel.queue_bind(every, exchange, routing_key="#")
    channel.queue_bind(one, exchange, routing_key="a.b")

    for key in ("a.b", "a.c"):
        channel.basic_publish(exchange, key, key.encode())

    assert [get(channel, every)[2] for _ in range(2)] == [b"a.b", b"a.c"]
    assert [get(channel, one)[2] for _ in range(2)] == [b"a.b", None]


# --- queues


def test_a_queue_is_declared_again_with_the_same_arguments_alone(
    open_channel: Open, channel: Any, queue: str
) -> None:
    publish(channel, queue, b"1")
    wait_until(lambda: waiting(channel, queue) == 1, "the message in the queue")
    again = channel.queue_declare(queue, durable=True, arguments=EXPIRES).method
    assert (again.queue, again.message_count, again.consumer_count) == (queue, 1, 0)

    for given, name in (
        ({"durable": True, "arguments": {"x-expires": 1}}, "x-expires"),
        ({"durable": True, "arguments": EXPIRES | {"x-message-ttl": 1}}, "x-message-ttl"),
        ({"durable": True, "auto_delete": True, "arguments": EXPIRES}, "auto_delete"),
    ):
        text = f"PRECONDITION_FAILED - inequivalent arg '{name}' for queue '{queue}' in vhost '/'"
        with refused(406, text):
            open_channel().queue_declare(queue, **given)


def test_a_queue_that_is_not_there_is_told_from_one_that_cannot_be_reached(
    channel: Any,
) -> None:
    with pytest.raises(pika.exceptions.ChannelClosedByBroker) as raised:
        channel.queue_declare(unique_name(), passive=True)

    assert is_missing(raised.value)


def test_an_exclusive_queue_is_its_connections_alone_and_ends_with_it(
    open_channel: Open, channel: Any
) -> None:
    owner = open_channel()
    queue = owner.queue_declare("", exclusive=True).method.queue
    assert queue.startswith("amq.gen-")
    with refused(
        405, f"RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '{queue}'"
    ):
        channel.queue_declare(queue, passive=True)

    owner.connection.close()

    wait_until(lambda: not exists(open_channel(), queue), "the end of the queue")


def test_an_auto_delete_queue_ends_with_its_last_consumer(open_channel: Open) -> None:
    channel = open_channel()
    queue = unique_name()
    channel.queue_declare(queue, durable=True, auto_delete=True)
    tags = [Inbox(channel, queue).tag for _ in range(2)]

    channel.basic_cancel(tags[0])
    assert exists(open_channel(), queue)

    channel.basic_cancel(tags[1])
    assert not exists(open_channel(), queue)


def test_a_queue_expires_that_nobody_uses(open_channel: Open, channel: Any) -> None:
    queue, used = (declared(channel, **{"x-expires": 200}) for _ in range(2))
    Inbox(channel, used)
    publisher = open_channel()
    publisher.confirm_delivery()

    def is_gone() -> bool:  # to publish is no use of a queue
        try:
            publisher.basic_publish("", queue, b"{}", mandatory=True)
        except pika.exceptions.UnroutableError:
            return True
        return False

    wait_until(is_gone, "the end of the queue")
    assert exists(open_channel(), used)


def test_a_queue_is_emptied(channel: Any, queue: str) -> None:
    publish(channel, queue, b"1", b"2")

    assert channel.queue_purge(queue).method.message_count == 2

    assert get(channel, queue)[2] is None


def exists(channel: Any, queue: str) -> bool:
    try:
        channel.queue_declare(queue, passive=True)
    except pika.exceptions.ChannelClosedByBroker:
        return False
    return True


# --- dead letters


@pytest.mark.parametrize("key", [{}, {"x-dead-letter-routing-key": "set below"}])
def test_a_message_that_expires_is_a_dead_letter(channel: Any, key: dict[str, str]) -> None:
    dead = declared(channel)
    key = dict.fromkeys(key, dead)
    queue = declared(channel, **{"x-dead-letter-exchange": "", **key})
    exchange = unique_name()
    channel.exchange_declare(exchange, "fanout", auto_delete=True)
    channel.queue_bind(queue, exchange)
    properties = pika.BasicProperties(expiration="1", correlation_id="c")

    channel.basic_publish(exchange, dead, b"1", properties)

    method, properties, body = wait_for(lambda: taken(channel, dead), "the dead letter")
    assert (body, method.routing_key, method.exchange) == (b"1", dead, "")
    assert (properties.correlation_id, properties.expiration) == ("c", None)


def test_a_message_behind_one_that_stays_does_not_expire(channel: Any) -> None:
    dead = declared(channel)
    letters = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead}
    queue, clock = declared(channel, **letters), declared(channel, **letters)
    publish(channel, queue, b"stays")
    publish(channel, queue, b"expires", expiration="1")
    publish(channel, clock, b"expires later", expiration="50")
    assert wait_for(lambda: taken(channel, dead), "a dead letter")[2] == b"expires later"
    assert waiting(channel, queue) == 2

    assert get(channel, queue)[2] == b"stays"

    assert wait_for(lambda: taken(channel, dead), "the dead letter")[2] == b"expires"


def test_a_refused_message_is_a_dead_letter(channel: Any) -> None:
    dead = declared(channel)
    queue = declared(channel, **{"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead})
    publish(channel, queue, b"1")

    channel.basic_reject(channel.basic_get(queue)[0].delivery_tag, requeue=False)

    assert wait_for(lambda: taken(channel, dead), "the dead letter")[2] == b"1"


def test_a_delay_queue_brings_a_message_back(either_broker: str, channel: Any, queue: str) -> None:
    parameters = connection_parameters(BrokerAddress(uri=either_broker), name="test")
    connection = AmqpConnection(parameters, lambda _delivery: None)
    delay = delay_queue(0.05, "classic")
    for _ in range(2):
        declare_delay(connection, connection.open_channel(), delay)
    connection.shut_down()

    channel.basic_publish(delay.name, queue, b"again")

    assert wait_for(lambda: taken(channel, queue), "the message")[2] == b"again"


# --- direct reply-to


def test_a_direct_reply_comes_to_the_channel_that_asked(
    open_channel: Open, channel: Any, queue: str
) -> None:
    callers = [open_channel() for _ in range(2)]
    inboxes = [Inbox(caller, DIRECT_REPLY_TO, auto_ack=True) for caller in callers]
    for number, caller in enumerate(callers):
        publish(caller, queue, b"", reply_to=DIRECT_REPLY_TO, correlation_id=str(number))

    for _ in callers:
        request = wait_for(lambda: taken(channel, queue), "a request")[1]
        assert parse_reply_to(request.reply_to) is not None
        assert request.reply_to.startswith(f"{DIRECT_REPLY_TO}.")
        publish(channel, request.reply_to, f"to {request.correlation_id}".encode())

    inboxes[0].expect(b"to 0")
    inboxes[1].expect(b"to 1")


def test_an_address_for_replies_exists_as_long_as_its_channel(
    open_channel: Open, channel: Any, queue: str
) -> None:
    caller = open_channel()
    Inbox(caller, DIRECT_REPLY_TO, auto_ack=True)
    publish(caller, queue, b"", reply_to=DIRECT_REPLY_TO)
    address = wait_for(lambda: taken(channel, queue), "the request")[1].reply_to
    assert exists(open_channel(), address)

    caller.close()

    wait_until(lambda: not exists(open_channel(), address), "the end of the address")
    publish(channel, address, b"too late")
    assert waiting(channel, queue) == 0  # the channel is open


def test_direct_replies_need_a_consumer_that_does_not_acknowledge(
    open_channel: Open, queue: str
) -> None:
    with refused(406, "PRECONDITION_FAILED - reply consumer cannot acknowledge"):
        Inbox(open_channel(), DIRECT_REPLY_TO)

    channel = open_channel()
    publish(channel, queue, b"", reply_to=DIRECT_REPLY_TO)
    with refused(406, "PRECONDITION_FAILED - fast reply consumer does not exist"):
        waiting(channel, queue)


def taken(channel: Any, queue: str) -> Any:
    """Take a message; None if there is none."""
    got = get(channel, queue)
    return None if got[0] is None else got


# --- only in memory


@pytest.mark.parametrize(
    "ask",
    [
        lambda channel: channel.queue_declare("q", arguments={"x-max-length-bytes": 1}),
        lambda channel: channel.exchange_declare("e", "headers"),
        lambda channel: channel.basic_qos(prefetch_count=1, global_qos=True),
        lambda channel: channel.tx_select(),
    ],
    ids=["argument", "exchange-type", "global-qos", "transaction"],
)
def test_what_is_not_there_is_refused(
    memory_broker: MemoryBroker, ask: Callable[[Any], object]
) -> None:
    connection = pika.BlockingConnection(pika.URLParameters(memory_broker.uri))

    with refused(540, "NOT_IMPLEMENTED - "):
        ask(connection.channel())

    connection.close()


def test_time_is_moved_by_hand(memory_broker: MemoryBroker) -> None:
    connection = pika.BlockingConnection(pika.URLParameters(memory_broker.uri))
    channel: Any = connection.channel()
    channel.queue_declare("dead", durable=True, arguments={"x-expires": 3_600_000})
    letters = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}
    channel.queue_declare("q", durable=True, arguments={"x-message-ttl": 60_000, **letters})
    publish(channel, "q", b"1")
    connection.close()

    memory_broker.advance(59)
    assert (memory_broker.waiting("q"), memory_broker.waiting("dead")) == (1, 0)

    memory_broker.advance(1)
    assert (memory_broker.waiting("q"), memory_broker.waiting("dead")) == (0, 1)

    memory_broker.advance(3_600)
    assert memory_broker.waiting("dead") is None


def test_an_alarm_stops_those_who_publish(memory_broker: MemoryBroker) -> None:
    parameters = connection_parameters(BrokerAddress(uri=memory_broker.uri), name="test")
    heard: list[str | None] = []
    connection = AmqpConnection(parameters, lambda _delivery: None, on_alarm=heard.append)
    channel = connection.open_channel()
    declare(connection, channel, Queue("q", {"x-queue-type": "classic"}))
    memory_broker.set_alarm("low on memory")

    connection.check_publishing(channel)
    channel.basic_publish("", "q", b"1")
    assert (connection.blocked_reason, memory_broker.waiting("q")) == ("low on memory", 0)

    memory_broker.set_alarm(None)
    connection.poll(LIMIT_S)
    connection.shut_down()
    assert heard == ["low on memory", None]
    wait_until(lambda: memory_broker.waiting("q") == 1, "what was published in the alarm")


def test_close_ends_connections_and_is_idempotent() -> None:
    with MemoryBroker() as broker:
        connection = pika.BlockingConnection(pika.URLParameters(broker.uri))
        broker.close()

        with pytest.raises(pika.exceptions.AMQPConnectionError):
            connection.process_data_events(int(LIMIT_S))
        with pytest.raises(pika.exceptions.AMQPConnectionError):
            pika.BlockingConnection(pika.URLParameters(broker.uri))
