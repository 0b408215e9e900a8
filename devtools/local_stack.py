"""The engine behind ``make up``, ``make status`` and ``make down``.

The Lambda Server and the example functions under rapid, on this machine, with a broker or
without. What runs is written down in ``.local/``, so that a later command finds it.
"""

from __future__ import annotations

import argparse
import fcntl
import http.client
import os
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from devtools import launch
from devtools.brokers import BrokerChoice, BrokerKind, BrokerUnusable, find_broker
from devtools.examples import ECHO, GREYSCALE, Example, available
from devtools.interrupts import exit_with, uninterrupted
from devtools.launch import Launch
from devtools.ports import LOOPBACK, free_ports, is_taken, listener
from devtools.processes import BackgroundProcess
from devtools.progress import Step, wait_until
from devtools.rabbitmq_node import RabbitmqNode
from devtools.stack import SERVER_TITLE, Part, Stack, StateUnreadable
from lambda_protocol.environ import BrokerAddress, ConfigError, Environ

_CHECKOUT = Path(__file__).resolve().parent.parent
_EVENT = '{"hello": "world"}'
_DEFAULT_PORT = 8080

_READY_LIMIT_S = 30.0
_STOP_LIMIT_S = 20.0
_INVOKE_TIMEOUT_S = 10.0
_LOG_LINES = 15
_WIDTH = len(GREYSCALE.name)  # of the longest title

_ALL_RUN, _SOME_RUN, _NOTHING_RUNS = 0, 1, 3

#: Settings that an environment may hold and that decide, here, what the stack is.
_OWN_SETTINGS = {
    f"{prefix}{name}"
    for prefix in ("", "RAPID_")
    for name in (
        "AMQP_PASSWORD",
        "AMQP_URI",
        "AMQP_USERNAME",
        "INVOKE_API_HOST",
        "PORT",
        "RUNTIME_API_HOST",
        "RUNTIME_API_PORT",
    )
} | {"AWS_LAMBDA_FUNCTION_NAME", "LAMBDA_ENDPOINTS", "LAMBDA_TASK_ROOT", "_HANDLER"}


_WANTS_BROKER = {BrokerChoice.AUTO: None, BrokerChoice.RABBITMQ: True, BrokerChoice.NONE: False}


class StackError(Exception):
    """The stack cannot come up; the message says what was found and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What ``make up`` was asked for; what was not said may be as it is."""

    port: int | None  #: of the Lambda Server
    choice: BrokerChoice
    address: BrokerAddress | None  #: of the broker to use

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Self:
        """Read PORT, BROKER and AMQP_URI. Raises ConfigError."""
        values = Environ(environ)
        choice = BrokerChoice(values.choice("BROKER", BrokerChoice.AUTO, tuple(BrokerChoice)))
        return cls(
            port=values.integer("PORT", 0, least=1, most=65_535) or None,
            choice=choice,
            address=None if choice is BrokerChoice.NONE else values.broker(),
        )

    def is_met_by(self, stack: Stack) -> bool:
        """Return whether a running ``stack`` is what is asked for."""
        wants_broker, has_broker = _WANTS_BROKER[self.choice], stack.broker.address is not None
        return (
            self.port in (None, stack.server_port)
            and self.address in (None, stack.broker.address)
            and wants_broker in (None, has_broker)
        )


