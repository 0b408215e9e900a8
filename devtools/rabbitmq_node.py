"""A private RabbitMQ node: own ports, own data, own cookie, nothing shared with the system's."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Self

from devtools.interrupts import uninterrupted
from devtools.ports import LOOPBACK, free_ports, speaks_amqp
from devtools.processes import BackgroundProcess, write_whole
from devtools.progress import OnWait, wait_until

# Debian's /usr/sbin/rabbitmq-server insists on the system's user and folders; this one does not.
_SERVER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")

_START_LIMIT_S = 60.0
_STOP_LIMIT_S = 20.0
_CTL_LIMIT_S = 60.0
_LOG_LINES = 20


class RabbitmqError(Exception):
    """RabbitMQ is not installed, did not start, or refused a rabbitmqctl command."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """What a node needs to listen for amqps:// as well, in PEM."""

    ca: Path
    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ports:
    amqp: int
    amqps: int
    distribution: int
    epmd: int


class RabbitmqNode:
    """A RabbitMQ server that is its folder: data, log, cookie, and which processes run for it.

    One thread. Another process may build a node on the same folder to find the running server
    and stop it. Everything listens on the loopback address only. As a context manager it
    starts, and on the way out leaves no process.

    ``join`` names a started node of the cluster that this one is to be part of; the two then
    share an epmd, which belongs to the first: stop that one last. ``plugins`` are enabled, and
    ``settings`` are lines of rabbitmq.conf: what a plugin listens on, for one.
    """

    def __init__(
        self,
        folder: Path,
        *,
        name: str = "rabbit",
        tls: TlsFiles | None = None,
        join: RabbitmqNode | None = None,
        plugins: Sequence[str] = (),
        settings: Sequence[str] = (),
    ) -> None:
        self.folder = folder.resolve()
        self.name = f"{name}@{LOOPBACK}"
        self.log = self.folder / "rabbitmq.log"
        self._tls = tls
        self._join = join
        self._plugins = plugins
        self._more_settings = settings
        self._broker: BackgroundProcess | None = None
        self._epmd: BackgroundProcess | None = None
        self._ports = self._adopt() or self._draw_ports()

    @property
    def port(self) -> int:
        """The AMQP port, the same after a restart."""
        return self._ports.amqp

    @property
    def uri(self) -> str:
        """Where a client connects, with the user that every new node has."""
        return f"amqp://guest:guest@{LOOPBACK}:{self._ports.amqp}"

    @property
    def tls_uri(self) -> str:
        """Where a client connects over TLS; answered only if the node was given ``tls``."""
        return f"amqps://guest:guest@{LOOPBACK}:{self._ports.amqps}"

    @property
    def pid(self) -> int | None:
        """The process of the running server, else None."""
        return self._broker.pid if self._broker is not None and self.is_running() else None

    def is_running(self) -> bool:
        """Return whether the server's process is alive; it may still be starting."""
        return self._broker is not None and self._broker.is_alive()

    def is_stopped(self) -> bool:
        """Return whether nothing runs for this folder, neither a server nor an epmd."""
        return not any(p is not None and p.is_alive() for p in (self._broker, self._epmd))

    def start(self, limit_s: float = _START_LIMIT_S, on_wait: OnWait | None = None) -> None:
        """Start the server, unless it runs, and wait until it takes connections.

        Raises RabbitmqError, with the end of the log, when that takes more than ``limit_s``.
        """
        server = find_server()
        if server is None:
            raise RabbitmqError(f"no rabbitmq-server found; expected it on PATH or in {_SERVER}")
        self._write_files()
        with uninterrupted():  # a process that is not written down would never be stopped
            if self._join is None and (self._epmd is None or not self._epmd.is_alive()):
                self._epmd = self._spawn(
                    ["epmd", "-port", str(self._ports.epmd), "-address", LOOPBACK],
                    self.folder / "epmd.log",
                )
            if self._broker is None or not self._broker.is_alive():
                self._broker = self._spawn([server], self.log)
            self._write_record()
        try:
            self._wait_until_ready(self._broker, limit_s, on_wait)
        except BaseException:  # an interrupt too: a node that is not ready is not left running
            self.stop()
            raise

    def stop(self, limit_s: float = _STOP_LIMIT_S, on_wait: OnWait | None = None) -> None:
        """Stop the server and its epmd; idempotent."""
        for process in (self._broker, self._epmd):
            if process is not None:
                process.stop(limit_s, on_wait)
        self._broker = self._epmd = None
        self._record.unlink(missing_ok=True)

    def kill(self) -> None:
        """Kill the server as ``kill -9`` does; its ports, data and epmd stay for ``start``."""
        if self._broker is not None:
            self._broker.kill()

    def restart(self) -> None:
        """Stop the server in good order and start it again on the same ports and data."""
        if self._broker is not None:
            self._broker.stop(_STOP_LIMIT_S)
        self.start()

    def ctl(self, *arguments: str) -> str:
        """Run rabbitmqctl against this node and return what it printed."""
        done = subprocess.run(
            [_find_ctl(), "--quiet", *arguments],
            env=self._environ(),
            capture_output=True,
            text=True,
            timeout=_CTL_LIMIT_S,
            check=False,
        )
        if done.returncode != 0:
            raise RabbitmqError(f"rabbitmqctl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def become_ctl(self, arguments: Sequence[str]) -> NoReturn:
        """Become rabbitmqctl for this node. Raises RabbitmqError if the node does not run."""
        if not self.is_running():
            raise RabbitmqError(
                "No private RabbitMQ runs here. `make status` tells which broker is in use; "
                "another broker has a rabbitmqctl of its own"
            )
        program = _find_ctl()
        os.execve(program, [str(program), *arguments], self._environ())  # noqa: S606 - RabbitMQ's own

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _wait_until_ready(
        self, broker: BackgroundProcess, limit_s: float, on_wait: OnWait | None
    ) -> None:
        def is_ready() -> bool:
            return speaks_amqp(LOOPBACK, self.port)

        wait_until(lambda: not broker.is_alive() or is_ready(), limit_s, on_wait)
        if not broker.is_alive():
            raise RabbitmqError(f"RabbitMQ ended; the end of {self.log}:\n{self._log_tail()}")
        if not is_ready():
            raise RabbitmqError(
                f"RabbitMQ was not ready after {limit_s:.0f} s; the end of {self.log}:\n"
                f"{self._log_tail()}"
            )

    @property
    def _record(self) -> Path:
        return self.folder / "node.json"

    @property
    def _cookie(self) -> str:
        """The secret that lets Erlang nodes talk to each other; one for a whole cluster."""
        file = (self._join or self).folder / ".erlang.cookie"
        if not file.exists():
            file.touch(mode=0o600)
            file.write_text(secrets.token_hex(16))
        return file.read_text()

    def _draw_ports(self) -> _Ports:
        amqp, amqps, distribution, epmd = free_ports(4)
        if self._join is not None:
            epmd = self._join._ports.epmd
        return _Ports(amqp=amqp, amqps=amqps, distribution=distribution, epmd=epmd)

    def _adopt(self) -> _Ports | None:
        """Take over what another object started in this folder, if any of it still runs."""
        try:
            record = json.loads(self._record.read_text())
        except (FileNotFoundError, ValueError):
            return None
        self._broker = BackgroundProcess.from_record(record["broker"])
        if record["epmd"] is not None:
            self._epmd = BackgroundProcess.from_record(record["epmd"])
        return None if self.is_stopped() else _Ports(**record["ports"])

    def _write_record(self) -> None:
        record = {
            "ports": asdict(self._ports),
            "broker": self._broker.to_record() if self._broker else None,
            "epmd": self._epmd.to_record() if self._epmd else None,
        }
        write_whole(self._record, json.dumps(record))

    def _write_files(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        cookie = self._cookie
        if self._join is not None:
            own = self.folder / ".erlang.cookie"
            own.touch(mode=0o600)
            own.write_text(cookie)
        (self.folder / "enabled_plugins").write_text(f"[{','.join(self._plugins)}].\n")
        (self.folder / "rabbitmq.conf").write_text("\n".join(self._settings()) + "\n")

    def _settings(self) -> list[str]:
        settings = [
            f"listeners.tcp.1 = {LOOPBACK}:{self._ports.amqp}",
            # RabbitMQ before 3.12 closes the channel of a call that takes over half an hour, and
            # knows no consumer's own time: longer than any call may take, milliseconds.
            "consumer_timeout = 90000000",
        ]
        if self._tls is not None:
            settings += [
                f"listeners.ssl.1 = {LOOPBACK}:{self._ports.amqps}",
                f"ssl_options.cacertfile = {self._tls.ca}",
                f"ssl_options.certfile = {self._tls.certificate}",
                f"ssl_options.keyfile = {self._tls.key}",
                "ssl_options.verify = verify_none",
                "ssl_options.fail_if_no_peer_cert = false",
            ]
        if self._join is not None:
            settings += [
                "cluster_formation.peer_discovery_backend = classic_config",
                f"cluster_formation.classic_config.nodes.1 = {self._join.name}",
                f"cluster_formation.classic_config.nodes.2 = {self.name}",
            ]
        return [*settings, *self._more_settings]

    def _environ(self) -> dict[str, str]:
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("RABBITMQ_", "ERL_"))
        }
        return kept | {
            "HOME": str(self.folder),  # where Erlang looks for the cookie
            "LANG": "C.UTF-8",
            "ERL_EPMD_ADDRESS": LOOPBACK,
            "ERL_EPMD_PORT": str(self._ports.epmd),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_DIST_PORT": str(self._ports.distribution),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "enabled_plugins"),
            "RABBITMQ_LOG_BASE": str(self.folder),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_MNESIA_BASE": str(self.folder / "data"),
            "RABBITMQ_NODENAME": self.name,
            "RABBITMQ_NODE_PORT": str(self._ports.amqp),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": ("-kernel inet_dist_use_interface {127,0,0,1}"),
            "RABBITMQ_USE_LONGNAME": "true",
            # Makes the start script become the Erlang machine and not its parent: the process
            # that we know is then the one that is stopped.
            "RUNNING_UNDER_SYSTEMD": "true",
        }

    def _spawn(self, command: list[str | Path], log: Path) -> BackgroundProcess:
        return BackgroundProcess.spawn(command, env=self._environ(), cwd=self.folder, log=log)

    def _log_tail(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-_LOG_LINES:])


def find_server() -> Path | None:
    """Return the rabbitmq-server program, or None if this machine has none that can be started.

    ``RABBITMQ_SERVER`` names another one than the system's. Raises RabbitmqError if it is absent.
    """
    given = os.environ.get("RABBITMQ_SERVER")
    if given and not Path(given).is_file():
        raise RabbitmqError(
            f"RABBITMQ_SERVER is {given!r}, which is no file; expected a rabbitmq-server program "
            "with rabbitmqctl beside it"
        )
    if shutil.which("epmd") is None:
        return None
    if given:
        return Path(given)
    if _SERVER.exists():
        return _SERVER
    found = shutil.which("rabbitmq-server", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    return Path(found) if found else None


def _find_ctl() -> Path:
    server = find_server()
    if server is None:
        raise RabbitmqError("no rabbitmqctl found")
    return server.with_name("rabbitmqctl")


if __name__ == "__main__":
    try:
        RabbitmqNode(Path(sys.argv[1])).become_ctl(sys.argv[2:])
    except RabbitmqError as error:
        sys.exit(str(error))
