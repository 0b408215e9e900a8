"""What the Lambda Server logs: gunicorn's lines, requests, and what it works with at its start."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from devtools.ports import LOOPBACK, free_ports
from tests.acceptance.system.conftest import port_of
from tests.acceptance.system.proxy import Proxy
from tests.conftest import StartServer
from tests.fakes import FakeInstance
from tests.support import Server, WebProgram

SYNC_WORKER = "gunicorn runs its sync worker"
#: Both workers that this project supports.
WORKERS = pytest.mark.parametrize("worker", [(), ("-k", "gthread")], ids=["own", "gthread"])


def records(output: bytes) -> list[dict[str, Any]]:
    """Return the JSON objects of a structured log; every line has to be one."""
    return [json.loads(line) for line in output.splitlines()]


def stop(server: Server) -> None:
    """Stop a server that was not waited for: a worker that only just starts misses the signal."""
    assert server.get("/healthz").status == 200
    assert server.stop() == 0


# --- gunicorn's lines


def test_structured_logging_reaches_gunicorns_lines(start_server: StartServer) -> None:
    server = start_server(ready=False, USE_STRUCTURED_LOGGING="TRUE", LOG_LEVEL="DEBUG")

    stop(server)

    found = records(server.stderr)
    assert {"INFO", "DEBUG", "WARNING"} == {record["level"] for record in found}
    assert {record["program"] for record in found} == {"lambda-server"}
    assert any(record["message"].startswith("Listening at: ") for record in found)


@pytest.mark.parametrize(
    ("level", "arguments", "is_said"),
    [
        pytest.param("INFO", (), True, id="info"),
        pytest.param("FATAL", (), False, id="fatal"),
        pytest.param("WARN", ("--log-level", "info"), True, id="gunicorns-own-flag-goes-first"),
    ],
)
def test_the_log_level_reaches_gunicorns_lines(
    start_server: StartServer, level: str, arguments: tuple[str, ...], is_said: bool
) -> None:
    server = start_server(*arguments, ready=False, LOG_LEVEL=level)

    stop(server)

    assert (b"Listening at: " in server.stderr) is is_said
    assert all(" (lambda-server) " in line for line in server.stderr.decode().splitlines())


# --- the access log


def test_requests_are_not_logged_unless_asked_for(
    start_server: StartServer, instance: FakeInstance
) -> None:
    server = start_server(LAMBDA_ENDPOINTS=f"echo={instance.url}")

    server.invoke("echo")
    server.stop()

    assert (server.stdout, b"invocations" in server.stderr) == (b"", False)


@WORKERS
def test_the_access_log_is_in_gunicorns_form(
    start_server: StartServer, instance: FakeInstance, worker: tuple[str, ...]
) -> None:
    server = start_server(*worker, "--access-logfile", "-", LAMBDA_ENDPOINTS=f"echo={instance.url}")

    server.invoke("echo", b'"payload"', User_Agent="me/1", Referer="http://x/?token=1")
    line = server.wait_for_log("POST ")

    request = '"POST /2015-03-31/functions/echo/invocations HTTP/1.1"'
    assert line.startswith(f"{LOOPBACK} - - [")
    assert line.endswith(f'] {request} 200 9 "http://x/" "me/1"')


@WORKERS
def test_the_access_log_is_structured_where_logging_is(
    start_server: StartServer, instance: FakeInstance, worker: tuple[str, ...]
) -> None:
    server = start_server(
        *worker,
        *("--access-logfile", "-"),
        LAMBDA_ENDPOINTS=f"echo={instance.url}",
        USE_STRUCTURED_LOGGING="TRUE",
    )

    answer = server.invoke("echo", b'"payload"', User_Agent="me/1")
    server.wait_for_log("POST")
    server.stop()

    (record,) = [record for record in records(server.stdout) if record["method"] == "POST"]
    assert record.pop("time")
    assert record.pop("duration_ms") > 0
    assert record == {
        "level": "INFO",
        "program": "lambda-server",
        "message": "request",
        "remote_address": LOOPBACK,
        "method": "POST",
        "path": "/2015-03-31/functions/echo/invocations",
        "protocol": "HTTP/1.1",
        "status": 200,
        "response_bytes": 9,
        "request_id": answer.headers["x-amzn-RequestId"],
        "user_agent": "me/1",
    }


@WORKERS
@pytest.mark.parametrize("structured", ["TRUE", "FALSE"])
def test_the_access_log_has_no_query_string_and_no_control_character(
    start_server: StartServer, worker: tuple[str, ...], structured: str
) -> None:
    server = start_server(
        *worker,
        *("--access-logfile", "-", "--access-logformat", "%(r)s %(U)s %(q)s %({x-mine}i)s"),
        ready=False,
        USE_STRUCTURED_LOGGING=structured,
    )

    server.get("/a%0Ab%1b[3m?X-Amz-Signature=secret")
    server.wait_for_log("b%1b[3m")

    assert b"secret" not in server.stdout + server.stderr
    assert len(server.stdout.splitlines()) == 1


def test_what_is_no_request_is_in_the_access_log(start_server: StartServer) -> None:
    server = start_server("--access-logfile", "-", ready=False)

    with server.raw() as connection:
        connection.send(b"garbage\r\n\r\n")
        assert connection.read_answer().status == 400

    assert server.wait_for_log('"- - -" 400').startswith(LOOPBACK)


def test_the_access_log_goes_to_a_file_for_serve_too(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    file = tmp_path / "access.log"
    environ = {
        "INVOKE_API_HOST": LOOPBACK,
        "PORT": str(port),
        "GUNICORN_CMD_ARGS": f"--access-logfile {file}",
    }
    command = [sys.executable, "-m", "lambda_server", "serve"]
    with WebProgram("serve", command, environ, port=port, ready=False) as program:
        program.get("/healthz")

        assert program.stop() == 0

    assert '"GET /healthz HTTP/1.1" 200' in file.read_text()


# --- at its start


def test_the_broker_is_named_when_it_is_reached(start_server: StartServer, broker: str) -> None:
    server = start_server(ready=False, AMQP_URI=broker)

    line = server.wait_for_log("broker reached")

    assert "[INFO]" in line
    assert f"broker=amqp://{LOOPBACK}:{port_of(broker)}" in line


def test_a_broker_that_is_away_is_a_warning_and_then_its_return(
    start_server: StartServer, broker: str
) -> None:
    (port,) = free_ports(1)
    uri = f"amqp://guest:secret@{LOOPBACK}:{port}/"
    server = start_server(ready=False, AMQP_URI=uri, AMQP_PASSWORD="guest")
    warning = server.wait_for_log("broker not reached")

    for _ in range(3):
        assert server.get("/readyz").status == 503
    with Proxy(port_of(broker), port=port):
        back = server.wait_for_log("broker reached")
        server.stop()

    assert "[WARNING]" in warning
    assert f"broker=amqp://{LOOPBACK}:{port}/ error=ConnectionRefused" in warning
    assert "[INFO]" in back
    assert sum("broker not reached" in line for line in server.log) == 1
    assert "secret" not in "".join(server.log)


@pytest.mark.parametrize("environ", [{}, {"AMQP_URI": ""}], ids=["unset", "empty"])
def test_a_server_that_knows_no_function_says_what_to_set(
    start_server: StartServer, environ: dict[str, str]
) -> None:
    server = start_server(ready=False, **environ)

    line = server.wait_for_log("no function can be called")

    assert "AMQP_URI and LAMBDA_ENDPOINTS are unset or empty; set AMQP_URI=amqp://HOST:PORT" in line


@pytest.mark.parametrize(
    ("arguments", "is_warned"),
    [
        pytest.param((), True, id="bare"),
        pytest.param(("-c", "python:lambda_server.gunicorn_conf"), False, id="with-our-settings"),
        pytest.param(("-k", "gthread"), False, id="with-another-worker"),
    ],
)
def test_gunicorn_in_another_folder_is_told_what_to_add(
    tmp_path: Path, arguments: tuple[str, ...], is_warned: bool
) -> None:
    (port,) = free_ports(1)
    bind = f"{LOOPBACK}:{port}"
    command = [sys.executable, "-m", "gunicorn", *arguments, "-b", bind, "lambda_server.wsgi"]
    program = WebProgram("gunicorn", command, {}, port=port, ready=False)
    program.cwd = tmp_path
    with program:
        program.wait_for_log("no function can be called")  # comes after the warning
        program.stop()

    warnings = [line for line in program.log if SYNC_WORKER in line]
    assert len(warnings) == int(is_warned)
    assert all("add -c python:lambda_server.gunicorn_conf" in line for line in warnings)


def test_the_checkouts_own_file_takes_the_right_worker(start_server: StartServer) -> None:
    server: Server = start_server(ready=False)

    server.wait_for_log("no function can be called")

    assert not [line for line in server.log if SYNC_WORKER in line]