class LocalStack:
    """Starts, shows and stops the stack that is written down in ``folder``."""

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        self._folder = folder.resolve()
        self._environ = environ
        self._file = self._folder / "state.json"
        self._node = RabbitmqNode(self._folder / "rabbitmq")

    def up(self) -> None:
        """Bring the stack up, unless it is, and invoke the function once.

        Raises StackError; what this call had started is stopped then.
        """
        wish = Wish.from_environ(self._environ)
        stack = Stack.load(self._file)
        self._check_port(wish, stack)
        examples = available()
        if stack is not None and wish.is_met_by(stack) and self._is_whole(stack, examples):
            print(f"  Already up. Broker: {stack.broker}")
        else:
            stack = self._start(wish, examples, stack)
        self._invoke(stack)
        self._tell_how_to_call(stack)

    def status(self) -> int:
        """Print what runs; return 0 if all does, 3 if nothing does, else 1."""
        stack = Stack.load(self._file)
        if stack is None and self._node.is_stopped():
            print("Nothing runs. Start with: make up")
            return _NOTHING_RUNS
        if stack is None:
            print("A private RabbitMQ runs, and nothing else. Stop it with: make down")
            return _SOME_RUN
        for part in reversed(stack.parts):
            if not part.is_running():
                state = f"not running   log: {part.log}"
            else:
                ready = "ready" if part.is_ready() else "not ready"
                state = f"running   pid {part.process.pid:<8} {part.url:<24} {ready}"
            print(f"{part.title:<{_WIDTH}} {state}")
        print(f"{'Broker':<{_WIDTH}} {self._broker_state(stack)}")
        if self._node.is_running():
            print(f"{'':<{_WIDTH}} scripts/rabbitmqctl is its rabbitmqctl")
        if self._is_whole(stack):
            return _ALL_RUN
        any_runs = self._node.is_running() or any(part.is_running() for part in stack.parts)
        return _SOME_RUN if any_runs else _NOTHING_RUNS

    def broker(self) -> None:
        """Print the address of the broker in use, with its credentials. Raises StackError."""
        stack = Stack.load(self._file)
        if stack is None or stack.broker.address is None:
            raise StackError("No broker is in use here; make up BROKER=rabbitmq starts one.")
        print(stack.broker.address.uri)

    def down(self) -> None:
        """Stop all of it."""
        if not self._stop():
            print("  Nothing runs.")

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other commands on the same folder out. Raises StackError if one is at work."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self._folder / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise StackError("Another `make up` or `make down` is at work here.") from error
            yield

    @staticmethod
    def _check_port(wish: Wish, old: Stack | None) -> None:
        port = _port(wish, old)
        if is_taken(port) and not (old and old.holds(port)):
            raise StackError(
                f"Port {port} is taken by {listener(port)}; expected it free for the Lambda "
                f"Server. Stop that program, or take another port: make up PORT={port + 10}"
            )

    def _start(self, wish: Wish, examples: Sequence[Example], old: Stack | None) -> Stack:
        if old is not None:
            print("  Not all of it runs, or something else is asked for now: starting anew")
            self._stop()
        try:
            broker = find_broker(wish.choice, self._environ, self._node)
            print(f"  Broker: {broker}")
            stack = Stack(broker=broker)
            server_port, ports = _port(wish, old), free_ports(2 * len(examples) + 1)
            ports = [port for port in ports if port != server_port]  # free still, as it starts last
            functions = [
                self._spawn_function(stack, example, ports.pop(), ports.pop())
                for example in examples
            ]
            for function in functions:
                self._wait_ready(function)
            self._wait_ready(self._spawn_server(stack, functions, server_port))
        except BaseException:  # an interrupt too: nothing half-started stays behind
            self._stop()
            raise
        return stack

    def _stop(self) -> bool:
        """Stop what runs, the last started first; return whether anything was there."""
        stack = Stack.load(self._file)
        for part in reversed(stack.parts if stack else []):
            with Step(part.title) as step:
                part.process.stop(_STOP_LIMIT_S, step.tick)
                step.result("stopped")
        has_node = not self._node.is_stopped()
        if has_node:
            with Step("RabbitMQ") as step:
                self._node.stop(on_wait=step.tick)
                step.result("stopped")
        self._file.unlink(missing_ok=True)
        return stack is not None or has_node

    def _spawn_function(
        self, stack: Stack, example: Example, port: int, runtime_api_port: int
    ) -> Part:
        address = stack.broker.address
        settings = {
            **example.settings,
            "RAPID_PORT": str(port),
            "RAPID_RUNTIME_API_PORT": str(runtime_api_port),
            "RAPID_AMQP_URI": "none" if address is None else address.uri,
        }
        return self._spawn(stack, example.name, launch.rapid(*example.command, settings=settings))

    def _spawn_server(self, stack: Stack, functions: Sequence[Part], port: int) -> Part:
        settings = {"PORT": str(port)}
        if stack.broker.address is not None:
            settings["AMQP_URI"] = stack.broker.address.uri
        else:
            endpoints = (f"{function.title}={function.url}" for function in functions)
            settings["LAMBDA_ENDPOINTS"] = ",".join(endpoints)
        return self._spawn(stack, SERVER_TITLE, launch.server(settings=settings))

    def _spawn(self, stack: Stack, title: str, launched: Launch) -> Part:
        environ = {k: v for k, v in self._environ.items() if k not in _OWN_SETTINGS}
        environ |= launched.environ
        log = self._folder / f"{title.lower().replace(' ', '-')}.log"
        log.unlink(missing_ok=True)
        with uninterrupted():  # a process that is not written down would never be stopped
            process = BackgroundProcess.spawn(launched.command, env=environ, cwd=_CHECKOUT, log=log)
            part = Part(title=title, port=launched.port, log=log, process=process)
            stack.parts.append(part)
            stack.save(self._file)
        return part

    @staticmethod
    def _wait_ready(part: Part) -> None:
        with Step(part.title) as step:
            wait_until(lambda: not part.is_running() or part.is_ready(), _READY_LIMIT_S, step.tick)
            if not part.is_running():
                raise StackError(f"{part.title} ended at once; {_end_of(part.log)}")
            if not part.is_ready():
                raise StackError(
                    f"{part.title} is not ready after {_READY_LIMIT_S:.0f} s "
                    f"(GET {part.url}/readyz); {_end_of(part.log)}"
                )
            step.result(f"ready on {part.url}")

    def _invoke(self, stack: Stack) -> None:
        server = stack.parts[-1]
        connection = http.client.HTTPConnection(LOOPBACK, server.port, timeout=_INVOKE_TIMEOUT_S)
        try:
            connection.request("POST", ECHO.path, _EVENT)
            response = connection.getresponse()
            answer = response.read().decode(errors="replace")
        except (OSError, http.client.HTTPException) as error:
            raise StackError(f"{server.url} did not answer an invocation: {error!r}") from error
        finally:
            connection.close()
        if response.status != 200 or response.getheader("X-Amz-Function-Error"):
            raise StackError(f"{ECHO.name} answered {response.status}: {answer}")
        print(f"  Invoked {ECHO.name} with {_EVENT}: it answered {answer}")

    def _tell_how_to_call(self, stack: Stack) -> None:
        server, event = stack.parts[-1].url, shlex.quote(_EVENT)
        # Versions 1 and 2 of the aws command read a payload given in place differently.
        print(f"""
The Lambda Server is on {server}. Call it:

  curl -d {event} {server}{ECHO.path}

  echo {event} | aws lambda invoke --endpoint-url {server} \\
      --region us-east-1 --no-sign-request --function-name {ECHO.name} \\
      --payload fileb:///dev/stdin answer.json && cat answer.json
""")
        if GREYSCALE.name in stack.function_names:
            cat = os.path.relpath(GREYSCALE.folder / "cat.jpg")
            print(f"""Make a picture grey, which needs xxd:

  echo '{{"body": "'$(cat {cat} | xxd -p | tr -d '\\n')'"}}' > request.txt
  curl -XPOST {server}{GREYSCALE.path} -d @request.txt \\
      | grep -Po '"body"\\s*:\\s*"\\K([^"]*)' | xxd -r -p > output.png
""")
        print(f"Logs: {self._folder}/*.log   What runs: make status   Stop: make down")

    @staticmethod
    def _is_whole(stack: Stack, examples: Sequence[Example] | None = None) -> bool:
        """Return whether all of it runs, and if ``examples`` are given, just these."""
        return (
            stack.server_port is not None
            and (examples is None or stack.function_names == {e.name for e in examples})
            and all(part.is_running() and part.is_ready() for part in stack.parts)
            and stack.broker.answers()
        )

    def _broker_state(self, stack: Stack) -> str:
        if stack.broker.kind is BrokerKind.NONE:
            return str(stack.broker)
        if not stack.broker.answers():
            return f"not running   {stack.broker}"
        pid = f"pid {self._node.pid:<8} " if self._node.is_running() else ""
        return f"running   {pid}{stack.broker}"


def main(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run one command; return the exit status."""
    parser = argparse.ArgumentParser(prog="scripts/local", description=__doc__)
    parser.add_argument("command", choices=["up", "status", "broker", "down"])
    parser.add_argument(
        "--folder", type=Path, default=_CHECKOUT / ".local", help="where state, logs and data are"
    )
    options = parser.parse_args(arguments)
    stack = LocalStack(options.folder, environ)
    try:
        if options.command == "status":
            return stack.status()
        if options.command == "broker":
            stack.broker()
            return 0
        with stack.lock():
            stack.up() if options.command == "up" else stack.down()
    except (BrokerUnusable, ConfigError, StackError, StateUnreadable) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _port(wish: Wish, old: Stack | None) -> int:
    """Return where the Lambda Server is wanted, or else was."""
    return wish.port or (old and old.server_port) or _DEFAULT_PORT


def _end_of(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()[-_LOG_LINES:]
    return "\n".join([f"the end of {log}:", *lines])


if __name__ == "__main__":
    exit_with(lambda: main(sys.argv[1:], os.environ), "Interrupted. What runs: make status")
