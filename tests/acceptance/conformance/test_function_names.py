from __future__ import annotations

import pytest

from tests.acceptance.conformance.conftest import OpenDoor, through_server
from tests.acceptance.conformance.doors import Door, assert_error
from tests.support import MISBEHAVE

conformance = pytest.mark.conformance

PARTIAL_ARN = "123456789012:function:{}"
FULL_ARN = "arn:aws:lambda:us-east-1:123456789012:function:{}"
QUALIFIERS = ["", ":v1", ":7", ":$LATEST"]


@conformance(22)
@pytest.mark.parametrize("qualifier", QUALIFIERS)
@pytest.mark.parametrize("form", ["{}", PARTIAL_ARN, FULL_ARN], ids=["name", "partial", "arn"])
def test_every_form_of_the_name_means_the_same_function(
    door: Door, form: str, qualifier: str
) -> None:
    expected = door.result(do="pid")

    answer = door.invoke(b'{"do":"pid"}', name=form.format(door.function_name) + qualifier)

    assert (answer.status, answer.json()) == (200, expected)


@conformance(22)
@pytest.mark.parametrize("form", ["{}", "{}:v1", PARTIAL_ARN, FULL_ARN])
def test_the_qualifier_may_be_in_the_query(door: Door, form: str) -> None:
    expected = door.result(do="pid")

    answer = door.invoke(
        b'{"do":"pid"}', name=form.format(door.function_name), query="?Qualifier=v1"
    )

    assert (answer.status, answer.json()) == (200, expected)


@conformance(23)
@pytest.mark.parametrize("separator", [":", "%3A", "%3a"])
@pytest.mark.parametrize("latest", ["$LATEST", "%24LATEST"])
def test_the_path_is_percent_decoded(door: Door, separator: str, latest: str) -> None:
    path = f"/2015-03-31/functions/{door.function_name}{separator}{latest}/invocations"

    with door.client() as client:
        answer = client.post(path, b'{"do":"headers"}')

    arn = dict(answer.json()["headers"])["Lambda-Runtime-Invoked-Function-Arn"]
    assert arn.endswith(f":function:{door.function_name}:$LATEST")


@conformance(24)
def test_two_different_qualifiers_are_refused(door: Door) -> None:
    answer = door.invoke(name=f"{door.function_name}:v1", query="?Qualifier=v2")

    members = assert_error(answer, 400, "InvalidParameterValueException")
    assert members == {
        "Type": "User",
        "message": "The derived qualifier from the function name does not match the specified "
        "qualifier.",
    }


@conformance(25)
@pytest.mark.parametrize("name", ["no spaces", "a/b", "f:", "ünïcode", "1234:function:f", "f:v:w"])
def test_a_malformed_name_is_refused(door: Door, name: str) -> None:
    members = assert_error(door.invoke(name=name), 400, "ValidationException")

    assert members["message"].startswith(
        f"1 validation error detected: Value '{name}' at 'functionName' failed to satisfy "
        "constraint: Member must satisfy regular expression pattern: (arn:"
    )


@through_server
@conformance(26)
@pytest.mark.parametrize(("name", "qualifier"), [("nobody", "$LATEST"), ("nobody:v1", "v1")])
@pytest.mark.parametrize("kind", ["RequestResponse", "Event", "DryRun"])
def test_an_unknown_function_is_named_by_its_qualified_arn(
    door: Door, name: str, qualifier: str, kind: str
) -> None:
    answer = door.invoke(name=name, X_Amz_Invocation_Type=kind)

    members = assert_error(answer, 404, "ResourceNotFoundException")
    arn = f"arn:aws:lambda:us-east-1:123456789012:function:nobody:{qualifier}"
    assert members == {"Type": "User", "Message": f"Function not found: {arn}"}


@conformance(27)
def test_a_rapid_serves_the_name_function(open_door: OpenDoor) -> None:
    function = open_door(MISBEHAVE, RAPID_ANY_FUNCTION_NAME="false").function
    door = Door("rapid", function.port, function)

    assert door.invoke(name="function").status == 200
    assert door.invoke().status == 200
    assert_error(door.invoke(name="another"), 404, "ResourceNotFoundException")


@conformance(28)
@pytest.mark.parametrize(
    ("suffix", "query", "expected"),
    [
        ("", "", ""),
        (":v1", "", ":v1"),
        ("", "?Qualifier=7", ":7"),
        ("", "?Qualifier=%24LATEST", ":$LATEST"),
        (":v1", "?Qualifier=v1", ":v1"),
    ],
)
def test_the_invoked_arn_is_qualified_as_the_call_was(
    door: Door, suffix: str, query: str, expected: str
) -> None:
    seen, _ = door.runtime_headers(name=door.function_name + suffix, query=query)

    arn = FULL_ARN.format(door.function_name)
    assert seen["Lambda-Runtime-Invoked-Function-Arn"] == arn + expected
