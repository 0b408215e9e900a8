"""The clients of examples/clients, as real processes: what they print, and what they exit with."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pika
import pytest

from devtools.ports import LOOPBACK, free_ports
from tests.conftest import StartRapid, StartServer
from tests.support import ECHO, LIMIT_S, MISBEHAVE, ROOT, base_environ, run_command, unique_name

CLIENTS: Final = ROOT / "examples" / "clients"
FUNCTION_FAILED: Final = 1
CALL_FAILED: Final = 2

over_http = pytest.mark.parametrize("client", ["curl.sh", "aws-cli.sh", "boto3_client.py"])

FAILS: Final = '{"do": "raise", "type": "Mine.Failed", "body": "{\\"errorType\\": \\"Mine\\"}"}'


def run_client(client: str, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a client to its end, as a user with no settings of his own does."""
    command = [str(CLIENTS / client), *arguments]
    if client.endswith(".py"):
        command.insert(0, sys.executable)
    return run_command(
        *command, env={**base_environ(), **environ}, stdin=subprocess.DEVNULL, timeout=2 * LIMIT_S
    )


@pytest.fixture(autouse=True)
def _their_tools(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Skip where a client's command is missing; keep the developer's AWS settings out."""
    monkeypatch.setenv("HOME", str(tmp_path))
    if "client" not in request.fixturenames:
        return
    tool = {"curl.sh": "curl", "aws-cli.sh": "aws"}.get(request.getfixturevalue("client"))
    if tool is not None and shutil.which(tool, path=base_environ()["PATH"]) is None:
        pytest.skip(f"no {tool} on this machine")


# --- over HTTP


@over_http
def test_a_client_prints_what_comes_through_the_broker(
    client: str, start_rapid: StartRapid, start_server: StartServer, broker: str
) -> None:
    rapid, server = start_rapid(ECHO, RAPID_AMQP_URI=broker), start_server(AMQP_URI=broker)

    done = run_client(client, rapid.function_name, '{"a": "$HOME ü"}', server.url)

    assert (done.returncode, done.stdout) == (0, '{"a": "$HOME ü"}\n'), done.stderr


@over_http
def test_a_client_tells_what_failed(client: str, start_rapid: StartRapid) -> None:
    rapid = start_rapid(MISBEHAVE, RAPID_ANY_FUNCTION_NAME="FALSE")
    url, nowhere = (f"http://{LOOPBACK}:{port}" for port in (rapid.port, *free_ports(1)))

    failed = run_client(client, rapid.function_name, FAILS, url)
    unknown = run_client(client, "another", "{}", url)
    unanswered = run_client(client, "echo-lambda", "{}", nowhere)

    assert failed.returncode == FUNCTION_FAILED
    assert json.loads(failed.stdout) == {"errorType": "Mine"}
    assert "x-amz-function-error: unhandled" in failed.stderr.lower()
    assert unknown.returncode == CALL_FAILED
    assert "Function not found" in unknown.stdout + unknown.stderr
    assert (unanswered.returncode, unanswered.stdout) == (CALL_FAILED, "")
    assert "connect" in unanswered.stderr
    assert "Traceback" not in unanswered.stderr


# --- over AMQP


def test_amqp_rpc_prints_the_answer_and_its_headers(start_rapid: StartRapid, broker: str) -> None:
    rapid = start_rapid(ECHO, RAPID_AMQP_URI=broker)

    done = run_client("amqp_rpc.py", rapid.function_name, '{"a": "ü"}', broker)

    assert (done.returncode, done.stdout) == (0, '{"a": "ü"}\n'), done.stderr
    assert done.stderr.splitlines() == ["X-Amz-Executed-Version: $LATEST", "X-Lambda-Status: 200"]

    done = run_client("amqp_rpc.py", rapid.function_name, AMQP_URI=broker)

    assert (done.returncode, done.stdout) == (0, '{"hello": "world"}\n'), done.stderr


def test_amqp_rpc_tells_that_the_call_was_refused(broker: str) -> None:
    name = unique_name()
    refusal = {"X-Lambda-Status": 429, "X-Lambda-Error-Type": "TooManyRequestsException"}

    with pika.BlockingConnection(pika.URLParameters(broker)) as connection:
        channel = connection.channel()
        channel.queue_declare(name, exclusive=True)
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(run_client, "amqp_rpc.py", name, "{}", broker)
            _, call, _ = next(channel.consume(name, auto_ack=True, inactivity_timeout=LIMIT_S))
            assert call is not None
            properties = pika.BasicProperties(correlation_id=call.correlation_id, headers=refusal)
            channel.basic_publish("", str(call.reply_to), b'{"Message": "busy"}', properties)
            done = running.result()

    assert (done.returncode, done.stdout) == (CALL_FAILED, '{"Message": "busy"}\n')
    assert done.stderr.splitlines() == [
        "X-Lambda-Error-Type: TooManyRequestsException",
        "X-Lambda-Status: 429",
    ]


def test_amqp_rpc_tells_what_failed(start_rapid: StartRapid, broker: str) -> None:
    rapid = start_rapid(MISBEHAVE, RAPID_AMQP_URI=broker)
    unknown, (port,) = unique_name(), free_ports(1)
    sleeps = json.dumps({"do": "sleep", "s": LIMIT_S})

    failed = run_client("amqp_rpc.py", rapid.function_name, FAILS, broker)
    assert failed.returncode == FUNCTION_FAILED
    assert json.loads(failed.stdout) == {"errorType": "Mine"}
    assert "X-Amz-Function-Error: Unhandled" in failed.stderr

    for arguments, said in (
        ((unknown, "{}", broker), f"unknown function: the broker has no queue {unknown}\n"),
        (
            ("--timeout", "0.5", rapid.function_name, sleeps, broker),
            f"{rapid.function_name} did not answer within 0.5 s\n",
        ),
        (
            ("echo-lambda", "{}", f"amqp://{LOOPBACK}:{port}"),
            "the broker cannot be reached or was lost: ",
        ),
    ):
        done = run_client("amqp_rpc.py", *arguments)
        assert (done.returncode, done.stdout) == (CALL_FAILED, "")
        assert done.stderr.startswith(said)
        assert done.stderr.count("\n") == 1


# --- all of them


def test_every_client_can_be_run_and_has_the_same_defaults() -> None:
    clients = sorted(path for path in CLIENTS.iterdir() if path.suffix in (".py", ".sh"))

    assert len(clients) == 4
    for client in clients:
        text = client.read_text()
        assert os.access(client, os.X_OK)
        assert "echo-lambda" in text
        assert '{"hello": "world"}' in text
        assert ("http://127.0.0.1:8080" in text) or ("amqp://guest:guest@127.0.0.1" in text)
