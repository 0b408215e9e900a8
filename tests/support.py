"""What tests of every kind share: our programs as real processes, a small HTTP client, waiting.

Every wait has a limit and polls a condition. A process started here is known to the hook in
``conftest.py`` that shows its output when the test fails, and carries a mark in its environment
by which its last descendant is found and killed.
"""

from __future__ import annotations

import configparser
import contextlib
import http.client
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, NoReturn, Self, TypeVar

import psutil
import pytest

from devtools import launch
from devtools.ports import LOOPBACK
from lambda_protocol.function_name import FunctionRef
from lambda_protocol.invocation import Invocation

T = TypeVar("T")

ROOT: Final = Path(__file__).resolve().parent.parent
FUNCTIONS: Final = ROOT / "tests" / "functions"

#: The test functions: executables, each says on top what it does.
ECHO: Final = str(FUNCTIONS / "echo")
MISBEHAVE: Final = str(FUNCTIONS / "misbehave")
BASH_ECHO: Final = str(FUNCTIONS / "bash-echo")
MULTI: Final = str(FUNCTIONS / "multi")
WEB: Final = str(FUNCTIONS / "web")
RECORDER_EXTENSION: Final = FUNCTIONS / "recorder-extension"
#: A command line that runs ``tests/functions/handlers.py``; its last word is the handler.
AWSLAMBDARIC: Final = (sys.executable, "-m", "awslambdaric")
#: aws cli: the program that the variable AWS_CLI names, or the one of this environment.
AWS_CLI: Final = (
    (os.environ["AWS_CLI"],) if "AWS_CLI" in os.environ else (sys.executable, "-m", "awscli")
)

#: Whether rapid is the static file that RAPID_BINARY names, or runs from the checkout.
IS_ONE_FILE: Final = "RAPID_BINARY" in os.environ
RAPID: Final = (
    [str(Path(os.environ["RAPID_BINARY"]).resolve())] if IS_ONE_FILE else list(launch.RAPID)
)
#: The interpreter for tests of rapid's modules; in the static executable there is one of its own.
INTERPRETER: Final = os.environ.get("RAPID_INTERPRETER", sys.executable)
#: What runs a command on a terminal of its own, which is closed when this is killed.
IN_A_TERMINAL: Final = (sys.executable, "-c", "import pty, sys; pty.spawn(sys.argv[1:])")

#: How long a process may take to start or stop, an answer to come, a line to be logged, seconds.
LIMIT_S: Final = 20.0
_POLL_S: Final = 0.005
_GRACE_S: Final = 3.0
_MARK: Final = "TEST_PROCESS_MARK"
_PASSED: Final = ("HOME", "PATH", "LANG", "TMPDIR", "COVERAGE_")

#: Every program started since the running test began; the failure report shows their output.
started: list[Program] = []


# --- waiting


def setting(section: str, name: str) -> str:
    """Return what setup.cfg says."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    return config[section][name]


def wait_until(is_true: Callable[[], object], what: str, limit_s: float = LIMIT_S) -> None:
    """Return once ``is_true()`` holds; the failure says that ``what`` did not come."""
    wait_for(lambda: is_true() or None, what, limit_s)


def wait_for(find: Callable[[], T | None], what: str, limit_s: float = LIMIT_S) -> T:
    """Return the first result of ``find()`` that is not None."""
    deadline = time.monotonic() + limit_s
    while (found := find()) is None:
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {limit_s:g} s for {what}")
        time.sleep(_POLL_S)
    return found


def whole_lines(file: Path) -> list[bytes]:
    """Return the lines of a file that other processes write; one being written is not among them.

    The kernel shows a line that crosses a page's end before the rest of it is there.
    """
    return file.read_bytes().split(b"\n")[:-1] if file.exists() else []


def give_up(reason: str) -> NoReturn:
    """Skip the running test, or fail it in CI, where everything is installed."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def unique_name(prefix: str = "f") -> str:
    """Return a function (and queue) name that nobody else uses."""
    return f"{prefix}-{uuid.uuid4().hex[:12]}"


