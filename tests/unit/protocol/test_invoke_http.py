from __future__ import annotations

import base64
import json
import tracemalloc
import urllib.parse
import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from lambda_protocol.errors import (
    InvalidParameterValueException,
    InvalidRequestContentException,
    LambdaApiError,
    RequestEntityTooLargeException,
    ServiceException,
    TooManyRequestsException,
    ValidationException,
)
from lambda_protocol.function_name import FunctionRef
from lambda_protocol.invocation import Invocation, InvocationType, Outcome, relayed_request_id
from lambda_protocol.invoke_http import (
    HeaderLookup,
    InvokePath,
    decode_request,
    decode_response,
    encode_error,
    encode_outcome,
    encode_request,
    parse_invoke_path,
    payload_limit,
)
from lambda_protocol.json_check import MAX_DEPTH, require_json_text
from lambda_protocol.limits import (
    ASYNC_PAYLOAD_BYTES,
    CLIENT_CONTEXT_BYTES,
    SYNC_PAYLOAD_BYTES,
)
from lambda_protocol.validation import require_json
from tests.support import make_invocation
from tests.unit.protocol.vectors import CALLS, CONTEXT, ERRORS, FUNCTION, OUTCOMES

NOT_JSON = "Could not parse request body into json: Could not parse payload into json: "


def lookup(headers: Mapping[str, str]) -> HeaderLookup:
    lower = {name.lower(): value for name, value in headers.items()}
    return lower.get


def decode(body: bytes = b"{}", is_async: bool = False, **headers: str) -> Invocation:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return decode_request(
        lookup(named),
        body,
        request_id="rid",
        function=FunctionRef(name="f"),
        is_async=is_async,
    )


# --- the request line


@pytest.mark.parametrize(
    ("path", "query", "expected"),
    [
        ("/2015-03-31/functions/f/invocations", "", InvokePath("f", None, False)),
        ("/2015-03-31/functions/a/b/invocations", "", InvokePath("a/b", None, False)),
        ("/2015-03-31/functions/f/invocations/", "", InvokePath("f", None, False)),
        ("/2015-03-31/functions/f:v1/invocations", "", InvokePath("f:v1", None, False)),
        ("/2015-03-31/functions/f:$LATEST/invocations", "", InvokePath("f:$LATEST", None, False)),
        ("/2015-03-31/functions/f/invocations", "Qualifier=v1", InvokePath("f", "v1", False)),
        ("/2015-03-31/functions/f/invocations", "Qualifier=%24L", InvokePath("f", "$L", False)),
        ("/2015-03-31/functions/f/invocations", "a=1&Qualifier=v1", InvokePath("f", "v1", False)),
        ("/2015-03-31/functions/f/invocations", "Qualifier=", InvokePath("f", "", False)),
        ("/2015-03-31/functions/f/invocations", "other", InvokePath("f", None, False)),
        ("/2014-11-13/functions/f/invoke-async", "", InvokePath("f", None, True)),
        ("/2014-11-13/functions/f/invoke-async/", "", InvokePath("f", None, True)),
        ("/2014-11-13/functions/f:x/invoke-async/", "", InvokePath("f:x", None, True)),
    ],
)  # fmt: skip
def test_a_path_of_the_api_names_its_function(path: str, query: str, expected: InvokePath) -> None:
    assert parse_invoke_path(path, query) == expected


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/2015-03-31/functions",
        "/2015-03-31/functions//invocations",
        "/2015-03-31/functions/f",
        "/2015-03-31/functions/f/invocations/x",
        "/2015-03-31/functions/f/invoke-async",
        "/2014-11-13/functions/f/invocations",
        "//2015-03-31/functions/f/invocations",
        "/2015-03-31/functions/f/invocations\n",
    ],
)
def test_any_other_path_is_none_of_the_api(path: str) -> None:
    assert parse_invoke_path(path) is None


# --- request to invocation


def test_a_bare_request_is_a_synchronous_invocation() -> None:
    invocation = decode(b'{"a": 1}')

    assert invocation == Invocation(
        request_id="rid",
        function=FunctionRef(name="f"),
        payload=b'{"a": 1}',
        type=InvocationType.REQUEST_RESPONSE,
        wants_log_tail=False,
        client_context=None,
        trace_id=invocation.trace_id,
        tenant_id=None,
    )


