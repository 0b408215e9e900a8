"""Several functions on one machine without a broker: a rapid for each, and a server over them."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from lambda_protocol.address import Address
from lambda_protocol.errors import ErrorType
from lambda_protocol.http_client import BoundedConnection
from lambda_server import end_with_parent
from lambda_server.functions_file import Function

#: How long a function's init, or the server's start, is waited for, seconds.
READY_LIMIT_S: Final = 60.0
#: How long a program may take to stop before it is killed, seconds.
STOP_LIMIT_S: Final = 15.0
#: How long rapid may take to name a setting that it refuses, seconds.
COMPLAINT_LIMIT_S: Final = 10.0
_POLL_S: Final = 0.05
#: How long rapid may take to say what it lacks, seconds, and with how many bytes.
_READYZ_LIMIT_S: Final = 2.0
_READYZ_BYTES: Final = 4_096

#: What a rapid whose function does not start says of itself.
INIT_FAILED: Final = "the function's init has failed"
READY: Final = "ready"
#: The exit code of a rapid whose port was taken between the choice and the start.
_PORT_TAKEN: Final = 1
_TRIES: Final = 3
#: A runtime that only reports why the function cannot start; type and message follow.
_INIT_ERROR: Final = (sys.executable, "-P", "-m", "lambda_server.init_error")
#: The type for settings that cannot be used. Source: aws-lambda-rie, fatalerror.
_INVALID_TASK_CONFIG: Final = "Runtime.InvalidTaskConfig"
#: Kept from the server: this is direct mode.
_OF_BROKER: Final = {"AMQP_URI", "AMQP_USERNAME", "AMQP_PASSWORD"}

Say = Callable[[str], None]


class DevError(Exception):
    """The server, or the whole run, cannot go on; the message says what was found."""


def run(functions: list[Function], *, address: Address, say: Say) -> int:
    """Start everything, say where it is, and wait until a signal ends it; return the exit code.

    A function that cannot start ends no other: its calls are answered by its init error.
    Raises ``DevError``. One thread, the main one.
    """
    _require_free(address)
    stop = _StopRequest()
    with contextlib.ExitStack() as stack:
        slots = [_Slot(function) for function in functions]
        for slot in slots:
            stack.callback(slot.stop)
            slot.start()
        for slot in slots:
            slot.wait_ready(stop, say)
        endpoints = ",".join(f"{slot.function.name}={slot.url}" for slot in slots)
        server = _start_server(address, endpoints)
        stack.callback(server.stop)
        _wait_for_server(server, stop)
        say(f"serving on {server.url}; stop with Ctrl-C. Try:")
        for function in functions:
            path = f"/2015-03-31/functions/{function.name}/invocations"
            url = shlex.quote(server.url + path)  # zsh takes the brackets of IPv6 for a pattern
            say(f"  curl -XPOST {url} -d {shlex.quote(function.event)}")
        while not stop.is_requested:
            _require_running(server)
            for slot in slots:
                slot.look_after(say)
            time.sleep(_POLL_S)
        with contextlib.suppress(OSError):  # the terminal may be closed
            say("stopping")
    return 0


class _StopRequest:
    """Whether SIGINT, SIGTERM or SIGHUP has come; under nohup SIGHUP stays ignored."""

    def __init__(self) -> None:
        self.is_requested = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            signal.signal(signal.SIGHUP, self._on_signal)

    def _on_signal(self, _number: int, _frame: object) -> None:
        self.is_requested = True


class _Program:
    """A child process that serves HTTP, and ends with us; raises ``OSError`` if it cannot start."""

    def __init__(
        self,
        argv: list[str],
        environ: dict[str, str],
        address: Address,
        cwd: Path | None = None,
    ) -> None:
        self._address = address.reached
        self.url = self._address.url
        self._process = subprocess.Popen(  # noqa: S603 - our own programs
            end_with_parent.command(argv), env=environ, cwd=cwd, process_group=0
        )

    @property
    def exit_code(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self._process.poll()

    def wait_settled(self, stop: _StopRequest) -> str:
        """Wait until it is ready, or will not be; return what ``/readyz`` says."""
        deadline = time.monotonic() + READY_LIMIT_S
        while (status := self._status()) not in (READY, INIT_FAILED):
            if self.exit_code is not None or time.monotonic() > deadline:
                break
            if stop.is_requested:
                raise DevError("stopped before everything was ready")
            time.sleep(_POLL_S)
        return status

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
        connection = BoundedConnection(self._address)
        connection.begin(_READYZ_LIMIT_S)
        try:
            connection.request("GET", "/readyz")
            _, body = connection.read_answer(_READYZ_BYTES)
            return str(json.loads(body)["status"])
        except (OSError, http.client.HTTPException, ValueError, KeyError):
            return "it does not answer"
        finally:
            connection.close()


class _Slot:
    """A function and the rapid that serves it, or that answers why the function cannot start."""

    def __init__(self, function: Function) -> None:
        self.function = function
        self._rapid: _Program | None = None
        self._reason: tuple[str, str] | None = None  # type and message of why it cannot start
        self._is_lost = False

    @property
    def url(self) -> str:
        """Where calls of the function go."""
        assert self._rapid is not None
        return self._rapid.url

    def start(self) -> None:
        """Start the function's rapid. If it cannot start, another rapid answers with the reason."""
        function = self.function
        if self._reason is None:
            argv, address = _rapid_argv(*function.command), _free_address()
            try:
                self._rapid = _Program(argv, self._environ(address), address, function.cwd)
                return
            except OSError as error:
                message = f"chdir {function.cwd}: {(error.strerror or str(error)).lower()}"
                self._reason = (ErrorType.INVALID_WORKING_DIR, message)
            except ValueError as error:  # a null byte, or a variable with "=" in its name
                self._reason = (_INVALID_TASK_CONFIG, str(error))
        argv, address = _rapid_argv(*_INIT_ERROR, *self._reason, function.name), _free_address()
        self._rapid = _Program(argv, _rapid_environ(function.name, {}, address), address)

    def wait_ready(self, stop: _StopRequest, say: Say) -> None:
        """Wait until calls are answered, and say how: by the function or by its init error."""
        started = time.monotonic()
        tries = 1
        while True:
            assert self._rapid is not None
            status = self._rapid.wait_settled(stop)
            code = self._rapid.exit_code
            if code is None:
                break
            if code != _PORT_TAKEN or tries == _TRIES:
                if self._reason is not None:
                    raise DevError(f"{self.function.name}: rapid ended with exit code {code}")
                self._reason = (_INVALID_TASK_CONFIG, self._complaint(code))
            tries += 1
            self.start()
        name, waited_s = self.function.name, time.monotonic() - started
        if status == READY:
            say(f"{name}: ready in {waited_s:.1f} s ({self.url})")
        elif self._reason is not None:
            say(f"{name}: cannot start: {self._reason[1]}; this answers its calls")
        elif status == INIT_FAILED:
            say(f"{name}: {status}; see its log above")
        else:
            say(f"{name}: not ready after {waited_s:.0f} s: {status}")

    def look_after(self, say: Say) -> None:
        """Say it once when its rapid has ended; the server then answers calls of it by 502."""
        assert self._rapid is not None
        code = self._rapid.exit_code
        if code is not None and not self._is_lost:
            self._is_lost = True
            say(f"{self.function.name}: rapid ended with exit code {code}; the others run on")

    def stop(self) -> None:
        """End its rapid."""
        if self._rapid is not None:
            self._rapid.stop()

    def _complaint(self, code: int) -> str:
        """Return why rapid ended with ``code``: a refused setting is asked for once more.

        rapid refuses its settings at once, and with code 2. Its log is not ours to read.
        """
        if code == 2:
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                done = subprocess.run(  # noqa: S603 - our own program
                    end_with_parent.command(_rapid_argv(*self.function.command)),
                    env=self._environ(_free_address()),
                    cwd=self.function.cwd,
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    text=True,
                    errors="replace",
                    timeout=COMPLAINT_LIMIT_S,
                    check=False,
                )
                if done.returncode == 2 and done.stderr.strip():
                    return done.stderr.strip().splitlines()[-1].removeprefix("rapid: ")
        return f"rapid ended with exit code {code}"

    def _environ(self, address: Address) -> dict[str, str]:
        return _rapid_environ(self.function.name, self.function.environment, address)


