"""How a server with a broker learns of function URLs, over the life of a function."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.conftest import StartRapid, StartServer
from tests.integration.urls.conftest import wait_for_url
from tests.support import ECHO, WEB, Rapid, Server, wait_until

URL = {"RAPID_FUNCTION_URL_AUTH_TYPE": "NONE"}


@pytest.fixture
def server(start_server: StartServer, either_broker: str) -> Server:
    return start_server(AMQP_URI=either_broker, INVOKE_QUEUE_TIMEOUT="0.2")


@pytest.fixture
def start(start_rapid: StartRapid, either_broker: str, function_name: str) -> Callable[..., Rapid]:
    """Start an instance of the one function of this test."""
    return lambda **settings: start_rapid(
        WEB, AWS_LAMBDA_FUNCTION_NAME=function_name, RAPID_AMQP_URI=either_broker, **settings
    )


def status_of(server: Server, name: str) -> int:
    return server.get(f"/lambda-url/{name}/x").status


def test_a_url_is_known_once_an_instance_has_come(
    server: Server, start: Callable[..., Rapid], function_name: str
) -> None:
    start(**URL)
    wait_for_url(server, function_name)

    assert status_of(server, function_name) == 200


def test_a_request_that_comes_first_waits_for_the_announcement(
    server: Server, start: Callable[..., Rapid], function_name: str
) -> None:
    with server.raw() as raw:
        host = f"{function_name}.lambda-url.us-east-1.localhost"
        raw.send(f"GET /x HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        start(**URL)

        assert raw.read_answer().status == 200


def test_a_url_outlives_the_last_instance(
    server: Server, start: Callable[..., Rapid], function_name: str
) -> None:
    rapid = start(**URL)
    wait_for_url(server, function_name)
    rapid.stop()

    assert status_of(server, function_name) == 503  # known, and nothing runs it
    start(**URL)
    assert status_of(server, function_name) == 200


def test_an_instance_without_a_url_takes_it_back(
    server: Server, start: Callable[..., Rapid], function_name: str
) -> None:
    start(**URL).stop()
    wait_for_url(server, function_name)
    start()

    wait_until(lambda: status_of(server, function_name) == 403, "the URL to end")
    assert server.invoke(function_name, b'{"rawPath":"/x","rawQueryString":""}').status == 200


def test_new_settings_are_announced(
    server: Server, start: Callable[..., Rapid], function_name: str
) -> None:
    start(**URL).stop()
    wait_for_url(server, function_name)
    cors = json.dumps({"AllowOrigins": ["https://shop.example"]})
    start(**URL, RAPID_FUNCTION_URL_CORS=cors)

    def has_cors() -> bool:
        with server.client() as client:
            answer = client.get(f"/lambda-url/{function_name}/x", Origin="https://shop.example")
        return "Access-Control-Allow-Origin" in answer.headers

    wait_until(has_cors, "the new settings")


def test_a_function_of_another_name_has_no_part_in_it(
    server: Server, start: Callable[..., Rapid], start_rapid: StartRapid, either_broker: str,
    function_name: str,
) -> None:  # fmt: skip
    start(**URL)
    start_rapid(ECHO, AWS_LAMBDA_FUNCTION_NAME=f"{function_name}-x", RAPID_AMQP_URI=either_broker)
    wait_for_url(server, function_name)

    assert status_of(server, function_name) == 200
