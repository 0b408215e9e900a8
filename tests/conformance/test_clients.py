"""AWS's own runtime interface clients, each through 100 calls and one error."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.conformance.conftest import OpenDoor
from tests.conformance.doors import Door, assert_function_error
from tests.support import AWSLAMBDARIC

conformance = pytest.mark.conformance

GO_SOURCE = Path(__file__).parent / "functions" / "go-echo"
BUILD_LIMIT_S = 50


def go_function() -> str:
    """Return the Go function, built once per source and compiler into the user's cache."""
    digest = hashlib.sha256(run_go("env", "GOVERSION").encode())
    for source in sorted(GO_SOURCE.iterdir()):
        digest.update(source.read_bytes())
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    binary = cache / "lambda-conformance" / f"echo-{digest.hexdigest()[:16]}"
    if not binary.exists():
        binary.parent.mkdir(parents=True, exist_ok=True)
        unfinished = binary.with_suffix(f".{os.getpid()}")
        run_go("build", "-trimpath", "-o", str(unfinished), ".")
        unfinished.rename(binary)
    return str(binary)


def run_go(*arguments: str) -> str:
    """Run the go command; without Go, or without its modules, the test is skipped."""
    try:
        run = subprocess.run(
            ["go", *arguments],
            cwd=GO_SOURCE,
            env={**os.environ, "CGO_ENABLED": "0"},
            capture_output=True,
            text=True,
            timeout=BUILD_LIMIT_S,
            check=False,
        )
    except FileNotFoundError:
        pytest.skip("no go on this machine")
    except subprocess.TimeoutExpired:
        pytest.skip(f"go {arguments[0]} took over {BUILD_LIMIT_S} s")
    if run.returncode != 0:
        pytest.skip(f"go {arguments[0]}: {run.stderr.strip().splitlines()[-1]}")
    return run.stdout


def assert_passes_100_calls(door: Door) -> None:
    """Call 100 times, each with its own event, on one connection."""
    with door.client() as client:
        for number in range(100):
            event = json.dumps({"n": number}).encode()
            answer = client.post(door.path(), event)
            assert answer.status == 200
            assert "X-Amz-Function-Error" not in answer.headers
            assert answer.json() == {"n": number}


@conformance(89)
def test_awslambdaric_passes_100_calls(open_door: OpenDoor) -> None:
    assert_passes_100_calls(open_door(*AWSLAMBDARIC, "handlers.echo"))


@conformance(89)
def test_awslambdaric_passes_an_error_and_goes_on(open_door: OpenDoor) -> None:
    door = open_door(*AWSLAMBDARIC, "handlers.fail")

    for _ in range(2):
        assert assert_function_error(door.invoke())["errorType"] == "ValueError"
    starts = [line for line in door.function.log if "exec '" in line]
    assert len(starts) == 1


@conformance(89)
def test_aws_lambda_go_passes_100_calls_and_an_error(open_door: OpenDoor) -> None:
    door = open_door(go_function())

    assert_passes_100_calls(door)
    assert assert_function_error(door.invoke('{"fail": true}')) == {
        "errorMessage": "on purpose",
        "errorType": "errorString",
    }
    assert door.invoke('{"n": 1}').json() == {"n": 1}
