"""Errors of the Invoke API: one class an AWS code, and the payload of a function's own failure.

Whose fault is it? The caller's or the service's is a :class:`LambdaApiError`, raised. The
function's is an ``Outcome`` with ``function_error`` set, returned with HTTP 200.
Source: API_Invoke, "Errors"; the statuses and member names are those of botocore's service model.
"""

from __future__ import annotations

import json
from enum import StrEnum
from typing import ClassVar


class LambdaApiError(Exception):
    """The call failed before or beside the function; rendered only at the edge."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "ServiceException"
    #: AWS spells this member in two ways, by error.
    message_key: ClassVar[str] = "Message"

    def __init__(self, message: str, *, reason: str | None = None) -> None:
        """``message`` is for the caller; ``reason`` is AWS's ``Reason``, where it has one."""
        super().__init__(message)
        self.message = message
        self.reason = reason

    def body(self) -> bytes:
        """Return the JSON body of the error response."""
        members = {"Type": "User" if self.status < 500 else "Service"}
        members[self.message_key] = self.message
        if self.reason is not None:
            members["Reason"] = self.reason
        return _json_bytes(members)


class ServiceException(LambdaApiError):
    """Something of ours failed; the caller may try again."""


class ServiceUnavailable(ServiceException):
    """Something that the service needs cannot be reached now; AWS's code, with status 503."""

    status = 503


class UnreadableReply(ServiceException):
    """An instance's reply cannot be passed on to the caller; AWS's code, with status 502."""

    status = 502


class AccessDeniedException(LambdaApiError):
    """The caller may not do this; for now, a web page of a foreign origin."""

    status, code = 403, "AccessDeniedException"


class ResourceNotFoundException(LambdaApiError):
    """No function of that name is known here."""

    status, code = 404, "ResourceNotFoundException"


class UnknownOperationException(LambdaApiError):
    """No operation of the Invoke API has this path."""

    status, code, message_key = 404, "UnknownOperationException", "message"


class MethodNotAllowedException(LambdaApiError):
    """The path is known, the HTTP method is not one it takes."""

    status, code, message_key = 405, "MethodNotAllowedException", "message"


class BadRequestException(LambdaApiError):
    """The bytes are no HTTP request that we can read."""

    status, code, message_key = 400, "BadRequestException", "message"


class ValidationException(LambdaApiError):
    """A member of the request does not have the form the API asks for."""

    status, code, message_key = 400, "ValidationException", "message"


class InvalidParameterValueException(LambdaApiError):
    """A member of the request has a value that is not possible."""

    status, code, message_key = 400, "InvalidParameterValueException", "message"


class InvalidRequestContentException(LambdaApiError):
    """The payload or the client context is not JSON."""

    status, code, message_key = 400, "InvalidRequestContentException", "message"


class RequestEntityTooLargeException(LambdaApiError):
    """The payload is over its limit.

    The code on the wire is not the modelled RequestTooLargeException, and the body has no Type.
    """

    status, code = 413, "RequestEntityTooLargeException"

    def body(self) -> bytes:
        """Return the JSON body of the error response: the message alone."""
        return _json_bytes({"Message": self.message})


class TooManyRequestsException(LambdaApiError):
    """Every execution environment is busy and the wait for one ran out."""

    status, code, message_key = 429, "TooManyRequestsException", "message"

    def __init__(
        self,
        message: str = "Rate Exceeded.",
        *,
        reason: str | None = "ConcurrentInvocationLimitExceeded",
    ) -> None:
        """Take AWS's own text and reason unless told otherwise."""
        super().__init__(message, reason=reason)


class ResourceNotReadyException(LambdaApiError):
    """The function is known, but nothing runs it now."""

    status, code, message_key = 502, "ResourceNotReadyException", "message"


class ErrorType(StrEnum):
    """``errorType`` of the failures that the platform, not the handler, reports.

    Source: Lambda developer guide and recorded answers of the live service.
    """

    EXIT_ERROR = "Runtime.ExitError"
    INVALID_ENTRYPOINT = "Runtime.InvalidEntrypoint"
    INVALID_WORKING_DIR = "Runtime.InvalidWorkingDir"
    TRUNCATED_RESPONSE = "Runtime.TruncatedResponse"
    INVALID_RESPONSE_MODE = "Runtime.InvalidResponseModeHeader"
    UNKNOWN = "Runtime.Unknown"
    RESPONSE_TOO_LARGE = "Function.ResponseSizeTooLarge"
    TIMED_OUT = "Sandbox.Timedout"
    EXTENSION_CRASH = "Extension.Crash"
    EXTENSION_INIT_ERROR = "Extension.InitError"
    EXTENSION_EXIT_ERROR = "Extension.ExitError"
    EXTENSION_LAUNCH_ERROR = "Extension.LaunchError"
    TOO_MANY_EXTENSIONS = "Extension.TooManyExtensions"


def error_payload(error_type: str, message: str) -> bytes:
    """Return what the invoker gets for a failed function, members in AWS's order."""
    return _json_bytes({"errorType": error_type, "errorMessage": message})


def error_from_wire(code: str, status: int, body: bytes) -> LambdaApiError:
    """Return the error that ``body`` renders, for an error relayed from the other program.

    A code unknown here, or a body that is no error, becomes a :class:`ServiceException`. A status
    that is none of its code's becomes the code's usual one.
    """
    cls = _BY_STATUS.get((code, status)) or _BY_CODE.get(code, ServiceException)
    try:
        members = json.loads(body)
        message = members.get("Message") or members.get("message") or ""
        reason = members.get("Reason")
    except (ValueError, AttributeError, RecursionError):
        message, reason = body[:200].decode("utf-8", "replace"), None
    return cls(str(message), reason=None if reason is None else str(reason))


def _json_bytes(members: dict[str, str]) -> bytes:
    return json.dumps(members, separators=(",", ":")).encode()


_BY_CODE = {cls.code: cls for cls in LambdaApiError.__subclasses__()}
#: The classes that share their code with another one.
_BY_STATUS = {(cls.code, cls.status): cls for cls in ServiceException.__subclasses__()}
