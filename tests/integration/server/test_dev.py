"""``lambda-server dev``: its file, and a run of it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest

from devtools.ports import LOOPBACK, free_ports
from lambda_protocol.environ import ConfigError
from lambda_server import end_with_parent
from lambda_server.functions_file import Function, read_functions
from tests.support import (
    BASH_ECHO,
    ECHO,
    IN_A_TERMINAL,
    MISBEHAVE,
    ROOT,
    Client,
    Program,
    wait_until,
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "functions.toml"


@contextlib.contextmanager
def dev(
    file: Path, port: int | str, *, before: Sequence[str] = (), **environ: str
) -> Iterator[Program]:
    """Run ``lambda-server dev``; nothing of it is left afterwards."""
    command = [*before, sys.executable, "-m", "lambda_server", "dev", str(file)]
    program = Program(
        "lambda-server dev", [*command, "--host", LOOPBACK, "--port", str(port)], environ
    )
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
        event = { name = "ä 'b'", list = [1, 2.5, true] }
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
                "RAPID_MAX_CONCURRENCY": "3",
                "AWS_LAMBDA_FUNCTION_HANDLER": "b.handler",
            },
            event='{"name": "ä \'b\'", "list": [1, 2.5, true]}',
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
        pytest.param(
            "[functions.a]\ncommand=['x']\nevent={at=2026-11-27}", "event is no JSON", id="event"
        ),
        pytest.param("[functions.a]\ncommand=['x']\nevent=nan", "event is no JSON", id="nan"),
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


def test_a_hangup_ends_everything_in_order(file: Path) -> None:
    file.write_text(f"[functions.one]\ncommand=['{ECHO}']")
    with dev(file, free_ports(1)[0]) as program:
        program.wait_for_log("serving on ")

        program.signal(signal.SIGHUP)

        assert program.wait_exit() == 0
        assert program.descendants() == []
        assert [line for line in program.log if line == "stopping"] == ["stopping"]


def test_nohup_keeps_everything_running(file: Path) -> None:
    file.write_text(f"[functions.one]\ncommand=['{ECHO}']")
    (port,) = free_ports(1)
    with dev(file, port, before=["nohup"]) as program, Client(port) as client:
        program.wait_for_log("serving on ")

        program.signal(signal.SIGHUP)

        assert client.post("/2015-03-31/functions/one/invocations", b"1").body == b"1"
        assert program.exit_code is None
        assert program.stop() == 0


def test_a_terminal_that_is_closed_ends_everything(file: Path) -> None:
    file.write_text(f"[functions.one]\ncommand=['{ECHO}']")
    with dev(file, free_ports(1)[0], before=IN_A_TERMINAL) as terminal:
        terminal.wait_for_log("serving on ")

        os.kill(terminal.pid, signal.SIGKILL)

        wait_until(lambda: not terminal.descendants(), "the end of every process")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGUSR1])
def test_what_dev_has_started_ends_when_dev_is_killed(file: Path, number: signal.Signals) -> None:
    file.write_text(f"[functions.one]\ncommand=['{ECHO}']\n[functions.two]\ncommand=['{ECHO}']")
    (port,) = free_ports(1)
    with dev(file, port) as program:
        program.wait_for_log("serving on ")

        program.signal(number)

        assert program.wait_exit() == -number
        wait_until(lambda: not program.descendants(), "the end of every process")
        socket.create_server((LOOPBACK, port)).close()


def test_a_program_whose_parent_has_ended_already_does_not_start() -> None:
    command = end_with_parent.command(["/bin/echo", "started"])
    ours = str(os.getpid())

    done = [
        subprocess.run([pid if word == ours else word for word in command], capture_output=True)
        for pid in (ours, "1")
    ]

    assert [(d.returncode, d.stdout) for d in done] == [(0, b"started\n"), (143, b"")]


def test_the_printed_command_calls_with_the_functions_event(file: Path) -> None:
    file.write_text(
        f"""[functions.one]\ncommand=['{ECHO}']\nevent={{name="it's"}}"""
        f"\n[functions.two]\ncommand=['{ECHO}']"
    )
    (port,) = free_ports(1)
    with dev(file, port) as program:
        program.wait_for_log("curl -XPOST ", count=2)
        lines = [line for line in program.log if "curl -XPOST" in line]
        said = [subprocess.check_output(["sh", "-c", f"{line} --silent"]) for line in lines]

    assert said == [b'{"name": "it\'s"}', b"{}"]


def test_the_printed_commands_are_taken_by_the_examples() -> None:
    (port,) = free_ports(1)
    with dev(ROOT / "examples" / "functions.toml", port) as program:
        program.wait_for_log("/functions/hello/invocations -d ")
        lines = [line for line in program.log if "curl -XPOST" in line]
        answers = [subprocess.check_output(["sh", "-c", f"{line} --silent -i"]) for line in lines]

    assert len(answers) == 2
    assert [answer for answer in answers if b"X-Amz-Function-Error" in answer] == []


def test_a_taken_port_is_one_line_and_code_1(file: Path) -> None:
    file.write_text(f"[functions.one]\ncommand=['{ECHO}']")
    with socket.create_server((LOOPBACK, 0)) as other:
        port = other.getsockname()[1]
        with dev(file, port) as program:
            assert program.wait_exit() == 1

    (line,) = program.log
    assert line.startswith(
        f"Error: the server cannot listen on {LOOPBACK}:{port}: Address already in use by "
    )


@pytest.mark.parametrize(
    ("lines", "error_type", "said"),
    [
        pytest.param(
            f'command=["{ECHO}"]\ntimeout="long"', "Runtime.InvalidTaskConfig",
            "AWS_LAMBDA_FUNCTION_TIMEOUT is 'long'; expected seconds", id="setting",
        ),
        pytest.param(
            f'command=["{ECHO}"]\ncwd="none"', "Runtime.InvalidWorkingDir",
            "chdir {folder}/none: no such file or directory", id="folder",
        ),
        pytest.param(
            f'command=["{ECHO}", "nul\\u0000"]', "Runtime.InvalidTaskConfig",
            "embedded null byte", id="null-byte",
        ),
        pytest.param(
            'command=["./none", "a.handler"]', "Runtime.InvalidEntrypoint",
            "fork/exec ./none: no such file", id="command",
        ),
        pytest.param(
            f'command=["{sys.executable}", "-m", "awslambdaric", "none.handler"]',
            "Runtime.ImportModuleError", "No module named 'none'", id="module",
        ),
    ],
)  # fmt: skip
def test_a_function_that_cannot_start_answers_why_and_the_others_run(
    file: Path, lines: str, error_type: str, said: str
) -> None:
    file.write_text(f"[functions.two]\n{lines}\n[functions.one]\ncommand=['{ECHO}']")
    (port,) = free_ports(1)
    with dev(file, port) as program, Client(port) as client:
        program.wait_for_log("serving on ")
        for _ in range(2):
            broken = client.post("/2015-03-31/functions/two/invocations", b"{}")
            assert (broken.status, broken.error_type) == (200, error_type)
            assert said.format(folder=file.parent) in broken.json()["errorMessage"]
        assert client.post("/2015-03-31/functions/one/invocations", b"1").body == b"1"

        assert program.stop() == 0

    assert any("two: cannot start: " in line or "two: the function's init has failed" in line
               for line in program.log)  # fmt: skip


def test_a_rapid_that_is_lost_ends_no_other(file: Path) -> None:
    file.write_text(f"[functions.one]\ncommand=['{ECHO}']\n[functions.two]\ncommand=['{ECHO}']")
    (port,) = free_ports(1)
    with dev(file, port) as program, Client(port) as client:
        program.wait_for_log("serving on ")
        rapid = next(pid for pid in sorted(program.descendants()) if _runs(pid, "rapid"))

        os.kill(rapid, signal.SIGKILL)

        lost = program.wait_for_log("rapid ended with exit code -9; the others run on")
        answers = {
            name: client.post(f"/2015-03-31/functions/{name}/invocations", b"1").status
            for name in ("one", "two")
        }
        assert answers == {"one": 200, "two": 200} | {lost.partition(":")[0]: 502}
        assert program.stop() == 0


def test_settings_that_no_rapid_takes_end_the_run(file: Path) -> None:
    file.write_text(f"[functions.one]\ncommand=['{ECHO}']")
    with dev(file, free_ports(1)[0], RAPID_LOG_LEVEL="loud") as program:
        assert program.wait_exit() == 1

    assert program.log[-1].startswith("Error: one: rapid ended with exit code 2")


def test_a_server_that_ends_ends_the_run(file: Path) -> None:
    file.write_text(
        f"[functions.one]\ncommand=['{MISBEHAVE}']\n[functions.two]\ncommand=['{ECHO}']"
    )
    (port,) = free_ports(1)
    with dev(file, port) as program:
        program.wait_for_log("serving on ")
        server = min(pid for pid in program.descendants() if _runs(pid, "gunicorn"))

        os.kill(server, signal.SIGKILL)

        assert program.wait_exit() == 1
        # The killed server's worker may print after it.
        assert any("Error: the server ended with exit code -9" in line for line in program.log)


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


def _runs(pid: int, program: str) -> bool:
    """Return whether a process was started as ``python -m program``; the first is the parent."""
    return f" -m {program}" in " ".join(psutil.Process(pid).cmdline())
