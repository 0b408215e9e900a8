"""Which web pages may call: a pure function of a request's headers."""

from __future__ import annotations

import pytest

from lambda_protocol.cors import EXPOSED, Admission, AllowedOrigins, comes_from_page
from lambda_protocol.environ import ConfigError
from lambda_protocol.errors import AccessDeniedException, TooManyRequestsException
from lambda_protocol.invocation import Outcome
from lambda_protocol.invoke_http import encode_error, encode_outcome
from tests.support import make_invocation

INVOKE = "/2015-03-31/functions/f/invocations"
PAGE = "https://app.example.com"
#: Headers of a response that a page may read without being told so.
#: Source: Fetch standard, "CORS-safelisted response-header name".
SAFELISTED = {"content-type", "content-length"}


def allowed(text: str = "") -> AllowedOrigins:
    return AllowedOrigins.parse("CORS_ALLOW_ORIGINS", text)


def admit(
    origins: str = "",
    method: str = "POST",
    path: str = INVOKE,
    is_tls: bool = False,
    /,
    **headers: str,
) -> Admission:
    """Judge a request; header names with ``_`` for ``-``."""
    given = {"host": "127.0.0.1:8080"} | {k.replace("_", "-"): v for k, v in headers.items()}
    return allowed(origins).admit(method, path, given.get, is_tls=is_tls)


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({}, id="no-browser"),
        pytest.param({"sec_fetch_mode": "cors"}, id="fetch-of-node"),
        pytest.param({"sec_fetch_site": "none"}, id="typed-by-a-person"),
    ],
)
def test_a_request_without_origin_is_untouched(headers: dict[str, str]) -> None:
    assert admit(**headers) == Admission()


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("[::1]:8080", "http://[::1]:8080"),
        ("Example.com", "http://example.com"),
        ("example.com:80", "http://example.com"),
        pytest.param("example.com", "https://example.com", id="a-proxy-ends-tls"),
        pytest.param("example.com:443", "https://example.com", id="a-proxy-with-port"),
    ],
)
def test_a_page_of_the_own_origin_is_admitted(host: str, origin: str) -> None:
    assert not admit(host=host, origin=origin, sec_fetch_site="same-origin").is_preflight


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "http://127.0.0.1:8081"},
        {"origin": "http://127.0.0.1"},
        {"origin": "http://localhost:8080"},
        {"origin": "null"},
        {"origin": ""},
        {"origin": "http://"},
        {"origin": "ftp://127.0.0.1:8080"},
        {"origin": "http://127.0.0.1:8080, http://evil.example"},
        {"origin": "http://evil.example/http://127.0.0.1:8080"},
        {"origin": "http://", "host": ""},
        {"origin": "\xff" * 10_000},
        {"origin": "http://127.0.0.1:8080", "sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "cross-site"},
        {"origin": "http://example.com", "host": "example.com", "x_forwarded_proto": "https"},
    ],
)
@pytest.mark.parametrize("method", ["POST", "GET", "OPTIONS", "DELETE"])
@pytest.mark.parametrize("origins", ["", PAGE])
def test_a_foreign_page_is_refused(method: str, origins: str, headers: dict[str, str]) -> None:
    with pytest.raises(AccessDeniedException, match="CORS_ALLOW_ORIGINS names the origins") as e:
        admit(origins, method, access_control_request_method="POST", **headers)

    assert len(str(e.value)) < 1000


def test_a_page_over_http_is_foreign_to_a_server_over_tls() -> None:
    admit("", "POST", INVOKE, True, host="h", origin="https://h")
    with pytest.raises(AccessDeniedException):
        admit("", "POST", INVOKE, True, host="h", origin="http://h")


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/_/health"])
def test_a_link_from_anywhere_leads_to_health_and_metrics(path: str) -> None:
    assert admit("", "GET", path, sec_fetch_site="cross-site") == Admission()
    assert admit("", "GET", path, origin="http://evil.example") == Admission()