@pytest.mark.parametrize(
    "body",
    [b"1", b'"x"', b"null", b"true", b" [1]\n", b"-0.5e3", b"[[]]", b"9" * 10_000, b""],
    ids=lambda body: repr(body[:9]),
)
def test_any_json_value_is_a_payload_and_none_is_an_empty_object(body: bytes) -> None:
    assert decode(body).payload == (body or b"{}")


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"hello", id="word"),
        pytest.param(b"{", id="half"),
        pytest.param(b"{} {}", id="two"),
        pytest.param(b"NaN", id="NaN"),
        pytest.param(b"[Infinity]", id="Infinity"),
        pytest.param(b"-Infinity", id="-Infinity"),
        pytest.param(b'"\xff"', id="not-utf-8"),
        pytest.param('"x"'.encode("utf-16"), id="utf-16"),
        pytest.param(b"{'a': 1}", id="single-quotes"),
        pytest.param(b"[" * 200_000, id="deep"),
        pytest.param(b"   ", id="blank"),
        pytest.param(b'"a\nb"', id="control-character"),
        pytest.param(b"[" + b"[]," * 30_000, id="large-half"),
        pytest.param(b'"' + b"x" * 100_000 + b'\xff"', id="large-not-utf-8"),
        pytest.param(b'["' + b"x" * 100_000 + b'", NaN]', id="large-NaN"),
        pytest.param(b"[" + b'{"":0},' * 30_000 + b"{}] []", id="large-two"),
    ],
)
def test_a_payload_that_is_no_json_is_refused_with_the_documented_text(body: bytes) -> None:
    with pytest.raises(InvalidRequestContentException) as caught:
        require_json(body)

    assert caught.value.message.startswith(NOT_JSON)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b'"' + b"x" * 100_000 + b'"', id="string"),
        pytest.param(b'{"' + b"k" * 100_000 + b'" : 1}', id="name"),
        pytest.param(b'["' + b'x\\n\\"\\u00e9' * 20_000 + b'", 1]', id="escapes"),
        pytest.param(b'["' + b"x" * 20_000 + b'", "a"]' + b" " * 100_000, id="last-string"),
        pytest.param(b'[1, {"a": ' * 450 + b" " * 100_000 + b"[]" + b"}]" * 450, id="deep"),
    ],
)
def test_a_large_payload_may_be_long_strings_or_deep(body: bytes) -> None:
    json.loads(body)

    require_json(body)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b'"' + b"x" * 100_000, id="no-end"),
        pytest.param(b'"' + b"x" * 100_000 + b"\x1f" + b'"', id="control-character"),
        pytest.param(b'"' + b"x" * 100_000 + b'\\x"', id="escape"),
        pytest.param(b'"' + b"x" * 100_000 + b"\\", id="half-an-escape"),
        pytest.param(b'{"' + b"x" * 100_000 + b'", 1}', id="no-colon"),
        pytest.param(b'{"' + b"x" * 100_000 + b'": 1]', id="other-bracket"),
        pytest.param(b"[" * 450 + b"[]," * 30_000 + b"1" + b"]" * 451, id="one-bracket-more"),
        pytest.param(b"{" + b" " * 100_000 + b"]", id="no-name"),
    ],
)
def test_a_large_payload_that_is_nearly_json_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match="no JSON"):
        require_json_text(body)


@pytest.mark.parametrize("inner", [b"1", b'"' + b"x" * 3000 + b'"'], ids=["small", "long"])
@pytest.mark.parametrize(
    ("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")], ids=["arrays", "objects"]
)
def test_as_much_nesting_is_read_as_the_limit_and_four_small_levels(
    opening: bytes, closing: bytes, inner: bytes
) -> None:
    depth = MAX_DEPTH + 4
    require_json_text(opening * depth + inner + closing * depth)

    with pytest.raises(RecursionError):
        require_json_text(opening * (depth + 1) + inner + closing * (depth + 1))


@pytest.mark.parametrize(
    "piece",
    [
        pytest.param(b'{"":0}', id="objects"),
        pytest.param(b"[]", id="arrays"),
        pytest.param(b'"aa"', id="strings"),
        pytest.param(b"12", id="numbers"),
        pytest.param(b'[[[[[{"a":[1]}]]]]]', id="nested"),
        pytest.param(b'"' + b"a" * 30_000 + b'"', id="long-strings"),
    ],
)
def test_the_check_of_a_large_payload_keeps_nothing(piece: bytes) -> None:
    count = 300_000 // len(piece)
    body = b"[" + (piece + b",") * count + piece + b"]"
    require_json(body)  # what is compiled on first use stays
    tracemalloc.start()

    require_json(body)

    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < len(body)  # what the body means is ten times that


def test_a_payload_is_taken_unchecked_where_the_check_is_off() -> None:
    invocation = decode_request(
        lookup({}), b"hello", request_id="r", function=FunctionRef(name="f"), check_payload=False
    )

    assert invocation.payload == b"hello"


