"""Any request line, header and body for the HTTP codec: an invocation or one of AWS's errors."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from lambda_protocol.errors import LambdaApiError
from lambda_protocol.function_name import FunctionRef, parse_function_name
from lambda_protocol.invoke_http import (
    REQUEST_HEADERS,
    decode_request,
    decode_response,
    encode_error,
    encode_outcome,
    encode_request,
    parse_invoke_path,
)
from lambda_protocol.json_check import require_json_text
from lambda_protocol.validation import require_json

#: Header values as an HTTP reader gives them: Latin-1 without line ends.
VALUES = st.one_of(
    st.text(st.characters(codec="latin-1", exclude_characters="\r\n\0"), max_size=80),
    st.sampled_from(["Event", "DryRun", "Tail", "e30=", "t1"]),
)
ANSWERED = [
    "x-amzn-errortype",
    "x-amz-function-error",
    "x-amz-executed-version",
    "x-amz-log-result",
]
FUNCTION = FunctionRef(name="echo")


def writable(headers: list[tuple[str, str]]) -> bool:
    return all(max(value, default=" ") <= "\xff" for _, value in headers) and not any(
        {*value} & {*"\r\n\0"} for _, value in headers
    )


@given(st.dictionaries(st.sampled_from(sorted(REQUEST_HEADERS)), VALUES), st.binary(max_size=60))
def test_any_request_is_an_invocation_that_can_be_handed_on_or_an_error(
    headers: dict[str, str], body: bytes
) -> None:
    try:
        invocation = decode_request(headers.get, body, request_id="r", function=FUNCTION)
        written = [*encode_request(invocation)[1].items()]
    except LambdaApiError as error:
        written = encode_error(error, "r").headers

    assert writable(written)


@given(
    st.integers(0, 999),
    st.dictionaries(st.sampled_from(ANSWERED), VALUES),
    st.binary(max_size=60),
)
def test_any_response_is_an_outcome_that_can_be_passed_on_or_an_error(
    status: int, headers: dict[str, str], body: bytes
) -> None:
    invocation = decode_request(lambda _name: None, b"", request_id="r", function=FUNCTION)
    try:
        written = encode_outcome(invocation, decode_response(status, headers.get, body)).headers
    except LambdaApiError as error:
        written = encode_error(error, "r").headers

    assert writable(written)


@given(st.text(st.characters(), max_size=300), st.text(st.characters(), max_size=60))
def test_any_path_is_a_function_or_an_error(path: str, query: str) -> None:
    for candidate in (path, f"/2015-03-31/functions/{path}/invocations"):
        parsed = parse_invoke_path(candidate, query)
        if parsed is not None:
            with contextlib.suppress(LambdaApiError):
                function = parse_function_name(
                    parsed.function_name,
                    parsed.qualifier,
                    region="us-east-1",
                    account_id="123456789012",
                )
                assert len(function.queue_name.encode()) <= 255


@given(st.one_of(st.binary(max_size=200), st.text(max_size=80).map(lambda text: text.encode())))
def test_a_payload_is_json_where_the_library_says_so(body: bytes) -> None:
    try:
        require_json(body)
    except LambdaApiError:
        return
    json.loads(body)


#: Pieces of JSON texts, and of what is nearly one.
PIECES = st.sampled_from(
    [
        *'[]{},:"\\-019.eE \ntruefalsn\ufeff\x7f\xa0\x01',
        "true",
        "null",
        "NaN",
        '"a"',
        '"":',
        "-0.5e+1",
        "\\ud800",
        "\\u12",
        "x" * 1001,
        "\\n" * 201,
        '"' + "x" * 3000 + '"',
        '"' + "x" * 3000 + '":',
        "[" * 5,
        "]" * 5,
        '{"a":' * 5,
        "}" * 5,
        "[]," * 101,
    ]
).map(str.encode)
VALUES_OF_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(), max_size=5),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=3), inner),
)


@given(
    st.lists(PIECES, max_size=12).map(b"".join)
    | st.builds(
        lambda value, indent, at, piece: (
            (text := json.dumps(value, indent=indent).encode())[: at % (len(text) + 1)]
            + piece
            + text[at % (len(text) + 1) :]
        ),
        VALUES_OF_JSON,
        st.sampled_from([None, 1]),
        st.integers(0, 1000),
        st.just(b"") | PIECES,
    )
)
def test_a_large_payload_is_checked_as_a_small_one_is(body: bytes) -> None:
    def is_json(check: Callable[[bytes], None]) -> bool:
        try:
            check(body)
        except (LambdaApiError, ValueError, RecursionError):
            return False
        return True

    assert is_json(require_json_text) == is_json(require_json)
