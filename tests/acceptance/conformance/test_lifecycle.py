from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from devtools.ports import LOOPBACK, free_ports
from rapid.settings.config import Config
from tests.acceptance.conformance.base_image import BaseImage, why_no_namespace
from tests.conftest import StartRapid
from tests.extensions import RecorderExtension
from tests.support import (
    AWSLAMBDARIC,
    MISBEHAVE,
    ROOT,
    Rapid,
    is_alive,
    wait_until,
)

conformance = pytest.mark.conformance

#: How long beyond AWS's 2 s a busy machine may take, seconds.
GRACE_S = 5.0


def base_image(folder: Path, *, in_namespace: bool) -> BaseImage:
    reason = why_no_namespace() if in_namespace else None
    if reason is not None:
        pytest.skip(reason)
    return BaseImage(folder, in_namespace=in_namespace)


def environment_of(rapid: Rapid) -> Any:
    """Return what the runtime was started with: environ, argv, cwd."""
    answer = rapid.do(do="env")
    assert answer.status == 200
    return answer.json()


# 90-92: the command


@conformance(90)
@pytest.mark.parametrize(
    ("present", "chosen"),
    [
        (["var/task", "opt", "var/runtime"], "var/task"),
        (["opt", "var/runtime"], "opt"),
        (["var/runtime"], "var/runtime"),
    ],
)
def test_bootstraps_are_looked_for_in_order(
    tmp_path: Path, present: list[str], chosen: str
) -> None:
    for folder in present:
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "bootstrap").touch(mode=0o755)

    command = Config.from_environ([], {}, root=tmp_path).environment.command

    assert command.argv == (str(tmp_path / chosen / "bootstrap"),)
    assert command.cwd == str(tmp_path / "var/task")


@conformance(90)
@pytest.mark.parametrize(
    "present", [["var/task", "opt"], ["opt"], []], ids=["task", "opt", "runtime"]
)
def test_the_bootstrap_runs_in_var_task(tmp_path: Path, present: list[str]) -> None:
    image = base_image(tmp_path / "root", in_namespace=True)
    for folder in [*present, "var/runtime"]:
        image.add(f"{folder}/bootstrap", f'#!/bin/sh\nexec {MISBEHAVE} "$0"\n')

    with image.program("/usr/local/bin/aws-lambda-rie") as rapid:
        seen = environment_of(rapid)

    first = f"/{[*present, 'var/runtime'][0]}/bootstrap"
    assert (seen["argv"][1], seen["cwd"]) == (first, "/var/task")


@pytest.mark.parametrize(
    ("words", "variable", "handler"),
    [
        pytest.param(
            ["-m", "awslambdaric", "app.handler"],
            "other.handler",
            "app.handler",
            marks=conformance(91),
            id="several-words",
        ),
        pytest.param([], "app.handler", "app.handler", marks=conformance(92), id="one-word"),
    ],
)
def test_a_command_keeps_the_directory_and_names_the_handler(
    start_rapid: StartRapid, words: list[str], variable: str, handler: str
) -> None:
    rapid = start_rapid(MISBEHAVE, *words, _HANDLER=variable)

    seen = environment_of(rapid)

    assert seen["argv"][1:] == words
    assert seen["environ"]["_HANDLER"] == handler
    assert seen["cwd"] == str(ROOT)


@conformance(91)
def test_rapid_python_m_awslambdaric_runs_the_handler(start_rapid: StartRapid) -> None:
    rapid = start_rapid("python", *AWSLAMBDARIC[1:], "handlers.echo")

    assert rapid.invoke(b'{"x": 1}').json() == {"x": 1}


# 93, 94: AWS's base images


@pytest.mark.parametrize(
    "command",
    [
        pytest.param((), marks=conformance(93), id="in-place-of-the-emulator"),
        pytest.param(
            ("/usr/local/bin/aws-lambda-rie",), marks=conformance(94), id="outer-entrypoint"
        ),
    ],
)
@pytest.mark.parametrize("in_namespace", [False, True], ids=["folder", "namespace"])
def test_rapid_runs_a_base_image(
    tmp_path: Path, command: tuple[str, ...], in_namespace: bool
) -> None:
    image = base_image(tmp_path / "root", in_namespace=in_namespace)

    with image.program(*command, "/lambda-entrypoint.sh", "handlers.ctx") as rapid:
        answer = rapid.invoke(b'{"x": 1}')

    assert (answer.status, answer.headers.get("X-Amz-Function-Error")) == (200, None)
    assert answer.json()["event"] == {"x": 1}
    assert f"cwd={'' if in_namespace else image.folder}/var/task" in rapid.wait_for_log("exec '")
    assert sum("exec '" in line for line in rapid.log) == 1


