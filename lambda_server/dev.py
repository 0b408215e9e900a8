"""Several functions on one machine without a broker: a rapid for each, and a server over them."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from lambda_protocol.address import Address
from lambda_protocol.environ import ConfigError

#: How long a function's init, or the server's start, is waited for, seconds.
READY_LIMIT_S: Final = 60.0
#: How long a program may take to stop before it is killed, seconds.
STOP_LIMIT_S: Final = 15.0
_POLL_S: Final = 0.05

#: What a rapid whose function does not start says of itself.
INIT_FAILED: Final = "the function's init has failed"

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_KEYS: Final = {"command", "cwd", "timeout", "memory", "concurrency", "handler", "environment"}

Say = Callable[[str], None]


class DevError(Exception):
    """Something did not start, or stopped by itself; the message says what and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Function:
    """One table of the functions file."""

    name: str
    command: tuple[str, ...]
    cwd: Path
    environment: Mapping[str, str] = field(default_factory=dict)  #: settings of its rapid included


def read_functions(path: Path) -> list[Function]:
    """Return the functions that a TOML file declares; raises ``ConfigError``.

    ``[functions.NAME]`` with ``command`` (a list; the last word is the handler, as for rapid),
    and optionally ``cwd`` (relative to the file), ``timeout`` (seconds), ``memory`` (MB),
    ``concurrency`` (runtimes), ``handler`` and ``environment`` (a table of strings).
    """
    try:
        document = tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from None
    tables = document.get("functions")
    if not isinstance(tables, dict) or not tables:
        raise ConfigError(f"{path} declares no function; expected a table [functions.NAME]")
    return [_function(path, name, table) for name, table in tables.items()]


def run(functions: list[Function], *, address: Address, say: Say) -> int:
    """Start everything, say where it is, and wait until a signal ends it; return the exit code.

    Raises ``DevError``. One thread, the main one.
    """
    _require_free(address)
    stop = _StopRequest()
    with contextlib.ExitStack() as stack:
        endpoints = []
        for function in functions:
            program = _start_rapid(function)
            stack.callback(program.stop)
            endpoints.append((function, program))
        for function, program in endpoints:
            waited_s = program.wait_ready(stop)
            say(f"{function.name}: ready in {waited_s:.1f} s ({program.url})")
        pairs = [f"{function.name}={program.url}" for function, program in endpoints]
        server = _start_server(address, ",".join(pairs))
        stack.callback(server.stop)
        server.wait_ready(stop)
        say(f"serving on {server.url}; stop with Ctrl-C. Try:")
        for function in functions:
            path = f"/2015-03-31/functions/{function.name}/invocations"
            say(f"  curl -XPOST {server.url}{path} -d '{{}}'")
        programs = [server, *(program for _, program in endpoints)]
        while not stop.is_requested:
            for program in programs:
                program.require_running()
            time.sleep(_POLL_S)
        say("stopping")
    return 0


class _StopRequest:
    """Whether SIGINT or SIGTERM has come."""

    def __init__(self) -> None:
        self.is_requested = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)

    def _on_signal(self, _number: int, _frame: object) -> None:
        self.is_requested = True


