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
from devtools.rabbitmq_node import RabbitmqError, RabbitmqNode
from tests.acceptance.local.conftest import left_running

Listen = Callable[[Callable[[socket.socket], None]], int]

_START = pika.frame.Method(
    0, pika.spec.Connection.Start(server_properties={}, mechanisms="PLAIN", locales="en_US")
).marshal()


def greet_and_hang_up(connection: socket.socket) -> None:
    """Do what a broker does with a login that it refuses: greet, read it, close."""
    connection.recv(8)
    connection.sendall(_START)
    connection.recv(4096)


def greet_as_ssh(connection: socket.socket) -> None:
    connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")


@pytest.fixture
def node(tmp_path: Path) -> RabbitmqNode:
    """A node that is not started."""
    return RabbitmqNode(tmp_path / "rabbitmq")


@pytest.fixture
def nobody() -> int:
    """A port where nobody listens."""
    return free_ports(1)[0]


def test_none_on_purpose_looks_for_nothing(node: RabbitmqNode) -> None:
    broker = find_broker(BrokerChoice.NONE, {"AMQP_URI": "amqp://never.looked.at"}, node)

    assert (broker.kind, broker.address) == (BrokerKind.NONE, None)
    assert broker.answers()


def test_a_given_broker_that_cannot_be_used_is_one_clear_line_without_the_password(
    node: RabbitmqNode, nobody: int, listen: Listen
) -> None:
    deaf, refuses = (f"{LOOPBACK}:{port}" for port in (nobody, listen(greet_and_hang_up)))
    for uri, said in (
        (f"amqp://me:hunter2@{deaf}", f"AMQP_URI names amqp://{deaf}, but it does not answer"),
        (f"amqp://me:hunter2@{refuses}", "but it refuses the login"),
        ("localhost:5672", "expected amqp://host:port/vhost"),
    ):
        with pytest.raises(BrokerUnusable, match=said) as raised:
            find_broker(BrokerChoice.AUTO, {"AMQP_URI": uri}, node)

        message = str(raised.value)
        assert "\n" not in message
        assert "hunter2" not in message
        assert "make up BROKER=none" in message or uri == "localhost:5672"


@pytest.mark.parametrize("usual", ["nobody", "refuses", "another program"])
def test_without_any_broker_it_goes_on_and_says_how_to_get_one(
    node: RabbitmqNode,
    nobody: int,
    listen: Listen,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    usual: str,
) -> None:
    monkeypatch.setattr(brokers, "find_server", lambda: None)
    port = nobody
    if usual != "nobody":
        talk = greet_and_hang_up if usual == "refuses" else greet_as_ssh
        port = listen(talk)

    broker = find_broker(BrokerChoice.AUTO, {}, node, usual_port=port)

    said = capsys.readouterr().out
    assert broker.kind is BrokerKind.NONE
    assert "`make up BROKER=rabbitmq` installs one with apt" in said
    passed_over = f"amqp://{LOOPBACK}:{port} is passed over, it refuses the login of guest"
    assert (passed_over in said) == (usual == "refuses")


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


@pytest.mark.broker
@pytest.mark.slow
def test_a_node_that_cannot_start_says_why_and_leaves_no_process(tmp_path: Path) -> None:
    node = RabbitmqNode(tmp_path)
    (tmp_path / "data").write_text("a file where a folder has to be")

    with pytest.raises(RabbitmqError, match=r"the end of .*rabbitmq\.log"):
        node.start()

    assert node.is_stopped()
    assert left_running(tmp_path) == []