@conformance(94)
def test_the_base_images_script_refuses_two_handlers(tmp_path: Path) -> None:
    """Without this the two tests above could pass with a script that ignores its arguments."""
    image = BaseImage(tmp_path / "root")

    with (
        pytest.raises(AssertionError, match="ended with 142"),
        image.program("/lambda-entrypoint.sh", "handlers.ctx", "handlers.echo"),
    ):
        pass


# 95-97: flags and environments


@conformance(95)
@pytest.mark.parametrize("joint", ["=", " "], ids=["equals", "space"])
def test_the_emulators_flags_are_honoured(joint: str) -> None:
    unused, port, runtime_api_port = free_ports(3)
    flags = " ".join(
        [
            f"--log-level{joint}debug",
            f"--runtime-api-address{joint}{LOOPBACK}:{runtime_api_port}",
            f"--runtime-interface-emulator-address{joint}{LOOPBACK}:{port}",
        ]
    ).split(" ")
    rapid = Rapid(MISBEHAVE, flags=flags, RAPID_PORT=str(unused))
    rapid.port = port

    with rapid:
        seen = environment_of(rapid)
        rapid.wait_for_log("[DEBUG]")

    assert seen["environ"]["AWS_LAMBDA_RUNTIME_API"] == f"{LOOPBACK}:{runtime_api_port}"
    assert seen["argv"][1:] == []


@conformance(95)
def test_flags_after_the_command_are_the_functions(start_rapid: StartRapid) -> None:
    rapid = start_rapid(MISBEHAVE, "--log-level", "debug", flags=("--log-level", "error"))

    assert environment_of(rapid)["argv"][1:] == ["--log-level", "debug"]
    assert "[INFO]" not in "\n".join(rapid.log)


@conformance(96)
def test_the_runtimes_environment_is_complete(start_rapid: StartRapid) -> None:
    credentials = {
        "AWS_ACCESS_KEY_ID": "id",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_SESSION_TOKEN": "token",
    }
    own = {
        "MY_OWN": "kept",
        "lower_case": "2",
        "WITH_NEWLINE": "a\nb",
        "EMPTY": "",
        "UNICODE": "žluťoučký",
        "LD_LIBRARY_PATH": "/opt/lib-of-mine",
        "AWS_EXECUTION_ENV": "AWS_Lambda_python3.12",
    }
    rapid = start_rapid(
        MISBEHAVE, AWS_REGION="eu-west-1", _HANDLER="app.handler", **credentials, **own
    )

    environ = environment_of(rapid)["environ"]

    name = rapid.function_name
    reserved = {
        "_HANDLER": "app.handler",
        "AWS_REGION": "eu-west-1",
        "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_LAMBDA_FUNCTION_NAME": name,
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "3008",
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{name}",
        "AWS_LAMBDA_RUNTIME_API": f"{LOOPBACK}:{rapid.runtime_api_port}",
        "LAMBDA_TASK_ROOT": "/var/task" if Path("/var/task").is_dir() else str(ROOT),
        "LAMBDA_RUNTIME_DIR": "/var/runtime",
        "TZ": ":UTC",
    }
    assert {**environ, **reserved, **credentials, **own} == environ
    assert re.fullmatch(
        r"\d{4}/\d\d/\d\d/\[\$LATEST\][0-9a-f]{32}", environ["AWS_LAMBDA_LOG_STREAM_NAME"]
    )
    assert "PATH" in environ


