from __future__ import annotations

import json

import pytest

from lambda_protocol import errors
from lambda_protocol.errors import ErrorType, LambdaApiError, error_from_wire, error_payload

BODIES = [
    # error, HTTP status, code, body byte for byte. Source: API_Invoke; recorded answers.
    pytest.param(
        errors.ServiceException("broken"),
        500,
        "ServiceException",
        b'{"Type":"Service","Message":"broken"}',
        id="ServiceException",
    ),
    pytest.param(
        errors.ServiceUnavailable("away"),
        503,
        "ServiceException",
        b'{"Type":"Service","Message":"away"}',
        id="ServiceUnavailable",
    ),
    pytest.param(
        errors.ResourceNotFoundException("Function not found: arn"),
        404,
        "ResourceNotFoundException",
        b'{"Type":"User","Message":"Function not found: arn"}',
        id="ResourceNotFoundException",
    ),
    pytest.param(
        errors.UnknownOperationException("m"),
        404,
        "UnknownOperationException",
        b'{"Type":"User","message":"m"}',
        id="UnknownOperationException",
    ),
    pytest.param(
        errors.MethodNotAllowedException("m"),
        405,
        "MethodNotAllowedException",
        b'{"Type":"User","message":"m"}',
        id="MethodNotAllowedException",
    ),
    pytest.param(
        errors.ValidationException("m"),
        400,
        "ValidationException",
        b'{"Type":"User","message":"m"}',
        id="ValidationException",
    ),
    pytest.param(
        errors.InvalidParameterValueException("m"),
        400,
        "InvalidParameterValueException",
        b'{"Type":"User","message":"m"}',
        id="InvalidParameterValueException",
    ),
    pytest.param(
        errors.InvalidRequestContentException("m"),
        400,
        "InvalidRequestContentException",
        b'{"Type":"User","message":"m"}',
        id="InvalidRequestContentException",
    ),
    pytest.param(
        errors.RequestEntityTooLargeException("m"),
        413,
        "RequestEntityTooLargeException",
        b'{"Message":"m"}',
        id="RequestEntityTooLargeException",
    ),
    pytest.param(
        errors.TooManyRequestsException(),
        429,
        "TooManyRequestsException",
        b'{"Type":"User","message":"Rate Exceeded.","Reason":"ConcurrentInvocationLimitExceeded"}',
        id="TooManyRequestsException",
    ),
    pytest.param(
        errors.ResourceNotReadyException("m"),
        502,
        "ResourceNotReadyException",
        b'{"Type":"Service","message":"m"}',
        id="ResourceNotReadyException",
    ),
]


@pytest.mark.parametrize(("error", "status", "code", "body"), BODIES)
def test_an_error_has_the_status_code_and_body_of_aws(
    error: LambdaApiError, status: int, code: str, body: bytes
) -> None:
    assert (error.status, error.code, error.body()) == (status, code, body)


@pytest.mark.parametrize(("error", "status", "code", "body"), BODIES)
def test_an_error_survives_the_wire(
    error: LambdaApiError, status: int, code: str, body: bytes
) -> None:
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


def test_no_two_errors_share_a_code() -> None:
    codes = [cls.code for cls in LambdaApiError.__subclasses__()]

    assert len(codes) == len(set(codes))
