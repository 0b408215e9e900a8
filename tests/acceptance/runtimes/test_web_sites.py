"""The same demo site in four web frameworks, behind function URLs."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlencode

import pytest

from devtools.ports import LOOPBACK
from tests.acceptance.conformance.doors import Door
from tests.acceptance.runtimes.builds import built
from tests.acceptance.runtimes.conftest import open_command
from tests.acceptance.runtimes.recipes import WEB_GO, WEB_NODE, WEB_PYTHON, Recipe
from tests.support import AWSLAMBDARIC, LIMIT_S, ROOT, wait_until

FILE: Final = bytes(range(256)) * 100
_NODE: Final = ("node", "node_modules/aws-lambda-ric/bin/index.mjs", "index.handler")


@dataclass(frozen=True, slots=True)
class Site:
    """The site in one framework."""

    recipe: Recipe
    command: tuple[str, ...]  #: ``{folder}`` is the built folder
    streams: bool = False


SITES: Final = {
    "FastAPI and Mangum": Site(WEB_PYTHON, (*AWSLAMBDARIC, "fastapi_app.handler")),
    "Flask and apig-wsgi": Site(WEB_PYTHON, (*AWSLAMBDARIC, "flask_app.handler")),
    "Express and serverless-http": Site(WEB_NODE, _NODE),
    "net-http and lambdaurl": Site(WEB_GO, ("{folder}/bootstrap",), streams=True),
}


@dataclass(slots=True)
class Browser:
    """A client with cookies. One thread."""

    door: Door
    cookies: dict[str, str] = field(default_factory=dict)

    def ask(
        self, method: str, path: str, body: bytes | str = b"", **headers: str
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        """Return status, headers and body of an answer; follow nothing."""
        host = f"{self.door.function_name}.lambda-url.us-east-1.localhost:{self.door.port}"
        sent = {"Host": host, **{name.replace("_", "-"): text for name, text in headers.items()}}
        if self.cookies:
            sent["Cookie"] = "; ".join(f"{name}={text}" for name, text in self.cookies.items())
        connection = http.client.HTTPConnection(LOOPBACK, self.door.port, timeout=LIMIT_S)
        with contextlib.closing(connection):
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            for cookie in answer.headers.get_all("Set-Cookie", []):
                name, _, text = cookie.partition(";")[0].partition("=")
                self.cookies[name] = text
            return answer.status, answer.headers, answer.read()

    def post_form(self, path: str, **fields: str) -> tuple[int, http.client.HTTPMessage, bytes]:
        """Post an HTML form."""
        kind = "application/x-www-form-urlencoded"
        return self.ask("POST", path, urlencode(fields), Content_Type=kind)


@pytest.fixture(params=SITES)
def site(request: pytest.FixtureRequest) -> Site:
    return SITES[request.param]


@pytest.fixture
def browser(
    request: pytest.FixtureRequest, site: Site, broker_uri: str | None
) -> Iterator[Browser]:
    folder = built(site.recipe)
    settings: dict[str, Any] = {
        "PYTHONPATH": f"{folder / 'packages'}:{ROOT}",
        "RAPID_FUNCTION_URL_AUTH_TYPE": "NONE",
        "RAPID_FUNCTION_URL_INVOKE_MODE": "RESPONSE_STREAM" if site.streams else "BUFFERED",
        # A rapid has no hosts: every path is the function's.
        "RAPID_FUNCTION_URL_DEFAULT": "TRUE" if broker_uri is None else "FALSE",
    }
    command = [word.format(folder=folder) for word in site.command]
    with contextlib.ExitStack() as stack:
        browser = Browser(open_command(request, stack, command, folder, broker_uri, **settings))
        wait_until(lambda: browser.ask("GET", "/")[0] == 200, "the URL to be known")
        yield browser


def test_a_page_knows_its_query(browser: Browser) -> None:
    status, headers, body = browser.ask("GET", "/?name=Gr%C3%BC%C3%9Fe%20%F0%9F%90%88")

    assert (status, body.decode()) == (200, "<p>Hello Grüße 🐈</p>")
    assert headers["Content-Type"].startswith("text/html")


def test_a_form_is_read(browser: Browser) -> None:
    status, _, body = browser.post_form("/form", name="Ada", text="a=1&b=ü +")

    assert (status, json.loads(body)) == (200, {"name": "Ada", "text": "a=1&b=ü +"})


def test_an_upload_comes_as_it_is(browser: Browser) -> None:
    form = (
        b'--mark\r\nContent-Disposition: form-data; name="file"; filename="all.bin"\r\n'
        b"Content-Type: application/octet-stream\r\n\r\n" + FILE + b"\r\n--mark--\r\n"
    )

    status, _, body = browser.ask(
        "POST", "/upload", form, Content_Type="multipart/form-data; boundary=mark"
    )

    told = {"name": "all.bin", "sha256": hashlib.sha256(FILE).hexdigest()}
    assert (status, json.loads(body)) == (200, told)


def test_a_login_sets_cookies_and_redirects_to_a_page_that_reads_them(browser: Browser) -> None:
    status, headers, _ = browser.post_form("/login", name="Ada")
    assert (status, headers["Location"]) == (303, "/me")
    assert browser.cookies == {"name": "Ada", "seen": "1"}

    status, _, body = browser.ask("GET", headers["Location"])

    assert (status, json.loads(body)) == (200, {"name": "Ada"})


def test_a_binary_download_comes_as_it_is(browser: Browser) -> None:
    status, headers, body = browser.ask("GET", "/download")

    assert (status, body) == (200, bytes(range(256)))
    assert headers["Content-Type"] == "application/octet-stream"


def test_server_sent_events_come_through(browser: Browser) -> None:
    status, headers, body = browser.ask("GET", "/events", Accept="text/event-stream")

    assert (status, body) == (200, b"data: 1\n\ndata: 2\n\n")
    assert headers["Content-Type"].startswith("text/event-stream")
