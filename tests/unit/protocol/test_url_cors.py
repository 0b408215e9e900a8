"""The settings of a function URL: which are refused, and what CORS adds to answers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lambda_protocol.environ import WrongValue
from lambda_protocol.function_url import (
    ANNOUNCEMENT_BYTES,
    CORS_BYTES,
    Announcement,
    UrlSettings,
    decode_announcement,
    encode_announcement,
    parse_cors,
)
from lambda_protocol.url_cors import UrlCors

SHOP = "https://shop.example"
WHOLE = {
    "AllowCredentials": True,
    "AllowHeaders": ["content-type", "x-token"],
    "AllowMethods": ["GET", "PUT"],
    "AllowOrigins": [SHOP, "http://localhost:3000"],
    "ExposeHeaders": ["x-id", "etag"],
    "MaxAge": 300,
}


def cors(**members: Any) -> UrlCors:
    return UrlCors.parse({"AllowOrigins": [SHOP], **members})


def preflight(setting: UrlCors, origin: str = SHOP, **asked: str) -> tuple[int, dict[str, str]]:
    headers = {"origin": origin, "access-control-request-method": "PUT"}
    headers |= {f"access-control-request-{name}": value for name, value in asked.items()}
    response = setting.preflight("OPTIONS", headers.get)
    assert response is not None
    assert response.body == b""
    return response.status, dict(response.headers)


def test_the_setting_is_that_of_the_api() -> None:
    assert UrlCors.parse(WHOLE).members() == WHOLE
    assert UrlCors.parse({}) == UrlCors()


@pytest.mark.parametrize(
    ("members", "found"),
    [
        ([], "no JSON object"),
        ({"allowOrigins": ["*"]}, "'allowOrigins'"),
        ({"AllowOrigins": "*"}, "AllowOrigins"),
        ({"AllowOrigins": [1]}, "AllowOrigins"),
        ({"AllowOrigins": ["https://x"] * 101}, "101 items"),
        ({"AllowOrigins": ["https://*.example"]}, "https://*.example"),
        ({"AllowOrigins": ["shop.example"]}, "shop.example"),
        ({"AllowOrigins": ["https://" + "x" * 250]}, "https://x"),
        ({"AllowMethods": ["OPTIONS"]}, "OPTIONS"),
        ({"AllowMethods": ["GET"] * 7}, "7 items"),
        ({"AllowMethods": [""]}, "AllowMethods"),
        ({"AllowHeaders": ["x"] * 101}, "101 items"),
        ({"AllowHeaders": ["x\r\ny: z"]}, "AllowHeaders"),
        ({"ExposeHeaders": ["x"] * 101}, "101 items"),
        ({"AllowCredentials": "true"}, "AllowCredentials"),
        ({"MaxAge": 86_401}, "86401"),
        ({"MaxAge": -1}, "-1"),
        ({"MaxAge": True}, "True"),
        ({"MaxAge": "5"}, "5"),
    ],
    ids=str,
)
def test_a_setting_out_of_the_apis_bounds_is_refused(members: Any, found: str) -> None:
    with pytest.raises(WrongValue, match="expected") as caught:
        UrlCors.parse(members)

    assert found in str(caught.value)


@pytest.mark.parametrize("text", ["{", "*", "[" * 100_000, json.dumps("x" * CORS_BYTES)])
def test_a_text_that_is_no_setting_is_refused(text: str) -> None:
    with pytest.raises(WrongValue, match="expected"):
        parse_cors(text)


# --- preflights


def test_a_preflight_is_answered_with_the_setting() -> None:
    assert preflight(UrlCors.parse(WHOLE)) == (
        200,
        {
            "Access-Control-Allow-Origin": SHOP,
            "Vary": "Origin",
            "Access-Control-Allow-Credentials": "true",
            "Access-Control-Allow-Methods": "GET,PUT",
            "Access-Control-Allow-Headers": "content-type,x-token",
            "Access-Control-Max-Age": "300",
        },
    )


def test_a_star_is_answered_with_what_was_asked_for() -> None:
    setting = cors(AllowOrigins=["*"], AllowMethods=["*"], AllowHeaders=["*"])

    _, headers = preflight(setting, "https://any.example", headers="x-a, x-b")

    assert headers["Access-Control-Allow-Origin"] == "https://any.example"
    assert headers["Access-Control-Allow-Methods"] == "PUT"
    assert headers["Access-Control-Allow-Headers"] == "x-a, x-b"


def test_a_foreign_origin_is_allowed_nothing() -> None:
    assert preflight(cors(), "https://evil.example") == (200, {"Vary": "Origin"})


@pytest.mark.parametrize("origin", [SHOP + ".evil.example", "http://shop.example", "null", ""])
def test_an_origin_that_looks_alike_is_foreign(origin: str) -> None:
    assert not cors().allows(origin)


def test_an_origin_is_compared_without_case() -> None:
    assert cors(AllowOrigins=["HTTPS://Shop.Example/"]).allows("https://SHOP.example")


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("GET", {"origin": SHOP, "access-control-request-method": "PUT"}),
        ("OPTIONS", {"origin": SHOP}),
        ("OPTIONS", {"access-control-request-method": "PUT"}),
    ],
)
def test_what_is_no_preflight_is_the_functions(method: str, headers: dict[str, str]) -> None:
    assert cors().preflight(method, headers.get) is None


# --- other answers


def test_an_answer_gets_the_headers_of_the_setting() -> None:
    assert UrlCors.parse(WHOLE).applied([("X-A", "b")], SHOP) == [
        ("X-A", "b"),
        ("Access-Control-Allow-Origin", SHOP),
        ("Vary", "Origin"),
        ("Access-Control-Allow-Credentials", "true"),
        ("Access-Control-Expose-Headers", "x-id,etag"),
    ]


@pytest.mark.parametrize("origin", [SHOP, "https://evil.example", None])
def test_the_setting_overrides_the_function(origin: str | None) -> None:
    of_function = [
        ("access-control-allow-origin", "*"),
        ("Access-Control-Allow-Credentials", "true"),
        ("Access-Control-Expose-Headers", "x"),
    ]

    headers = cors().applied(of_function, origin)

    expected = [("Access-Control-Allow-Origin", SHOP)] if origin == SHOP else []
    assert headers == [*expected, ("Vary", "Origin")]


# --- announcements


@pytest.mark.parametrize(
    "url",
    [
        None,
        UrlSettings(auth_type="NONE"),
        UrlSettings(auth_type="AWS_IAM", invoke_mode="RESPONSE_STREAM", cors=UrlCors.parse(WHOLE)),
    ],
    ids=["none", "plain", "whole"],
)
def test_an_announcement_is_read_as_it_was_made(url: UrlSettings | None) -> None:
    announcement = Announcement("my_function-1", url)

    assert decode_announcement(encode_announcement(announcement)) == announcement


def test_an_announcement_of_a_later_version_is_read() -> None:
    body = b'{"FunctionName":"f","FunctionUrlConfig":{"AuthType":"NONE","New":1},"Other":{}}'

    assert decode_announcement(body) == Announcement("f", UrlSettings(auth_type="NONE"))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"[" * 60_000,
        b'{"FunctionName":""}',
        b'{"FunctionName":"a b"}',
        b'{"FunctionName":1}',
        b'{"FunctionName":"f","FunctionUrlConfig":[]}',
        b'{"FunctionName":"f","FunctionUrlConfig":{"AuthType":"X"}}',
        b'{"FunctionName":"f","FunctionUrlConfig":{"AuthType":["NONE"]}}',
        b'{"FunctionName":"f","FunctionUrlConfig":{"AuthType":"NONE","InvokeMode":"X"}}',
        b'{"FunctionName":"f","FunctionUrlConfig":{"AuthType":"NONE","Cors":{"MaxAge":-1}}}',
        b'{"FunctionName":"f","x":"' + b"x" * ANNOUNCEMENT_BYTES + b'"}',
    ],
    ids=lambda body: body[:70].decode(),
)
def test_what_is_no_announcement_is_refused(body: bytes) -> None:
    with pytest.raises(WrongValue):
        decode_announcement(body)