@conformance(97)
def test_an_extensions_environment_lacks_what_is_not_for_it(
    start_rapid: StartRapid, extension: RecorderExtension
) -> None:
    hidden = {
        "AWS_EXECUTION_ENV",
        "AWS_XRAY_CONTEXT_MISSING",
        "AWS_XRAY_DAEMON_ADDRESS",
        "_AWS_XRAY_DAEMON_ADDRESS",
        "_AWS_XRAY_DAEMON_PORT",
        "_HANDLER",
        "_LAMBDA_TELEMETRY_LOG_FD",
        "_OTHER",
    }
    settings = {**dict.fromkeys(hidden, "1"), **extension.environ}
    rapid = start_rapid(MISBEHAVE, MY_OWN="kept", **settings)

    (environ,) = extension.written("environ")

    hidden |= {"AWS_LAMBDA_LOG_GROUP_NAME", "AWS_LAMBDA_LOG_STREAM_NAME"}
    hidden |= {"LAMBDA_RUNTIME_DIR", "LAMBDA_TASK_ROOT"}
    assert not hidden & environ.keys()
    assert not [name for name in environ if name.startswith("_")]
    assert environ["MY_OWN"] == "kept"
    assert environ["AWS_LAMBDA_RUNTIME_API"] == f"{LOOPBACK}:{rapid.runtime_api_port}"
    assert environ["AWS_LAMBDA_FUNCTION_NAME"] == rapid.function_name


# 98-100: init, stop, reset


@conformance(98)
def test_a_slow_init_is_reported_and_done_again_at_the_first_call(start_rapid: StartRapid) -> None:
    rapid = start_rapid(
        MISBEHAVE,
        ready=False,
        RAPID_INIT_TIMEOUT="1",
        MISBEHAVE_INIT="sleep:1.2",
        RAPID_PRINT_REPORTS="true",
    )
    line = rapid.wait_for_log("INIT_REPORT")
    wait_until(lambda: not rapid.descendants(), "the end of the environment")

    answer = rapid.invoke(b'{"do":"counter"}')

    report = r"INIT_REPORT Init Duration: 1\d{3}\.\d\d ms\tPhase: init\tStatus: timeout"
    assert re.fullmatch(report, line)
    assert (answer.status, answer.body) == (200, b"1")
    assert len([line for line in rapid.log if "INIT_REPORT" in line]) == 1
    assert len([line for line in rapid.log if "exec '" in line]) == 2


@conformance(99)
@pytest.mark.parametrize("manner", ["", "stubborn"], ids=["polite", "stubborn"])
def test_sigterm_spins_everything_down(
    start_rapid: StartRapid, extension: RecorderExtension, manner: str
) -> None:
    rapid = start_rapid(MISBEHAVE, RECORDER_DO=manner, **extension.environ)
    assert rapid.invoke().status == 200

    begun = time.monotonic()
    code = rapid.stop()
    took_s = time.monotonic() - begun

    last = extension.written("event")[-1]
    assert (last["eventType"], last["shutdownReason"]) == ("SHUTDOWN", "SPINDOWN")
    assert code == 0
    assert any("extensions killed" in line for line in rapid.log) == (manner == "stubborn")
    assert took_s < 2 + GRACE_S
    assert rapid.descendants() == []


@conformance(100)
@pytest.mark.parametrize(
    "reset",
    ['{"do":"exit"}', '{"do":"signal"}', '{"do":"sleep","s":60}'],
    ids=["exit", "kill", "timeout"],
)
def test_orphans_are_killed_and_reaped_at_a_reset(start_rapid: StartRapid, reset: str) -> None:
    rapid = start_rapid(MISBEHAVE, AWS_LAMBDA_FUNCTION_TIMEOUT="1")
    orphan = rapid.do(do="spawn_orphan").json()
    child = rapid.do(do="spawn_child").json()
    assert is_alive(orphan)
    assert is_alive(child)

    assert rapid.invoke(reset).headers["X-Amz-Function-Error"] == "Unhandled"

    # Gone from the process table: dead and waited for.
    wait_until(lambda: not psutil.pid_exists(orphan), "the orphan's end")
    wait_until(lambda: not psutil.pid_exists(child), "the child's end")
    assert rapid.do(do="counter").json() == 1


@conformance(100)
def test_an_orphan_that_ends_by_itself_is_reaped(start_rapid: StartRapid) -> None:
    rapid = start_rapid(MISBEHAVE)
    orphan = rapid.do(do="spawn_orphan").json()

    os.kill(orphan, signal.SIGTERM)

    wait_until(lambda: not psutil.pid_exists(orphan), "the orphan's end")
    assert rapid.do(do="counter").json() == 2
