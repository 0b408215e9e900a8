"""The command ``lambda-server``: serve, run functions for development, invoke, dead letters."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from lambda_protocol.address import Address, parse_host
from lambda_protocol.environ import ConfigError, Environ
from lambda_protocol.errors import LambdaApiError
from lambda_protocol.function_name import parse_function_name
from lambda_protocol.invocation import InvocationType
from lambda_protocol.log_format import escape_controls
from lambda_server import __version__, invoke_client

if TYPE_CHECKING:
    from lambda_server.dead_letters import DeadLetters

#: Exit codes of ``invoke``: the function failed, or the call did.
FUNCTION_FAILED: Final = 1
CALL_FAILED: Final = 2


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="lambda-server")
def main() -> None:
    """Run AWS Lambda functions on your own machines."""


@main.command()
def serve() -> None:
    """Serve the Invoke API for any number of functions.

    \b
    Settings are environment variables, here with their defaults:
      AMQP_URI          the broker: amqp://HOST:PORT/VHOST
      LAMBDA_ENDPOINTS  without a broker, each rapid: NAME=http://HOST:PORT,...
      PORT              port of the Invoke API [8080]
      INVOKE_API_HOST   address of the Invoke API [::, which is every address]
      WEB_CONCURRENCY   processes [1]
      LOG_LEVEL         TRACE DEBUG INFO WARN ERROR FATAL [INFO]

    docs/reference/settings.md in the repository has all settings. The same server runs by
    `gunicorn -c python:lambda_server.gunicorn_conf lambda_server.wsgi`.
    """
    from lambda_server.config import Config

    try:
        Config.from_environ(os.environ)  # now: gunicorn makes a traceback of some wrong values
    except ConfigError as error:
        click.echo(f"lambda-server: {error}", err=True)
        sys.exit(2)
    argv = [sys.executable, "-m", "gunicorn", "-c", "python:lambda_server.gunicorn_conf"]
    os.execv(sys.executable, [*argv, "lambda_server.wsgi"])  # noqa: S606 - we become gunicorn


@main.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to serve on.")
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    default=8080,
    show_default=True,
    help="Port to serve on.",
)
def dev(file: Path, host: str, port: int) -> None:
    """Run the functions of a file, without a broker.

    FILE (TOML) has one table [functions.NAME] for each function. Ctrl-C ends everything.
    """
    from lambda_server.dev import DevError, run
    from lambda_server.functions_file import read_functions

    try:
        address = Address(parse_host(host), port)
    except ValueError as error:
        raise click.BadParameter(f"{error}", param_hint="--host") from error
    try:
        sys.exit(run(read_functions(file), address=address, say=click.echo))
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    except DevError as error:
        raise click.ClickException(str(error)) from error


@main.command()
@click.argument("name")
@click.option("-p", "--payload", default="{}", help="JSON, @FILE, or - for standard input.")
@click.option(
    "--endpoint-url",
    envvar="LAMBDA_ENDPOINT_URL",
    default="http://127.0.0.1:8080",
    show_default=True,
    help="A Lambda Server or a rapid.",
)
@click.option("--qualifier", help="Version or alias.")
@click.option("--event", is_flag=True, help="Do not wait: invocation type Event.")
@click.option("--tail", is_flag=True, help="Print the last 4 KiB of the log to standard error.")
def invoke(
    name: str, payload: str, endpoint_url: str, qualifier: str | None, event: bool, tail: bool
) -> None:
    """Invoke the function NAME and print what it returns.

    Exit code 0: it returned; 1: it failed (its error is printed); 2: the call failed.
    """
    try:
        answer = invoke_client.invoke(
            endpoint_url,
            name,
            _read_payload(payload),
            qualifier=qualifier,
            invocation_type=InvocationType.EVENT if event else InvocationType.REQUEST_RESPONSE,
            wants_log_tail=tail,
        )
    except ValueError:
        raise click.UsageError(
            f"--endpoint-url is {endpoint_url!r}; expected http://HOST:PORT"
        ) from None
    except invoke_client.InvokeError as error:
        click.echo(escape_controls(f"lambda-server: {error}"), err=True)
        sys.exit(CALL_FAILED)
    if answer.log_tail is not None:
        _echo(answer.log_tail, nl=False, err=True)
    if answer.payload:
        _echo(answer.payload)
    if answer.has_failed:
        sys.exit(FUNCTION_FAILED)


@main.group()
def dead() -> None:
    """Show, redrive or delete dead letters.

    A dead letter is an asynchronous invocation that was discarded. AMQP_URI names the broker, as
    for `serve`.
    """


_limit = click.option(
    "--limit",
    type=click.IntRange(1, 65_535),
    default=20,
    show_default=True,
    help="How many to show, the oldest first.",
)


@dead.command(name="list")
@click.argument("name")
@_limit
def list_dead(name: str, limit: int) -> None:
    """List the oldest dead letters of the function NAME."""
    with _dead_letters(name) as letters:
        total = letters.count()
        for letter in letters.read(limit):
            when = _local_time(letter.first_queued_ms)
            error = " ".join(letter.error_message.split())
            code = "-" if letter.error_code is None else letter.error_code
            facts = f"attempts {letter.attempts}  code {code}"
            line = f"{letter.request_id}  {when}  {facts}  {error[:100]}"
            click.echo(escape_controls(line, keeps_lines=False))
        shown = f", the oldest {limit} shown" if total > limit else ""
        click.echo(f"{name}: {total} dead letters{shown}")


@dead.command()
@click.argument("name")
@click.argument("request_id", required=False)
@_limit
def show(name: str, request_id: str | None, limit: int) -> None:
    """Print dead letters whole, as JSON lines.

    With REQUEST_ID only that one of the function NAME, looked for among the oldest 65,535.
    """
    with _dead_letters(name) as letters:
        found = letters.read(limit if request_id is None else 65_535)
    for letter in found:
        if request_id in (None, letter.request_id):
            members = {**dataclasses.asdict(letter), "payload": _shown(letter.payload)}
            click.echo(json.dumps(members))
    if request_id is not None and all(letter.request_id != request_id for letter in found):
        raise click.ClickException(f"{name} has no dead letter {request_id}")


@dead.command()
@click.argument("name")
def redrive(name: str) -> None:
    """Invoke the function NAME again with each letter.

    The invocations are asynchronous. An interrupted redrive leaves the letters that are not moved
    yet.
    """
    with _dead_letters(name) as letters:
        total = letters.count()
        with click.progressbar(length=total, label=f"{total} dead letters of {name}") as bar:
            moved = letters.redrive(lambda: bar.update(1))
    click.echo(f"{moved} dead letters are invoked again")


@dead.command()
@click.argument("name")
@click.confirmation_option(prompt="Remove every dead letter for good?")
def purge(name: str) -> None:
    """Remove every dead letter of the function NAME."""
    with _dead_letters(name) as letters:
        click.echo(f"{letters.purge()} dead letters removed")


@contextlib.contextmanager
def _dead_letters(name: str) -> Iterator[DeadLetters]:
    """Connect to the broker; every failure is one line."""
    from lambda_protocol.amqp_connection import BrokerLost, ClosedByBroker
    from lambda_protocol.amqp_refusals import Refusals
    from lambda_server.dead_letters import DeadLetters, DeadLettersError, permissions

    try:
        address = Environ(os.environ).broker()
        if address is None:
            raise click.UsageError("AMQP_URI is not set; expected amqp://host:port/vhost")
        function = parse_function_name(name)
        refusals = Refusals(address=address, needs=permissions(function))
        with contextlib.closing(DeadLetters(address, function)) as letters:
            yield letters
    except (ConfigError, LambdaApiError) as error:
        raise click.UsageError(str(error)) from error
    except DeadLettersError as error:
        raise click.ClickException(str(error)) from error
    except ClosedByBroker as error:
        told = "; ".join(f"{key}={value}" for key, value in refusals.explain(error).items())
        raise click.ClickException(f"RabbitMQ refuses the command: {told}") from error
    except BrokerLost as error:
        raise click.ClickException(f"the broker is not reached or was lost: {error!r}") from error


def _echo(data: bytes, *, nl: bool = True, err: bool = False) -> None:
    """Print what a function said: as it is, but on a terminal without what that would obey."""
    if (sys.stderr if err else sys.stdout).isatty():
        text = data.decode("utf-8", "backslashreplace").replace("\r\n", "\n")
        click.echo(escape_controls(text), nl=nl, err=err)
    else:
        click.echo(data, nl=nl, err=err)


def _local_time(epoch_ms: int | None) -> str:
    if epoch_ms is None:
        return "-" * 19
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(epoch_ms / 1000))


def _shown(payload: bytes) -> object:
    try:
        return json.loads(payload)
    except ValueError:
        return payload.decode("utf-8", "replace")


def _read_payload(text: str) -> bytes:
    if text == "-":
        return sys.stdin.buffer.read()
    if text.startswith("@"):
        try:
            return Path(text[1:]).read_bytes()
        except OSError as error:
            raise click.UsageError(f"--payload: {error}") from error
    return text.encode()
