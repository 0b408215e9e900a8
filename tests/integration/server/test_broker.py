"""Connections to the broker over time: kept alive, replaced, one a thread."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import pytest

from devtools.rabbitmq_node import RabbitmqNode
from lambda_protocol.environ import BrokerAddress, ConfigError
from lambda_protocol.errors import ResourceNotFoundException, ServiceException
from lambda_protocol.function_name import FunctionRef
from lambda_protocol.invocation import InvocationType
from lambda_server import broker as broker_module
from lambda_server import clients
from lambda_server.amqp_invoker import AmqpInvoker
from lambda_server.broker import Broker
from tests.acceptance.system.amqp import AmqpClient
from tests.acceptance.system.conftest import through
from tests.acceptance.system.proxy import Proxy
from tests.support import LIMIT_S, make_invocation, unique_name, wait_until

#: Idle for this long with heartbeat=1 a connection is closed by the broker, seconds.
BEYOND_HEARTBEAT_S = 4.0


class MakeBroker(Protocol):
    """Makes the server's way to a broker."""

    def __call__(self, uri: str) -> Broker: ...


def connect(uri: str, *, is_shared: bool) -> Broker:
    return Broker(
        BrokerAddress(uri=uri), queue_timeout_s=LIMIT_S, connect_timeout_s=2, is_shared=is_shared
    )


@pytest.fixture(params=[True, False], ids=["shared", "own"])
def make_broker(request: pytest.FixtureRequest) -> MakeBroker:
    return functools.partial(connect, is_shared=request.param)


@pytest.fixture
def make_own() -> MakeBroker:
    return functools.partial(connect, is_shared=False)


@pytest.fixture
def queue(broker: str) -> Iterator[str]:
    """Give a queue, for as long as the test runs."""
    name = unique_name()
    with AmqpClient(broker) as client:
        client.channel.queue_declare(name)
        yield name
        client.delete(name)


def test_an_idle_connection_outlives_the_heartbeat(
    make_broker: MakeBroker, broker: str, proxy: Proxy, queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker_module, "KEEP_ALIVE_S", 0.2)
    ours = make_broker(through(proxy, broker, "/?heartbeat=1"))
    with ours.client() as client:
        client.queues.ask(queue)

    assert not proxy.wait_ended(BEYOND_HEARTBEAT_S)

    with ours.client() as client:
        assert client.queues.ask(queue).consumers == 0
    assert proxy.accepted == 1


def test_an_unused_connection_is_closed_after_its_limit(
    make_own: MakeBroker, broker: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker_module, "KEEP_ALIVE_S", 0.05)
    monkeypatch.setattr(clients, "IDLE_LIMIT_S", 0.2)
    ours = make_own(through(proxy, broker))

    assert ours.missing() is None

    assert proxy.wait_ended(LIMIT_S)


def test_a_connection_is_kept_from_call_to_call(
    make_broker: MakeBroker, broker: str, proxy: Proxy, queue: str
) -> None:
    ours = make_broker(through(proxy, broker))

    for _ in range(10):
        with ours.client() as client:
            client.queues.ask(queue)

    assert proxy.accepted == 1


def test_each_thread_has_a_client_of_its_own(
    make_own: MakeBroker, broker: str, proxy: Proxy, queue: str
) -> None:
    ours = make_own(through(proxy, broker))
    together = threading.Barrier(3)

    def use() -> int:
        with ours.client() as client:
            together.wait(LIMIT_S)
            client.queues.ask(queue)
            return id(client)

    with ThreadPoolExecutor(3) as pool:
        ids = {result.result(LIMIT_S) for result in [pool.submit(use) for _ in range(3)]}

    assert len(ids) == proxy.accepted == 3


def test_the_connection_of_a_thread_that_ended_is_closed(
    make_own: MakeBroker, broker: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker_module, "KEEP_ALIVE_S", 0.05)
    ours = make_own(through(proxy, broker))
    thread = threading.Thread(target=ours.missing)

    thread.start()
    thread.join(LIMIT_S)

    wait_until(lambda: proxy.accepted == 1, "the thread's connection")
    wait_until(lambda: proxy.connections == 0, "its end")


def test_a_connection_lost_while_idle_costs_no_call(
    make_broker: MakeBroker, broker: str, proxy: Proxy, queue: str
) -> None:
    ours = make_broker(through(proxy, broker))
    assert ours.missing() is None

    proxy.cut()

    with ours.client() as client:
        assert client.queues.ask(queue).consumers == 0
    assert proxy.accepted == 2


def test_a_connection_lost_in_use_is_500_and_the_next_call_is_served(
    make_broker: MakeBroker, broker: str, proxy: Proxy, queue: str
) -> None:
    ours = make_broker(through(proxy, broker))

    def lose() -> None:
        with ours.client() as client:
            proxy.cut()
            client.queues.ask(queue)

    with pytest.raises(ServiceException, match="lost"):
        lose()

    with ours.client() as client:
        assert client.queues.ask(queue).consumers == 0


def test_an_error_of_the_call_leaves_the_connection(
    make_broker: MakeBroker, broker: str, proxy: Proxy
) -> None:
    invoker = AmqpInvoker(make_broker(through(proxy, broker)))

    for kind in InvocationType:
        nobody = FunctionRef(name=unique_name())
        with pytest.raises(ResourceNotFoundException):
            invoker.invoke(make_invocation(function=nobody, type=kind))

    assert proxy.accepted == 1


def test_a_broker_that_is_away_is_500_and_not_reachable(
    make_broker: MakeBroker, caplog: pytest.LogCaptureFixture
) -> None:
    with Proxy(1) as nobody:
        ours = make_broker(f"amqp://guest:secret@127.0.0.1:{nobody.port}")

        assert ours.missing() is not None
        with pytest.raises(ServiceException, match="not reachable"), ours.client():
            pass

    assert "broker not reached" in caplog.messages
    assert "secret" not in "".join(str(vars(record)) for record in caplog.records)


def test_an_invoker_is_ready_while_the_broker_is(make_broker: MakeBroker, broker: str) -> None:
    assert AmqpInvoker(make_broker(broker)).missing() is None


def test_an_invoker_says_that_the_broker_is_missing(make_broker: MakeBroker) -> None:
    with Proxy(1) as nobody:
        away = make_broker(f"amqp://127.0.0.1:{nobody.port}")

        assert AmqpInvoker(away).missing() == "The broker is not reachable."


def test_a_wrong_option_is_told_before_anything_connects(make_broker: MakeBroker) -> None:
    with pytest.raises(ConfigError, match="AMQP_URI has a wrong option"):
        make_broker("amqp://127.0.0.1:1/?heartbeat=soon")


@pytest.mark.broker
@pytest.mark.slow
def test_calls_go_on_after_the_broker_has_restarted(
    make_broker: MakeBroker, broker: str, tmp_path: Path
) -> None:
    """``broker`` is asked for what it skips: a machine without RabbitMQ."""
    with RabbitmqNode(tmp_path) as node:
        ours = make_broker(node.uri)
        assert ours.missing() is None

        node.kill()
        with contextlib.suppress(ServiceException), ours.client() as client:
            client.queues.ask("any")
        assert ours.missing() is not None
        node.start()

        with ours.client() as client:
            assert client.queues.ask("any").exists is False
