from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from devtools.ports import LOOPBACK, free_ports
from tests.acceptance.local.conftest import left_running

_CHECKOUT = Path(__file__).resolve().parent.parent.parent.parent
_TAKEN_FROM_ENVIRON = ("AMQP_", "BROKER", "LAMBDA_", "PORT", "RAPID_")


class Stack:
    """The commands of ``scripts/local``, on a folder and a port of the test's own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_ports(1)[0]
        self._mark = {"TESTED_IN": str(folder)}  # inherited by all that is started

    def __call__(self, command: str, **settings: str) -> subprocess.CompletedProcess[str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(_TAKEN_FROM_ENVIRON)}
        return subprocess.run(
            [sys.executable, "-m", "devtools.local_stack", command, "--folder", self.folder],
            env=kept | {"PORT": str(self.port), "BROKER": "none", **self._mark} | settings,
            cwd=_CHECKOUT,
            capture_output=True,
            text=True,
            timeout=55,
            check=False,
        )

    def pids(self) -> list[int]:
        """Return the processes that are written down, the function's first."""
        record = json.loads((self.folder / "state.json").read_text())
        return [part["process"]["pid"] for part in record["parts"]]

    def invoke(self, event: str) -> str:
        """Call the function as curl would."""
        url = f"http://{LOOPBACK}:{self.port}/2015-03-31/functions/echo-lambda/invocations"
        with urllib.request.urlopen(url, event.encode(), timeout=10) as response:
            answer: bytes = response.read()
        return answer.decode()


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Stack]:
    stack = Stack(tmp_path / "stack")
    yield stack
    stack("down")
    assert left_running(stack.folder) == []


def _make(folder: Path, target: str) -> subprocess.CompletedProcess[str]:
    """Run make in a copy of what it needs of the checkout."""
    (folder / "scripts").mkdir()
    shutil.copy(_CHECKOUT / "scripts" / "local", folder / "scripts")
    shutil.copy(_CHECKOUT / "Makefile", folder)
    return _run("make", "--no-print-directory", target, cwd=folder)


