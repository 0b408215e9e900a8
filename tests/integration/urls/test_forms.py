"""The table and the default form, with real processes; and AWS_IAM, which is closed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import support
from tests.integration.urls.conftest import start_web
from tests.support import Rapid, Server


@pytest.fixture(scope="module", params=["1", "2"], ids=["a worker", "two workers"])
def _server(request: pytest.FixtureRequest) -> Iterator[tuple[Server, Rapid]]:
    with start_web(RAPID_FUNCTION_URL_DEFAULT="TRUE") as rapid:
        name = rapid.function_name
        with Server(
            LAMBDA_ENDPOINTS=rapid.endpoint,
            LAMBDA_URL_HOSTS=f"shop.example.org={name},live.example.org={name}:live",
            LAMBDA_URL_DEFAULT=name,
            WEB_CONCURRENCY=request.param,
        ) as server:
            yield server, rapid


@pytest.fixture
def server(_server: tuple[Server, Rapid]) -> Server:
    support.started.extend(_server)
    return _server[0]


@pytest.fixture
def rapid(_server: tuple[Server, Rapid]) -> Rapid:
    return _server[1]


@pytest.mark.parametrize("host", ["shop.example.org", "SHOP.example.org:8080", "live.example.org"])
def test_a_host_of_the_table_is_the_functions(server: Server, host: str) -> None:
    with server.client() as client:
        for path in ("/", "/healthz", "/2015-03-31/functions/x/invocations"):
            assert client.request("GET", path, None, {"Host": host}).json()["path"] == path


def test_every_other_path_is_the_default_functions(server: Server, rapid: Rapid) -> None:
    for program in (server, rapid):
        with program.client() as client:
            assert client.get("/a/b?c=d").json()["path"] == "/a/b"
            assert client.get("/").json()["path"] == "/"
            assert client.get("/favicon.ico").json()["path"] == "/favicon.ico"
            assert client.get("/healthz").json() == {"status": "ok"}
            assert client.get("/metrics").body.startswith(b"# HELP")
            assert client.get("/lambda-url/other/x").status == 403


def test_an_invocation_is_one_beside_the_default_form(server: Server, rapid: Rapid) -> None:
    event = b'{"rawPath":"/answer","rawQueryString":"","body":"7","isBase64Encoded":false}'

    for program in (server, rapid):
        with program.client() as client:
            path = f"/2015-03-31/functions/{rapid.function_name}/invocations"
            assert client.post(path, event).body == b"7"


def test_aws_iam_is_closed_at_both() -> None:
    with (
        start_web(RAPID_FUNCTION_URL_AUTH_TYPE="AWS_IAM") as rapid,
        Server(LAMBDA_ENDPOINTS=rapid.endpoint) as server,
    ):
        for program in (rapid, server):
            answer = program.get(f"/lambda-url/{rapid.function_name}/x")
            assert (answer.status, answer.body) == (403, b'{"Message":"Forbidden"}')


def test_a_function_without_a_url_has_none_at_both() -> None:
    with (
        start_web(RAPID_FUNCTION_URL_AUTH_TYPE="") as rapid,
        Server(LAMBDA_ENDPOINTS=rapid.endpoint) as server,
    ):
        path = f"/lambda-url/{rapid.function_name}/x"
        assert rapid.get(path).status == 404
        assert server.get(path).status == 403
