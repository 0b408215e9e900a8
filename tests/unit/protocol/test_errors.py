from __future__ import annotations

import json

import pytest

from lambda_protocol import errors
from lambda_protocol.errors import ErrorType, LambdaApiError, error_from_wire, error_payload

BODIES = [
    # error, HTTP status, body byte for byte. Source: API_Invoke; recorded answers.
    (errors.ServiceException("m"), 500, b'{"Type":"Service","Message":"m"}'),
    (errors.ServiceUnavailable("m"), 503, b'{"Type":"Service","Message":"m"}'),
    (errors.ResourceNotFoundException("m"), 404, b'{"Type":"User","Message":"m"}'),
    (errors.UnknownOperationException("m"), 404, b'{"Type":"User","message":"m"}'),
    (errors.MethodNotAllowedException("m"), 405, b'{"Type":"User","message":"m"}'),
    (errors.ValidationException("m"), 400, b'{"Type":"User","message":"m"}'),
    (errors.InvalidParameterValueException("m"), 400, b'{"Type":"User","message":"m"}'),
    (errors.InvalidRequestContentException("m"), 400, b'{"Type":"User","message":"m"}'),
    (errors.RequestEntityTooLargeException("m"), 413, b'{"Message":"m"}'),
    (
        errors.TooManyRequestsException(),
        429,
        b'{"Type":"User","message":"Rate Exceeded.","Reason":"ConcurrentInvocationLimitExceeded"}',
    ),
    (errors.AccessDeniedException("m"), 403, b'{"Type":"User","Message":"m"}'),
    (errors.ResourceNotReadyException("m"), 502, b'{"Type":"Service","message":"m"}'),
]


@pytest.mark.parametrize(("error", "status", "body"), BODIES, ids=lambda e: type(e).__name__)
def test_an_error_is_written_as_aws_does_and_read_again(
    error: LambdaApiError, status: int, body: bytes
) -> None:
    code = type(error).__name__
    if code == "ServiceUnavailable":
        code = "ServiceException"  # AWS has no class of its own
    assert (error.status, error.code, error.body()) == (status, code, body)

    relayed = error_from_wire(code, status, body)

    assert type(relayed) is type(error)
    assert (relayed.status, relayed.body()) == (status, body)


@pytest.mark.parametrize("status", [0, 200, 404, 599])
def test_a_status_that_is_not_its_codes_gives_way_to_the_usual_one(status: int) -> None:
    relayed = error_from_wire("ServiceException", status, b'{"Message":"m"}')

    assert (type(relayed), relayed.status) == (errors.ServiceException, 500)


def test_an_unknown_code_becomes_a_service_exception() -> None:
    relayed = error_from_wire("NeverHeardOfException", 418, b'{"message":"m"}')

    assert (type(relayed), relayed.message) == (errors.ServiceException, "m")


@pytest.mark.parametrize(
    "body", [b"<html>", b"", b"[1]", b"null", b'"text"', b"\xff\xfe"], ids=repr
)
def test_a_body_that_is_no_error_is_shown(body: bytes) -> None:
    relayed = error_from_wire("ServiceException", 500, body)

    assert relayed.message == body.decode("utf-8", "replace")


def test_a_message_with_quotes_and_line_ends_is_still_json() -> None:
    body = errors.ServiceException('a "b"\n\u2028é').body()

    assert json.loads(body)["Message"] == 'a "b"\n\u2028é'


def test_a_functions_failure_has_the_type_first() -> None:
    payload = error_payload(ErrorType.EXIT_ERROR, "RequestId: 1 Error: x")

    assert payload == b'{"errorType":"Runtime.ExitError","errorMessage":"RequestId: 1 Error: x"}'
