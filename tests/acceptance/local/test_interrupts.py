"""Ctrl-C during ``make up``, from its first step on, and what the next command finds."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from devtools import venv
from devtools.interrupts import uninterrupted
from devtools.ports import free_ports
from tests.acceptance.local.conftest import left_running
from tests.support import ROOT, Program, run_command, wait_until

STACK = ("-m", "devtools.local_stack")
INTERRUPTED = 130


def assert_was_interrupted(program: Program, says: str) -> None:
    assert program.wait_exit(60) == INTERRUPTED
    assert program.stderr.decode().splitlines() == [says]


@pytest.mark.parametrize("awaited", ["lock", "state.json"])
def test_an_interrupted_up_is_one_line_and_leaves_nothing(tmp_path: Path, awaited: str) -> None:
    folder = tmp_path / "stack"
    environ = {"PORT": str(free_ports(1)[0]), "BROKER": "none"}
    command = [sys.executable, *STACK, "up", "--folder", str(folder)]
    with contextlib.closing(Program("make up", command, environ)) as program:
        program.start()
        wait_until((folder / awaited).exists, f"{awaited} to be there")

        program.signal(signal.SIGINT)

        assert_was_interrupted(program, "Interrupted. What runs: make status")
    assert left_running(folder) == []
    assert not (folder / "state.json").exists()


def test_an_interrupt_while_the_environment_is_made_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [sys.executable, "-m", "devtools.venv", "runtime"]
    program = Program("make up", command, {})
    program.cwd = tmp_path
    with contextlib.closing(program):
        program.start()
        wait_until((tmp_path / ".venv").exists, "the environment's folder")

        program.signal(signal.SIGINT)

        assert_was_interrupted(program, "Interrupted; the next make goes on with it.")
    assert not (tmp_path / ".venv" / ".runtime").exists()

    subprocess.run(
        [sys.executable, "-m", "venv", "--clear", "--without-pip", ".venv"],
        cwd=tmp_path,
        check=True,
    )
    monkeypatch.chdir(tmp_path)
    assert not venv._is_usable()  # without pip: it is made again


@pytest.mark.parametrize("command", ["status", "down"])
@pytest.mark.parametrize("text", ["", "{", "[]", '{"broker": {}}'])
def test_a_record_that_cannot_be_read_is_one_line(tmp_path: Path, command: str, text: str) -> None:
    (tmp_path / "state.json").write_text(text)

    done = run_command(sys.executable, *STACK, command, "--folder", str(tmp_path), cwd=ROOT)

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"{tmp_path}/state.json says what runs, and cannot be read")
    assert done.stderr.count("\n") == 1


def test_an_interrupt_waits_for_the_end_of_a_step_and_reaches_what_it_started() -> None:
    started = []

    def work() -> None:
        with uninterrupted():
            os.kill(os.getpid(), signal.SIGINT)
            started.append(subprocess.Popen(["sleep", "60"]))

    with pytest.raises(KeyboardInterrupt):
        work()

    (child,) = started
    child.send_signal(signal.SIGINT)
    assert child.wait(10) == -signal.SIGINT
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
