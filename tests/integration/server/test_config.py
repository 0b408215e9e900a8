"""The server's settings, and what gunicorn says to a wrong one."""

from __future__ import annotations

import os
import socket
import sys

import pytest

from devtools.ports import LOOPBACK
from lambda_protocol.address import Address
from lambda_protocol.environ import ConfigError
from lambda_server.config import Config
from tests.support import run_to_end

STARTS = pytest.mark.parametrize(
    "argv",
    [
        pytest.param(("-m", "gunicorn", "lambda_server.wsgi"), id="gunicorn"),
        pytest.param(("-m", "lambda_server", "serve"), id="serve"),
    ],
)


def test_nothing_needs_to_be_set() -> None:
    assert Config.from_environ({}) == Config()


def test_settings_are_taken() -> None:
    config = Config.from_environ(
        {
            "AMQP_URI": "amqp://broker:5673/v",
            "AMQP_USERNAME": "me",
            "AWS_REGION": "eu-west-1",
            "AWS_DEFAULT_REGION": "us-west-2",
            "AWS_ACCOUNT_ID": "111111111111",
            "INVOKE_QUEUE_TIMEOUT": "2.5",
            "AWS_LAMBDA_FUNCTION_TIMEOUT": "60",
            "CONNECT_TIMEOUT": "1",
            "CHECK_PAYLOAD": "FALSE",
            "LOG_LEVEL": "warn",
            "USE_STRUCTURED_LOGGING": "TRUE",
            "INVOKE_API_HOST": "127.0.0.1",
            "PORT": "9000",
        }
    )

    assert config.broker is not None
    assert config.broker.uri == "amqp://me:guest@broker:5673/v"
    assert (config.region, config.account_id) == ("eu-west-1", "111111111111")
    assert (config.queue_timeout_s, config.invoke_timeout_s) == (2.5, 60)
    assert (config.connect_timeout_s, config.checks_payload) == (1, False)
    assert (config.log_level, config.logs_structured) == ("WARN", True)
    assert config.address == Address("127.0.0.1", 9000)


def test_the_second_region_variable_counts_where_the_first_is_missing() -> None:
    assert Config.from_environ({"AWS_DEFAULT_REGION": "us-west-2"}).region == "us-west-2"


@pytest.mark.parametrize(
    ("text", "endpoints"),
    [
        pytest.param("a=http://h:1", {"a": Address("h", 1)}, id="one"),
        pytest.param(
            " a=http://h:1 ,\tb=http://[::1]:2/,", {"a": Address("h", 1), "b": Address("::1", 2)},
            id="two-with-blanks",
        ),
        pytest.param("a.b_c-d=http://h", {"a.b_c-d": Address("h", 80)}, id="no-port"),
        pytest.param("", {}, id="none"),
    ],
)  # fmt: skip
def test_endpoints_are_read(text: str, endpoints: dict[str, Address]) -> None:
    assert Config.from_environ({"LAMBDA_ENDPOINTS": text}).endpoints == endpoints


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LAMBDA_ENDPOINTS", "echo"),
        ("LAMBDA_ENDPOINTS", "=http://h:1"),
        ("LAMBDA_ENDPOINTS", "echo=h:1"),
        ("LAMBDA_ENDPOINTS", "echo=https://h:1"),
        ("LAMBDA_ENDPOINTS", "echo=http://"),
        ("LAMBDA_ENDPOINTS", "echo=http://h:x"),
        ("LAMBDA_ENDPOINTS", "echo=http://h:99999"),
        ("LAMBDA_ENDPOINTS", "echo=http://[::1"),
        ("LAMBDA_ENDPOINTS", "echo=http://["),
        ("LAMBDA_ENDPOINTS", "echo=http://[::1]x:1"),
        ("LAMBDA_ENDPOINTS", "echo=http://h:1/base"),
        ("LAMBDA_ENDPOINTS", "e/o=http://h:1"),
        ("LAMBDA_ENDPOINTS", "a=http://h:1,b"),
        ("INVOKE_QUEUE_TIMEOUT", "soon"),
        ("INVOKE_QUEUE_TIMEOUT", "-1"),
        ("INVOKE_QUEUE_TIMEOUT", "nan"),
        ("INVOKE_QUEUE_TIMEOUT", "5000000"),
        ("AWS_LAMBDA_FUNCTION_TIMEOUT", "0"),
        ("AWS_LAMBDA_FUNCTION_TIMEOUT", "1m"),
        ("CONNECT_TIMEOUT", "0"),
        ("CONNECT_TIMEOUT", "61"),
        ("CHECK_PAYLOAD", "perhaps"),
        ("LOG_LEVEL", "loud"),
        ("USE_STRUCTURED_LOGGING", "2"),
        ("PORT", "http"),
        ("PORT", "-1"),
        ("PORT", "65536"),
    ],
)
def test_a_wrong_value_is_a_line_that_names_it(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"^{name} (is|has) .*; expected ") as caught:
        Config.from_environ({name: value})

    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("uri", ["broker", "http://broker", "amqp://", "amqp://h:x/"])