def _rapid_argv(*command: str) -> list[str]:
    # -P: the function's folder must not shadow our modules.
    return [sys.executable, "-P", "-m", "rapid", *command]


def _rapid_environ(name: str, environment: Mapping[str, str], address: Address) -> dict[str, str]:
    return {
        **os.environ,
        "RAPID_AMQP_URI": "none",  # this is direct mode
        **environment,
        "RAPID_INVOKE_API_HOST": address.host,
        "RAPID_PORT": str(address.port),
        "RAPID_RUNTIME_API_PORT": "0",
        "RAPID_HEALTH_PORT": "",  # one port for many
        "AWS_LAMBDA_FUNCTION_NAME": name,
    }


def _start_server(address: Address, endpoints: str) -> _Program:
    environ = {
        **{name: value for name, value in os.environ.items() if name not in _OF_BROKER},
        "INVOKE_API_HOST": address.host,
        "PORT": str(address.port),
        "LAMBDA_ENDPOINTS": endpoints,
    }
    argv = [sys.executable, "-m", "gunicorn", "-c", "python:lambda_server.gunicorn_conf"]
    return _Program([*argv, "lambda_server.wsgi"], environ, address)


def _wait_for_server(server: _Program, stop: _StopRequest) -> None:
    status = server.wait_settled(stop)
    _require_running(server)
    if status != READY:
        raise DevError(f"the server is not ready after {READY_LIMIT_S:g} s: {status}")


def _require_running(server: _Program) -> None:
    if server.exit_code is not None:
        raise DevError(f"the server ended with exit code {server.exit_code}; see its log above")


def _free_address() -> Address:
    with Address("127.0.0.1", 0).listen() as probe:
        return Address(*probe.getsockname())


def _require_free(address: Address) -> None:
    try:
        address.require_free()
    except OSError as error:
        raise DevError(
            f"the server cannot listen on {error.strerror}; choose another address by --host "
            "and --port"
        ) from error
