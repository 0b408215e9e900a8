"""Both programs over IPv6 and IPv4, as real processes."""

from __future__ import annotations

import contextlib
import http.client
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from devtools.ports import free_ports
from lambda_protocol.address import Address
from tests.events import Recorder
from tests.support import (
    AWSLAMBDARIC,
    BASH_ECHO,
    ECHO,
    RAPID,
    Program,
    Rapid,
    Server,
    run_to_end,
    wait_until,
)

IPV4, IPV6 = "127.0.0.1", "::1"
SERVER = (sys.executable, "-m", "gunicorn", "lambda_server.wsgi")
#: Runs a command whose kernel knows no IPv6: every AF_INET6 socket is refused.
WITHOUT_IPV6 = (sys.executable, str(Path(__file__).with_name("without_ipv6.py")))


@contextlib.contextmanager
def running(*command: str, **environ: str) -> Iterator[Program]:
    """Run a program until the block ends."""
    program = Program("program", command, environ)
    program.start()
    try:
        yield program
    finally:
        program.close()


def answers(host: str, port: int) -> bool:
    """Return whether ``/healthz`` is served there."""
    connection = http.client.HTTPConnection(host, port, timeout=5)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


each_program = pytest.mark.parametrize(
    ("command", "prefix"), [((*RAPID, ECHO), "RAPID_"), (SERVER, "")], ids=["rapid", "server"]
)


@pytest.mark.parametrize(
    ("host", "reached", "machine"),
    [
        pytest.param("", {IPV4, IPV6}, (), id="default"),
        pytest.param("", {IPV4}, WITHOUT_IPV6, id="default-without-ipv6"),
        pytest.param("0.0.0.0", {IPV4}, (), id="every-ipv4"),
        pytest.param("[::1]", {IPV6}, (), id="ipv6"),
    ],
)
@each_program
def test_the_lambda_api_is_served_over(
    command: tuple[str, ...], prefix: str, host: str, reached: set[str], machine: tuple[str, ...]
) -> None:
    port, runtime_api_port = free_ports(2)
    settings = {f"{prefix}INVOKE_API_HOST": host, f"{prefix}PORT": str(port)}
    settings["RAPID_RUNTIME_API_PORT"] = str(runtime_api_port)
    with running(*machine, *command, **settings) as program:
        wait_until(
            lambda: program.exit_code is not None or any(answers(host, port) for host in reached),
            "the program to serve",
        )

        assert {host for host in (IPV4, IPV6) if answers(host, port)} == reached


@pytest.mark.parametrize(
    ("command", "host", "told"),
    [
        pytest.param((BASH_ECHO,), "::1", "[::1]", id="curl"),
        pytest.param((*AWSLAMBDARIC, "handlers.echo"), "::1", "[::1]", id="awslambdaric"),
        pytest.param((BASH_ECHO,), "::", IPV4, id="every"),
    ],
)
def test_a_runtime_reaches_the_runtime_api(command: tuple[str, ...], host: str, told: str) -> None:
    with Rapid(*command, RAPID_RUNTIME_API_HOST=host) as rapid:
        (runtime, *_) = rapid.descendants()
        environ = Path(f"/proc/{runtime}/environ").read_bytes().split(b"\0")

        assert f"AWS_LAMBDA_RUNTIME_API={told}:{rapid.runtime_api_port}".encode() in environ
        assert rapid.invoke(b'"over"').body == b'"over"'


def test_every_client_of_ours_goes_over_ipv6() -> None:
    """From `lambda-server invoke` to the server, from there to rapid, from there the record."""
    server_port, rapid_port = free_ports(2)
    with (
        contextlib.closing(Recorder(host=IPV6)) as recorder,
        running(
            *RAPID,
            ECHO,
            RAPID_INVOKE_API_HOST=IPV6,
            RAPID_PORT=str(rapid_port),
            RAPID_RUNTIME_API_PORT="0",
            RAPID_EXTENSIONS_DIR="/nonexistent",
            RAPID_ON_SUCCESS=recorder.url,
        ),
        running(
            *SERVER,
            INVOKE_API_HOST=IPV6,
            PORT=str(server_port),
            LAMBDA_ENDPOINTS=f"echo=http://[{IPV6}]:{rapid_port}",
        ),
    ):
        wait_until(lambda: answers(IPV6, server_port), "the server to serve")
        wait_until(lambda: answers(IPV6, rapid_port), "rapid to serve")
        url = f"http://[{IPV6}]:{server_port}"

        assert lambda_server("invoke", "echo", "-p", '"hi"', "--endpoint-url", url) == '"hi"\n'
        lambda_server("invoke", "echo", "-p", '"later"', "--event", "--endpoint-url", url)
        recorder.wait_for()
        assert recorder.deliveries[0].headers["host"] == str(recorder.address)


def test_dev_serves_on_ipv6(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    file = tmp_path / "functions.toml"
    file.write_text(f"[functions.one]\ncommand=['{ECHO}']")
    command = [sys.executable, "-m", "lambda_server", "dev", str(file)]
    with running(*command, "--host", IPV6, "--port", str(port)) as program:
        program.wait_for_log(f"serving on http://[{IPV6}]:{port}; ")

        url = f"http://[{IPV6}]:{port}"
        assert f"curl -XPOST '{url}/2015-03-31/" in program.wait_for_log("curl")
        assert lambda_server("invoke", "one", "-p", '"hi"', "--endpoint-url", url) == '"hi"\n'


def test_an_access_log_shows_ipv4_callers_as_ipv4() -> None:
    with Server("--access-logfile", "-", ready=False, INVOKE_API_HOST="::") as server:
        server.get("/healthz")

        assert server.wait_for_log("GET /healthz").startswith(f"{IPV4} - ")


#: A loopback address of its own: other tests of this machine may use 127.0.0.1:9001.
ELSEWHERE = Address("127.0.0.9", 9001)


@pytest.mark.parametrize("plain", [{}, {"RUNTIME_API_PORT": "9001"}], ids=["default", "plain name"])
def test_a_second_rapid_takes_a_free_port_for_the_runtime_api(plain: dict[str, str]) -> None:
    settings = {
        **plain,
        "RAPID_PORT": "0",
        "RAPID_INVOKE_API_HOST": IPV4,
        "RAPID_RUNTIME_API_HOST": ELSEWHERE.host,
    }
    with running(*RAPID, ECHO, **settings) as first:
        first.wait_for_log("environment ready")
        with running(*RAPID, ECHO, **settings) as second:
            second.wait_for_log("environment ready")

            (line,) = [line for line in second.log if "is taken" in line]
    said = rf"\[INFO\] .* {re.escape(str(ELSEWHERE))} is taken: the Runtime API listens on "
    assert re.search(said, line)


@each_program
def test_a_host_that_is_none_is_one_line_and_code_2(command: tuple[str, ...], prefix: str) -> None:
    with running(*command, **{f"{prefix}INVOKE_API_HOST": "[::1]:80"}) as program:
        assert program.wait_exit() == 2

    (line,) = program.log
    assert f"{prefix}INVOKE_API_HOST is '[::1]:80'; expected a host" in line


def lambda_server(*words: str) -> str:
    """Run the command and return what it prints."""
    done = run_to_end([sys.executable, "-m", "lambda_server", *words])
    assert done.returncode == 0, done.stderr
    return done.stdout