@pytest.mark.parametrize(
    ("origins", "origin", "said"),
    [
        pytest.param(PAGE, PAGE, PAGE, id="one"),
        pytest.param(f"http://a, {PAGE.upper()}/ ,", PAGE, PAGE, id="several"),
        pytest.param(f"{PAGE}:443", PAGE, PAGE, id="default-port"),
        pytest.param("http://[::1]:3000", "http://[::1]:3000", "http://[::1]:3000", id="ipv6"),
        pytest.param("tauri://localhost", "tauri://localhost", "tauri://localhost", id="app"),
        pytest.param("*", PAGE, "*", id="every"),
        pytest.param(" * ", "null", "*", id="every-null-too"),
    ],
)
def test_an_allowed_page_reads_the_answer(origins: str, origin: str, said: str) -> None:
    admission = admit(origins, origin=origin, sec_fetch_site="cross-site")

    assert admission == Admission(
        (
            ("Access-Control-Allow-Origin", said),
            ("Vary", "Origin"),
            ("Access-Control-Expose-Headers", EXPOSED),
        )
    )


def test_a_preflight_is_answered_for_what_it_asks() -> None:
    admission = admit(
        PAGE,
        "OPTIONS",
        origin=PAGE,
        access_control_request_method="POST",
        access_control_request_headers="authorization,x-amz-invocation-type",
    )

    assert admission.is_preflight
    assert dict(admission.headers) == {
        "Access-Control-Allow-Origin": PAGE,
        "Vary": "Origin",
        "Access-Control-Allow-Methods": "POST",
        "Access-Control-Allow-Headers": "authorization,x-amz-invocation-type",
        "Access-Control-Max-Age": "600",
    }


@pytest.mark.parametrize("asked", ["a\x00b", "a" * 5000, "h\xe4", "a: b"])
def test_a_preflight_for_what_is_no_header_gets_none(asked: str) -> None:
    admission = admit(
        PAGE,
        "OPTIONS",
        origin=PAGE,
        access_control_request_method="POST",
        access_control_request_headers=asked,
    )

    assert "Access-Control-Allow-Headers" not in dict(admission.headers)


def test_options_without_a_question_is_no_preflight() -> None:
    assert not admit(PAGE, "OPTIONS", origin=PAGE).is_preflight


@pytest.mark.parametrize("method", ["POST", "OPTIONS"])
@pytest.mark.parametrize("origins", [PAGE, "*"])
def test_credentials_are_never_allowed(origins: str, method: str) -> None:
    headers = admit(origins, method, origin=PAGE, access_control_request_method="POST").headers

    assert "access-control-allow-credentials" not in {name.lower() for name, _ in headers}


def test_a_page_may_read_every_header_of_an_answer() -> None:
    outcome = Outcome(function_error="Unhandled", log_tail=b"x")
    answers = [
        encode_outcome(make_invocation(wants_log_tail=True), outcome),
        encode_error(TooManyRequestsException(), "id"),
    ]
    sent = {name.lower() for answer in answers for name, _ in answer.headers}

    assert set(EXPOSED.lower().split(", ")) == sent - SAFELISTED


@pytest.mark.parametrize(
    "text",
    ["example.com", "https://", "https://a/path", "https://*.a.com", "*, https://a", "null",
     "https://a b", "https://b\u00fccher.example", "https://u@a"],
)  # fmt: skip
def test_what_is_no_origin_is_one_line(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^CORS_ALLOW_ORIGINS has '.*'; expected origins as"):
        allowed(text)


@pytest.mark.parametrize(
    ("headers", "is_page"),
    [
        ({}, False),
        ({"sec-fetch-site": "none"}, False),
        ({"sec-fetch-mode": "cors"}, False),
        ({"origin": "null"}, True),
        ({"sec-fetch-site": "same-origin"}, True),
        ({"sec-fetch-site": "cross-site"}, True),
    ],
)
def test_a_page_is_told_from_a_program(headers: dict[str, str], is_page: bool) -> None:
    assert comes_from_page(headers.get) is is_page
