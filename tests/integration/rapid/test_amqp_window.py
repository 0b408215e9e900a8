"""The window on a real queue: what is on its way when it changes."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator

import pytest

from lambda_protocol.amqp_connection import AmqpConnection, Channel, connection_parameters
from lambda_protocol.amqp_frames import Delivery, Properties, publish_pieces
from lambda_protocol.environ import BrokerAddress
from lambda_protocol.queues import Queue, declare
from rapid.broker.prefetch import CLOSE_S, PAUSE_S, QueueConsumer
from tests.support import LIMIT_S, unique_name


class Consumer:
    """A window, the connection it is on, and what came."""

    def __init__(
        self,
        broker: str,
        queue_type: str,
        queue: str | None = None,
        *,
        is_auto_delete: bool = False,
    ) -> None:
        self.received: list[Delivery] = []
        parameters = connection_parameters(BrokerAddress(uri=broker), name="test")
        self.connection = AmqpConnection(parameters, self._on_delivery)
        self.channel = self.connection.open_channel()
        self.queue = queue or unique_name()
        arguments = {"x-queue-type": queue_type, "x-expires": 600_000}
        declared = Queue(self.queue, arguments, auto_delete=is_auto_delete)
        declare(self.connection, self.channel, declared)
        self.window = QueueConsumer(self.connection, self.channel, declared, longest_s=300)

    def _on_delivery(self, delivery: Delivery) -> None:
        self.window.on_delivery(delivery)
        self.received.append(delivery)

    def publish(self, count: int = 1) -> None:
        frames = publish_pieces(
            self.channel.channel_number,
            self.queue,
            Properties(),
            b"{}",
            frame_max=self.connection.frame_max,
        )
        self.connection.send(frames * count)

    def acknowledge(self, delivery: Delivery) -> None:
        frame = self.window.acknowledge(delivery)
        if frame:
            self.connection.send(frame)

    def adapt_until(self, prefetch: int, is_done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + LIMIT_S
        while not is_done():
            assert time.monotonic() < deadline
            self.window.set_prefetch(prefetch)
            self.connection.poll(min(0.01, self.window.poll_limit_s))

    def receive(self, count: int, prefetch: int) -> None:
        self.adapt_until(prefetch, lambda: len(self.received) >= count)

    def close_window(self) -> None:
        self.adapt_until(0, lambda: self.window.is_closed)

    def close(self) -> None:
        self.connection.call(self.channel, "queue_delete", queue=self.queue)
        self.connection.shut_down()


@pytest.fixture
def consumer(broker: str) -> Iterator[Consumer]:
    consumer = Consumer(broker, "quorum")
    yield consumer
    if consumer.connection.is_open:
        consumer.close()


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
def test_a_change_under_load_brings_no_message_twice(broker: str, queue_type: str) -> None:
    consumer = Consumer(broker, queue_type)
    consumer.publish(3000)
    done = 0
    for prefetch in itertools.cycle([1, 5, 0, 17, 2]):
        if prefetch == 0:
            consumer.close_window()
            continue
        goal = min(done + 50, 3000)
        while done < goal:
            consumer.receive(done + 1, prefetch)
            for delivery in consumer.received[done:]:
                consumer.acknowledge(delivery)
            done = len(consumer.received)
        if done == 3000:
            break
    consumer.close()

    assert not any(delivery.redelivered for delivery in consumer.received)


@pytest.mark.parametrize("prefetch", [0, 1, 5])
def test_what_is_acknowledged_while_a_consumer_is_cancelled_is_said_after_that(
    consumer: Consumer, prefetch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Said before, it would make room for a message that the queue takes back."""
    consumer.publish(4)
    consumer.receive(2, 2)
    call, acknowledged = consumer.connection.call, []

    def call_late(channel: Channel, method: str, **arguments: object) -> object:
        if method == "basic_cancel":
            acknowledged.append(consumer.window.acknowledge(consumer.received[0]))
        return call(channel, method, **arguments)

    monkeypatch.setattr(consumer.connection, "call", call_late)
    consumer.window.set_prefetch(prefetch)
    monkeypatch.undo()

    assert acknowledged == [b""]
    consumer.acknowledge(consumer.received[1])
    consumer.receive(4, 2)
    assert not any(delivery.redelivered for delivery in consumer.received)


