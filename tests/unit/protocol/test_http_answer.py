"""Answers of functions behind URLs: golden files, preludes of streams, and errors."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from lambda_protocol.errors import (
    LambdaApiError,
    RequestEntityTooLargeException,
    ResourceNotFoundException,
    ResourceNotReadyException,
    ServiceException,
    TooManyRequestsException,
)
from lambda_protocol.http_answer import (
    INTEGRATION_TYPE,
    PRELUDE_BYTES,
    SEPARATOR,
    BadAnswerError,
    Head,
    PreludeReader,
    decode_answer,
    encode_url_error,
    function_failed,
    unknown_url,
    with_ids,
)

FILES = sorted((Path(__file__).parent / "function_urls" / "answers").glob("*.json"))
PRELUDE = b'{"statusCode":201,"headers":{"X-A":"b"},"cookies":["c=1","d=2"]}'
HEAD = Head(
    201,
    [
        ("X-A", "b"),
        ("Set-Cookie", "c=1"),
        ("Set-Cookie", "d=2"),
        ("Content-Type", "application/octet-stream"),
    ],
)


def test_there_are_golden_files() -> None:
    assert len(FILES) >= 30


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_answer_is_that_of_the_golden_file(file: Path) -> None:
    vector = json.loads(file.read_text())
    payload, expected = vector["payload"].encode(), vector["answer"]

    if isinstance(expected, str):
        with pytest.raises(BadAnswerError):
            decode_answer(payload)
        return
    response = decode_answer(payload)

    encoded = expected.get("body_base64")
    body = expected["body"].encode() if encoded is None else base64.b64decode(encoded)
    assert response.status == expected["status"]
    assert [list(field) for field in response.headers] == expected["headers"]
    assert response.body == body


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(b"[" * 100_000, id="nested too deeply"),
        pytest.param(b'{"statusCode":' + b"9" * 5000 + b"}", id="a number without end"),
        pytest.param(b'"\xff"', id="not UTF-8"),
    ],
)
def test_a_payload_that_cannot_be_read_is_a_bad_answer(payload: bytes) -> None:
    with pytest.raises(BadAnswerError):
        decode_answer(payload)


def test_half_a_surrogate_pair_becomes_a_mark() -> None:
    assert decode_answer(b'"a\\ud800b"').body == b"a?b"


# --- the prelude of a stream


def fed(reader: PreludeReader, *chunks: bytes) -> tuple[Head, bytes] | None:
    """Return what the last of ``chunks`` makes; none before it may."""
    for chunk in chunks[:-1]:
        assert reader.feed(chunk) is None
    return reader.feed(chunks[-1])


def test_a_prelude_is_cut_off() -> None:
    reader = PreludeReader(INTEGRATION_TYPE)

    assert fed(reader, PRELUDE + SEPARATOR + b"body") == (HEAD, b"body")


def test_a_prelude_may_come_byte_by_byte() -> None:
    whole = PRELUDE + SEPARATOR
    chunks = [whole[at : at + 1] for at in range(len(whole))]

    assert fed(PreludeReader(INTEGRATION_TYPE), *chunks) == (HEAD, b"")


@pytest.mark.parametrize("at", range(len(PRELUDE) - 2, len(PRELUDE) + 10))
def test_a_prelude_may_be_split_anywhere(at: int) -> None:
    whole = PRELUDE + SEPARATOR + b"\0body"

    reader = PreludeReader(INTEGRATION_TYPE)
    first = reader.feed(whole[:at])
    rest = whole[at:]
    if first is None:
        first, rest = reader.feed(rest), b""

    assert first is not None
    assert first[0] == HEAD
    assert first[1] + rest == b"\0body"


def test_the_content_type_tells_whether_there_is_a_prelude() -> None:
    body = PRELUDE + SEPARATOR

    for kind in ("text/event-stream", "text/plain; charset=utf-8"):
        assert fed(PreludeReader(kind), body) == (Head(200, [("Content-Type", kind)]), body)
    assert fed(PreludeReader(f"{INTEGRATION_TYPE}; charset=utf-8"), body) == (HEAD, b"")


def test_a_stream_without_a_type_is_bytes() -> None:
    head = Head(200, [("Content-Type", "application/octet-stream")])

    assert fed(PreludeReader(None), b"x") == (head, b"x")


def test_the_status_of_an_empty_prelude_is_200() -> None:
    head = Head(200, [("Content-Type", "application/octet-stream")])

    assert fed(PreludeReader(INTEGRATION_TYPE), b"{}" + SEPARATOR) == (head, b"")


@pytest.mark.parametrize(
    "prelude",
    [b"", b"[]", b'{"statusCode":"x"}', b'{"headers":{"a":"b\\n"}}', b"{", b"\xff"],
)
def test_a_prelude_that_is_none_is_a_bad_answer(prelude: bytes) -> None:
    with pytest.raises(BadAnswerError):
        PreludeReader(INTEGRATION_TYPE).feed(prelude + SEPARATOR)


def test_a_prelude_has_a_limit() -> None:
    padding = b" " * (PRELUDE_BYTES - 2)
    assert fed(PreludeReader(INTEGRATION_TYPE), b"{", padding, b"}" + SEPARATOR) is not None

    for chunks in ((b"{" + padding + b" ", b"}" + SEPARATOR), (b"{", padding, b" " * 10)):
        reader = PreludeReader(INTEGRATION_TYPE)
        with pytest.raises(BadAnswerError):
            fed(reader, *chunks)


# --- errors


@pytest.mark.parametrize(
    ("error", "status", "code", "body"),
    [
        (
            TooManyRequestsException(),
            429,
            "TooManyRequestsException",
            b'{"Message":"Rate Exceeded."}',
        ),
        (
            RequestEntityTooLargeException("x"),
            413,
            "RequestEntityTooLargeException",
            b'{"Message":"x"}',
        ),
        (ResourceNotFoundException("x"), 403, "AccessDeniedException", b'{"Message":null}'),
        (ResourceNotReadyException("x"), 503, "ResourceNotReadyException", b'{"Message":"x"}'),
        (ServiceException("x"), 500, "ServiceException", b'{"Message":"x"}'),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_an_invocation_that_was_not_run_is_answered_as_aws_does(
    error: LambdaApiError, status: int, code: str, body: bytes
) -> None:
    response = encode_url_error(error)

    assert (response.status, response.body) == (status, body)
    assert ("x-amzn-ErrorType", code) in response.headers
    assert ("Content-Type", "application/json") in response.headers


def test_a_failed_function_is_502_in_text() -> None:
    assert function_failed() == (502, [("Content-Type", "text/plain")], b"Internal Server Error")


def test_every_answer_has_the_ids() -> None:
    response: Any = with_ids(unknown_url(), "the-request", "the-trace")

    assert ("x-amzn-RequestId", "the-request") in response.headers
    assert ("X-Amzn-Trace-Id", "the-trace") in response.headers
