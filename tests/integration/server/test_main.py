"""The command ``lambda-server``: invoke and serve."""

from __future__ import annotations

import base64
import contextlib
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from devtools.ports import LOOPBACK, free_ports
from lambda_protocol.http1 import Request
from tests.endless import EndlessPeer
from tests.fakes import FakeInstance, http_answer
from tests.support import LIMIT_S, ROOT, Server, WebProgram, base_environ
from tests.terminal import Terminal

Run = Callable[..., subprocess.CompletedProcess[bytes]]


def run(*argv: str, stdin: bytes = b"", **environ: str) -> subprocess.CompletedProcess[bytes]:
    """Run ``lambda-server`` to its end, with ``environ`` added to a bare environment."""
    return subprocess.run(
        [sys.executable, "-m", "lambda_server", *argv],
        env={**base_environ(), **environ},
        cwd=ROOT,
        input=stdin,
        capture_output=True,
        timeout=LIMIT_S,
        check=False,
    )


@pytest.fixture
def invoke(instance: FakeInstance) -> Run:
    """Give ``lambda-server invoke echo``, against the fake instance."""

    def invoke(*argv: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return run("invoke", "echo", *argv, stdin=stdin, LAMBDA_ENDPOINT_URL=instance.url)

    return invoke


@pytest.mark.parametrize(
    ("argv", "payload"),
    [
        ((), b"{}"),
        (("-p", '{"x": 1}'), b'{"x": 1}'),
        (("-p", "@{file}"), b'{"from": "\xc3\xa4 file"}'),
        (("-p", "-"), b"[1,\n2]"),
    ],
    ids=["none", "given", "file", "standard-input"],
)
def test_a_result_is_printed_and_code_0(
    invoke: Run, tmp_path: Path, argv: tuple[str, ...], payload: bytes
) -> None:
    file = tmp_path / "event.json"
    file.write_bytes(payload)

    done = invoke(*(word.replace("{file}", str(file)) for word in argv), stdin=payload)

    assert (done.returncode, done.stdout, done.stderr) == (0, payload + b"\n", b"")


def test_a_failed_function_is_code_1_and_its_error_is_printed(
    invoke: Run, instance: FakeInstance
) -> None:
    instance.reply = lambda request: http_answer(b'{"x":1}', "X-Amz-Function-Error: Unhandled")

    done = invoke()

    assert (done.returncode, done.stdout) == (1, b'{"x":1}\n')


def test_a_refused_call_is_code_2_and_one_line(server: Server) -> None:
    done = run("invoke", "nobody", "--endpoint-url", server.url)

    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("lambda-server: ResourceNotFoundException: Function not found: arn:")
    assert (done.returncode, done.stdout) == (2, b"")


def test_a_call_that_nobody_takes_is_code_2_and_one_line() -> None:
    url = f"http://{LOOPBACK}:{free_ports(1)[0]}"

    done = run("invoke", "echo", "--endpoint-url", url)

    (line,) = done.stderr.decode().splitlines()
    assert line.startswith(f"lambda-server: {url} did not answer: ")
    assert done.returncode == 2


def test_an_answer_without_end_is_code_2_and_one_line() -> None:
    with EndlessPeer("body") as peer:
        done = run("invoke", "echo", "-p", "{}", "--endpoint-url", peer.address.url)

    (line,) = done.stderr.decode().splitlines()
    assert line.endswith("did not answer: the answer's body is over 6291556 bytes")
    assert (done.returncode, done.stdout) == (2, b"")


@pytest.mark.parametrize(
    "argv",
    [
        ("--endpoint-url", "ftp://h"),
        ("--endpoint-url", "http://h:port"),
        ("--endpoint-url", "http://[::1"),
        ("--endpoint-url", "http://"),
        ("--endpoint-url", "http://["),
        ("-p", "@/nonexistent"),
    ],
)
def test_a_wrong_option_is_code_2_and_no_traceback(argv: tuple[str, ...]) -> None:
    done = run("invoke", "echo", *argv)

    assert done.returncode == 2
    assert done.stderr.decode().splitlines()[-1].startswith("Error: ")
    assert b"Traceback" not in done.stderr


def test_tail_prints_the_log_on_standard_error(invoke: Run, instance: FakeInstance) -> None:
    def reply(request: Request) -> bytes:
        log = base64.b64encode(b"START\n\xff\nEND\n").decode()
        return http_answer(b"1", f"X-Amz-Log-Result: {log}")

    instance.reply = reply

    done = invoke("--tail")

    assert (done.returncode, done.stdout, done.stderr) == (0, b"1\n", b"START\n\xff\nEND\n")
    assert instance.requests[0].headers["x-amz-log-type"] == "Tail"


def test_a_terminal_gets_no_escapes_of_a_function(instance: FakeInstance) -> None:
    log = base64.b64encode(
        b"START\r\n\t\x1b]0;title\x07 \xc2\x9b \xe2\x80\xae \xff\nEND\n"
    ).decode()
    instance.reply = lambda request: http_answer(
        b"\x1b[2J\xc3\xa4", f"X-Amz-Log-Result: {log}", "X-Amz-Function-Error: Unhandled"
    )
    argv = [sys.executable, "-m", "lambda_server", "invoke", "echo", "--tail"]

    with contextlib.closing(Terminal(ROOT, base_environ())) as terminal:
        code, said = terminal.run(f"{shlex.join(argv)} --endpoint-url {instance.url}", LIMIT_S)

    assert code == 1
    assert said.splitlines() == [
        "START",
        r"	\x1b]0;title\x07 \x9b \u202e \xff",
        "END",
        "\\x1b[2J\u00e4",
    ]


def test_an_event_prints_nothing_and_is_code_0(invoke: Run, instance: FakeInstance) -> None:
    instance.reply = lambda request: http_answer(b"", status="202 Accepted")

    done = invoke("--event")

    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert instance.requests[0].headers["x-amz-invocation-type"] == "Event"


def test_name_and_qualifier_are_sent_encoded(instance: FakeInstance) -> None:
    run("invoke", "a:b c", "--qualifier", "v 1", "--endpoint-url", instance.url)

    (request,) = instance.requests
    assert request.path == "/2015-03-31/functions/a%3Ab%20c/invocations"
    assert request.query == "Qualifier=v%201"


def test_serve_serves(instance: FakeInstance) -> None:
    port = free_ports(1)[0]
    environ = {
        "PORT": str(port),
        "INVOKE_API_HOST": LOOPBACK,
        "LAMBDA_ENDPOINTS": f"echo={instance.url}",
    }
    command = [sys.executable, "-m", "lambda_server", "serve"]
    with WebProgram("serve", command, environ, port=port, ready=True) as program:
        done = run("invoke", "echo", "-p", "[7]", "--endpoint-url", f"http://{LOOPBACK}:{port}")

        assert done.stdout == b"[7]\n"
        assert program.stop() == 0
