"""A connection to a broker: RabbitMQ, and the one in memory."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pika
import pika.connection
import pika.exceptions
import pytest

from lambda_protocol.amqp_connection import AmqpConnection, BrokerLost
from lambda_protocol.amqp_frames import (
    Delivery,
    Properties,
    encode_ack,
    publish_pieces,
)
from tests.support import unique_name, wait_until
from tests.unit.protocol.test_amqp_connection import ignore, parameters

Connect = Callable[[Callable[[Delivery], None]], AmqpConnection]


@pytest.fixture
def connect(either_broker: str) -> Iterator[Connect]:
    with contextlib.ExitStack() as stack:

        def connect(on_delivery: Callable[[Delivery], None] = ignore) -> AmqpConnection:
            connection = AmqpConnection(parameters(either_broker), on_delivery)
            stack.callback(connection.shut_down)
            return connection

        yield connect


@pytest.mark.parametrize("size", [2, 131_064, 131_065, 6_291_556])
def test_a_message_goes_round_through_the_broker(connect: Connect, size: int) -> None:
    received: list[Delivery] = []
    connection = connect(received.append)
    channel = connection.open_channel()
    queue = unique_name()
    connection.call(channel, "queue_declare", queue=queue, durable=True, arguments=EXPIRES)
    connection.consume(channel, queue)
    sent = Properties(headers={"a": "b", "n": -7}, correlation_id="c", content_type="x/y")
    body = random.Random(1).randbytes(size)

    frame_max = connection.frame_max
    connection.send(publish_pieces(channel.channel_number, queue, sent, body, frame_max=frame_max))
    poll_until(connection, lambda: bool(received))

    assert (received[0].properties, received[0].body) == (sent, body)
    assert received[0].routing_key == queue


def test_a_message_whose_headers_only_pika_reads_arrives_too(connect: Connect) -> None:
    received: list[Delivery] = []
    connection = connect(received.append)
    channel = connection.open_channel()
    queue = unique_name()
    connection.call(channel, "queue_declare", queue=queue, durable=True, arguments=EXPIRES)
    connection.consume(channel, queue)

    channel.basic_publish(
        "", queue, b"{}", pika.BasicProperties(headers={"list": [1], "kept": "v"}, reply_to="r")
    )
    poll_until(connection, lambda: bool(received))

    assert received[0].properties == Properties(headers={"kept": "v"}, reply_to="r")


def test_an_acknowledged_message_does_not_come_back(connect: Connect) -> None:
    received: list[Delivery] = []
    connection = connect(received.append)
    channel = connection.open_channel()
    queue = unique_name()
    connection.call(channel, "queue_declare", queue=queue, durable=True, arguments=EXPIRES)
    connection.consume(channel, queue)
    channel.basic_publish("", queue, b"{}")
    poll_until(connection, lambda: bool(received))

    connection.send(encode_ack(channel.channel_number, received[0].delivery_tag))
    other = connect(ignore)
    connection.shut_down()

    found = other.call(other.open_channel(), "queue_declare", queue=queue, passive=True)
    assert found.method.message_count == 0


def test_any_thread_may_send(connect: Connect) -> None:
    received: list[Delivery] = []
    connection = connect(received.append)
    channel = connection.open_channel()
    queue = unique_name()
    connection.call(channel, "queue_declare", queue=queue, durable=True, arguments=EXPIRES)
    connection.consume(channel, queue, auto_ack=True)

    def publish(number: int) -> None:
        for count in range(50):
            body = f"{number}.{count}.".encode() + b"x" * 20_000
            connection.send(
                publish_pieces(
                    channel.channel_number,
                    queue,
                    Properties(),
                    body,
                    frame_max=connection.frame_max,
                )
            )

    threads = [threading.Thread(target=publish, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    poll_until(connection, lambda: len(received) == 200)
    for thread in threads:
        thread.join()

    for number in range(4):
        mine = [d.body[:10].split(b".")[1] for d in received if d.body.startswith(b"%d." % number)]
        assert mine == [str(count).encode() for count in range(50)]


def test_a_refused_method_raises_and_leaves_the_connection_usable(connect: Connect) -> None:
    connection = connect(ignore)
    channel = connection.open_channel()

    with pytest.raises(pika.exceptions.ChannelClosed):
        connection.call(channel, "queue_declare", queue=unique_name(), passive=True)

    assert connection.open_channel().is_open


def test_a_wrong_password_is_a_lost_broker(either_broker: str) -> None:
    host = either_broker.rpartition("@")[2]

    with pytest.raises(BrokerLost):
        AmqpConnection(parameters(f"amqp://guest:wrong@{host}"), ignore)


def test_a_byte_in_the_wake_descriptor_ends_a_poll(either_broker: str) -> None:
    reader, writer = os.pipe()
    connection = AmqpConnection(parameters(either_broker), ignore, wake_fd=reader)

    os.write(writer, b"\0")
    connection.poll(3600)

    connection.shut_down()
    os.close(reader)
    os.close(writer)


def test_short_messages_of_one_channel_may_be_taken_by_another_thread(connect: Connect) -> None:
    received: list[Delivery] = []
    connection = connect(received.append)
    stream, channel, queue = connection.stream, connection.open_channel(), unique_name()
    connection.call(channel, "queue_declare", queue=queue, durable=True, arguments=EXPIRES)
    connection.consume(channel, queue, auto_ack=True)
    number, frame_max = channel.channel_number, connection.frame_max
    for body in (b"a", b"b", b"long", b"c"):
        connection.send(publish_pieces(number, queue, Properties(), body, frame_max=frame_max))

    wait_until(lambda: stream.take_messages(number, 1), "the long message")
    taken = [delivery.body for delivery in received]
    poll_until(connection, lambda: len(received) == 4)

    assert taken == [b"a", b"b"]
    assert [delivery.body for delivery in received] == [b"a", b"b", b"long", b"c"]


def test_what_is_no_message_of_the_channel_is_left_to_the_owner(connect: Connect) -> None:
    connection = connect(ignore)
    channel = connection.open_channel()
    answers: list[object] = []
    channel.basic_qos(callback=answers.append)

    wait_until(lambda: connection.stream.take_messages(channel.channel_number, 1), "the answer")
    assert answers == []
    connection.poll(0)

    assert len(answers) == 1


def test_a_connection_that_was_dropped_refuses_to_send(connect: Connect) -> None:
    connection = connect(ignore)
    connection.abort()

    with pytest.raises(OSError, match="closed"):
        connection.send(b"x")


def test_a_poll_of_a_dropped_connection_is_a_lost_broker(connect: Connect) -> None:
    connection = connect(ignore)
    connection.abort()

    with pytest.raises(BrokerLost):
        connection.poll(0)


def test_the_kernel_ends_a_connection_whose_peer_acknowledges_nothing(connect: Connect) -> None:
    """Sooner than a heartbeat, which a broker that stands still for 40 s has to outlive."""
    sock = connect(ignore)._stream._socket
    assert sock is not None
    tcp = socket.IPPROTO_TCP

    idle, interval, count, unacknowledged_ms = (
        sock.getsockopt(tcp, option)
        for option in (
            socket.TCP_KEEPIDLE,
            socket.TCP_KEEPINTVL,
            socket.TCP_KEEPCNT,
            socket.TCP_USER_TIMEOUT,
        )
    )
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert (idle + interval * count, unacknowledged_ms) == (20, 20_000)


def test_heartbeats_keep_an_idle_connection(either_broker: str) -> None:
    """Twice the interval without a byte from us, and the broker would have hung up."""
    connection = AmqpConnection(parameters(f"{either_broker}?heartbeat=1"), ignore)
    end = time.monotonic() + 3

    while time.monotonic() < end:
        connection.poll(0.1)

    assert connection.open_channel().is_open
    connection.shut_down()


EXPIRES = {"x-expires": 60_000}


def poll_until(connection: AmqpConnection, is_done: Callable[[], bool]) -> None:
    def step() -> bool:
        connection.poll(0.05)
        return is_done()

    wait_until(step, "what was to arrive")