def make_invocation(**changes: Any) -> Invocation:
    """Return a plain synchronous invocation with some fields changed."""
    plain = Invocation(
        request_id=str(uuid.uuid4()),
        function=FunctionRef(name="echo"),
        payload=b'{"x": 1}',
        trace_id="Root=1-6746f0a1-0123456789abcdef01234567;Parent=0123456789abcdef;Sampled=0",
    )
    return replace(plain, **changes)


class Closing(ABC):
    """What is closed at the end of a ``with`` block."""

    @abstractmethod
    def close(self) -> None:
        """End it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


# --- HTTP


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP response, whole."""

    status: int
    headers: http.client.HTTPMessage  #: looked up without regard to case, as sent when listed
    body: bytes

    def json(self) -> Any:
        """Return the body as JSON."""
        return json.loads(self.body)

    @property
    def error_type(self) -> Any:
        """Return ``errorType`` of a failed function's payload."""
        return self.json()["errorType"]


class Client(Closing):
    """One keep-alive connection to a local port; opened on use. One thread at a time."""

    def __init__(self, port: int, timeout_s: float = LIMIT_S) -> None:
        self._connection = http.client.HTTPConnection(LOOPBACK, port, timeout=timeout_s)

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send one request and return its response."""
        self._connection.request(method, path, body, dict(headers or {}))
        sock = self._connection.sock
        try:
            response = self._connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        except BaseException:
            # http.client leaves the socket to the garbage collector, which warns of it later.
            self._connection.close()
            descriptor = sock.detach()
            if descriptor >= 0:
                os.close(descriptor)
            raise

    def get(self, path: str, **headers: str) -> Answer:
        """GET ``path``; header names with ``_`` for ``-``."""
        return self.request("GET", path, headers=_header_names(headers))

    def post(self, path: str, body: bytes = b"", **headers: str) -> Answer:
        """POST ``body``; header names with ``_`` for ``-``."""
        return self.request("POST", path, body, _header_names(headers))

    @property
    def local_port(self) -> int | None:
        """Our end's port, None while there is no connection: tells whether it was kept."""
        sock = self._connection.sock
        return None if sock is None else int(sock.getsockname()[1])

    def close(self) -> None:
        """Hang up."""
        self._connection.close()


