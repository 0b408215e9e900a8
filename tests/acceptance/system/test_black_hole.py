"""A network between the programs and their broker that drops every packet for a while."""

from __future__ import annotations

import contextlib
import functools
import urllib.parse
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.acceptance.system.proxy import Proxy
from tests.acceptance.system.wire import Wire
from tests.conftest import StartRapid, StartServer
from tests.support import ECHO, Answer, Client, Server, wait_until

#: Until both have noticed, and what a busy machine adds, seconds. Heartbeats alone would need
#: more than twice that.
NOTICED_S = 45.0


@pytest.fixture
def wire() -> Iterator[Wire]:
    try:
        wire = Wire()
    except OSError as error:
        pytest.skip(f"no network interface of our own can be made here: {error}")
    with contextlib.closing(wire):
        yield wire


@pytest.mark.slow
def test_a_network_that_drops_everything_is_noticed_while_it_lasts_and_calls_are_served_after(
    start_rapid: StartRapid,
    start_server: StartServer,
    broker: str,
    wire: Wire,
    pool: ThreadPoolExecutor,
) -> None:
    port = urllib.parse.urlsplit(broker).port
    assert port is not None
    with contextlib.closing(Proxy(port, host=wire.near)) as proxy:
        uri = f"amqp://guest:guest@{wire.far}:{proxy.port}"
        rapid = start_rapid(ECHO, RAPID_AMQP_URI=uri)
        server = start_server(AMQP_URI=uri)
        name = rapid.function_name
        assert server.invoke(name, "[1]").body == b"[1]"

        wire.cut()
        caught = pool.submit(_invoke, server, rapid.path)

        for program in (rapid, server):
            with Client(program.port, timeout_s=NOTICED_S) as client:
                wait_until(
                    functools.partial(_is_unready, client), f"{program.name} to notice", NOTICED_S
                )
        assert caught.result().status in (500, 503)
        wire.mend()
        rapid.wait_ready()
        server.wait_ready()
        # RabbitMQ may have sent the first ones to the former consumer.
        wait_until(lambda: server.invoke(name, "[4]").body == b"[4]", "calls to be served again")


def _invoke(server: Server, path: str) -> Answer:
    with Client(server.port, timeout_s=NOTICED_S) as client:
        return client.post(path, b"[2]")


def _is_unready(client: Client) -> bool:
    return client.get("/readyz").status == 503
