"""Web pages against both programs: raw requests as a browser sends them, and a browser itself."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from devtools.ports import LOOPBACK
from tests.acceptance.system.conftest import LEDGER, Ledger
from tests.http_listener import HttpListener
from tests.support import ECHO, LIMIT_S, Answer, Rapid, Server, WebProgram, wait_until

ALLOWED = "https://app.example.com"
EVIL = "https://evil.example"
BROWSER = shutil.which("chromium-headless-shell") or shutil.which("chromium")
PREFLIGHT = {
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "x-amz-log-type",
}


class Door(NamedTuple):
    """A program with a Lambda API, and the path of a function that keeps a ledger."""

    program: WebProgram
    path: str

    def request(self, method: str, path: str = "", **headers: str) -> Answer:
        """Send what a page could send without asking; header names with ``_`` for ``-``."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        with self.program.client() as client:
            given["Content-Type"] = "text/plain"
            return client.request(method, path or self.path, b"{}", given)


@contextlib.contextmanager
def opened(kind: str, ledger: Ledger, origins: str = ALLOWED) -> Iterator[Door]:
    """Start a rapid, and with kind ``server`` a Lambda Server before it."""
    settings: dict[str, Any] = {
        "RAPID_CORS_ALLOW_ORIGINS": origins,
        "RAPID_ENABLE_OPENFAAS": "TRUE",
    }
    with Rapid(LEDGER, **settings, **ledger.environ) as rapid:
        if kind == "rapid":
            yield Door(rapid, rapid.path)
            return
        with Server(LAMBDA_ENDPOINTS=rapid.endpoint, CORS_ALLOW_ORIGINS=origins) as server:
            yield Door(server, rapid.path)


@pytest.fixture(params=["rapid", "server"])
def door(request: pytest.FixtureRequest, ledger: Ledger) -> Iterator[Door]:
    """Give each of the two programs."""
    with opened(request.param, ledger) as door:
        yield door


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({"Origin": EVIL}, id="origin"),
        pytest.param({"Origin": "null"}, id="null"),
        pytest.param({"Sec_Fetch_Site": "cross-site"}, id="cross-site"),
    ],
)
def test_a_foreign_page_runs_nothing(door: Door, ledger: Ledger, headers: dict[str, str]) -> None:
    async_path = door.path.replace("2015-03-31", "2014-11-13").replace("ations", "e-async")
    answers = [
        door.request("POST", **headers),
        door.request("POST", X_Amz_Invocation_Type="Event", **headers),
        door.request("POST", async_path, **headers),
        door.request("POST", "/", **headers),  # OpenFaaS's, at rapid
        door.request("OPTIONS", **PREFLIGHT, **headers),
        door.request("DELETE", "/nowhere", **headers),
    ]

    for answer in answers:
        assert answer.status == 403
        assert answer.headers["x-amzn-ErrorType"] == "AccessDeniedException"
        assert "Access-Control-Allow-Origin" not in answer.headers
        assert "CORS_ALLOW_ORIGINS" in answer.json()["Message"]
    assert door.request("GET", "/readyz", **headers).status == 200
    assert ledger.lines == []


def test_an_allowed_page_asks_calls_and_reads_and_the_own_page_calls(
    door: Door, ledger: Ledger
) -> None:
    question = door.request("OPTIONS", Origin=ALLOWED, **PREFLIGHT)
    assert (question.status, question.body) == (204, b"")
    assert question.headers["Access-Control-Allow-Methods"] == "POST"
    assert question.headers["Access-Control-Allow-Headers"] == "x-amz-log-type"
    assert ledger.lines == []

    answers = {
        200: door.request("POST", Origin=ALLOWED, Sec_Fetch_Site="cross-site"),
        400: door.request("POST", Origin=ALLOWED, X_Amz_Invocation_Type="Never"),
        404: door.request("POST", "/nowhere", Origin=ALLOWED),
        405: door.request("PUT", Origin=ALLOWED),
    }

    for status, answer in answers.items():
        assert answer.status == status
        assert answer.headers["Access-Control-Allow-Origin"] == ALLOWED
        assert answer.headers["Vary"] == "Origin"
        assert "X-Amz-Function-Error" in answer.headers["Access-Control-Expose-Headers"]
        assert "Access-Control-Allow-Credentials" not in answer.headers
    assert len(ledger.lines) == 1

    own = f"http://{LOOPBACK}:{door.program.port}"
    assert door.request("POST", Origin=own, Sec_Fetch_Site="same-origin").status == 200
    assert "Access-Control-Allow-Origin" not in door.request("POST").headers
    assert door.request("OPTIONS", Origin=own).status == 405


