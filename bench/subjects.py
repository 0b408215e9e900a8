"""What is measured: rapid alone and behind lambda_server and a broker, and others beside them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import launches, usage
from devtools.progress import Step
from devtools.rabbitmq_node import RabbitmqNode

SUBJECTS = ("direct", "static", "floor", "rie", "server", "polling")
BEHIND_BROKER = frozenset({"server", "polling"})
#: Subject → the subject of the other implementation that it is compared with.
PEERS = {
    "direct": "peer",
    "static": "peer",
    "server": "peer-server",
    "polling": "peer-server",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What the measured programs are and how they are set up."""

    echo: Path
    floor: Path | None = None  #: None, as of the next ones: not to be had, so left out
    rie: Path | None = None
    peer_rapid: Path | None = None  #: of another implementation
    peer_server: Path | None = None
    amqp_uri: str | None = None  #: None: a private broker is started
    max_concurrency: int = 1
    workers: int | None = None  #: None: as gunicorn.conf.py says


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A running thing to call: its Invoke URL, and the sessions of the processes behind it."""

    url: str
    daemon_name: str
    daemon: int  #: rapid or aws-lambda-rie, which starts the function
    server_name: str = ""
    server: int | None = None
    broker: int | None = None  #: None also when the broker is not ours to measure

    def cpu_s(self) -> dict[str, float]:
        """Return the CPU seconds used so far by each part of the subject."""
        daemon = usage.leader_cpu_s(self.daemon)
        parts = {"daemon": daemon, "function": usage.session_cpu_s(self.daemon) - daemon}
        if self.server is not None:
            parts["server"] = usage.session_cpu_s(self.server)
        if self.broker is not None:
            parts["broker"] = usage.session_cpu_s(self.broker)
        return parts

    def rss_mb(self) -> dict[str, float]:
        """Return the resident memory by program, without the function's and the broker's."""
        programs = {self.daemon_name: usage.leader_rss_mb(self.daemon)}
        if self.server is not None:
            programs[self.server_name] = usage.session_rss_mb(self.server)
        return programs


@contextmanager
def running(names: Collection[str], setup: Setup, folder: Path) -> Iterator[dict[str, Subject]]:
    """Start the named subjects, all at once, with their logs and data in ``folder``."""
    with ExitStack() as stack:
        subjects = {}
        if "direct" in names:
            launch = launches.rapid(setup.echo, max_concurrency=setup.max_concurrency)
            subjects["direct"] = _run_alone(launch, stack, folder)
        if "static" in names and launches.STATIC_RAPID.exists():
            launch = launches.static_rapid(setup.echo, max_concurrency=setup.max_concurrency)
            subjects["static"] = _run_alone(launch, stack, folder)
        if "floor" in names and setup.floor is not None:
            subjects["floor"] = _run_alone(launches.floor(setup.floor, setup.echo), stack, folder)
        if "rie" in names and setup.rie is not None:
            subjects["rie"] = _run_alone(launches.rie(setup.rie, setup.echo), stack, folder)
        if setup.peer_rapid is not None:
            launch = launches.peer_rapid(
                setup.peer_rapid, setup.echo, max_concurrency=setup.max_concurrency
            )
            subjects["peer"] = _run_alone(launch, stack, folder)
        if BEHIND_BROKER & set(names):
            subjects |= _run_behind_broker(names, setup, stack, folder)
        yield subjects


def _run_alone(launch: launches.Launch, stack: ExitStack, folder: Path) -> Subject:
    with Step(f"start {launch.name}"):
        process = stack.enter_context(launch.running(folder))
    return Subject(url=launch.url, daemon_name=launch.name, daemon=process.pid)


def _run_behind_broker(
    names: Collection[str], setup: Setup, stack: ExitStack, folder: Path
) -> dict[str, Subject]:
    """Start our programs, and the other implementation's, around one broker."""
    amqp_uri, broker = setup.amqp_uri, None
    if amqp_uri is None:
        with Step("start a private RabbitMQ"):
            node = stack.enter_context(RabbitmqNode(folder / "rabbitmq"))
        amqp_uri, broker = node.uri, node.pid
    pairs = {}
    if "server" in names:
        server = launches.server(amqp_uri, workers=setup.workers)
        pairs["server"] = (_rapid(setup, amqp_uri), server)
    if "polling" in names:
        server = launches.server(amqp_uri, workers=setup.workers, polls=True)
        pairs["polling"] = (launches.polling_rapid(_rapid(setup, amqp_uri)), server)
    if setup.peer_rapid is not None and setup.peer_server is not None:
        pairs["peer-server"] = (
            launches.peer_rapid(
                setup.peer_rapid,
                setup.echo,
                amqp_uri=amqp_uri,
                max_concurrency=setup.max_concurrency,
            ),
            launches.peer_server(setup.peer_server, amqp_uri),
        )
    subjects = {}
    for name, (rapid, server) in pairs.items():
        with Step(f"start {rapid.name}"):
            daemon = stack.enter_context(rapid.running(folder))
        with Step(f"start {server.name}"):
            front = stack.enter_context(server.running(folder))
        subjects[name] = Subject(
            url=server.url,
            daemon_name=rapid.name,
            daemon=daemon.pid,
            server_name=server.name,
            server=front.pid,
            broker=broker,
        )
    return subjects


def _rapid(setup: Setup, amqp_uri: str) -> launches.Launch:
    """Return rapid behind the broker: the one file, where it has been made."""
    make = launches.static_rapid if launches.STATIC_RAPID.exists() else launches.rapid
    return make(setup.echo, amqp_uri=amqp_uri, max_concurrency=setup.max_concurrency)
