"""``lambda-server dev``: its file, and a run of it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lambda_protocol.environ import ConfigError
from lambda_server.dev import Function, read_functions
from scripts.ports import LOOPBACK, free_ports
from tests.support import BASH_ECHO, ECHO, MISBEHAVE, Client, Program, wait_until


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "functions.toml"


@contextlib.contextmanager
def dev(file: Path, port: int | str) -> Iterator[Program]:
    """Run ``lambda-server dev``; nothing of it is left afterwards."""
    command = [sys.executable, "-m", "lambda_server", "dev", str(file)]
    program = Program("lambda-server dev", [*command, "--host", LOOPBACK, "--port", str(port)], {})
    program.start()
    try:
        yield program
    finally:
        program.close()


# --- the file


def test_functions_are_read(file: Path) -> None:
    file.write_text(
        """
        [functions.a]
        command = ["./bootstrap", "a.handler"]

        [functions.b_2-c]
        command = ["./run"]
        cwd = "sub"
        timeout = 2.5
        memory = 512
        concurrency = 3
        handler = "b.handler"
        environment = { X = "1" }
        """
    )

    assert read_functions(file) == [
        Function(name="a", command=("./bootstrap", "a.handler"), cwd=file.parent),
        Function(
            name="b_2-c",
            command=("./run",),
            cwd=file.parent / "sub",
            environment={
                "X": "1",
                "AWS_LAMBDA_FUNCTION_TIMEOUT": "2.5",
                "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "512",
                "MAX_CONCURRENCY": "3",
                "AWS_LAMBDA_FUNCTION_HANDLER": "b.handler",
            },
        ),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("[functions.a", "Expected ']'", id="no-toml"),
        pytest.param("", "declares no function", id="empty"),
        pytest.param("[functions]", "declares no function", id="no-function"),
        pytest.param("functions = 1", "declares no function", id="no-table"),
        pytest.param("[functions]\na = 1", r"\[functions.a\] has 1", id="function-no-table"),
        pytest.param('[functions."a b"]\ncommand=["x"]', "expected a name", id="name"),
        pytest.param(f"[functions.{'a' * 65}]\ncommand=['x']", "expected a name", id="long-name"),
        pytest.param("[functions.a]", "command is None", id="no-command"),
        pytest.param('[functions.a]\ncommand="x"', "command is 'x'", id="command-text"),
        pytest.param("[functions.a]\ncommand=[]", r"command is \[\]", id="command-empty"),
        pytest.param("[functions.a]\ncommand=[1]", r"command is \[1\]", id="command-number"),
        pytest.param("[functions.a]\ncommand=['x']\ncwd=1", "cwd is 1", id="cwd"),
        pytest.param(
            "[functions.a]\ncommand=['x']\ncolour=1", r"has \['colour'\]; expected", id="key"
        ),
        pytest.param(
            "[functions.a]\ncommand=['x']\nenvironment=1", "no table of strings", id="environment"
        ),
        pytest.param(
            "[functions.a]\ncommand=['x']\nenvironment={X=1}", "no table of strings", id="value"
        ),
    ],
)
def test_a_wrong_file_is_a_line_that_names_it(file: Path, text: str, said: str) -> None:
    file.write_text(text)

    with pytest.raises(ConfigError, match=said) as caught:
        read_functions(file)

    assert str(caught.value).startswith(str(file))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_text_is_a_line(file: Path) -> None:
    file.write_bytes(b"\xff\xfe")

    with pytest.raises(ConfigError, match="can't decode"):
        read_functions(file)


def test_a_missing_file_is_a_line(file: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read_functions(file)


# --- a run


def test_two_functions_are_served_until_ctrl_c(file: Path) -> None:
    file.write_text(
        f"[functions.one]\ncommand=['{ECHO}']\n[functions.two]\ncommand=['{BASH_ECHO}']"
    )
    (port,) = free_ports(1)
    with dev(file, port) as program:
        program.wait_for_log("one: ready in ")
        program.wait_for_log("two: ready in ")
        program.wait_for_log(f"serving on http://{LOOPBACK}:{port}; stop with Ctrl-C")
        with Client(port) as client:
            for name in ("one", "two"):
                answer = client.post(f"/2015-03-31/functions/{name}/invocations", b'"hi"')
                assert (answer.status, answer.body) == (200, b'"hi"')

        program.signal(signal.SIGINT)

        assert program.wait_exit() == 0
        wait_until(lambda: not program.descendants(), "the end of every process")
        assert "Traceback" not in "\n".join(program.log)


def test_the_printed_command_invokes(file: Path) -> None:
    file.write_text(f"[functions.one]\ncommand=['{ECHO}']")
    (port,) = free_ports(1)
    with dev(file, port) as program:
        line = program.wait_for_log("curl -XPOST ")

        path = "/2015-03-31/functions/one/invocations"
        assert line.split() == ["curl", "-XPOST", f"http://{LOOPBACK}:{port}{path}", "-d", "'{}'"]


def test_a_taken_port_is_one_line_and_code_1(file: Path) -> None:
    file.write_text(f"[functions.one]\ncommand=['{ECHO}']")
    with socket.create_server((LOOPBACK, 0)) as other:
        port = other.getsockname()[1]
        with dev(file, port) as program:
            assert program.wait_exit() == 1

    (line,) = program.log
    assert line.startswith(
        f"Error: the server cannot listen on {LOOPBACK}:{port}: Address already in use; choose "
    )


@pytest.mark.parametrize(
    ("line", "said"),
    [
        pytest.param('timeout = "long"', "two ended with exit code 2; see its log", id="setting"),
        pytest.param('cwd = "none"', "two did not start: ", id="folder"),
    ],
)
def test_a_function_that_does_not_start_ends_the_run(file: Path, line: str, said: str) -> None:
    file.write_text(
        f"[functions.one]\ncommand=['{ECHO}']\n[functions.two]\ncommand=['{ECHO}']\n{line}"
    )
    with dev(file, free_ports(1)[0]) as program:
        assert program.wait_exit() == 1

        assert [entry for entry in program.log if entry.startswith(f"Error: {said}")]
        wait_until(lambda: not program.descendants(), "the end of every process")


def test_a_program_that_ends_ends_the_run(file: Path) -> None:
    file.write_text(
        f"[functions.one]\ncommand=['{MISBEHAVE}']\n[functions.two]\ncommand=['{ECHO}']"
    )
    (port,) = free_ports(1)
    with dev(file, port) as program:
        program.wait_for_log("serving on ")
        server = min(filter(_is_gunicorn, program.descendants()))

        os.kill(server, signal.SIGKILL)

        assert program.wait_exit() == 1
        assert program.log[-1].startswith("Error: the server ended with exit code -9")


@pytest.mark.parametrize(
    ("port", "said"), [("70000", "70000 is not in the range"), ("x", "'x' is not a valid integer")]
)
def test_a_wrong_port_is_code_2(file: Path, port: str, said: str) -> None:
    file.write_text(f"[functions.one]\ncommand=['{ECHO}']")
    with dev(file, port) as program:
        assert program.wait_exit() == 2

    assert said in program.log[-1]


def test_a_wrong_file_is_code_2_and_no_traceback(file: Path) -> None:
    file.write_text("[functions.a]")
    with dev(file, free_ports(1)[0]) as program:
        assert program.wait_exit() == 2

    assert program.log[-1].startswith(f"Error: {file}, [functions.a]: command is None")
    assert "Traceback" not in "\n".join(program.log)


def _is_gunicorn(pid: int) -> bool:
    """Tell gunicorn from the other programs; of its processes the first is the arbiter."""
    return b"gunicorn" in Path(f"/proc/{pid}/cmdline").read_bytes()
