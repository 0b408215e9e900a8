"""What a developer reads when a function does not start: one line, by real processes."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from rapid.call import Failure
from rapid.environment.diagnosis import failed_init
from rapid.settings.command import Command
from tests.acceptance.conformance.doors import assert_function_error
from tests.conftest import StartRapid
from tests.support import AWSLAMBDARIC
from tests.unit.rapid.test_executables import FOREIGN, executable, foreign

PYTHON = sys.executable


def told(start_rapid: StartRapid, *command: str) -> str:
    """Return the line that rapid logs of a function that does not start."""
    return start_rapid(*command, ready=False).wait_for_log("init failed")


def test_a_bootstrap_for_another_machine_is_told_to_log_and_caller(
    start_rapid: StartRapid, tmp_path: Path
) -> None:
    bootstrap = executable(tmp_path / "bootstrap", foreign(Path("/bin/true").read_bytes()))
    rapid = start_rapid(str(bootstrap), ready=False)

    line = rapid.wait_for_log("init failed")
    error = assert_function_error(rapid.invoke())

    assert f"exec format error: it is built for {FOREIGN[1]}" in line
    assert error["errorType"] == "Runtime.InvalidEntrypoint"
    assert f"it is built for {FOREIGN[1]}" in error["errorMessage"]


def test_a_missing_command_is_told(start_rapid: StartRapid) -> None:
    line = told(start_rapid, "pyhton", "-m", "awslambdaric", "app.handler")

    assert "error=fork/exec pyhton: no such file or directory: no such command on PATH" in line


def test_a_missing_awslambdaric_is_told_with_what_installs_it(start_rapid: StartRapid) -> None:
    line = told(start_rapid, PYTHON, "-S", "-m", "awslambdaric", "app.handler")

    assert "No module named awslambdaric" in line
    assert f"hint=AWS's runtime client is missing: {PYTHON} -m pip install awslambdaric" in line


@pytest.mark.skipif(shutil.which("node") is None, reason="no node on this machine")
def test_a_missing_aws_lambda_ric_is_told(start_rapid: StartRapid) -> None:
    line = told(start_rapid, "node", "node_modules/aws-lambda-ric/bin/index.mjs", "index.handler")

    assert "hint=AWS's runtime client is missing: npm install aws-lambda-ric" in line


@pytest.mark.skipif(shutil.which("java") is None, reason="no java on this machine")
def test_a_missing_java_client_is_told(start_rapid: StartRapid) -> None:
    client = "com.amazonaws.services.lambda.runtime.api.client.AWSLambda"

    line = told(start_rapid, "java", client, "Handler::handle")

    assert "hint=AWS's runtime client is missing: put aws-lambda-java-runtime-interface" in line


def test_a_missing_module_is_told_with_where_it_was_looked_for(start_rapid: StartRapid) -> None:
    line = told(start_rapid, *AWSLAMBDARIC, "nosuch.handler")

    assert "error=Unable to import module 'nosuch': No module named 'nosuch'" in line
    assert f"hint=the handler is 'nosuch.handler', looked for in {Path.cwd()}" in line


def test_a_missing_handler_is_told(start_rapid: StartRapid) -> None:
    line = told(start_rapid, *AWSLAMBDARIC, "handlers.nosuch")

    assert "error=Handler 'nosuch' missing on module 'handlers'" in line
    assert "hint=the handler is 'handlers.nosuch', looked for in" in line


def test_a_malformed_handler_is_told(start_rapid: StartRapid) -> None:
    line = told(start_rapid, *AWSLAMBDARIC, "handlers")

    assert "hint=the handler is 'handlers', expected MODULE.FUNCTION" in line


def test_no_handler_is_told(start_rapid: StartRapid) -> None:
    line = told(start_rapid, *AWSLAMBDARIC)

    assert "hint=name the handler: rapid python -m awslambdaric MODULE.FUNCTION" in line


def test_a_missing_file_is_told_in_the_runtimes_words(start_rapid: StartRapid) -> None:
    line = told(start_rapid, PYTHON, "/nonexistent/app.py", "app.handler")

    assert "error=Runtime exited with error: exit status 2" in line
    assert "can't open file '/nonexistent/app.py'" in line


def test_windows_line_ends_behind_env_are_told(start_rapid: StartRapid, tmp_path: Path) -> None:
    bootstrap = executable(tmp_path / "bootstrap", "#!/usr/bin/env python3\r\npass\r\n")

    line = told(start_rapid, str(bootstrap))

    assert "hint=the script's first line ends in a carriage return" in line


def test_no_bootstrap_is_told_with_what_to_do() -> None:
    failure = Failure("Runtime.InvalidEntrypoint", "Couldn't find valid bootstrap(s): []")

    said = failed_init(failure, Command(argv=(), cwd=None), "", b"")

    assert said["hint"].startswith("name a handler or a command, as in: rapid app.handler")


@pytest.mark.parametrize("payload", [b"", b"no json", b"[]", b"{}", b"\xff", b"[" * 100_000])
def test_a_report_in_any_form_is_told(payload: bytes) -> None:
    failure = Failure("Function.Unknown", payload=payload)

    said = failed_init(failure, Command(argv=("x",), cwd=None), "", b"")

    assert said == {"error_type": "Function.Unknown", "error": ""}


def test_what_is_quoted_is_one_bounded_line() -> None:
    failure = Failure("Runtime.ExitError", "Runtime exited with error: exit status 1")
    output = b"first\n" + b"\xff" + b"x" * 10_000 + b"\n\n"

    said = failed_init(failure, Command(argv=("x",), cwd=None), "", output)

    assert len(said["output"]) == 300
    assert "\n" not in said["output"]
    long = json.dumps({"errorMessage": "y" * 10_000}).encode()
    assert (
        len(failed_init(Failure("E", payload=long), Command(argv=(), cwd=None), "", b"")["error"])
        == 300
    )
