from __future__ import annotations

import json
import os
import re
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

from rapid.settings.command_line import USAGE
from tests.conftest import StartRapid
from tests.support import ECHO, MISBEHAVE, Rapid, run_rapid


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_is_printed_and_nothing_runs(flag: str) -> None:
    done = run_rapid(flag)

    assert (done.returncode, done.stdout, done.stderr) == (0, USAGE, "")


def test_the_version_is_printed() -> None:
    done = run_rapid("--version")

    assert done.returncode == 0
    assert done.stdout.startswith("rapid ")


@pytest.mark.parametrize(
    ("argv", "environ", "start"),
    [
        (["--prot", "9000", ECHO], {}, "rapid: '--prot' is no flag of rapid, "),
        ([], {"RAPID_PORT": "http"}, "rapid: RAPID_PORT is 'http'; expected "),
        (
            [],
            {"RAPID_AMQP_URI": "amqp://u:secret@h?heartbeat=x"},
            "rapid: RAPID_AMQP_URI has a wrong option",
        ),
    ],
    ids=["flag", "variable", "uri-option"],
)
def test_a_wrong_setting_is_one_line_and_code_2(
    argv: list[str], environ: dict[str, str], start: str
) -> None:
    done = run_rapid(*argv, **{"RAPID_PORT": "0", "RAPID_RUNTIME_API_PORT": "0", **environ})

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(start)
    assert done.stderr.count("\n") == 1
    assert "secret" not in done.stderr


def test_the_functions_variables_set_nothing_of_rapid(start_rapid: StartRapid) -> None:
    own: dict[str, Any] = {"DRAIN_TIMEOUT": "5s", "MAX_CONCURRENCY": "unlimited"}

    rapid = start_rapid(MISBEHAVE, **own)
    environ = rapid.do(do="env").json()["environ"]

    assert own.items() <= environ.items()
    assert not [name for name in environ if name.startswith("RAPID")]
    warning, information = [line for line in rapid.log if "left to the function" in line]
    assert information.endswith(
        "[INFO] (rapid) DRAIN_TIMEOUT is left to the function; rapid reads RAPID_DRAIN_TIMEOUT"
    )
    assert "[WARNING] (rapid) MAX_CONCURRENCY is left" in warning
    assert "unlimited" not in warning


def test_flags_set_rapid_and_the_function(start_rapid: StartRapid, tmp_path: Path) -> None:
    file = tmp_path / "variables"
    file.write_text("GREETING='hello world'\nRAPID_PRINT_REPORTS=TRUE\nLOG_LEVEL=loud\n")
    flags = ("--timeout", "7", "--memory", "256", "--name=mine", "--env-file", str(file))

    rapid = start_rapid(MISBEHAVE, flags=flags)
    environ = rapid.do(do="env").json()["environ"]

    assert {"GREETING": "hello world", "LOG_LEVEL": "loud", "AWS_LAMBDA_FUNCTION_NAME": "mine",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "256"}.items() <= environ.items()  # fmt: skip
    assert "Memory Size: 256 MB" in rapid.wait_for_log("REPORT RequestId")


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("RAPID_PORT", "port by --port or RAPID_PORT"),
        ("RAPID_HEALTH_PORT", "port by --port or RAPID_PORT or RAPID_HEALTH_PORT"),
        ("RAPID_RUNTIME_API_PORT", "port by RAPID_RUNTIME_API_PORT"),
    ],
)
def test_a_taken_port_is_one_line_and_code_1(name: str, remedy: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports = {
            "RAPID_PORT": "0",
            "RAPID_RUNTIME_API_PORT": "0",
            name: str(taken.getsockname()[1]),
        }

        done = run_rapid(RAPID_INVOKE_API_HOST="127.0.0.1", **ports)

    assert done.returncode == 1
    assert done.stderr.startswith("rapid: cannot listen on ")
    assert re.search("[Aa]ddress (already )?in use", done.stderr)  # the C library's words
    assert done.stderr.endswith(f", pid {os.getpid()}; choose another {remedy}\n")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("name", ["RAPID_INVOKE_API_HOST", "RAPID_RUNTIME_API_HOST"])
def test_a_host_of_another_machine_is_one_line_that_names_its_setting(name: str) -> None:
    done = run_rapid(RAPID_PORT="0", RAPID_RUNTIME_API_PORT="0", **{name: "192.0.2.1"})

    assert done.returncode == 1
    assert done.stderr.startswith("rapid: cannot listen on 192.0.2.1:0: ")
    assert done.stderr.endswith(f"; choose another address by {name}\n")


def test_log_lines_are_json_when_asked_for(start_rapid: StartRapid) -> None:
    rapid = start_rapid(ECHO, RAPID_USE_STRUCTURED_LOGGING="true")
    rapid.wait_for_log("environment ready")

    lines = [json.loads(line) for line in rapid.stderr.splitlines()]

    assert any(line["message"] == "environment ready" for line in lines)
    assert {line["program"] for line in lines} == {"rapid"}


def test_a_quiet_level_leaves_standard_error_empty(start_rapid: StartRapid) -> None:
    rapid = start_rapid(ECHO, RAPID_LOG_LEVEL="error")
    rapid.invoke()

    assert rapid.stop() == 0
    assert rapid.stderr == b""


def test_a_payload_is_not_logged_at_any_level(start_rapid: StartRapid) -> None:
    rapid = start_rapid(ECHO, RAPID_LOG_LEVEL="trace")
    rapid.invoke(b'"a secret"', X_Amz_Client_Context="eyJzIjoiYSBzZWNyZXQifQ==")

    rapid.stop()

    assert b"secret" not in rapid.stderr
    assert b"eyJz" not in rapid.stderr


def test_a_signal_during_the_start_is_a_stop() -> None:
    for _ in range(5):
        with Rapid(ECHO, ready=False) as rapid:
            rapid.signal(signal.SIGTERM)

            assert rapid.wait_exit() == 0
            assert rapid.descendants() == []


def test_a_stop_does_not_wait_for_idle_connections(start_rapid: StartRapid) -> None:
    rapid = start_rapid(ECHO, RAPID_DRAIN_TIMEOUT="600")
    with rapid.client() as client:
        client.post(rapid.path, b"{}")

        code = rapid.stop()

    assert code == 0
