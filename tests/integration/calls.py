"""Calls of the function ``echo`` as they go over the wire, and what an error looks like."""

from __future__ import annotations

from tests.support import Answer

PATH = b"/2015-03-31/functions/echo/invocations"
MIB = 1_048_576


def post(body: bytes, *headers: bytes, version: bytes = b"HTTP/1.1") -> bytes:
    """Return a call of ``echo`` as it goes over the wire."""
    lines = [
        b"POST %b %b" % (PATH, version),
        b"Host: x",
        b"Content-Length: %d" % len(body),
        *headers,
        b"",
        body,
    ]
    return b"\r\n".join(lines)


def assert_is_aws_error(answer: Answer, status: int) -> None:
    assert answer.status == status
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["x-amzn-ErrorType"]
    assert answer.headers["x-amzn-RequestId"]
    members = answer.json()
    assert members.get("message") or members.get("Message")