def test_a_change_keeps_a_queue_that_ends_with_its_consumer(broker: str) -> None:
    consumer = Consumer(broker, "classic", is_auto_delete=True)
    consumer.window.set_prefetch(1)
    consumer.publish(4)

    for prefetch in (3, 1, 2):
        consumer.window.set_prefetch(prefetch)
    consumer.receive(1, 2)
    for at in range(4):
        consumer.receive(at + 1, 2)
        consumer.acknowledge(consumer.received[at])
    consumer.close()


def test_nothing_comes_through_a_closed_window(consumer: Consumer) -> None:
    consumer.window.set_prefetch(2)
    consumer.close_window()
    consumer.publish()
    consumer.adapt_until(0, lambda: consumer.connection.is_open)
    consumer.connection.poll(PAUSE_S)

    assert consumer.received == []


@pytest.mark.parametrize("prefetch", [0, 1, 5])
def test_what_is_on_its_way_is_not_taken_back(broker: str, prefetch: int) -> None:
    for _ in range(10 if prefetch else 3):
        consumer = Consumer(broker, "quorum")
        consumer.window.set_prefetch(2)

        consumer.publish()
        if prefetch == 0:
            consumer.close_window()
        consumer.receive(1, prefetch or 2)

        assert not consumer.received[0].redelivered
        consumer.close()


def test_a_quiet_queue_is_left_soon(consumer: Consumer) -> None:
    consumer.window.set_prefetch(2)
    consumer.window.set_prefetch(0)

    assert consumer.window.poll_limit_s <= CLOSE_S[0]
    consumer.close_window()


def test_a_window_becomes_wider_when_it_is_full(consumer: Consumer) -> None:
    consumer.window.set_prefetch(2)
    consumer.publish(5)

    consumer.receive(5, prefetch=3)

    assert not any(delivery.redelivered for delivery in consumer.received)


def test_a_full_window_closes_at_once(consumer: Consumer) -> None:
    consumer.publish(2)
    consumer.receive(2, prefetch=2)

    consumer.window.set_prefetch(0)

    assert consumer.window.is_closed


def test_what_is_done_with_is_acknowledged_after_the_change(
    consumer: Consumer, broker: str
) -> None:
    consumer.publish()
    consumer.receive(1, prefetch=2)

    consumer.window.set_prefetch(0)
    assert not consumer.window.is_closed
    assert consumer.window.acknowledge(consumer.received[0]) == b""
    consumer.close_window()

    assert consumer.window.poll_limit_s > CLOSE_S[1]
    consumer.connection.shut_down()  # and what was not acknowledged comes again
    consumer = Consumer(broker, "quorum", consumer.queue)
    consumer.publish()
    consumer.receive(1, prefetch=1)
    assert not consumer.received[0].redelivered
    consumer.close()


def test_what_is_done_with_is_acknowledged_when_the_change_is_called_off(
    consumer: Consumer,
) -> None:
    consumer.publish(3)
    consumer.receive(2, prefetch=2)
    consumer.acknowledge(consumer.received[0])
    consumer.receive(3, prefetch=2)
    consumer.acknowledge(consumer.received[1])

    consumer.window.set_prefetch(1)
    assert consumer.window.acknowledge(consumer.received[2]) == b""
    consumer.publish(2)
    consumer.receive(5, prefetch=2)

    assert not any(delivery.redelivered for delivery in consumer.received)


def test_the_messages_of_an_earlier_consumer_do_not_fill_the_window(consumer: Consumer) -> None:
    consumer.publish(2)
    consumer.receive(2, prefetch=2)
    consumer.window.set_prefetch(1)
    consumer.publish()
    consumer.receive(3, prefetch=1)
    consumer.acknowledge(consumer.received[2])

    consumer.window.set_prefetch(0)

    assert not consumer.window.is_closed
    consumer.close_window()
