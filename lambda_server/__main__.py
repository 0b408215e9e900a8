"""The command ``lambda-server``: serve, run functions for development, invoke."""

from __future__ import annotations

import base64
import json
import os
import sys
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlsplit

import click

from lambda_protocol.environ import ConfigError
from lambda_protocol.limits import FUNCTION_TIMEOUT_MAX_S

#: Exit codes of ``invoke``: the function failed, or the call did.
FUNCTION_FAILED: Final = 1
CALL_FAILED: Final = 2


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="lambda-runtime-api-daemon", prog_name="lambda-server")
def main() -> None:
    """Run AWS Lambda functions on your own machines."""


@main.command()
def serve() -> None:
    """Serve the Invoke API under gunicorn; settings are environment variables.

    AMQP_URI names the broker; without one LAMBDA_ENDPOINTS=name=http://host:port,... does.
    The same as `gunicorn -c python:lambda_server.gunicorn_conf lambda_server.wsgi`.
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
    """Run the functions that FILE (TOML) declares, without a broker, until Ctrl-C."""
    from lambda_server.dev import DevError, read_functions, run

    try:
        sys.exit(run(read_functions(file), host=host, port=port, say=click.echo))
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
    path = f"/2015-03-31/functions/{quote(name, safe='')}/invocations"
    if qualifier is not None:
        path += f"?Qualifier={quote(qualifier, safe='')}"
    headers = {"Content-Type": "application/json"}
    if event:
        headers["X-Amz-Invocation-Type"] = "Event"
    if tail:
        headers["X-Amz-Log-Type"] = "Tail"
    connection = _connect(endpoint_url)
    try:
        connection.request("POST", path, _read_payload(payload), headers)
        response = connection.getresponse()
        body = response.read()
    except (OSError, HTTPException) as error:
        click.echo(f"lambda-server: {endpoint_url} did not answer: {error}", err=True)
        sys.exit(CALL_FAILED)
    finally:
        connection.close()
    log = response.headers.get("X-Amz-Log-Result")
    if log is not None:
        click.echo(base64.b64decode(log), nl=False, err=True)
    if response.status >= 300:
        code = response.headers.get("x-amzn-ErrorType", f"HTTP {response.status}")
        click.echo(f"lambda-server: {code}: {_message(body)}", err=True)
        sys.exit(CALL_FAILED)
    if body:
        click.echo(body)
    if response.headers.get("X-Amz-Function-Error"):
        sys.exit(FUNCTION_FAILED)


def _connect(endpoint_url: str) -> HTTPConnection:
    wrong = click.UsageError(f"--endpoint-url is {endpoint_url!r}; expected http://HOST:PORT")
    try:
        parts = urlsplit(endpoint_url)
        port = parts.port
    except ValueError:
        raise wrong from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise wrong
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    return kind(parts.hostname, port, timeout=FUNCTION_TIMEOUT_MAX_S + 60)


def _read_payload(text: str) -> bytes:
    if text == "-":
        return sys.stdin.buffer.read()
    if text.startswith("@"):
        try:
            return Path(text[1:]).read_bytes()
        except OSError as error:
            raise click.UsageError(f"--payload: {error}") from error
    return text.encode()


def _message(body: bytes) -> str:
    try:
        members = json.loads(body)
        return str(members.get("Message") or members.get("message"))
    except (ValueError, AttributeError):
        return body.decode("utf-8", "replace")


if __name__ == "__main__":
    main()
