from __future__ import annotations

import ssl
from pathlib import Path

import pika
import pika.connection
import pika.exceptions
import pytest

from devtools.ports import free_ports
from lambda_protocol.amqp_connection import AmqpConnection, BrokerLost, connection_parameters
from lambda_protocol.amqp_frames import (
    Delivery,
)
from lambda_protocol.environ import BrokerAddress, ConfigError

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


def ignore(_delivery: Delivery) -> None:
    """Take a delivery and do nothing."""
