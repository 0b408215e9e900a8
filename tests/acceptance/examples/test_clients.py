"""The clients of examples/clients, as real processes: what they print, and what they exit with."""

from __future__ import annotations

import json
import os
import re
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
from tests.support import ECHO, LIMIT_S, MISBEHAVE, ROOT, base_environ, unique_name

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
    return subprocess.run(
        command,
        env={**base_environ(), **environ},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=2 * LIMIT_S,
        check=False,
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
def test_a_client_prints_what_a_rapid_answers(client: str, start_rapid: StartRapid) -> None:
    rapid = start_rapid(ECHO)

    done = run_client(
        client, rapid.function_name, '{"a": "$HOME ü"}', f"http://{LOOPBACK}:{rapid.port}"
    )

    assert (done.returncode, done.stdout) == (0, '{"a": "$HOME ü"}\n'), done.stderr


@over_http
def test_a_client_prints_what_comes_through_the_broker(
    client: str, start_rapid: StartRapid, start_server: StartServer, broker: str
) -> None:
    rapid, server = start_rapid(ECHO, RAPID_AMQP_URI=broker), start_server(AMQP_URI=broker)

    done = run_client(client, rapid.function_name, '{"a": 1}', server.url)

    assert (done.returncode, done.stdout) == (0, '{"a": 1}\n'), done.stderr


@over_http
def test_a_client_tells_that_the_function_failed(client: str, start_rapid: StartRapid) -> None:
    rapid = start_rapid(MISBEHAVE)

    done = run_client(client, rapid.function_name, FAILS, f"http://{LOOPBACK}:{rapid.port}")

    assert done.returncode == FUNCTION_FAILED
    assert json.loads(done.stdout) == {"errorType": "Mine"}
    assert "x-amz-function-error: unhandled" in done.stderr.lower()


@over_http
def test_a_client_tells_that_the_function_is_unknown(client: str, start_rapid: StartRapid) -> None:
    rapid = start_rapid(ECHO, RAPID_ANY_FUNCTION_NAME="FALSE")

    done = run_client(client, "another", "{}", f"http://{LOOPBACK}:{rapid.port}")

    assert done.returncode == CALL_FAILED
    assert "Function not found" in done.stdout + done.stderr


@over_http
def test_a_client_tells_that_nobody_answers(client: str) -> None:
    (port,) = free_ports(1)

    done = run_client(client, "echo-lambda", "{}", f"http://{LOOPBACK}:{port}")

    assert (done.returncode, done.stdout) == (CALL_FAILED, "")
    assert "connect" in done.stderr
    assert "Traceback" not in done.stderr


# --- over AMQP


def test_amqp_rpc_prints_the_answer_and_its_headers(start_rapid: StartRapid, broker: str) -> None:
    rapid = start_rapid(ECHO, RAPID_AMQP_URI=broker)

    done = run_client("amqp_rpc.py", rapid.function_name, '{"a": "ü"}', broker)

    assert (done.returncode, done.stdout) == (0, '{"a": "ü"}\n'), done.stderr
    assert done.stderr.splitlines() == ["X-Amz-Executed-Version: $LATEST", "X-Lambda-Status: 200"]


def test_amqp_rpc_finds_the_broker_by_amqp_uri(start_rapid: StartRapid, broker: str) -> None:
    rapid = start_rapid(ECHO, RAPID_AMQP_URI=broker)

    done = run_client("amqp_rpc.py", rapid.function_name, AMQP_URI=broker)

    assert (done.returncode, done.stdout) == (0, '{"hello": "world"}\n'), done.stderr


def test_amqp_rpc_tells_that_the_function_failed(start_rapid: StartRapid, broker: str) -> None:
    rapid = start_rapid(MISBEHAVE, RAPID_AMQP_URI=broker)

    done = run_client("amqp_rpc.py", rapid.function_name, FAILS, broker)

    assert done.returncode == FUNCTION_FAILED
    assert json.loads(done.stdout) == {"errorType": "Mine"}
    assert "X-Amz-Function-Error: Unhandled" in done.stderr


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


def test_amqp_rpc_tells_that_the_function_is_unknown(broker: str) -> None:
    name = unique_name()

    done = run_client("amqp_rpc.py", name, "{}", broker)

    assert (done.returncode, done.stdout) == (CALL_FAILED, "")
    assert done.stderr == f"unknown function: the broker has no queue {name}\n"


def test_amqp_rpc_tells_that_nobody_answers_in_time(start_rapid: StartRapid, broker: str) -> None:
    rapid = start_rapid(MISBEHAVE, RAPID_AMQP_URI=broker)
    event = json.dumps({"do": "sleep", "s": LIMIT_S})

    done = run_client("amqp_rpc.py", "--timeout", "0.5", rapid.function_name, event, broker)

    assert (done.returncode, done.stdout) == (CALL_FAILED, "")
    assert done.stderr == f"{rapid.function_name} did not answer within 0.5 s\n"


def test_amqp_rpc_tells_that_there_is_no_broker() -> None:
    (port,) = free_ports(1)

    done = run_client("amqp_rpc.py", "echo-lambda", "{}", f"amqp://{LOOPBACK}:{port}")

    assert (done.returncode, done.stdout) == (CALL_FAILED, "")
    assert re.fullmatch(r"the broker cannot be reached or was lost: .*\n", done.stderr)


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
