"""Fixtures: programs and brokers shared by the whole run, and a function that keeps account."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import trustme

from devtools.ports import LOOPBACK
from devtools.rabbitmq_node import RabbitmqNode, TlsFiles, find_server
from tests import support
from tests.acceptance.system.amqp import AmqpClient
from tests.acceptance.system.proxy import Proxy
from tests.conftest import StartRapid
from tests.support import Rapid, Server, give_up

#: A runtime that writes down what it starts, and answers when it is let.
LEDGER = str(Path(__file__).with_name("ledger"))
_BROKER_FIXTURES = {"broker", "node", "cluster", "server"}


class Ledger:
    """The file that the function ``ledger`` writes, and the file it waits for."""

    def __init__(self, folder: Path, start_rapid: StartRapid) -> None:
        self.file = folder / "ledger"
        self.gate = folder / "gate"
        self._start_rapid = start_rapid

    def start(self, **environ: Any) -> Rapid:
        """Start a rapid that runs the function, for the length of the test."""
        return self._start_rapid(LEDGER, **self.environ, **environ)

    @property
    def environ(self) -> dict[str, Any]:
        """What the function's rapid has to be given."""
        return {"LEDGER": str(self.file)}

    @property
    def held(self) -> str:
        """An event that is answered after :meth:`open`."""
        return f'{{"until": "{self.gate}"}}'

    @property
    def lines(self) -> list[str]:
        """The events started so far, each after its process id."""
        return [line.decode() for line in support.whole_lines(self.file)]

    @property
    def events(self) -> list[str]:
        """The events started so far."""
        return [line.split(maxsplit=1)[1] for line in self.lines]

    @property
    def pids(self) -> set[int]:
        """The runtimes that have started an event."""
        return {int(line.split()[0]) for line in self.lines}

    def wait_for(self, count: int) -> None:
        """Wait until so many events have been started."""
        support.wait_until(lambda: len(self.lines) >= count, f"{count} events in the ledger")

    def open(self) -> None:
        """Let every held event be answered."""
        self.gate.touch()


@pytest.fixture
def ledger(tmp_path: Path, start_rapid: StartRapid) -> Iterator[Ledger]:
    """Give a ledger; whatever is held is let go at the end."""
    ledger = Ledger(tmp_path, start_rapid)
    yield ledger
    ledger.open()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """Give threads for calls in flight."""
    with ThreadPoolExecutor(80, thread_name_prefix="caller") as executor:
        yield executor


@pytest.fixture(scope="session")
def _servers(broker: str) -> Iterator[list[Server]]:
    servers: list[Server] = []
    yield servers
    for server in servers:
        server.close()


@pytest.fixture
def server(_servers: list[Server], broker: str) -> Iterator[Server]:
    """Give the Lambda Server of this run, on ``broker``; one that has ended fails its test."""
    if not _servers:
        _servers.append(Server(AMQP_URI=broker).__enter__())
    server = _servers[-1]
    support.started.append(server)  # so that its output is shown when the test fails
    yield server
    if server.exit_code is not None:
        _servers.remove(server)
        server.close()
        pytest.fail(f"the server of this run ended with {server.exit_code}")


@pytest.fixture
def amqp(broker: str) -> Iterator[AmqpClient]:
    """Give a plain client of ``broker``."""
    with AmqpClient(broker) as client:
        yield client


@pytest.fixture
def proxy(broker: str) -> Iterator[Proxy]:
    """Give a relay to ``broker``."""
    with Proxy(port_of(broker)) as proxy:
        yield proxy


def port_of(uri: str) -> int:
    """Return the port of a broker's URI."""
    return int(uri.rpartition(":")[2].partition("/")[0])


def through(proxy: Proxy, uri: str, query: str = "") -> str:
    """Return the broker's URI with the relay's port in it."""
    return uri.replace(f":{port_of(uri)}", f":{proxy.port}") + query


@pytest.fixture(scope="session")
def make_tls(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], TlsFiles]:
    """Give a factory: a new CA of that name, and a certificate for 127.0.0.1 signed by it."""

    def make(name: str) -> TlsFiles:
        folder = tmp_path_factory.mktemp(name)
        authority = trustme.CA(organization_name=name)
        authority.cert_pem.write_to_path(str(folder / "ca.pem"))
        broker = authority.issue_cert(LOOPBACK)
        broker.private_key_pem.write_to_path(str(folder / "broker.key"))
        broker.cert_chain_pems[0].write_to_path(str(folder / "broker.pem"))
        return TlsFiles(
            ca=folder / "ca.pem", certificate=folder / "broker.pem", key=folder / "broker.key"
        )

    return make


@pytest.fixture(scope="session")
def tls(make_tls: Callable[[str], TlsFiles]) -> TlsFiles:
    """Give the CA and certificate of ``node``."""
    return make_tls("the-broker-ca")


@pytest.fixture(scope="session", autouse=True)
def _node(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Future[RabbitmqNode] | None]:
    """Start the node in the background, if any test of this run is going to need it."""
    if not _is_needed("node", request.session):
        yield None
        return
    node = RabbitmqNode(tmp_path_factory.mktemp("node"), tls=request.getfixturevalue("tls"))

    def start() -> RabbitmqNode:
        node.start()
        return node

    with ThreadPoolExecutor(1, thread_name_prefix="node") as threads:
        started = threads.submit(start)
        yield started
        futures.wait([started])
        node.kill()  # its data goes with the folder
        node.stop()


@pytest.fixture
def node(_node: Future[RabbitmqNode] | None) -> Iterator[RabbitmqNode]:
    """Give a broker that a test may kill or stop; it runs again for the next."""
    _require_rabbitmq()
    assert _node is not None
    node = _node.result()
    node.start()
    yield node
    if node.pid is not None:
        os.kill(node.pid, signal.SIGCONT)


@pytest.fixture(scope="session", autouse=True)
def _cluster(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Future[list[RabbitmqNode]] | None]:
    """Start the cluster in the background, if any test of this run is going to need it."""
    if not _is_needed("cluster", request.session):
        yield None
        return
    folder = tmp_path_factory.mktemp("cluster")
    first = RabbitmqNode(folder / "a", name="a")
    others = [RabbitmqNode(folder / name, name=name, join=first) for name in "bc"]

    def start() -> list[RabbitmqNode]:
        first.start()
        list(threads.map(RabbitmqNode.start, others))
        return [first, *others]

    with ThreadPoolExecutor(3, thread_name_prefix="cluster") as threads:
        cluster = threads.submit(start)
        yield cluster
        futures.wait([cluster])
        for node in (*others, first):  # the others' epmd ends with the first
            node.kill()  # its data goes with the folder
            node.stop()


@pytest.fixture
def cluster(_cluster: Future[list[RabbitmqNode]] | None) -> list[RabbitmqNode]:
    """Give three broker nodes that are one cluster; a test may kill them."""
    _require_rabbitmq()
    assert _cluster is not None
    nodes = _cluster.result()
    for node in nodes:
        node.start()
    return nodes


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _BROKER_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.broker)


def _is_needed(fixture: str, session: pytest.Session) -> bool:
    return find_server() is not None and any(
        fixture in getattr(item, "fixturenames", ()) for item in session.items
    )


def _require_rabbitmq() -> None:
    if find_server() is None:
        give_up("no rabbitmq-server on this machine; scripts/test-setup installs one")
