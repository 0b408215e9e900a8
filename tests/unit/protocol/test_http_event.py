"""Requests to function URLs as events: golden files, and the limit."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from lambda_protocol.errors import RequestEntityTooLargeException
from lambda_protocol.http_event import UrlRequest, asks_for_websocket, encode_event
from lambda_protocol.limits import SYNC_PAYLOAD_BYTES

FILES = sorted((Path(__file__).parent / "function_urls" / "requests").glob("*.json"))


def make_request(**changes: Any) -> UrlRequest:
    plain: dict[str, Any] = {
        "url_id": "hello",
        "method": "GET",
        "path": "/",
        "headers": [("Host", "hello.lambda-url.us-east-1.localhost:8080")],
        "source_ip": "192.0.2.7",
        "request_id": "5f3a2c1e-9b7d-4e6f-8a1b-2c3d4e5f6a7b",
        "trace_id": "Root=1-6746f0a1-0123456789abcdef01234567",
        "time_ms": 1_795_809_838_123,
    }
    return UrlRequest(**{**plain, **changes})


def request_of(vector: dict[str, Any]) -> UrlRequest:
    """Return the request of a golden file, as a front gives it."""
    given, event = vector["request"], vector["event"]
    method, target, protocol = given["line"].split(" ")
    path, _, query = target.partition("?")
    prefix = given.get("prefix", "")
    encoded = given.get("body_base64")
    return make_request(
        url_id=event["requestContext"]["apiId"],
        method=method,
        path=path.removeprefix(prefix),
        query=query,
        headers=[(name, value) for name, value in given["headers"]],
        body=given.get("body", "").encode() if encoded is None else base64.b64decode(encoded),
        source_ip=given["source_ip"],
        scheme=given["scheme"],
        protocol=protocol,
        prefix=prefix,
    )


def test_there_are_golden_files() -> None:
    assert len(FILES) >= 30


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_event_is_that_of_the_golden_file(file: Path) -> None:
    vector = json.loads(file.read_text())

    assert json.loads(encode_event(request_of(vector))) == vector["event"]


def test_the_account_is_the_callers_where_callers_have_one() -> None:
    event = json.loads(encode_event(make_request(account_id="210987654321")))

    assert event["requestContext"]["accountId"] == "210987654321"


def test_the_event_is_compact_and_in_utf_8() -> None:
    event = encode_event(make_request(body="ö".encode(), headers=[("content-type", "text/plain")]))

    assert b": " not in event
    assert "ö".encode() in event


@pytest.mark.parametrize(
    ("kind", "size"),
    [
        pytest.param("text/plain", SYNC_PAYLOAD_BYTES + 1, id="6 MB and a byte"),
        pytest.param("text/plain", SYNC_PAYLOAD_BYTES, id="the event is larger than its body"),
        pytest.param("image/png", SYNC_PAYLOAD_BYTES * 3 // 4, id="base64 is larger"),
    ],
)  # fmt: skip
def test_an_event_over_the_limit_of_a_payload_is_refused(kind: str, size: int) -> None:
    request = make_request(method="POST", headers=[("Content-Type", kind)], body=b"a" * size)

    with pytest.raises(RequestEntityTooLargeException):
        encode_event(request)


def test_an_event_of_the_limit_is_taken() -> None:
    def event_of(size: int) -> bytes:
        headers = [("Content-Type", "text/plain")]
        return encode_event(make_request(method="POST", headers=headers, body=b"a" * size))

    room = SYNC_PAYLOAD_BYTES - len(event_of(1_000_000)) + 1_000_000

    assert len(event_of(room)) == SYNC_PAYLOAD_BYTES
    with pytest.raises(RequestEntityTooLargeException):
        event_of(room + 1)


@pytest.mark.parametrize(
    ("upgrade", "is_asked"),
    [(None, False), ("h2c", False), ("websocket", True), ("h2c, WebSocket", True)],
)
def test_only_a_websocket_is_what_urls_do_not_offer(upgrade: str | None, is_asked: bool) -> None:
    assert asks_for_websocket(upgrade) is is_asked
