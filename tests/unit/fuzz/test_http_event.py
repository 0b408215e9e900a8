"""Any request to a function URL, and any answer of its function."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from lambda_protocol.environ import WrongValue
from lambda_protocol.function_url import decode_announcement, encode_announcement
from lambda_protocol.http_answer import (
    INTEGRATION_TYPE,
    SEPARATOR,
    BadAnswerError,
    PreludeReader,
    decode_answer,
)
from lambda_protocol.http_event import UrlRequest, encode_event
from lambda_protocol.url_cors import UrlCors
from tests.unit.fuzz.test_invoke_http import VALUES, writable

#: What an HTTP reader takes for a target: Latin-1 without spaces and controls.
TARGETS = st.text(st.characters(codec="latin-1", min_codepoint=0x21, exclude_characters="\x7f"))
NAMES = st.sampled_from(
    ["host", "Cookie", "content-type", "Content-Encoding", "connection", "x-forwarded-for",
     "x-forwarded-proto", "X-Forwarded-Port", "x-forwarded-prefix", "user-agent", "x-a"]
)  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)
SHAPED = st.fixed_dictionaries(
    {"statusCode": st.integers(100, 700) | JSON},
    optional={
        "headers": st.dictionaries(st.text(max_size=12), JSON) | JSON,
        "cookies": st.lists(JSON, max_size=3) | JSON,
        "body": JSON,
        "isBase64Encoded": JSON,
    },
)


@given(TARGETS, TARGETS, st.lists(st.tuples(NAMES, VALUES), max_size=8), st.binary(max_size=60))
def test_any_request_is_an_event_that_has_its_body(
    path: str, query: str, headers: list[tuple[str, str]], body: bytes
) -> None:
    event: Any = json.loads(
        encode_event(
            UrlRequest(
                url_id="f",
                method="POST",
                path=path,
                query=query,
                headers=headers,
                body=body,
                source_ip="127.0.0.1",
                request_id="r",
                trace_id="t",
                time_ms=0,
            )
        )
    )

    text = event.get("body", "")
    assert (base64.b64decode(text) if event["isBase64Encoded"] else text.encode()) == body
    assert event["rawPath"].isascii()
    assert event["rawQueryString"].isascii()
    assert "cookie" not in event["headers"]


@given(st.one_of(SHAPED, JSON))
def test_any_json_is_an_answer_that_can_be_written_or_a_bad_one(answer: object) -> None:
    with contextlib.suppress(BadAnswerError):
        response = decode_answer(json.dumps(answer).encode())

        assert 200 <= response.status < 600
        assert writable(response.headers)
        assert writable([(value, name) for name, value in response.headers])


@given(st.binary(max_size=80))
def test_any_bytes_are_an_answer_or_a_bad_one(payload: bytes) -> None:
    with contextlib.suppress(BadAnswerError):
        decode_answer(payload)


@given(SHAPED, st.binary(max_size=20), st.lists(st.integers(0, 200), max_size=5))
def test_a_prelude_is_the_same_however_it_is_split(
    members: object, body: bytes, cuts: list[int]
) -> None:
    whole = json.dumps(members).encode() + SEPARATOR + body

    def read(*pieces: bytes) -> object:
        reader, head, rest = PreludeReader(INTEGRATION_TYPE), None, b""
        try:
            for piece in pieces:
                if head is None:
                    found = reader.feed(piece)
                    head, rest = found or (None, b"")
                else:
                    rest += piece
        except BadAnswerError:
            return "bad"
        return head, rest

    at = [0, *sorted(cuts), len(whole)]
    pieces = [whole[a:b] for a, b in itertools.pairwise(at)]
    assert read(*pieces) == read(whole)


@given(JSON)
def test_any_setting_is_read_as_it_was_written_or_refused(members: object) -> None:
    with contextlib.suppress(WrongValue):
        setting = UrlCors.parse(members)

        assert UrlCors.parse(setting.members()) == setting


@given(st.one_of(st.binary(max_size=60), JSON.map(lambda value: json.dumps(value).encode())))
def test_any_announcement_is_read_or_refused(body: bytes) -> None:
    with contextlib.suppress(WrongValue):
        announcement = decode_announcement(body)

        assert decode_announcement(encode_announcement(announcement)) == announcement
