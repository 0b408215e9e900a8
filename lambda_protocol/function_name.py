"""The forms of a function's name: name, partial ARN and ARN, each with or without a qualifier."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from lambda_protocol.errors import (
    InvalidParameterValueException,
    ResourceNotFoundException,
    ValidationException,
)
from lambda_protocol.limits import FUNCTION_NAME_CHARS, QUALIFIER_CHARS, QUEUE_NAME_BYTES

#: Source: API_Invoke, FunctionName; the text is part of the error message.
NAME_PATTERN = (
    r"(arn:(aws[a-zA-Z-]*)?:lambda:)?((eusc-)?[a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-\d{1}:)?"
    r"(\d{12}:)?(function:)?([a-zA-Z0-9-_\.]+)(:(\$LATEST(\.PUBLISHED)?|[a-zA-Z0-9-_]+))?"
)
QUALIFIER_PATTERN = r"\$(LATEST(\.PUBLISHED)?)|[a-zA-Z0-9-_$]+"

_NAME = re.compile(
    r"(?:arn:(?:aws[a-zA-Z-]*)?:lambda:)?"
    r"(?:(?P<region>(?:eusc-)?[a-z]{2}(?:-gov|-iso[a-z]?)?-[a-z]+-[0-9]):)?"
    r"(?:[0-9]{12}:)?(?:function:)?(?P<name>[a-zA-Z0-9_.-]+)"
    r"(?::(?P<qualifier>\$LATEST(?:\.PUBLISHED)?|[a-zA-Z0-9_-]+))?"
)
_QUALIFIER = re.compile(r"\$LATEST(?:\.PUBLISHED)?|[a-zA-Z0-9_$-]+")

#: Names that are queues of the system. RabbitMQ keeps ``amq.`` (a caller could otherwise write
#: into another caller's reply queue); the others belong to events, beside a function's own queue.
_SYSTEM_QUEUE = re.compile(r"amq\..*|lambda\.retry\..*|.*\.(?:events|dead)")
#: The longest name: its event queue has one, too.
_LONGEST = QUEUE_NAME_BYTES - len(".events")


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionRef:
    """The function an invocation names."""

    name: str
    qualifier: str | None = None  #: as the caller gave it; None when it gave none
    region: str = "us-east-1"
    account_id: str = "123456789012"

    @property
    def queue_name(self) -> str:
        """The queue that carries calls of this function."""
        return self.name

    @property
    def arn(self) -> str:
        """The ARN without a qualifier."""
        return f"arn:aws:lambda:{self.region}:{self.account_id}:function:{self.name}"

    @property
    def invoked_arn(self) -> str:
        """The ARN given to the runtime: qualified only when the caller gave a qualifier."""
        return self.arn if self.qualifier is None else f"{self.arn}:{self.qualifier}"

    @property
    def qualified_arn(self) -> str:
        """The ARN that errors and records name: ``$LATEST`` when no qualifier was given."""
        return f"{self.arn}:{self.qualifier or '$LATEST'}"


@lru_cache(maxsize=4096)
def parse_function_name(
    text: str,
    qualifier: str | None = None,
    *,
    region: str = "us-east-1",
    account_id: str = "123456789012",
) -> FunctionRef:
    """Return the function that ``text`` names, decoded from its path segment.

    Any account id is accepted and replaced by ours. Raises ``ValidationException`` for a
    malformed name or qualifier, ``InvalidParameterValueException`` when the name's qualifier and
    ``qualifier`` differ, ``ResourceNotFoundException`` for another region. Source: API_Invoke.
    """
    match = _NAME.fullmatch(text)
    if match is None or len(text) > FUNCTION_NAME_CHARS:
        raise _violation(text, "functionName", NAME_PATTERN, FUNCTION_NAME_CHARS)
    if qualifier is not None and (
        _QUALIFIER.fullmatch(qualifier) is None or len(qualifier) > QUALIFIER_CHARS
    ):
        raise _violation(qualifier, "qualifier", QUALIFIER_PATTERN, QUALIFIER_CHARS)
    if match["region"] not in (None, region):
        raise ResourceNotFoundException(
            f"Functions from '{match['region']}' are not reachable in this region ('{region}')"
        )
    derived = match["qualifier"]
    if derived is not None and qualifier not in (None, derived):
        raise InvalidParameterValueException(
            "The derived qualifier from the function name does not match the specified qualifier."
        )
    ref = FunctionRef(
        name=match["name"],
        qualifier=derived if qualifier is None else qualifier,
        region=region,
        account_id=account_id,
    )
    if _SYSTEM_QUEUE.fullmatch(ref.name) or len(ref.name) > _LONGEST:
        raise function_not_found(ref)
    return ref


def with_qualifier(function: FunctionRef, qualifier: str) -> FunctionRef:
    """Return ``function`` with a qualifier; raises ``ValidationException`` for a malformed one."""
    return parse_function_name(
        function.name, qualifier, region=function.region, account_id=function.account_id
    )


def function_not_found(function: FunctionRef) -> ResourceNotFoundException:
    """Return the error for a function that does not exist."""
    return ResourceNotFoundException(f"Function not found: {function.qualified_arn}")


def _violation(value: str, member: str, pattern: str, limit: int) -> ValidationException:
    rule = (
        f"length less than or equal to {limit}"
        if len(value) > limit
        else f"satisfy regular expression pattern: {pattern}"
    )
    shown = value[:limit]
    verb = "have" if len(value) > limit else ""
    constraint = f"Member must {verb} {rule}" if verb else f"Member must {rule}"
    return ValidationException(
        f"1 validation error detected: Value '{shown}' at '{member}' "
        f"failed to satisfy constraint: {constraint}"
    )