@pytest.mark.parametrize("headers", [{"Origin": EVIL}, {"Sec_Fetch_Site": "same-origin"}])
def test_a_page_may_not_play_the_runtime(headers: dict[str, str]) -> None:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    with Rapid(ECHO, RAPID_CORS_ALLOW_ORIGINS="*") as rapid, rapid.runtime_api() as client:
        for method, path in (
            ("GET", "/2018-06-01/runtime/invocation/next"),
            ("POST", "/2018-06-01/runtime/init/error"),
            ("POST", "/2020-01-01/extension/register"),
        ):
            answer = client.request(method, path, b"{}" if method == "POST" else None, given)
            assert (answer.status, answer.error_type) == (403, "AccessDenied")

        assert rapid.invoke(b'"still"').body == b'"still"'


# --- a browser

PAGE = """<!doctype html><script>
async function attempt(options) {
  try {
    const answer = await fetch(API, {method: "POST", body: "{}", ...options});
    if (answer.type == "opaque") return "opaque";
    const isWhole = await answer.text() == "{}" && answer.headers.get("x-amz-executed-version");
    return isWhole ? answer.status : "unreadable";
  } catch (error) { return "refused"; }
}
(async () => {
  const plain = {"Content-Type": "text/plain"}, log = {"X-Amz-Log-Type": "Tail"};
  const seen = [
    await attempt({headers: plain}),
    await attempt({headers: plain, mode: "no-cors"}),
    await attempt({headers: log}),
    await attempt({headers: log, credentials: "include"}),
  ];
  await fetch("/seen", {method: "POST", body: JSON.stringify(seen)});
})();
</script>"""


def browse(site: HttpListener, profile: Path) -> Any:
    """Show the page to a real browser until it tells what it has seen."""
    assert BROWSER is not None
    options = ["--no-sandbox", "--disable-gpu", "--headless", "--remote-debugging-port=0"]
    with subprocess.Popen(
        [BROWSER, *options, f"--user-data-dir={profile}", site.address.url],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as browser:
        try:
            wait_until(lambda: site.deliveries, "the page to tell what it has seen", 2 * LIMIT_S)
        finally:
            os.killpg(browser.pid, signal.SIGTERM)  # Debian's command is a script that waits for it
    return json.loads(site.deliveries[0].body)


@pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine")
@pytest.mark.slow
@pytest.mark.parametrize(
    ("is_allowed", "expected", "calls"),
    [
        pytest.param(False, ["refused", "opaque", "refused", "refused"], 0, id="foreign"),
        # What has cookies is asked about before it is sent: the function does not run.
        pytest.param(True, [200, "opaque", 200, "refused"], 3, id="allowed"),
    ],
)
@pytest.mark.parametrize("kind", ["rapid", "server"])
def test_a_browser_lets_an_allowed_page_call_and_no_other(
    kind: str, is_allowed: bool, expected: list[object], calls: int, ledger: Ledger, tmp_path: Path
) -> None:
    with HttpListener() as site:
        origin = site.address.url if is_allowed else ALLOWED
        with opened(kind, ledger, origin) as door:
            api = f"http://{LOOPBACK}:{door.program.port}{door.path}"
            site.page = PAGE.replace("API", json.dumps(api)).encode()

            seen = browse(site, tmp_path / "profile")

    assert seen == expected
    assert len(ledger.lines) == calls
