from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pika.frame
import pika.spec
import pytest

from devtools import brokers
from devtools.brokers import BrokerChoice, BrokerKind, BrokerUnusable, find_broker
from devtools.ports import LOOPBACK, free_ports
from devtools.rabbitmq_node import RabbitmqNode

Listen = Callable[[Callable[[socket.socket], None]], int]

_START = pika.frame.Method(
    0, pika.spec.Connection.Start(server_properties={}, mechanisms="PLAIN", locales="en_US")
).marshal()


def greet_and_hang_up(connection: socket.socket) -> None:
    """Do what a broker does with a login that it refuses: greet, read it, close."""
    connection.recv(8)
    connection.sendall(_START)
    connection.recv(4096)


@pytest.fixture
def node(tmp_path: Path) -> RabbitmqNode:
    """A node that is not started."""
    return RabbitmqNode(tmp_path / "rabbitmq")


@pytest.fixture
def nobody() -> int:
    """A port where nobody listens."""
    return free_ports(1)[0]


@pytest.fixture
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without a rabbitmq-server."""
    monkeypatch.setattr(brokers, "find_server", lambda: None)


def test_none_on_purpose_looks_for_nothing(node: RabbitmqNode) -> None:
    broker = find_broker(BrokerChoice.NONE, {"AMQP_URI": "amqp://never.looked.at"}, node)

    assert broker.kind is BrokerKind.NONE
    assert broker.address is None
    assert broker.answers()


def test_a_given_broker_that_does_not_answer_is_one_clear_line_without_the_password(
    node: RabbitmqNode, nobody: int
) -> None:
    environ = {"AMQP_URI": f"amqp://me:hunter2@{LOOPBACK}:{nobody}"}

    with pytest.raises(BrokerUnusable) as raised:
        find_broker(BrokerChoice.AUTO, environ, node)

    message = str(raised.value)
    assert "\n" not in message
    assert f"AMQP_URI names amqp://{LOOPBACK}:{nobody}, but it does not answer" in message
    assert "make up BROKER=none" in message
    assert "hunter2" not in message


def test_a_given_broker_that_refuses_the_login_is_told_from_one_that_is_away(
    node: RabbitmqNode, listen: Listen
) -> None:
    environ = {"AMQP_URI": f"amqp://{LOOPBACK}:{listen(greet_and_hang_up)}"}

    with pytest.raises(BrokerUnusable, match="but it refuses the login"):
        find_broker(BrokerChoice.AUTO, environ, node)


def test_a_uri_that_is_none_is_one_clear_line(node: RabbitmqNode) -> None:
    with pytest.raises(BrokerUnusable, match="expected amqp://host:port/vhost"):
        find_broker(BrokerChoice.AUTO, {"AMQP_URI": "localhost:5672"}, node)


@pytest.mark.usefixtures("no_server")
def test_without_any_broker_it_goes_on_and_says_how_to_get_one(
    node: RabbitmqNode, nobody: int, capsys: pytest.CaptureFixture[str]
) -> None:
    broker = find_broker(BrokerChoice.AUTO, {}, node, usual_port=nobody)

    assert broker.kind is BrokerKind.NONE
    assert "`make up BROKER=rabbitmq` installs one with apt" in capsys.readouterr().out


@pytest.mark.usefixtures("no_server")
def test_a_running_broker_that_refuses_guest_is_passed_over_with_one_line(
    node: RabbitmqNode, listen: Listen, capsys: pytest.CaptureFixture[str]
) -> None:
    port = listen(greet_and_hang_up)

    broker = find_broker(BrokerChoice.AUTO, {}, node, usual_port=port)

    assert broker.kind is BrokerKind.NONE
    first_line = capsys.readouterr().out.splitlines()[0]
    assert f"amqp://{LOOPBACK}:{port} is passed over, it refuses the login of guest" in first_line


@pytest.mark.usefixtures("no_server")
def test_something_else_on_the_usual_port_is_no_broker(node: RabbitmqNode, listen: Listen) -> None:
    port = listen(lambda connection: connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n"))

    assert find_broker(BrokerChoice.AUTO, {}, node, usual_port=port).kind is BrokerKind.NONE


@pytest.mark.broker
@pytest.mark.slow
def test_a_private_node_is_started_when_there_is_no_other_and_then_found_running(
    node: RabbitmqNode, nobody: int, tmp_path: Path
) -> None:
    try:
        private = find_broker(BrokerChoice.AUTO, {}, node, usual_port=nobody)
        found = find_broker(
            BrokerChoice.AUTO, {}, RabbitmqNode(tmp_path / "other"), usual_port=node.port
        )

        assert private.kind is BrokerKind.PRIVATE
        assert found.kind is BrokerKind.FOUND
        assert private.answers()
    finally:
        node.stop()
    assert not private.answers()