class RawConnection(Closing):
    """A socket for what no HTTP library would send. One thread at a time."""

    def __init__(self, port: int, timeout_s: float = LIMIT_S) -> None:
        self.socket = socket.create_connection((LOOPBACK, port), timeout_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = b""

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.socket.sendall(data)

    def read_answer(self, *, has_body: bool = True) -> Answer:
        """Return the next response; ``has_body`` is False for answers to HEAD and interim ones."""
        head = self.read_until(b"\r\n\r\n")
        status_line, _, header_text = head.partition(b"\r\n")
        headers = http.client.HTTPMessage()
        for line in header_text.rstrip(b"\r\n").split(b"\r\n") if header_text.strip() else []:
            name, _, value = line.decode("latin-1").partition(":")
            headers[name] = value.strip()
        length = int(headers.get("Content-Length", "0")) if has_body else 0
        while len(self._buffer) < length:
            self._receive()
        body, self._buffer = self._buffer[:length], self._buffer[length:]
        return Answer(int(status_line.split(b" ")[1]), headers, body)

    def read_until(self, mark: bytes) -> bytes:
        """Return the bytes up to and including ``mark``."""
        while mark not in self._buffer:
            self._receive()
        head, _, self._buffer = self._buffer.partition(mark)
        return head + mark

    def read_to_end(self) -> bytes:
        """Return what comes until the peer closes; a reset counts as a close."""
        with contextlib.suppress(ConnectionError):
            while True:
                self._receive()
        data, self._buffer = self._buffer, b""
        return data

    def close_sending(self) -> None:
        """Send no more, and go on reading."""
        self.socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Hang up."""
        self.socket.close()

    def _receive(self) -> None:
        data = self.socket.recv(65_536)
        if not data:
            raise ConnectionResetError(f"the peer closed after {self._buffer[:200]!r}")
        self._buffer += data


def _header_names(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


# --- processes


class Program(Closing):
    """A program of ours running in a session of its own, with its output kept in files.

    As a context manager it starts, and on the way out leaves no process: neither itself nor
    anything that was started from it, however far that moved away.
    """

    def __init__(self, name: str, command: Sequence[str], environ: Mapping[str, str]) -> None:
        self.name = name
        self.cwd = ROOT  #: where it runs; may be set until it is started
        self._command = list(command)
        self._mark = uuid.uuid4().hex
        self._environ = {**base_environ(), **environ, _MARK: self._mark}
        self._process: subprocess.Popen[bytes] | None = None
        self._out = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        self._err = tempfile.TemporaryFile()  # noqa: SIM115
        self._kept: tuple[bytes, bytes] | None = None

    def start(self) -> None:
        """Start the process; :meth:`is_up` tells when it serves."""
        self._process = subprocess.Popen(
            self._command,
            env=self._environ,
            cwd=self.cwd,
            stdin=subprocess.DEVNULL,
            stdout=self._out,
            stderr=self._err,
            start_new_session=True,
        )
        started.append(self)

    @property
    def pid(self) -> int:
        """The process id."""
        assert self._process is not None
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        assert self._process is not None
        return self._process.poll()

    @property
    def stdout(self) -> bytes:
        """What it printed so far on standard output."""
        return self._kept[0] if self._kept else _contents(self._out.fileno())

    @property
    def stderr(self) -> bytes:
        """What it printed so far on standard error."""
        return self._kept[1] if self._kept else _contents(self._err.fileno())

    @property
    def log(self) -> list[str]:
        """Every line printed so far: first standard output's, then standard error's."""
        both = (self.stdout, self.stderr)  # apart: the last line of one may not be whole yet
        return [line for text in both for line in text.decode("utf-8", "replace").splitlines()]

    def wait_for_log(self, text: str, *, count: int = 1, limit_s: float = LIMIT_S) -> str:
        """Return the line that contains ``text``, or the ``count``-th of them."""

        def find() -> str | None:
            lines = [line for line in self.log if text in line]
            return lines[count - 1] if len(lines) >= count else None

        return wait_for(find, f"{text!r} in the log of {self.name}", limit_s)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process alone."""
        os.kill(self.pid, number)

    def wait_exit(self, limit_s: float = LIMIT_S) -> int:
        """Wait for the end of the process and return its exit code."""
        assert self._process is not None
        try:
            return self._process.wait(limit_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} did not exit within {limit_s:g} s") from None

    def stop(self, limit_s: float = LIMIT_S) -> int:
        """Send SIGTERM, and return the exit code. Idempotent."""
        if self.exit_code is None:
            self.signal(signal.SIGTERM)
        return self.wait_exit(limit_s)

    def descendants(self) -> list[int]:
        """Return the processes that stem from this one and live, itself left out."""
        return [pid for pid in marked_pids(self._mark) if pid != self.pid]

    def close(self) -> None:
        """Kill what is left of it and keep its output in memory."""
        if self._process is not None:
            if "COVERAGE_PROCESS_START" in self._environ and self.exit_code is None:
                self.signal(signal.SIGTERM)  # only a process that ends by itself saves its data
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(_GRACE_S)
            wait_until(self._kill_all, f"the end of every process of {self.name}")
            self._process.wait(LIMIT_S)
        self._kept = (self.stdout, self.stderr)
        self._out.close()
        self._err.close()

    def _kill_all(self) -> bool:
        pids = marked_pids(self._mark)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert self._process is not None
        return self._process.poll() is not None and not pids

    def _start_until(self, is_up: Callable[[], bool], what: str) -> None:
        def is_up_or_dead() -> bool:
            return self.exit_code is not None or is_up()

        wait_until(is_up_or_dead, what)
        if self.exit_code is not None:
            raise AssertionError(
                f"{self.name} ended with {self.exit_code} instead of {what}:\n"
                + "\n".join(self.log[-20:])
            )


class WebProgram(Program):
    """A program that serves HTTP on ``port`` and tells at ``/readyz`` when it can work."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environ: Mapping[str, str],
        *,
        port: int,
        ready: bool,
    ) -> None:
        super().__init__(name, command, environ)
        self.port = port
        self._waits_ready = ready

    def get(self, path: str) -> Answer:
        """GET a path on a new connection."""
        with self.client() as client:
            return client.get(path)

    def client(self) -> Client:
        """Return a keep-alive client."""
        return Client(self.port)

    def raw(self) -> RawConnection:
        """Return a raw connection."""
        return RawConnection(self.port)

    def wait_ready(self, limit_s: float = LIMIT_S) -> None:
        """Wait until ``/readyz`` answers 200."""
        wait_until(lambda: launch.is_ready(self.port), f"{self.name} to be ready", limit_s)

    def __enter__(self) -> Self:
        self.start()
        try:
            if self._waits_ready:
                self._start_until(lambda: launch.is_ready(self.port), "ready")
            else:
                self._start_until(lambda: launch.is_listening(self.port), "listening")
        except BaseException:
            self.close()
            raise
        return self


class Rapid(WebProgram):
    """rapid, on free loopback ports, for one test function.

    ``command`` is the runtime's command line (``ECHO``, ``MISBEHAVE``, …); keywords are environment
    variables. Entering waits until it accepts connections and, unless ``ready=False``, until
    ``/readyz`` says 200: a runtime is initialised, and the broker, if any, consumed from.
    """

    def __init__(
        self,
        *command: str,
        flags: Sequence[str] = (),
        program: Sequence[str] = RAPID,
        ready: bool = True,
        **environ: str,
    ) -> None:
        self.function_name = environ.setdefault("AWS_LAMBDA_FUNCTION_NAME", unique_name())
        environ.setdefault("RAPID_EXTENSIONS_DIR", "/nonexistent")
        launched = launch.rapid(*flags, *command, program=program, settings=environ)
        self.runtime_api_port = int(launched.environ["RAPID_RUNTIME_API_PORT"])
        super().__init__(
            f"rapid {self.function_name}",
            launched.command,
            launched.environ,
            port=launched.port,
            ready=ready,
        )

    @property
    def path(self) -> str:
        """The path that invokes the function."""
        return f"/2015-03-31/functions/{self.function_name}/invocations"

    @property
    def endpoint(self) -> str:
        """The function for ``LAMBDA_ENDPOINTS``."""
        return f"{self.function_name}=http://{LOOPBACK}:{self.port}"

    def invoke(self, payload: bytes | str = b"{}", **headers: str) -> Answer:
        """Invoke the function on a new connection; header names with ``_`` for ``-``."""
        with self.client() as client:
            return client.post(self.path, _as_bytes(payload), **headers)

    def do(self, **event: Any) -> Answer:
        """Invoke with ``event`` as a JSON object, as ``misbehave`` reads it."""
        return self.invoke(json.dumps(event))

    def runtime_api(self) -> Client:
        """Return a client of the Runtime API of environment 0."""
        return Client(self.runtime_api_port)


class Server(WebProgram):
    """``gunicorn lambda_server.wsgi`` from the checkout, on a free loopback port.

    Keywords are environment variables: ``AMQP_URI`` or ``LAMBDA_ENDPOINTS``. Entering waits for
    ``/readyz``, or with ``ready=False`` for the port. ``LAMBDA_WORKER`` of the run of tests counts
    where a test gives none.
    """

    def __init__(
        self, *arguments: str, prefix: Sequence[str] = (), ready: bool = True, **environ: str
    ) -> None:
        if "LAMBDA_WORKER" in os.environ:
            environ.setdefault("LAMBDA_WORKER", os.environ["LAMBDA_WORKER"])
        launched = launch.server(*arguments, settings=environ)
        super().__init__(
            f"server :{launched.port}",
            [*prefix, *launched.command],
            launched.environ,
            port=launched.port,
            ready=ready,
        )

    def invoke(self, function_name: str, payload: bytes | str = b"{}", **headers: str) -> Answer:
        """Invoke a function on a new connection; header names with ``_`` for ``-``."""
        with self.client() as client:
            path = f"/2015-03-31/functions/{function_name}/invocations"
            return client.post(path, _as_bytes(payload), **headers)

    @property
    def url(self) -> str:
        """The endpoint URL for an SDK."""
        return f"http://{LOOPBACK}:{self.port}"


def with_process_limit(limit: int) -> list[str]:
    """Return what stands before a command that may have so many processes and threads.

    The kernel counts by user and lets root do as it likes: the command runs as a user that nobody
    else is, who may read what root may.
    """
    if os.getuid() != 0:
        pytest.skip("a user of its own, whose processes are counted, needs root")
    user = str(secrets.randbelow(1_000_000_000) + 1_000_000)
    capability = "-all,+dac_override"
    return [
        *("setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"),
        *(f"--inh-caps={capability}", f"--ambient-caps={capability}"),
        *("prlimit", f"--nproc={limit}", "--"),
    ]


def run_rapid(*argv: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run rapid to its end, for what it refuses or prints."""
    return run_to_end([*RAPID, *argv], **environ)


def run_command(
    *words: str | Path, timeout: float = 3 * LIMIT_S, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end and keep what it prints; options are those of subprocess."""
    return subprocess.run(
        words, capture_output=True, text=True, check=False, timeout=timeout, **options
    )


def run_to_end(command: Sequence[str], **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, with ``environ`` added to a bare environment."""
    return subprocess.run(
        command,
        env={**base_environ(), **environ},
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


def base_environ() -> dict[str, str]:
    """Return what every program gets: nothing of the developer's own settings."""
    environ = {name: value for name, value in os.environ.items() if name.startswith(_PASSED)}
    programs = [Path(AWS_CLI[0]).parent, Path(sys.executable).parent]
    environ["PATH"] = ":".join([*map(str, programs), environ.get("PATH", os.defpath)])
    environ["PYTHONPATH"] = f"{ROOT}:{FUNCTIONS}"
    return environ


def marked_pids(mark: str) -> list[int]:
    """Return every live process whose environment carries ``mark``; a zombie has none."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(_MARK) == mark:
                found.append(process.pid)
    return found


def pids_of(mark: str) -> list[int]:
    """Return the processes that have ``mark`` among their arguments and run."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if mark in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
    return found


def child_states(pid: int) -> dict[int, str]:
    """Return the children of a process and their states, as psutil names them: a ``zombie``…"""
    found: dict[int, str] = {}
    for child in psutil.Process(pid).children():
        with contextlib.suppress(psutil.NoSuchProcess):
            found[child.pid] = child.status()
    return found


def resident_mb(pid: int) -> float:
    """Return the resident memory of a process in 10⁶ bytes, 0 when it is a zombie."""
    try:
        return psutil.Process(pid).memory_info().rss / 1e6
    except psutil.ZombieProcess:
        return 0.0


def peak_mb(pid: int) -> float:
    """Return the largest resident memory that a process ever had, in 10⁶ bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
    return int(found[1]) * 1024 / 1e6 if found else 0.0


def running_now(rapid: Rapid) -> int:
    """Return how many invocations run."""
    for line in rapid.get("/metrics").body.decode().splitlines():
        if line.startswith("lambda_concurrent_executions{"):
            return int(float(line.rpartition(" ")[2]))
    raise AssertionError("no such metric")


def is_alive(pid: int) -> bool:
    """Return whether ``pid`` runs; a zombie does not."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    return False


def _as_bytes(payload: bytes | str) -> bytes:
    return payload if isinstance(payload, bytes) else payload.encode()


def _contents(descriptor: int) -> bytes:
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0)