def _rabbitmqctl(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run what ``scripts/rabbitmqctl`` runs, on the node in ``folder``."""
    return _run(sys.executable, "-m", "devtools.rabbitmq_node", str(folder), *words, cwd=_CHECKOUT)


def _run(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, cwd=cwd, capture_output=True, text=True, timeout=55, check=False)


def test_nothing_runs_at_first(local: Stack) -> None:
    done = local("status")

    assert done.returncode == 3
    assert done.stdout == "Nothing runs. Start with: make up\n"


def test_down_is_harmless_when_nothing_runs(local: Stack) -> None:
    done = local("down")

    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("is_half_made", [False, True])
@pytest.mark.parametrize("command", ["status", "down"])
def test_make_is_content_before_the_first_up(
    tmp_path: Path, command: str, is_half_made: bool
) -> None:
    """Also where an interrupted ``make up`` has left an environment without its libraries."""
    if is_half_made:
        (tmp_path / ".venv" / "bin").mkdir(parents=True)
        (tmp_path / ".venv" / "bin" / "python").symlink_to(sys.executable)

    done = _make(tmp_path, command)

    assert done.returncode == 0
    assert done.stderr == "There is no .venv here yet, so nothing runs. Start with: make up\n"


@pytest.mark.parametrize("code", [1, 3])
def test_make_status_prints_what_is_found_and_no_error(tmp_path: Path, code: int) -> None:
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f"#!/bin/sh\necho found; exit {code}\n")
    python.chmod(0o755)
    (tmp_path / ".venv" / ".runtime").touch()

    done = _make(tmp_path, "status")

    assert (done.returncode, done.stdout, done.stderr) == (0, "found\n", "")


def test_an_unknown_target_points_to_make_help() -> None:
    done = subprocess.run(
        ["make", "hlep"], cwd=_CHECKOUT, capture_output=True, text=True, timeout=60, check=False
    )

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("There is no target 'hlep'. make help lists the targets.\n")


def test_rabbitmqctl_says_that_there_is_no_private_node(tmp_path: Path) -> None:
    done = _rabbitmqctl(tmp_path / "rabbitmq", "status")

    assert done.returncode == 1
    assert done.stderr.startswith("No private RabbitMQ runs here. `make status` tells ")


def test_a_taken_port_is_one_clear_line(local: Stack) -> None:
    with socket.create_server((LOOPBACK, local.port)):
        done = local("up")

    assert done.returncode == 1
    assert done.stderr == (
        f"Port {local.port} is taken by {psutil.Process().name()}, "
        f"pid {os.getpid()}; expected it free for the Lambda Server. Stop that program, or take "
        f"another port: make up PORT={local.port + 10}\n"
    )
    assert local("status").returncode == 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        pytest.param({"PORT": "http"}, "PORT is 'http'", id="port"),
        pytest.param({"PORT": "0"}, "expected a whole number from 1 to 65535", id="port range"),
        pytest.param({"BROKER": "kafka"}, "BROKER is 'kafka'; expected one of auto", id="broker"),
        pytest.param({"BROKER": "auto", "AMQP_URI": "x"}, "expected amqp://host", id="uri"),
    ],
)
def test_a_wrong_setting_is_one_clear_line(
    local: Stack, settings: dict[str, str], message: str
) -> None:
    done = local("up", **settings)

    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_two_commands_at_once_are_told_apart(local: Stack) -> None:
    local.folder.mkdir()
    with (local.folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        done = local("up")

    assert done.returncode == 1
    assert done.stderr == "Another `make up` or `make down` is at work here.\n"


def test_up_answers_a_call_without_a_broker_and_says_how_to_call(local: Stack) -> None:
    done = local("up")

    assert (done.returncode, done.stderr) == (0, "")
    assert 'it answered {"hello": "world"}' in done.stdout
    assert f'curl -d \'{{"hello": "world"}}\' http://{LOOPBACK}:{local.port}/2015' in done.stdout
    assert f"aws lambda invoke --endpoint-url http://{LOOPBACK}:{local.port}" in done.stdout
    assert local.invoke('{"n": 1}') == '{"n": 1}'
    assert local("status").returncode == 0


def test_the_lines_to_paste_work(local: Stack) -> None:
    shown = local("up").stdout
    curl = next(line for line in shown.splitlines() if line.startswith("  curl "))
    aws = shown[shown.index("  echo ") :].partition("\n\n")[0]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"

    for line in (f"{curl} --silent --show-error", aws):
        done = subprocess.run(
            ["sh", "-ec", line],
            env=dict(os.environ, PATH=path),
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

        assert (done.returncode, done.stderr) == (0, "")
        assert '{"hello": "world"}' in done.stdout


def test_the_lines_to_make_a_picture_grey_work(local: Stack, tmp_path: Path) -> None:
    shown = local("up").stdout
    lines = shown[shown.index('  echo \'{"body"') :].partition("\n\n")[0]
    (tmp_path / "examples").symlink_to(_CHECKOUT / "examples")  # as from the checkout

    done = subprocess.run(
        ["bash", "-euc", lines],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert (tmp_path / "output.png").read_bytes().startswith(b"\x89PNG")


def test_a_second_up_leaves_alone_what_runs(local: Stack) -> None:
    local("up")
    before = local.pids()

    done = local("up")

    assert done.returncode == 0
    assert "Already up" in done.stdout
    assert 'it answered {"hello": "world"}' in done.stdout
    assert local.pids() == before


def test_up_starts_anew_when_a_part_has_died(local: Stack) -> None:
    local("up")
    function = local.pids()[0]
    os.kill(function, signal.SIGKILL)

    status = local("status")
    assert status.returncode == 1
    assert "not running" in status.stdout

    assert local("up").returncode == 0
    assert local.invoke('"again"') == '"again"'
    assert local("status").returncode == 0


def test_up_on_another_port_moves_there(local: Stack) -> None:
    local("up")
    local.port = free_ports(1)[0]

    done = local("up")

    assert done.returncode == 0
    assert "starting anew" in done.stdout
    assert local.invoke('"moved"') == '"moved"'


def test_up_on_a_taken_port_leaves_alone_what_runs_on_another(local: Stack) -> None:
    local("up")
    before = local.pids()

    with socket.create_server((LOOPBACK, 0)) as other:
        done = local("up", PORT=str(other.getsockname()[1]))

    assert done.returncode == 1
    assert "is taken by" in done.stderr
    assert local.pids() == before
    assert local.invoke('"still here"') == '"still here"'


def test_down_leaves_no_process(local: Stack) -> None:
    local("up")
    assert left_running(local.folder) != []

    done = local("down")

    assert done.returncode == 0
    assert left_running(local.folder) == []
    assert local("status").returncode == 3


@pytest.mark.broker
@pytest.mark.slow
def test_up_with_a_private_broker_shows_it_and_down_stops_it(local: Stack) -> None:
    done = local("up", BROKER="rabbitmq")

    assert (done.returncode, done.stderr) == (0, "")
    assert "RabbitMQ on amqp://127.0.0.1:" in done.stdout
    assert local.invoke('"through the broker"') == '"through the broker"'
    status = local("status").stdout
    assert "RabbitMQ on amqp://127.0.0.1:" in status
    assert "scripts/rabbitmqctl is its rabbitmqctl" in status
    for words in (
        ("add_user", "lambda-server", "a password"),
        ("set_permissions", "-p", "/", "lambda-server", "^$", r"^(amq\.default)$", "^$"),
    ):
        done = _rabbitmqctl(local.folder / "rabbitmq", *words)
        assert (done.returncode, done.stderr) == (0, "")
    assert r"amq\.default" in _rabbitmqctl(local.folder / "rabbitmq", "list_permissions").stdout

    local("down")

    assert left_running(local.folder) == []
