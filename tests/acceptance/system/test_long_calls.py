"""Calls that take longer than RabbitMQ lets a message be unacknowledged."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pika.spec
import pytest

from devtools.rabbitmq_node import RabbitmqNode
from tests.acceptance.system.conftest import through
from tests.acceptance.system.proxy import Proxy
from tests.conftest import StartRapid, StartServer
from tests.support import ECHO, LIMIT_S, MISBEHAVE, run_to_end, wait_until

#: RabbitMQ's first version in which a consumer may ask for a time of its own.
HAS_CONSUMER_ARGUMENT = (3, 12)
#: A call that takes longer than an impatient broker waits.
LONG = '{"do": "sleep", "s": 2.5}'


@pytest.fixture
def impatient(node: RabbitmqNode) -> Iterator[RabbitmqNode]:
    """Give a broker that takes back what is not acknowledged within a second."""
    before = set_timeout(node, 1000)
    node.ctl("eval", "application:set_env(rabbit, channel_tick_interval, 200).")
    yield node
    set_timeout(node, before)
    # Its default. Unset, it would end every channel that is opened.
    node.ctl("eval", "application:set_env(rabbit, channel_tick_interval, 60000).")


def set_timeout(node: RabbitmqNode, timeout_ms: int) -> int:
    """Set RabbitMQ's consumer timeout and return what it was."""
    before = node.ctl("eval", "element(2, application:get_env(rabbit, consumer_timeout)).")
    node.ctl("eval", f"application:set_env(rabbit, consumer_timeout, {timeout_ms}).")
    return int(before)


def test_a_private_node_waits_longer_than_any_call_takes(node: RabbitmqNode) -> None:
    assert set_timeout(node, 90_000_000) == 90_000_000


def test_a_call_that_the_broker_takes_back_is_told_with_the_remedy(
    impatient: RabbitmqNode,
    start_rapid: StartRapid,
    start_server: StartServer,
    pool: ThreadPoolExecutor,
) -> None:
    rapid = start_rapid(MISBEHAVE, RAPID_AMQP_URI=impatient.uri, RAPID_MAX_CONCURRENCY="2")
    server = start_server(AMQP_URI=impatient.uri)

    calls = [pool.submit(server.invoke, rapid.function_name, LONG) for _ in range(2)]
    answers = [call.result(LIMIT_S) for call in calls]

    line = rapid.wait_for_log("acknowledgement on channel")
    assert "PRECONDITION_FAILED" in line
    assert "remedy=raise RabbitMQ's consumer_timeout" in line
    assert [answer.status for answer in answers] == [500, 500]
    set_timeout(impatient, 90_000_000)
    # RabbitMQ reads the setting when a channel is opened.
    other = start_rapid(MISBEHAVE, RAPID_AMQP_URI=impatient.uri)
    assert server.invoke(other.function_name, LONG).status == 200


def test_a_consumer_asks_for_the_time_that_its_longest_call_needs(
    start_rapid: StartRapid, broker: str, proxy: Proxy
) -> None:
    consumers = 2  # of calls, and of asynchronous invocations
    for timeout in ("1500", "3600"):
        start_rapid(
            ECHO, RAPID_AMQP_URI=through(proxy, broker), AWS_LAMBDA_FUNCTION_TIMEOUT=timeout
        )

        # rapid is ready when it consumes calls; the second consumer follows.
        wait_until(lambda: len(asked(proxy)) % consumers == 0, "both consumers")

    assert asked(proxy) == [{}] * consumers + [{"x-consumer-timeout": 3_900_000}] * consumers


def asked(proxy: Proxy) -> list[object]:
    """Return the arguments that consumers were asked for with."""
    return [m.arguments for m in proxy.methods if isinstance(m, pika.spec.Basic.Consume)]


def test_a_consumers_own_time_is_longer_than_the_brokers(
    impatient: RabbitmqNode, start_rapid: StartRapid, start_server: StartServer
) -> None:
    version = tuple(map(int, impatient.ctl("version").split(".")[:2]))
    if version < HAS_CONSUMER_ARGUMENT:
        pytest.skip(f"RabbitMQ {version} has one consumer timeout for all")
    rapid = start_rapid(MISBEHAVE, RAPID_AMQP_URI=impatient.uri, AWS_LAMBDA_FUNCTION_TIMEOUT="3600")

    answer = start_server(AMQP_URI=impatient.uri).invoke(rapid.function_name, LONG)

    assert answer.status == 200


@pytest.mark.parametrize(
    ("settings", "grace"), [({}, "930"), ({"AWS_LAMBDA_FUNCTION_TIMEOUT": "3600"}, "3630")]
)
def test_gunicorn_lets_calls_end_for_as_long_as_the_server_is_told(
    settings: dict[str, str], grace: str
) -> None:
    code = "import lambda_server.gunicorn_conf as conf; print(conf.graceful_timeout)"

    done = run_to_end([sys.executable, "-c", code], **settings)

    assert done.stdout.strip() == grace