class _Program:
    """A child process that serves HTTP."""

    def __init__(
        self,
        name: str,
        argv: list[str],
        environ: dict[str, str],
        address: Address,
        cwd: Path | None = None,
    ) -> None:
        self._address = address.reached
        self.url = self._address.url
        self._name = name
        environ |= {"INVOKE_API_HOST": address.host, "PORT": str(address.port)}
        try:
            self._process = subprocess.Popen(  # noqa: S603 - our own programs
                argv, env=environ, cwd=cwd, process_group=0
            )
        except OSError as error:
            raise DevError(f"{name} did not start: {error}") from error

    def wait_ready(self, stop: _StopRequest) -> float:
        """Wait until ``/readyz`` says so; return how long that took, seconds."""
        started = time.monotonic()
        while (status := self._status()) != "ready":
            self.require_running()
            if status == INIT_FAILED:
                raise DevError(f"{self._name}: {status}; see its log above")
            if stop.is_requested:
                raise DevError("stopped before everything was ready")
            if time.monotonic() - started > READY_LIMIT_S:
                raise DevError(f"{self._name} is not ready after {READY_LIMIT_S:g} s: {status}")
            time.sleep(_POLL_S)
        return time.monotonic() - started

    def require_running(self) -> None:
        """Raise ``DevError`` when the process has ended."""
        code = self._process.poll()
        if code is not None:
            raise DevError(f"{self._name} ended with exit code {code}; see its log above")

    def stop(self) -> None:
        """End the process: politely, then not."""
        self._process.terminate()
        try:
            self._process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _status(self) -> str:
        """Return what ``/readyz`` says: ``ready``, or what is missing."""
        connection = http.client.HTTPConnection(*self._address, timeout=2)
        try:
            connection.request("GET", "/readyz")
            return str(json.load(connection.getresponse())["status"])
        except (OSError, http.client.HTTPException, ValueError, KeyError):
            return "it does not answer"
        finally:
            connection.close()


def _start_rapid(function: Function) -> _Program:
    environ = {
        **_inherited(),
        **function.environment,
        "RUNTIME_API_PORT": "0",
        "AWS_LAMBDA_FUNCTION_NAME": function.name,
    }
    # -P: the function's folder must not shadow our modules.
    argv = [sys.executable, "-P", "-m", "rapid", *function.command]
    return _Program(function.name, argv, environ, _free_address(), function.cwd)


def _start_server(address: Address, endpoints: str) -> _Program:
    environ = {**_inherited(), "LAMBDA_ENDPOINTS": endpoints}
    argv = [sys.executable, "-m", "gunicorn", "-c", "python:lambda_server.gunicorn_conf"]
    return _Program("the server", [*argv, "lambda_server.wsgi"], environ, address)


def _inherited() -> dict[str, str]:
    """Return our environment without a broker: this is direct mode."""
    return {name: value for name, value in os.environ.items() if not name.startswith("AMQP_")}


def _function(path: Path, name: str, table: Any) -> Function:
    where = f"{path}, [functions.{name}]"
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{where}: expected a name of letters, digits, - and _, at most 64")
    if not isinstance(table, dict) or set(table) - _KEYS:
        found = sorted(set(table) - _KEYS) if isinstance(table, dict) else table
        raise ConfigError(f"{where} has {found}; expected some of {sorted(_KEYS)}")
    command = table.get("command")
    if not isinstance(command, list) or not command or not all(map(_is_text, command)):
        raise ConfigError(f"{where}: command is {command!r}; expected a list of strings")
    cwd = table.get("cwd", ".")
    if not _is_text(cwd):
        raise ConfigError(f"{where}: cwd is {cwd!r}; expected a folder")
    environment = table.get("environment", {})
    if not isinstance(environment, dict) or not all(map(_is_text, environment.values())):
        raise ConfigError(f"{where}: environment is no table of strings")
    settings = {
        variable: str(table[key])
        for key, variable in (
            ("timeout", "AWS_LAMBDA_FUNCTION_TIMEOUT"),
            ("memory", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE"),
            ("concurrency", "MAX_CONCURRENCY"),
            ("handler", "AWS_LAMBDA_FUNCTION_HANDLER"),
        )
        if key in table
    }
    return Function(
        name=name,
        command=tuple(command),
        cwd=(path.parent / cwd).resolve(),
        environment={**environment, **settings},
    )


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _free_address() -> Address:
    with Address("127.0.0.1", 0).bind() as probe:
        return Address(*probe.getsockname())


def _require_free(address: Address) -> None:
    try:
        address.bind().close()
    except OSError as error:
        raise DevError(
            f"the server cannot listen on {error.strerror}; choose another address by --host "
            "and --port"
        ) from error