def test_invoke_async_is_an_event_whatever_the_header_says() -> None:
    assert decode(is_async=True, X_Amz_Invocation_Type="DryRun").type is InvocationType.EVENT


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("X_Amz_Invocation_Type", "", "[RequestResponse, Event, DryRun]"),
        ("X_Amz_Invocation_Type", "event", "[RequestResponse, Event, DryRun]"),
        ("X_Amz_Invocation_Type", "RequestResponse ", "[RequestResponse, Event, DryRun]"),
        ("X_Amz_Log_Type", "", "[None, Tail]"),
        ("X_Amz_Log_Type", "tail", "[None, Tail]"),
    ],
)
def test_an_unknown_type_is_refused_with_the_known_ones(
    name: str, value: str, expected: str
) -> None:
    header: Any = {name: value}

    with pytest.raises(InvalidParameterValueException) as caught:
        decode(**header)

    assert expected in caught.value.message


@pytest.mark.parametrize(
    ("kind", "log_type", "wants"),
    [
        ("RequestResponse", "Tail", True),
        ("RequestResponse", "None", False),
        ("Event", "Tail", False),
        ("DryRun", "Tail", False),
    ],
)
def test_a_log_tail_is_for_synchronous_calls_only(kind: str, log_type: str, wants: bool) -> None:
    invocation = decode(X_Amz_Invocation_Type=kind, X_Amz_Log_Type=log_type)

    assert invocation.wants_log_tail is wants


@pytest.mark.parametrize(
    ("kind", "limit", "message"),
    [
        (
            "RequestResponse",
            SYNC_PAYLOAD_BYTES,
            "Request must be smaller than 6291456 bytes for the InvokeFunction operation",
        ),
        (
            "Event",
            ASYNC_PAYLOAD_BYTES,
            "1048577 byte payload is too large for the Event invocation type (limit 1048576 bytes)",
        ),
    ],
)
def test_a_payload_of_the_limit_passes_and_of_a_byte_more_is_refused(
    kind: str, limit: int, message: str
) -> None:
    body = b'"' + b"x" * (limit - 2) + b'"'
    assert decode(body, X_Amz_Invocation_Type=kind).payload == body

    with pytest.raises(RequestEntityTooLargeException) as caught:
        decode(body + b" ", X_Amz_Invocation_Type=kind)

    assert caught.value.message == message


@pytest.mark.parametrize(
    ("headers", "is_async", "limit"),
    [
        ({}, False, SYNC_PAYLOAD_BYTES),
        ({"X-Amz-Invocation-Type": "Event"}, False, ASYNC_PAYLOAD_BYTES),
        ({}, True, ASYNC_PAYLOAD_BYTES),
    ],
    ids=["sync", "event", "invoke-async"],
)
def test_the_limit_is_known_before_the_body_is_read(
    headers: dict[str, str], is_async: bool, limit: int
) -> None:
    assert payload_limit(lookup(headers), is_async=is_async) == limit


@pytest.mark.parametrize(("header", "context"), [(CONTEXT, CONTEXT), ("", None)])
def test_a_client_context_is_kept_as_it_came_unless_it_is_empty(
    header: str, context: str | None
) -> None:
    assert decode(X_Amz_Client_Context=header).client_context == context


@pytest.mark.parametrize(
    "value",
    [
        pytest.param("{}", id="not-base64"),
        pytest.param(CONTEXT + "!", id="foreign-character"),
        pytest.param(CONTEXT[:-1], id="wrong-padding"),
        pytest.param("é", id="no-ascii"),
        pytest.param(base64.b64encode(b"[1]").decode(), id="not-an-object"),
        pytest.param(base64.b64encode(b"x").decode(), id="not-json"),
        pytest.param(base64.b64encode(b'{"a":' * 9_999).decode(), id="too-deep-or-too-long"),
        pytest.param(
            base64.b64encode(json.dumps({"a": "x" * CLIENT_CONTEXT_BYTES}).encode()).decode(),
            id="too-long",
        ),
    ],
)
def test_a_client_context_that_is_no_base64_json_object_is_refused(value: str) -> None:
    with pytest.raises(InvalidRequestContentException) as caught:
        decode(X_Amz_Client_Context=value)

    assert caught.value.message == "Client context must be a valid Base64-encoded JSON object."


