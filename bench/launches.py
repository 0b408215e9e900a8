"""How each measured program is started, and known to be ready."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from bench.errors import ProgramFailed
from devtools import launch
from devtools.ports import LOOPBACK, free_ports
from devtools.processes import BackgroundProcess
from devtools.progress import wait_until

FUNCTION_NAME = "lambda-bench-echo"
#: Those that stand behind the same broker as well.
POLLING_FUNCTION_NAME = "lambda-bench-polling"
PEER_FUNCTION_NAME = "lambda-bench-peer"

_CHECKOUT = Path(__file__).parent.parent
STATIC_RAPID = _CHECKOUT / "dist" / "lambda-runtime-api-daemon"
_INHERITED = ("HOME", "LANG", "PATH", "PYTHONPATH", "TMPDIR")
_LOG_CHARACTERS = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """How to start one program, and where it will answer."""

    name: str
    command: tuple[str, ...]
    environ: Mapping[str, str]
    port: int
    function_name: str = FUNCTION_NAME
    has_readyz: bool = True  #: False: ready once its port is open
    ready_limit_s: float = 30.0
    stop_limit_s: float = 10.0

    @property
    def url(self) -> str:
        """The Invoke URL of the echo function."""
        path = f"/2015-03-31/functions/{self.function_name}/invocations"
        return f"http://{LOOPBACK}:{self.port}{path}"

    @contextmanager
    def started(self, logs: Path) -> Iterator[BackgroundProcess]:
        """Start the program, ready or not, with its output in ``logs``; stop it in the end."""
        inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        process = BackgroundProcess.spawn(
            self.command,
            env={**inherited, **self.environ},
            cwd=_CHECKOUT,
            log=self._log(logs),
        )
        try:
            yield process
        finally:
            process.stop(self.stop_limit_s)

    @contextmanager
    def running(self, logs: Path) -> Iterator[BackgroundProcess]:
        """Start the program, wait until it is ready, and stop it in the end."""
        with self.started(logs) as process:
            wait_until(lambda: not process.is_alive() or self._is_ready(), self.ready_limit_s)
            if not self._is_ready():
                raise self.failure("is not ready", logs)
            yield process

    def failure(self, what: str, logs: Path) -> ProgramFailed:
        """Return the exception for a program that did not do as it should."""
        output = self._log(logs).read_text(errors="replace")[-_LOG_CHARACTERS:]
        return ProgramFailed(f"{self.name} {what}; the end of its output:\n{output}")

    def _log(self, logs: Path) -> Path:
        return logs / f"{self.name}.log"

    def _is_ready(self) -> bool:
        if self.has_readyz:
            return launch.is_ready(self.port)
        return launch.is_listening(self.port)


def rapid(
    echo: Path,
    *,
    amqp_uri: str | None = None,
    max_concurrency: int = 1,
    name: str | None = None,
    settings: Mapping[str, str] | None = None,
) -> Launch:
    """Return rapid from source, behind a broker when it is given one."""
    chosen = {
        "AWS_LAMBDA_FUNCTION_NAME": FUNCTION_NAME,
        "RAPID_MAX_CONCURRENCY": str(max_concurrency),
        **(settings or {}),
    }
    if amqp_uri is not None:
        chosen["RAPID_AMQP_URI"] = amqp_uri
    found = launch.rapid(str(echo), settings=chosen)
    return Launch(
        name=name or ("rapid" if amqp_uri is None else "rapid behind the broker"),
        command=found.command,
        environ=found.environ,
        port=found.port,
    )


def static_rapid(echo: Path, *, amqp_uri: str | None = None, max_concurrency: int = 1) -> Launch:
    """Return rapid as the one file that `make rapid` made."""
    from_source = rapid(echo, amqp_uri=amqp_uri, max_concurrency=max_concurrency)
    name = "rapid, one file" if amqp_uri is None else "rapid, one file, behind the broker"
    return replace(from_source, name=name, command=(str(STATIC_RAPID), str(echo)))


def floor(binary: Path, echo: Path) -> Launch:
    """Return the program in C that makes the system calls of a direct call."""
    port, runtime_api_port = free_ports(2)
    return Launch(
        name="floor",
        command=(str(binary), str(port), str(runtime_api_port), str(echo)),
        environ={},
        port=port,
        has_readyz=False,
    )


def rie(binary: Path, echo: Path) -> Launch:
    """Return aws-lambda-rie, which gives every function the name ``function``."""
    port, runtime_api_port = free_ports(2)
    return Launch(
        name="aws-lambda-rie",
        command=(
            str(binary),
            f"--runtime-interface-emulator-address={LOOPBACK}:{port}",
            f"--runtime-api-address={LOOPBACK}:{runtime_api_port}",
            str(echo),
        ),
        environ={},
        port=port,
        function_name="function",
        has_readyz=False,
    )


def server(amqp_uri: str, *, workers: int | None = None, polls: bool = False) -> Launch:
    """Return lambda_server under gunicorn, set up by its gunicorn.conf.py."""
    settings = {"AMQP_URI": amqp_uri, "LAMBDA_WORKER": "polling" if polls else "threads"}
    if workers is not None:
        settings["WEB_CONCURRENCY"] = str(workers)
    found = launch.server(settings=settings)
    return Launch(
        name="lambda_server, polling" if polls else "lambda_server",
        command=found.command,
        environ=found.environ,
        port=found.port,
        function_name=POLLING_FUNCTION_NAME if polls else FUNCTION_NAME,
    )


def direct_server(behind: Launch) -> Launch:
    """Return the Lambda Server without a broker, for the function of one rapid."""
    endpoint = f"{FUNCTION_NAME}=http://{LOOPBACK}:{behind.port}"
    found = launch.server(settings={"LAMBDA_ENDPOINTS": endpoint})
    return Launch(
        name="lambda_server, direct", command=found.command, environ=found.environ, port=found.port
    )


def polling_rapid(found: Launch) -> Launch:
    """Return a rapid for the calls of a server that polls."""
    environ = {**found.environ, "AWS_LAMBDA_FUNCTION_NAME": POLLING_FUNCTION_NAME}
    return replace(
        found,
        name=f"{found.name}, polling",
        environ=environ,
        function_name=POLLING_FUNCTION_NAME,
    )


def peer_rapid(
    binary: Path, echo: Path, *, amqp_uri: str | None = None, max_concurrency: int = 1
) -> Launch:
    """Return another implementation's daemon, which reads the plain names of the variables."""
    port, runtime_api_port = free_ports(2)
    return Launch(
        name="peer" if amqp_uri is None else "peer behind the broker",
        command=(str(binary), str(echo)),
        environ={
            "AWS_LAMBDA_FUNCTION_NAME": PEER_FUNCTION_NAME,
            "INVOKE_API_HOST": LOOPBACK,
            "MAX_CONCURRENCY": str(max_concurrency),
            "PORT": str(port),
            "RUNTIME_API_HOST": LOOPBACK,
            "RUNTIME_API_PORT": str(runtime_api_port),
            # Without a broker it shall find none on the usual port either.
            "AMQP_URI": amqp_uri or "amqp://127.0.0.1:1?connection_attempts=1000&retry_delay=5",
        },
        port=port,
        function_name=PEER_FUNCTION_NAME,
        has_readyz=False,
    )


def peer_server(binary: Path, amqp_uri: str) -> Launch:
    """Return another implementation's server."""
    (port,) = free_ports(1)
    return Launch(
        name="peer's server",
        command=(str(binary),),
        environ={"AMQP_URI": amqp_uri, "INVOKE_API_HOST": LOOPBACK, "PORT": str(port)},
        port=port,
        function_name=PEER_FUNCTION_NAME,
        has_readyz=False,
    )
