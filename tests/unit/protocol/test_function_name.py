from __future__ import annotations

import pytest

from lambda_protocol.errors import (
    InvalidParameterValueException,
    ResourceNotFoundException,
    ValidationException,
)
from lambda_protocol.function_name import NAME_PATTERN, FunctionRef, parse_function_name

FORMS = [
    # text, query qualifier, name, qualifier
    pytest.param("my-function", None, "my-function", None, id="name"),
    pytest.param("my_fn.2-X", None, "my_fn.2-X", None, id="every-kind-of-character"),
    pytest.param("f:v1", None, "f", "v1", id="name:alias"),
    pytest.param("f:7", None, "f", "7", id="name:version"),
    pytest.param("f:$LATEST", None, "f", "$LATEST", id="name:$LATEST"),
    pytest.param("f:$LATEST.PUBLISHED", None, "f", "$LATEST.PUBLISHED", id="name:published"),
    pytest.param("f", "v1", "f", "v1", id="name+query"),
    pytest.param("f:v1", "v1", "f", "v1", id="same-qualifier-twice"),
    pytest.param("123456789012:function:f", None, "f", None, id="partial-arn"),
    pytest.param("123456789012:function:f:v1", None, "f", "v1", id="partial-arn:qualifier"),
    pytest.param("function:f", None, "f", None, id="function:name"),
    pytest.param("arn:aws:lambda:us-east-1:123456789012:function:f", None, "f", None, id="arn"),
    pytest.param(
        "arn:aws:lambda:us-east-1:123456789012:function:f:$LATEST",
        None,
        "f",
        "$LATEST",
        id="arn:qualifier",
    ),
    pytest.param(
        "arn:aws-cn:lambda:us-east-1:999999999999:function:f", "x", "f", "x", id="arn-of-others"
    ),
]


@pytest.mark.parametrize(("text", "query", "name", "qualifier"), FORMS)
def test_each_form_names_the_function(
    text: str, query: str | None, name: str, qualifier: str | None
) -> None:
    ref = parse_function_name(text, query)

    assert (ref.name, ref.qualifier) == (name, qualifier)
    assert ref.account_id == "123456789012"  # ours, whatever the caller says


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("a b", id="space"),
        pytest.param("a/b", id="slash"),
        pytest.param("f:", id="empty-qualifier"),
        pytest.param("f:v1:v2", id="two-qualifiers"),
        pytest.param("f\n", id="line-end"),
        pytest.param("fünf", id="no-ascii"),
        pytest.param("٣", id="no-ascii-digit"),
        pytest.param("f:$OTHER", id="unknown-dollar-qualifier"),
        pytest.param("arn:aws:s3:us-east-1:123456789012:function:f", id="other-service"),
        pytest.param("12345:function:f", id="short-account"),
    ],
)
def test_a_malformed_name_is_a_validation_exception(text: str) -> None:
    with pytest.raises(ValidationException) as caught:
        parse_function_name(text)

    assert caught.value.message == (
        f"1 validation error detected: Value '{text}' at 'functionName' failed to satisfy "
        f"constraint: Member must satisfy regular expression pattern: {NAME_PATTERN}"
    )


def test_a_name_over_its_length_is_a_validation_exception() -> None:
    with pytest.raises(ValidationException, match="length less than or equal to 256"):
        parse_function_name("f" * 257)


@pytest.mark.parametrize("qualifier", ["", "a b", "v.1", "x" * 129, "v\n"])
def test_a_malformed_qualifier_is_a_validation_exception(qualifier: str) -> None:
    with pytest.raises(ValidationException, match="at 'qualifier'"):
        parse_function_name("f", qualifier)


def test_two_different_qualifiers_are_refused_with_the_documented_text() -> None:
    with pytest.raises(InvalidParameterValueException) as caught:
        parse_function_name("f:v1", "v2")

    assert caught.value.message == (
        "The derived qualifier from the function name does not match the specified qualifier."
    )


def test_another_region_is_not_reachable() -> None:
    with pytest.raises(ResourceNotFoundException) as caught:
        parse_function_name("arn:aws:lambda:eu-west-1:123456789012:function:f", region="us-east-1")

    assert caught.value.message == (
        "Functions from 'eu-west-1' are not reachable in this region ('us-east-1')"
    )


@pytest.mark.parametrize(
    "name",
    ["amq.rabbitmq.reply-to.g1", "amq.x", "lambda.retry.1000", "f.events", "f.dead", "f" * 256],
    ids=lambda name: name[:20],
)
def test_the_name_of_a_queue_of_the_system_is_no_function(name: str) -> None:
    with pytest.raises(ResourceNotFoundException, match="Function not found"):
        parse_function_name(name)


@pytest.mark.parametrize("name", ["events", "dead", "amqp", "f-events", "f.deadline", "lambda.x"])
def test_a_name_that_only_looks_like_a_system_queue_is_a_function(name: str) -> None:
    assert parse_function_name(name).queue_name == name


@pytest.mark.parametrize(
    ("qualifier", "invoked", "qualified"),
    [(None, "", ":$LATEST"), ("v1", ":v1", ":v1"), ("$LATEST", ":$LATEST", ":$LATEST")],
    ids=["unqualified", "alias", "$LATEST"],
)
def test_arns_are_qualified_as_aws_does(
    qualifier: str | None, invoked: str, qualified: str
) -> None:
    ref = FunctionRef(name="f", qualifier=qualifier, region="eu-west-1", account_id="111122223333")

    arn = "arn:aws:lambda:eu-west-1:111122223333:function:f"
    assert (ref.arn, ref.invoked_arn, ref.qualified_arn) == (arn, arn + invoked, arn + qualified)