@pytest.mark.parametrize("value", [None, "", "a\r\nb", "é", "x" * 8193, "\x00"], ids=repr)
def test_a_trace_id_that_cannot_stand_in_a_header_is_replaced(value: str | None) -> None:
    headers: dict[str, Any] = {} if value is None else {"X_Amzn_Trace_Id": value}

    made_up = [decode(**headers).trace_id for _ in range(2)]

    assert all(trace_id.startswith("Root=1-") for trace_id in made_up)
    assert made_up[0] != made_up[1]


@pytest.mark.parametrize("value", ["", "a\r\nb", "é", "x" * 257, "a;b"], ids=repr)
def test_a_malformed_tenant_is_refused(value: str) -> None:
    with pytest.raises(ValidationException, match="tenantId"):
        decode(X_Amz_Tenant_Id=value)


# --- outcome to response


def test_a_result_is_a_200_with_awss_headers() -> None:
    invocation = make_invocation(request_id="rid", trace_id="t")
    outcome = Outcome(
        payload=b"1", executed_version="7", function_error="Unhandled", log_tail=b"\xffline\n"
    )

    response = encode_outcome(invocation, outcome)

    assert (response.status, response.body) == (200, b"1")
    assert dict(response.headers) == {
        "x-amzn-RequestId": "rid",
        "X-Amzn-Trace-Id": "t",
        "Content-Type": "application/json",
        "X-Amz-Executed-Version": "7",
        "X-Amz-Function-Error": "Unhandled",
        "X-Amz-Log-Result": base64.b64encode(b"\xffline\n").decode(),
    }


@pytest.mark.parametrize(
    ("kind", "status"), [(InvocationType.EVENT, 202), (InvocationType.DRY_RUN, 204)]
)
def test_what_was_not_run_has_no_body_and_no_version(kind: InvocationType, status: int) -> None:
    response = encode_outcome(make_invocation(type=kind), Outcome(payload=b"x"))

    assert (response.status, response.body) == (status, b"")
    assert [name for name, _ in response.headers] == ["x-amzn-RequestId", "X-Amzn-Trace-Id"]


def test_an_error_carries_its_class_and_request_id() -> None:
    response = encode_error(TooManyRequestsException(), "rid")

    assert response.status == 429
    assert response.headers == [
        ("Content-Type", "application/json"),
        ("x-amzn-ErrorType", "TooManyRequestsException"),
        ("x-amzn-RequestId", "rid"),
    ]


# --- the way between the programs


@pytest.mark.parametrize(
    "invocation",
    [
        *CALLS,
        pytest.param(make_invocation(function=FUNCTION, type=InvocationType.EVENT), id="event"),
        pytest.param(make_invocation(function=FUNCTION, type=InvocationType.DRY_RUN), id="dry-run"),
    ],
)
def test_an_invocation_survives_the_way_to_a_rapid(invocation: Invocation) -> None:
    target, headers = encode_request(invocation)
    path, _, query = target.partition("?")
    parsed = parse_invoke_path(urllib.parse.unquote(path), query)
    assert parsed is not None
    request_id = relayed_request_id(lookup(headers)("x-lambda-request-id"))

    received = decode_request(
        lookup(headers),
        invocation.payload,
        request_id=request_id,
        function=replace(FUNCTION, name=parsed.function_name, qualifier=parsed.qualifier),
    )

    assert received == invocation


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_an_outcome_survives_the_way_back(outcome: Outcome) -> None:
    response = encode_outcome(make_invocation(), outcome)

    assert (
        decode_response(response.status, lookup(dict(response.headers)), response.body) == outcome
    )


@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_an_error_survives_the_way_back(error: LambdaApiError) -> None:
    response = encode_error(error, "rid")

    with pytest.raises(type(error)) as caught:
        decode_response(response.status, lookup(dict(response.headers)), response.body)
    assert (caught.value.status, caught.value.body()) == (error.status, response.body)


@pytest.mark.parametrize("status", [301, 404, 500, 503])
def test_a_status_without_an_error_type_is_a_service_exception(status: int) -> None:
    with pytest.raises(ServiceException, match=f"HTTP {status}"):
        decode_response(status, lookup({}), b"<html>")


@pytest.mark.parametrize(
    ("received", "is_kept"),
    [
        ("01234567-89ab-cdef-0123-456789abcdef", True),
        (None, False),
        ("", False),
        ("x", False),
        ("01234567-89AB-cdef-0123-456789abcdef", False),
        ("01234567-89ab-cdef-0123-456789abcdef\r\nX: y", False),
    ],
)
def test_a_relayed_request_id_is_kept_only_if_it_is_one(
    received: str | None, is_kept: bool
) -> None:
    request_id = relayed_request_id(received)

    assert (request_id == received) is is_kept
    assert str(uuid.UUID(request_id)) == request_id
