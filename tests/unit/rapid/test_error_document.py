from __future__ import annotations

import json
from typing import Any

import pytest

from rapid.apis.error_document import shorten

LIMIT = 200


def shortened(document: object, limit: int = LIMIT) -> Any:
    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    payload = shorten(text, limit, "Runtime.Unknown")
    assert len(payload) <= limit
    return json.loads(payload)


@pytest.mark.parametrize(
    "document",
    [
        {"errorMessage": "x" * 1000, "errorType": "ValueError", "requestId": "1"},
        {"errorType": "ValueError", "errorMessage": "x" * 1000, "trace": ["Error: x"]},
        {"trace": ["y" * 99] * 9, "errorMessage": "x" * 1000, "errorType": "ValueError"},
        {
            "errorMessage": "x" * 1000,
            "cause": {"errorMessage": "other", "errorType": "Other"},
            "errorType": "ValueError",
        },
        b'{"errorType": "ValueError", "errorMessage": "' + b"x" * 1000,  # cut off itself
    ],
    ids=["Python", "Node.js", "trace first", "Java's cause", "cut off"],
)
def test_type_and_message_stay_and_the_message_is_cut(document: object) -> None:
    members = shortened(document)

    assert members["errorType"] == "ValueError"
    assert members["errorMessage"] == "x" * (
        LIMIT - len('{"errorMessage":"","errorType":"ValueError"}')
    )
    assert set(members) == {"errorType", "errorMessage"}


def test_a_message_that_fits_stays_whole() -> None:
    members = shortened({"errorMessage": "short", "errorType": "E", "stackTrace": ["y"] * 999})

    assert members == {"errorMessage": "short", "errorType": "E"}


@pytest.mark.parametrize("letter", ["é", "😀", '"', "\\", "\n", "\x01"], ids=repr)
@pytest.mark.parametrize("is_ascii", [True, False], ids=["escaped", "as UTF-8"])
def test_no_character_and_no_escape_is_cut_in_half(letter: str, is_ascii: bool) -> None:
    document = json.dumps({"errorMessage": letter * 500, "errorType": "E"}, ensure_ascii=is_ascii)

    for limit in range(180, 196):
        message = shortened(document.encode(), limit)["errorMessage"]
        assert message.rstrip("\ud83d") == letter * len(message.rstrip("\ud83d"))  # half a pair
        assert len(message) >= 10


@pytest.mark.parametrize("cut", range(1, 40))
def test_a_document_that_breaks_off_anywhere_becomes_one(cut: int) -> None:
    text = json.dumps({"errorType": 'a"\\é', "errorMessage": '\\"é\u20ac' * 3}).encode()

    members = shortened(text[:-cut])

    assert set(members) == {"errorType", "errorMessage"}


@pytest.mark.parametrize(
    "document", [b"x" * 1000, b"[" * 1000, b'"' + b"\\" * 999, b"{}" * 500, b""]
)
def test_what_has_neither_type_nor_message_says_so(document: bytes) -> None:
    members = shortened(document)

    assert members["errorType"] == "Runtime.Unknown"
    assert members["errorMessage"].startswith("The runtime's error is over the limit")
