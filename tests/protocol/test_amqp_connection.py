from __future__ import annotations

import contextlib
import os
import random
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pika
import pika.connection
import pika.exceptions
import pytest

from devtools.ports import free_ports
from lambda_protocol.amqp_connection import AmqpConnection, BrokerLost, connection_parameters
from lambda_protocol.amqp_frames import (
    Delivery,
    Properties,
    encode_ack,
    encode_publish,
    publish_pieces,
)
from lambda_protocol.environ import BrokerAddress, ConfigError
from tests.support import unique_name, wait_until

# --- the URI


def parameters(uri: str) -> pika.connection.URLParameters:
    return connection_parameters(BrokerAddress(uri=uri), name="test")


def test_host_port_virtual_host_and_login_come_from_the_uri() -> None:
    found = parameters("amqp://u%40x:p%2Fw@broker.local:5673/a%2Fb")

    assert (found.host, found.port, found.virtual_host) == ("broker.local", 5673, "a/b")
    assert found.credentials == pika.PlainCredentials("u@x", "p/w")


@pytest.mark.parametrize(
    ("uri", "port", "virtual_host"),
    [
        ("amqp://u:p@h", 5672, "/"),
        ("amqps://u:p@h", 5671, "/"),
        ("amqp://u:p@h/%2F", 5672, "/"),
        ("amqp://u:p@h/v", 5672, "v"),
    ],
)
def test_what_the_uri_leaves_out_is_the_usual(uri: str, port: int, virtual_host: str) -> None:
    found = parameters(uri)

    assert (found.port, found.virtual_host) == (port, virtual_host)


def test_pikas_own_options_are_understood() -> None:
    found = parameters("amqp://u:p@h?heartbeat=7&connection_attempts=3&retry_delay=0.5")

    assert (found.heartbeat, found.connection_attempts, found.retry_delay) == (7, 3, 0.5)


@pytest.mark.parametrize(
    "option",
    [
        "heartbeat=often",
        "connection_attempts=0",
        "retry_delay=x",
        "ssl_options={",
        "ssl_options=()",
    ],
)
def test_a_wrong_option_is_a_config_error(option: str) -> None:
    with pytest.raises(ConfigError, match="AMQP_URI has a wrong option"):
        parameters(f"amqp://u:secret@h?{option}")


def test_the_name_shows_in_the_brokers_listings() -> None:
    assert parameters("amqp://u:p@h").client_properties == {"connection_name": "test"}


def test_a_plain_uri_has_no_tls() -> None:
    assert parameters("amqp://u:p@h").ssl_options is None


def test_amqps_checks_certificate_and_host_name() -> None:
    options = parameters("amqps://u:p@broker.local").ssl_options

    assert options is not None
    assert options.server_hostname == "broker.local"
    assert options.context.check_hostname
    assert options.context.verify_mode is ssl.CERT_REQUIRED


def test_verify_none_checks_nothing() -> None:
    options = parameters("amqps://u:p@h?verify=verify_none").ssl_options

    assert options is not None
    assert not options.context.check_hostname
    assert options.context.verify_mode is ssl.CERT_NONE


@pytest.mark.parametrize("option", ["cacertfile", "certfile"])
def test_a_certificate_that_cannot_be_read_is_a_config_error(option: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="certificate file that cannot be read"):
        parameters(f"amqps://u:p@h?{option}={tmp_path}/missing.pem")


def test_a_certificate_that_is_none_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")

    with pytest.raises(ConfigError, match="certificate file that cannot be read"):
        parameters(f"amqps://u:p@h?cacertfile={tmp_path}/ca.pem")


# --- a connection that does not come about


def test_a_broker_that_is_not_there_is_lost_at_once() -> None:
    (port,) = free_ports(1)

    with pytest.raises(BrokerLost):
        AmqpConnection(parameters(f"amqp://u:p@127.0.0.1:{port}?connection_attempts=1"), ignore)


# --- a connection


def ignore(_delivery: Delivery) -> None:
    """Take a delivery and do nothing."""


Connect = Callable[[Callable[[Delivery], None]], AmqpConnection]


@pytest.fixture
def connect(broker: str) -> Iterator[Connect]:
    with contextlib.ExitStack() as stack:

        def connect(on_delivery: Callable[[Delivery], None] = ignore) -> AmqpConnection:
            connection = AmqpConnection(parameters(broker), on_delivery)
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
                encode_publish(
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


def test_a_wrong_password_is_a_lost_broker(broker: str) -> None:
    host = broker.rpartition("@")[2]

    with pytest.raises(BrokerLost):
        AmqpConnection(parameters(f"amqp://guest:wrong@{host}"), ignore)


def test_a_byte_in_the_wake_descriptor_ends_a_poll(broker: str) -> None:
    reader, writer = os.pipe()
    connection = AmqpConnection(parameters(broker), ignore, wake_fd=reader)
    started = time.monotonic()

    os.write(writer, b"\0")
    connection.poll(60)

    assert time.monotonic() - started < 10
    connection.shut_down()
    os.close(reader)
    os.close(writer)


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
    sock = connect(ignore)._socket
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


def test_heartbeats_keep_an_idle_connection(broker: str) -> None:
    """Twice the interval without a byte from us, and the broker would have hung up."""
    connection = AmqpConnection(parameters(f"{broker}?heartbeat=1"), ignore)
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