def test_a_wrong_broker_is_a_line_that_names_it(uri: str) -> None:
    with pytest.raises(ConfigError, match=r"^AMQP_URI "):
        Config.from_environ({"AMQP_URI": uri})


def test_broker_and_endpoints_exclude_each_other() -> None:
    with pytest.raises(ConfigError, match="AMQP_URI and LAMBDA_ENDPOINTS are both set"):
        Config.from_environ({"AMQP_URI": "amqp://h", "LAMBDA_ENDPOINTS": "a=http://h:1"})


@pytest.mark.parametrize(
    "environ",
    [
        pytest.param({"PORT": "x"}, id="port"),
        pytest.param({"WEB_CONCURRENCY": "0"}, id="workers"),
        pytest.param({"LAMBDA_ENDPOINTS": "a=http://[::1"}, id="endpoints"),
        pytest.param({"AMQP_URI": "amqp://h", "LAMBDA_ENDPOINTS": "a=http://h"}, id="both"),
        pytest.param({"AMQP_URI": "amqp://u:secret@h/?heartbeat=x"}, id="broker-option"),
        pytest.param({"AMQP_URI": "amqp://u:secret@["}, id="broker-bracket"),
        pytest.param({"AMQP_URI": "amqps://u:secret@h/?cacertfile=/none"}, id="certificate"),
    ],
)
@STARTS
def test_a_wrong_setting_is_one_line_and_code_2(
    argv: tuple[str, ...], environ: dict[str, str]
) -> None:
    done = run_to_end([sys.executable, *argv], **environ)

    (line,) = done.stderr.splitlines()
    assert line.startswith("lambda-server: ")
    assert set(environ) & set(line.replace(",", " ").split())
    assert "secret" not in line
    assert (done.returncode, done.stdout) == (2, "")


@STARTS
@pytest.mark.parametrize("name", ["PORT", "HEALTH_PORT"])
def test_a_taken_port_is_one_line_that_names_its_holder_and_code_1(
    argv: tuple[str, ...], name: str
) -> None:
    with socket.create_server((LOOPBACK, 0)) as taken:
        port = taken.getsockname()[1]
        ports = {"PORT": "0", "INVOKE_API_HOST": LOOPBACK, name: str(port)}
        done = run_to_end([sys.executable, *argv], **ports)

    started, line = done.stderr.splitlines()
    assert "Starting gunicorn" in started
    assert line.startswith(f"lambda-server: cannot listen on {LOOPBACK}:{port}: ")
    assert f", pid {os.getpid()}; PORT, HEALTH_PORT and INVOKE_API_HOST choose another" in line
    assert (done.returncode, done.stdout) == (1, "")
