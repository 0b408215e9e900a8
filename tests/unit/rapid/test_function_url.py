"""The function's URL at rapid's own port, with nothing behind it but the test."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest

from lambda_protocol.environ import ConfigError
from lambda_protocol.errors import TooManyRequestsException
from lambda_protocol.function_name import FunctionRef
from lambda_protocol.function_url import UrlSettings
from lambda_protocol.invocation import UNHANDLED, Outcome
from lambda_protocol.limits import SYNC_PAYLOAD_BYTES
from lambda_protocol.url_cors import UrlCors
from rapid.apis.function_url import FunctionUrl
from rapid.settings.config import Config
from rapid.settings.function_url import FunctionUrlConfig
from tests.support import ECHO, INTERPRETER, ROOT, RawConnection, run_command
from tests.unit.rapid.test_invoke_api import Door

SHOP = "https://shop.example"
ANSWER = b'{"statusCode":201,"headers":{"X-A":"b"},"cookies":["c=1"],"body":"text"}'


class UrlDoor(Door):
    """An Invoke API of the function ``echo``, which has a URL."""

    def __init__(self, *, is_default: bool = False, **settings: Any) -> None:
        url = FunctionUrl(
            FunctionUrlConfig(
                settings=UrlSettings(**{"auth_type": "NONE", **settings}), is_default=is_default
            ),
            function=FunctionRef(name="echo"),
            submit=lambda call: self._submit(call),
            abandon=lambda call: self.abandoned.append(call),
        )
        super().__init__(function_url=url)
        self.answer = Outcome(payload=ANSWER)

    @property
    def event(self) -> Any:
        """The event of the last call."""
        return json.loads(self.calls[-1].invocation.payload)


@pytest.fixture
def door() -> Iterator[UrlDoor]:
    door = UrlDoor()
    yield door
    door.close()


@pytest.fixture
def default() -> Iterator[UrlDoor]:
    door = UrlDoor(is_default=True)
    yield door
    door.close()


def test_a_request_becomes_an_invocation_and_its_outcome_the_answer(door: UrlDoor) -> None:
    answer = door.client.request("PUT", "/lambda-url/echo/a/b?c=d", b"{}", {"X-T": "1"})

    assert (answer.status, answer.body) == (201, b"text")
    assert answer.headers["X-A"] == "b"
    assert answer.headers["Set-Cookie"] == "c=1"
    invocation = door.calls[0].invocation
    assert answer.headers["x-amzn-RequestId"] == invocation.request_id
    assert answer.headers["X-Amzn-Trace-Id"] == invocation.trace_id
    event = door.event
    assert (event["rawPath"], event["rawQueryString"]) == ("/a/b", "c=d")
    assert event["requestContext"]["http"]["sourceIp"] == "127.0.0.1"
    assert event["requestContext"]["requestId"] == invocation.request_id
    assert event["headers"]["x-t"] == "1"
    assert event["headers"]["x-forwarded-prefix"] == "/lambda-url/echo"
    assert event["headers"]["x-forwarded-port"] == str(door.api.port)
    assert event["body"] == "e30="


def test_a_trace_id_is_the_callers(door: UrlDoor) -> None:
    answer = door.client.get("/lambda-url/echo", X_Amzn_Trace_Id="Root=1-2-3")

    assert answer.headers["X-Amzn-Trace-Id"] == "Root=1-2-3"
    assert door.event["headers"]["x-amzn-trace-id"] == "Root=1-2-3"
    assert door.calls[0].invocation.trace_id == "Root=1-2-3"


def test_a_qualifier_is_the_invocations(door: UrlDoor) -> None:
    for path in ("/lambda-url/echo:live/x", "/lambda-url/echo%3Alive/x"):
        assert door.client.get(path).status == 201

        function = door.calls[-1].invocation.function
        assert (function.name, function.qualifier) == ("echo", "live")
        assert door.event["rawPath"] == "/x"


@pytest.mark.parametrize("name", ["other", "Echo", "echo2", "", "echo:a!b", "function"])
def test_another_functions_url_does_not_exist(door: UrlDoor, name: str) -> None:
    answer = door.client.get(f"/lambda-url/{name}/x")

    assert (answer.status, answer.body) == (403, b'{"Message":null}')
    assert answer.headers["x-amzn-ErrorType"] == "AccessDeniedException"
    assert door.calls == []


def test_a_function_without_a_url_answers_404_as_before() -> None:
    door = Door()

    answer = door.client.get("/lambda-url/echo/x")

    door.close()
    assert answer.status == 404
    assert answer.headers["x-amzn-ErrorType"] == "UnknownOperationException"


def test_only_the_default_form_takes_other_paths(door: UrlDoor, default: UrlDoor) -> None:
    assert door.client.get("/x").status == 404
    assert default.client.get("/x").status == 201
    assert default.client.get("/").status == 201
    assert default.event["rawPath"] == "/"
    assert "x-forwarded-prefix" not in default.event["headers"]
    assert default.client.get("/lambda-url/echo/y").status == 201
    assert default.event["rawPath"] == "/y"
    assert default.client.get("/lambda-url/other/y").status == 403


def test_rapids_own_paths_come_before_the_default_form(default: UrlDoor) -> None:
    for path in ("/healthz", "/readyz", "/metrics", "/ping"):
        assert default.client.get(path).status == 200
    assert default.client.post("/healthz").status == 405
    assert default.calls == []
    assert default.invoke(body=b'{"a":1}').body == ANSWER
    assert default.calls[0].invocation.payload == b'{"a":1}'


@pytest.mark.parametrize("payload", [b'{"statusCode":"x"}', b"no JSON"])
def test_an_answer_that_cannot_be_sent_is_502(door: UrlDoor, payload: bytes) -> None:
    door.answer = Outcome(payload=payload)

    answer = door.client.get("/lambda-url/echo/")

    assert (answer.status, answer.body) == (502, b"Internal Server Error")
    assert answer.headers["x-amzn-RequestId"]


def test_a_failed_function_is_502(door: UrlDoor) -> None:
    door.answer = Outcome(payload=ANSWER, function_error=UNHANDLED)

    answer = door.client.get("/lambda-url/echo/")

    assert (answer.status, answer.body) == (502, b"Internal Server Error")


def test_a_throttled_function_is_429(door: UrlDoor) -> None:
    door.answer = TooManyRequestsException()

    answer = door.client.get("/lambda-url/echo/")

    assert (answer.status, answer.body) == (429, b'{"Message":"Rate Exceeded."}')


def test_an_instance_that_stops_is_503(door: UrlDoor) -> None:
    door.api.refuse_invocations()

    assert door.client.get("/lambda-url/echo/").status == 503
    assert door.calls == []


def test_head_has_the_length_of_the_body_and_no_body(door: UrlDoor) -> None:
    with RawConnection(door.api.port) as raw:
        for _ in range(2):  # the second answer would begin with the first one's body
            raw.send(b"HEAD /lambda-url/echo/ HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = raw.read_answer(has_body=False)
            assert (answer.status, answer.headers["Content-Length"]) == (201, "4")
    assert door.event["requestContext"]["http"]["method"] == "HEAD"


@pytest.mark.parametrize("status", [204, 304])
def test_what_has_no_body_has_no_length(door: UrlDoor, status: int) -> None:
    door.answer = Outcome(payload=b'{"statusCode":%d,"body":"x"}' % status)

    with RawConnection(door.api.port) as raw:
        for _ in range(2):
            raw.send(b"GET /lambda-url/echo/ HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = raw.read_answer(has_body=False)
            assert answer.status == status
            assert "Content-Length" not in answer.headers


def test_a_body_over_the_limit_is_413_and_the_connection_goes_on(door: UrlDoor) -> None:
    answer = door.client.post("/lambda-url/echo/", b"a" * (SYNC_PAYLOAD_BYTES + 1))

    assert answer.status == 413
    assert answer.headers["x-amzn-ErrorType"] == "RequestEntityTooLargeException"
    assert door.calls == []
    assert door.client.get("/lambda-url/echo/").status == 201


def test_expect_is_answered(door: UrlDoor) -> None:
    with RawConnection(door.api.port) as raw:
        raw.send(
            b"POST /lambda-url/echo/ HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n"
            b"Content-Type: text/plain\r\nExpect: 100-continue\r\n\r\n"
        )
        assert raw.read_answer(has_body=False).status == 100
        raw.send(b"hi")
        assert raw.read_answer().status == 201
    assert door.event["body"] == "hi"
    assert "expect" not in door.event["headers"]


def test_an_upgrade_is_ignored_but_for_a_websocket(door: UrlDoor) -> None:
    answer = door.client.get("/lambda-url/echo/", Connection="Upgrade", Upgrade="h2c")
    assert answer.status == 201
    assert "upgrade" not in door.event["headers"]

    answer = door.client.get("/lambda-url/echo/", Connection="Upgrade", Upgrade="websocket")
    assert (answer.status, answer.body.count(b"\n")) == (501, 1)
    assert len(door.calls) == 1


def test_cookies_in_several_headers_are_cookies(door: UrlDoor) -> None:
    with RawConnection(door.api.port) as raw:
        raw.send(
            b"GET /lambda-url/echo/ HTTP/1.1\r\nHost: x\r\nCookie: a=1,2\r\nCookie: b=3; c=4\r\n"
            b"X-A: 1\r\nX-A: 2\r\n\r\n"
        )
        assert raw.read_answer().status == 201
    assert door.event["cookies"] == ["a=1,2", "b=3", "c=4"]
    assert door.event["headers"]["x-a"] == "1,2"


# --- who may call


def test_a_page_of_any_origin_may_call_a_url_without_cors(door: UrlDoor) -> None:
    answer = door.client.get("/lambda-url/echo/", Origin=SHOP, Sec_Fetch_Site="cross-site")

    assert answer.status == 201
    assert "Access-Control-Allow-Origin" not in answer.headers


def test_cors_answers_a_preflight_without_an_invocation() -> None:
    door = UrlDoor(cors=UrlCors(allow_origins=(SHOP,), allow_methods=("PUT",)))

    answer = door.client.request(
        "OPTIONS",
        "/lambda-url/echo/",
        None,
        {"Origin": SHOP, "Access-Control-Request-Method": "PUT"},
    )
    assert (answer.status, answer.headers["Access-Control-Allow-Methods"]) == (200, "PUT")
    assert door.calls == []

    for path, status in (("echo", 201), ("other", 403)):
        answer = door.client.get(f"/lambda-url/{path}/", Origin=SHOP)
        assert answer.status == status
        is_allowed = "Access-Control-Allow-Origin" in answer.headers
        assert is_allowed == (path == "echo")
    door.close()


def test_aws_iam_lets_nobody_in() -> None:
    door = UrlDoor(auth_type="AWS_IAM")

    answer = door.client.get("/lambda-url/echo/", Authorization="AWS4-HMAC-SHA256 Credential=x")

    door.close()
    assert (answer.status, answer.body) == (403, b'{"Message":"Forbidden"}')
    assert door.calls == []


def test_a_lambda_server_reads_the_settings(door: UrlDoor) -> None:
    answer = door.client.get("/lambda-url/echo", X_Lambda_Url_Settings="1")

    assert answer.json() == {"AuthType": "NONE", "InvokeMode": "BUFFERED"}
    assert door.calls == []


# --- settings


def config_of(**variables: str) -> Config:
    return Config.from_environ([ECHO], variables)


def test_a_function_has_no_url_unless_its_auth_type_is_set() -> None:
    assert config_of().function_url is None
    config = config_of(RAPID_FUNCTION_URL_DEFAULT="TRUE")

    assert config.function_url is None
    assert any("RAPID_FUNCTION_URL_AUTH_TYPE is unset" in note.message for note in config.notes)


def test_the_settings_of_a_url_are_read() -> None:
    config = config_of(
        RAPID_FUNCTION_URL_AUTH_TYPE="none",
        RAPID_FUNCTION_URL_INVOKE_MODE="RESPONSE_STREAM",
        RAPID_FUNCTION_URL_CORS='{"AllowOrigins": ["*"]}',
        RAPID_FUNCTION_URL_DEFAULT="TRUE",
    )

    assert config.function_url == FunctionUrlConfig(
        settings=UrlSettings(
            auth_type="NONE", invoke_mode="RESPONSE_STREAM", cors=UrlCors(allow_origins=("*",))
        ),
        is_default=True,
    )
    assert config.notes == ()


@pytest.mark.parametrize(
    ("name", "value"),
    [("AUTH_TYPE", "SOME"), ("INVOKE_MODE", "STREAM"), ("CORS", "*"), ("CORS", '{"MaxAge": -1}')],
)
def test_a_wrong_setting_is_one_line_that_says_what_is_expected(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"^RAPID_FUNCTION_URL_{name} .*; expected .*"):
        config_of(**{f"RAPID_FUNCTION_URL_{name}": value})


def test_nothing_of_a_url_is_imported_for_a_function_without_one() -> None:
    code = """
import sys, rapid.daemon, rapid.broker.assembly
from rapid.settings.config import Config
Config.from_environ(["/bin/true"], {})
print([name for name in sys.modules if "url" in name and "lambda" in name or "http_event" in name])
"""
    done = run_command(INTERPRETER, "-c", code, env={**os.environ, "PYTHONPATH": str(ROOT)})

    assert (done.stdout, done.stderr) == ("[]\n", "")
