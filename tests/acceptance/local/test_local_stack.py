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
from tests.support import run_command

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
        environ = kept | {"PORT": str(self.port), "BROKER": "none", **self._mark} | settings
        words = (sys.executable, "-m", "devtools.local_stack", command, "--folder", self.folder)
        return run_command(*words, env=environ, cwd=_CHECKOUT, timeout=55)

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
    return run_command("make", "--no-print-directory", target, cwd=folder)


def _rabbitmqctl(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run what ``scripts/rabbitmqctl`` runs, on the node in ``folder``."""
    return run_command(
        sys.executable, "-m", "devtools.rabbitmq_node", str(folder), *words, cwd=_CHECKOUT
    )


def test_nothing_runs_at_first_and_down_is_harmless(local: Stack) -> None:
    status, down = local("status"), local("down")

    assert status.returncode == 3
    assert status.stdout == "Nothing runs. Start with: make up\n"
    assert (down.returncode, down.stderr) == (0, "")


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
    done = run_command("make", "hlep", cwd=_CHECKOUT, timeout=60)

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
        pytest.param({"BROKER": "kafka"}, "BROKER is 'kafka'; expected one of auto", id="broker"),
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


def test_what_up_prints_works_and_a_second_up_leaves_alone_what_runs(
    local: Stack, tmp_path: Path
) -> None:
    done = local("up")
    before = local.pids()
    again = local("up")

    shown = done.stdout
    assert (done.returncode, done.stderr) == (0, "")
    assert 'it answered {"hello": "world"}' in shown
    assert "Already up" in again.stdout
    assert 'it answered {"hello": "world"}' in again.stdout
    assert local.pids() == before
    assert local("status").returncode == 0
    (tmp_path / "examples").symlink_to(_CHECKOUT / "examples")  # as from the checkout
    curl = next(line for line in shown.splitlines() if line.startswith("  curl "))
    aws = shown[shown.index("  echo ") :].partition("\n\n")[0]
    grey = shown[shown.index('  echo \'{"body"') :].partition("\n\n")[0]
    for lines, printed in (
        (f"{curl} --silent --show-error", '{"hello": "world"}'),
        (aws, '{"hello": "world"}'),
        (grey, ""),
    ):
        assert f"http://{LOOPBACK}:{local.port}" in lines
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        pasted = run_command("bash", "-euc", lines, cwd=tmp_path, env=dict(os.environ, PATH=path))
        assert pasted.returncode == 0, pasted.stderr
        assert printed in pasted.stdout
    assert (tmp_path / "output.png").read_bytes().startswith(b"\x89PNG")


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


def test_up_on_another_port_moves_there_unless_it_is_taken(local: Stack) -> None:
    local("up")
    before = local.pids()

    with socket.create_server((LOOPBACK, 0)) as other:
        refused = local("up", PORT=str(other.getsockname()[1]))

    assert refused.returncode == 1
    assert "is taken by" in refused.stderr
    assert local.pids() == before
    assert local.invoke('"still here"') == '"still here"'

    local.port = free_ports(1)[0]
    done = local("up")

    assert done.returncode == 0
    assert "starting anew" in done.stdout
    assert local.invoke('"moved"') == '"moved"'


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

    assert left_running(local.folder) != []

    assert local("down").returncode == 0

    assert left_running(local.folder) == []
    assert local("status").returncode == 3
