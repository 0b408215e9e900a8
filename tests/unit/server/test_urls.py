"""Function URLs at the server: which function a request is for, and how its URL is known."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from wsgiref.validate import validator

import pytest
from flask import Flask, Response

from lambda_protocol.address import Address
from lambda_protocol.environ import ConfigError
from lambda_protocol.errors import (
    ResourceNotFoundException,
    ResourceNotReadyException,
    ServiceUnavailable,
    TooManyRequestsException,
)
from lambda_protocol.function_url import Announcement, UrlSettings
from lambda_protocol.http1 import Request
from lambda_protocol.invocation import Outcome
from lambda_protocol.limits import SYNC_PAYLOAD_BYTES
from lambda_protocol.url_cors import UrlCors
from lambda_server.app import create_app
from lambda_server.config import Config, UrlTarget
from lambda_server.urls import sources
from lambda_server.urls.forms import Forms, Target
from lambda_server.urls.sources import KEPT_S, LEARNING_S, AnnouncedUrls, AskedUrls
from tests.fakes import FakeInstance, FakeInvoker, call, http_answer, invoke_path
from tests.support import LIMIT_S, wait_until

OPEN = UrlSettings(auth_type="NONE")
HOST = "hello.lambda-url.us-east-1.localhost:8080"
ANSWER = b'{"statusCode":201,"headers":{"X-A":"b"},"body":"text"}'


@dataclass
class KnownUrls:
    """A source that knows what the test says."""

    urls: dict[str, UrlSettings] = field(default_factory=lambda: {"hello": OPEN, "my_Fn-2": OPEN})
    error: Exception | None = None

    def start(self) -> None:
        """Do nothing."""

    def settings(self, name: str) -> UrlSettings | None:
        if self.error is not None:
            raise self.error
        return self.urls.get(name)

    def name_in_host(self, label: str) -> str | None:
        if self.error is not None:
            raise self.error
        found = [name for name in self.urls if name.lower() == label.lower()]
        return found[0] if len(found) == 1 else None


# --- the forms


def forms(**settings: str) -> Forms:
    return Forms(Config.from_environ(settings), KnownUrls())


def found(forms: Forms, host: str, path: str, *, is_own: bool = False) -> Target | None:
    return forms.find(host, path, lambda: is_own)


@pytest.mark.parametrize(
    ("host", "name"),
    [
        (HOST, "hello"),
        ("HELLO.Lambda-URL.US-EAST-1.Example.org", "hello"),
        ("my_fn-2.lambda-url.eu-central-1.x", "my_Fn-2"),
        ("hello.lambda-url.us-gov-west-1.x", "hello"),
        ("other.lambda-url.us-east-1.x", None),
    ],
)
def test_a_host_names_a_function(host: str, name: str | None) -> None:
    target = Target(None if name is None else UrlTarget(name, None))

    for path in ("/", "/healthz", "/2015-03-31/functions/x/invocations", "/lambda-url/x/y"):
        assert found(forms(), host, path, is_own=True) == target
    assert forms().is_url_host(host)


@pytest.mark.parametrize(
    "host",
    [
        "",
        "localhost",
        "hello.lambda-url.us-east-1",
        "hello.lambda-url.x.y",
        ".lambda-url.us-east-1.x",
        "a.hello.lambda-url.us-east-1.x",
        "lambda-url.us-east-1.x",
    ],
)
def test_another_host_is_the_servers(host: str) -> None:
    assert found(forms(), host, "/x") is None
    assert not forms().is_url_host(host)


@pytest.mark.parametrize(
    ("path", "name", "qualifier", "prefix"),
    [
        ("/lambda-url/f", "f", None, "/lambda-url/f"),
        ("/lambda-url/f/", "f", None, "/lambda-url/f"),
        ("/lambda-url/f:live/a", "f", "live", "/lambda-url/f:live"),
        ("/lambda-url/f%3Alive/a", "f", "live", "/lambda-url/f%3Alive"),
        ("/lambda-url/", "", None, "/lambda-url/"),
    ],
)
def test_a_path_names_a_function(path: str, name: str, qualifier: str | None, prefix: str) -> None:
    assert found(forms(), "x", path) == Target(UrlTarget(name, qualifier), prefix)


def test_a_table_comes_before_the_host_form() -> None:
    table = forms(LAMBDA_URL_HOSTS=f"{HOST.partition(':')[0]}=other, Shop.Example.org=shop:live")

    assert found(table, HOST, "/healthz", is_own=True) == Target(UrlTarget("other", None))
    target = Target(UrlTarget("shop", "live"))
    assert found(table, "shop.example.ORG:8080", "/", is_own=True) == target
    assert table.is_url_host("shop.example.org")
    assert found(table, "x.shop.example.org", "/") is None


def test_the_default_comes_last() -> None:
    default = forms(LAMBDA_URL_DEFAULT="site:live")

    assert found(default, "x", "/any") == Target(UrlTarget("site", "live"))
    assert found(default, "x", "/healthz", is_own=True) is None
    assert found(default, "x", "/lambda-url/f/") == Target(UrlTarget("f", None), "/lambda-url/f")
    assert found(default, "x", "*") is None


@pytest.mark.parametrize(
    "settings",
    [
        {"LAMBDA_URL_HOSTS": "shop"},
        {"LAMBDA_URL_HOSTS": "shop.example.org:80=shop"},
        {"LAMBDA_URL_HOSTS": "https://shop.example.org=shop"},
        {"LAMBDA_URL_HOSTS": "shop.example.org=a b"},
        {"LAMBDA_URL_HOSTS": "shop.example.org=a:"},
        {"LAMBDA_URL_DEFAULT": "a/b"},
        {"LAMBDA_URL_DEFAULT": ":live"},
    ],
    ids=str,
)
def test_a_wrong_setting_says_what_is_expected(settings: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=f"^{next(iter(settings))} .*; expected "):
        Config.from_environ(settings)


# --- announcements


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def announced(clock: Clock, *names: str) -> AnnouncedUrls:
    """Return what knows the URLs of ``names``, and has listened for long."""
    known = AnnouncedUrls(clock=clock)
    for name in names:
        known.take(Announcement(name, OPEN))
    return known


def test_an_announced_url_is_known(clock: Clock) -> None:
    known = announced(clock, "hello")

    assert known.settings("hello") == OPEN
    assert known.settings("other") is None
    assert known.name_in_host("HELLO") == "hello"


def test_the_last_announcement_counts(clock: Clock) -> None:
    known = announced(clock, "hello")
    closed = UrlSettings(auth_type="AWS_IAM")
    known.take(Announcement("hello", closed))

    assert known.settings("hello") == closed


def test_a_function_without_a_url_takes_its_url_back(clock: Clock) -> None:
    known = announced(clock, "hello")
    known.take(Announcement("hello", None))
    known.take(Announcement("never", None))

    assert known.settings("hello") is None
    assert known.name_in_host("hello") is None


def test_a_function_that_scaled_to_zero_keeps_its_url_for_a_day(clock: Clock) -> None:
    known = announced(clock, "hello")

    clock.now += KEPT_S
    assert known.settings("hello") == OPEN
    clock.now += 1
    assert known.settings("hello") is None
    assert known.name_in_host("hello") is None


def test_names_that_differ_by_case_are_found_by_no_host(clock: Clock) -> None:
    known = announced(clock, "hello", "Hello")
    assert known.name_in_host("hello") is None

    known.take(Announcement("Hello", None))
    assert known.name_in_host("hello") == "hello"


def test_the_functions_without_news_for_longest_are_forgotten(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "MOST_FUNCTIONS", 2)
    known = announced(clock, "a", "b", "a", "c")

    assert [known.settings(name) for name in "abc"] == [OPEN, None, OPEN]


def test_a_server_that_learns_waits_for_the_announcement() -> None:
    known = AnnouncedUrls(AnnouncedUrls.on_listening)
    known.start()
    answers: list[UrlSettings | None] = []
    thread = threading.Thread(target=lambda: answers.append(known.settings("hello")))
    thread.start()
    known.take(Announcement("other", OPEN))
    assert thread.is_alive()

    known.take(Announcement("hello", OPEN))

    thread.join(LIMIT_S)
    assert answers == [OPEN]


def test_a_server_that_has_learnt_does_not_wait(clock: Clock) -> None:
    known = AnnouncedUrls(AnnouncedUrls.on_listening, clock=clock)
    known.start()
    clock.now += LEARNING_S

    assert known.settings("hello") is None
    assert known.name_in_host("hello") is None


def test_a_server_that_hears_nothing_says_so_at_once() -> None:
    known = AnnouncedUrls(AnnouncedUrls.on_deaf)
    known.take(Announcement("hello", OPEN))
    known.start()

    assert known.settings("hello") == OPEN
    for ask in (known.settings, known.name_in_host):
        with pytest.raises(ServiceUnavailable):
            ask("other")
    known.on_listening()
    known.take(Announcement("other", None))
    assert known.settings("other") is None


def test_a_request_that_waits_learns_that_nothing_comes() -> None:
    known = AnnouncedUrls(AnnouncedUrls.on_listening)
    known.start()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(known.settings, "hello")
        wait_until(lambda: known._waiting == 1, "the request to wait")
        known.on_deaf()

        with pytest.raises(ServiceUnavailable):
            waiting.result(LIMIT_S)


def test_only_so_many_requests_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MOST_WAITING", 0)
    known = AnnouncedUrls(AnnouncedUrls.on_listening)
    known.start()

    with pytest.raises(ServiceUnavailable):
        known.settings("hello")


# --- rapids that are asked


@pytest.fixture
def asked(instance: FakeInstance, clock: Clock) -> AskedUrls:
    """Give a source with the functions ``hello`` and ``Both``, ``both``."""
    return AskedUrls(dict.fromkeys(("hello", "Both", "both"), instance.address), clock=clock)


def tell(instance: FakeInstance, body: bytes, status: str = "200 OK") -> list[Request]:
    """Let the instance answer so; return the requests that come."""
    requests: list[Request] = []

    def reply(request: Request) -> bytes:
        requests.append(request)
        return http_answer(body, status=status)

    instance.reply = reply
    return requests


def test_a_rapid_is_asked_and_its_answer_counts_for_a_while(
    asked: AskedUrls, instance: FakeInstance, clock: Clock
) -> None:
    requests = tell(instance, b'{"AuthType":"NONE","InvokeMode":"BUFFERED"}')

    for _ in range(3):
        assert asked.settings("hello") == OPEN
    assert [request.path for request in requests] == ["/lambda-url/hello"]
    assert "x-lambda-url-settings" in requests[0].headers
    tell(instance, b"", "404 Not Found")
    clock.now += 6
    assert asked.settings("hello") is None


def test_an_unknown_function_is_not_asked_for(asked: AskedUrls, instance: FakeInstance) -> None:
    requests = tell(instance, b"{}")

    assert asked.settings("other") is None
    assert requests == []


def test_the_last_answer_counts_while_a_rapid_does_not_answer(
    asked: AskedUrls, instance: FakeInstance, clock: Clock
) -> None:
    tell(instance, b'{"AuthType":"NONE"}')
    asked.settings("hello")
    tell(instance, b"no JSON")

    clock.now += 6
    assert asked.settings("hello") == OPEN


def test_a_rapid_that_never_answered_is_an_error(clock: Clock) -> None:
    asked = AskedUrls({"hello": Address("127.0.0.1", 1)}, clock=clock)

    with pytest.raises(ResourceNotReadyException):
        asked.settings("hello")


def test_a_host_finds_the_functions_of_the_endpoints(asked: AskedUrls) -> None:
    assert asked.name_in_host("HELLO") == "hello"
    assert asked.name_in_host("both") is None
    assert asked.name_in_host("other") is None


# --- the answers of the application


@pytest.fixture
def source() -> KnownUrls:
    return KnownUrls()


@pytest.fixture(params=["in front", "by Flask"])
def app(request: pytest.FixtureRequest, invoker: FakeInvoker, source: KnownUrls) -> Flask:
    """Give the application, as it is and with a hook, for which Flask serves URLs."""
    invoker.result = Outcome(payload=ANSWER)
    config = Config(url_default=UrlTarget("hello", None))
    app = create_app(config, invoker, source)
    if request.param == "by Flask":
        app.before_request(lambda: None)
    return app


def event_of(invoker: FakeInvoker) -> Any:
    return json.loads(invoker.invocations[-1].payload)


@pytest.mark.parametrize(
    ("path", "host", "raw_path"),
    [
        ("/lambda-url/hello/a%2Fb?c=d", "x", "/a%2Fb"),
        ("/2015-03-31/functions/x/invocations?c=d", HOST, "/2015-03-31/functions/x/invocations"),
        ("/any?c=d", "x", "/any"),
    ],
    ids=["path", "host", "default"],
)
def test_a_request_becomes_an_invocation(
    app: Flask, invoker: FakeInvoker, path: str, host: str, raw_path: str
) -> None:
    headers = {"Host": host, "X-Amzn-Trace-Id": "Root=1-2-3"}
    answer = call(app, path, b"hi", method="PUT", headers=headers)

    assert (answer.status, answer.headers["x-a"], answer.body) == (201, "b", b"text")
    assert answer.headers["content-length"] == "4"
    invocation = invoker.invocations[0]
    assert answer.headers["x-amzn-requestid"] == invocation.request_id
    assert invocation.trace_id == answer.headers["x-amzn-trace-id"] == "Root=1-2-3"
    event = event_of(invoker)
    assert event["rawQueryString"] == "c=d"
    assert event["requestContext"]["http"]["method"] == "PUT"


def test_a_hook_of_the_application_sees_urls(invoker: FakeInvoker, source: KnownUrls) -> None:
    app = create_app(Config(), invoker, source)
    seen = []
    app.before_request(lambda: seen.append(1))
    app.after_request(lambda _: Response("stopped", 418))

    assert call(app, "/healthz", method="GET", headers={"Host": HOST}).status == 418
    assert (seen, len(invoker.invocations)) == ([1], 1)


def test_the_servers_own_paths_come_before_the_default(app: Flask, invoker: FakeInvoker) -> None:
    app.add_url_rule("/mine", view_func=lambda: "mine")

    assert json.loads(call(app, "/healthz", method="GET").body) == {"status": "ok"}
    assert call(app, "/healthz").status == 405
    assert call(app, "/mine", method="GET").body == b"mine"
    assert call(app, invoke_path("f"), b"{}").body == ANSWER
    assert invoker.invocations[0].payload == b"{}"


def test_head_is_answered_without_a_body(app: Flask) -> None:
    answer = call(app, "/x", method="HEAD")

    assert (answer.status, answer.body) == (201, b"")
    assert answer.headers["content-length"] == "4"


@pytest.mark.parametrize("name", ["other", "a!b", "", "amq.x"])
def test_an_unknown_function_is_403(app: Flask, invoker: FakeInvoker, name: str) -> None:
    answer = call(app, f"/lambda-url/{name}/x", method="GET")

    assert (answer.status, answer.body) == (403, b'{"Message":null}')
    assert invoker.invocations == []


def test_a_source_that_cannot_tell_is_503(app: Flask, source: KnownUrls) -> None:
    source.error = ResourceNotReadyException("x")

    for headers in ({}, {"Host": HOST}):
        assert call(app, "/x", method="GET", headers=headers).status == 503


@pytest.mark.parametrize(
    ("error", "status", "body"),
    [
        (TooManyRequestsException(), 429, b'{"Message":"Rate Exceeded."}'),
        (ResourceNotFoundException("x"), 403, b'{"Message":null}'),
        (ValueError("on purpose"), 500, b'{"Message":"An internal error occurred."}'),
    ],
)
def test_an_error_has_the_form_of_urls(
    app: Flask, invoker: FakeInvoker, error: Exception, status: int, body: bytes
) -> None:
    invoker.result = error

    answer = call(app, "/x", method="GET")

    assert (answer.status, answer.body) == (status, body)


def test_a_body_over_the_limit_is_not_read(app: Flask, invoker: FakeInvoker) -> None:
    assert call(app, "/x", length=SYNC_PAYLOAD_BYTES + 1).status == 413
    assert invoker.invocations == []


def test_a_body_that_breaks_off_is_400(app: Flask) -> None:
    assert call(app, "/x", b"abc", length=10).status == 400


def test_a_chunked_body_is_read(app: Flask, invoker: FakeInvoker) -> None:
    assert call(app, "/x", b"abc", length=None).status == 201
    assert event_of(invoker)["body"] == "YWJj"


def test_aws_iam_lets_nobody_in(app: Flask, invoker: FakeInvoker, source: KnownUrls) -> None:
    source.urls["hello"] = UrlSettings(auth_type="AWS_IAM")

    answer = call(app, "/x", headers={"Authorization": "AWS4-HMAC-SHA256 Credential=x"})

    assert (answer.status, answer.body) == (403, b'{"Message":"Forbidden"}')
    assert invoker.invocations == []


def test_pages_of_other_origins_are_the_urls_own_affair(
    app: Flask, invoker: FakeInvoker, source: KnownUrls
) -> None:
    page = {"Origin": "https://shop.example", "Sec-Fetch-Site": "cross-site"}
    assert call(app, invoke_path("hello"), b"{}", headers=page).status == 403
    assert call(app, "/x", headers=page).status == 201

    source.urls["hello"] = UrlSettings(
        auth_type="NONE", cors=UrlCors(allow_origins=("https://shop.example",))
    )
    asked = {**page, "Access-Control-Request-Method": "PUT"}
    answer = call(app, "/x", method="OPTIONS", headers=asked)
    assert (answer.status, len(invoker.invocations)) == (200, 1)
    assert answer.headers["access-control-allow-origin"] == "https://shop.example"
    answer = call(app, "/x", headers=page)
    assert answer.headers["access-control-allow-origin"] == "https://shop.example"


def test_a_method_that_http_does_not_have_is_501(app: Flask) -> None:
    assert call(app, "/x", method="BREW").status == 501


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT"])
def test_the_application_keeps_to_the_wsgi_standard(app: Flask, method: str) -> None:
    """``validator`` raises what PEP 3333 forbids."""
    checked: Any = validator(app)

    assert call(checked, "/lambda-url/hello/x", method=method).status == 201
