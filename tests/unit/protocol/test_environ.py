from __future__ import annotations

from collections.abc import Callable

import pytest

from lambda_protocol.environ import BrokerAddress, ConfigError, Environ


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", True),
        ("true", True),
        ("TRUE", True),
        ("yes", True),
        ("On", True),
        (" true ", True),
        ("0", False),
        ("false", False),
        ("NO", False),
        ("off", False),
        ("", False),
    ],
)
def test_a_flag_is_read_in_any_case(text: str, value: bool) -> None:
    assert Environ({"X": text}).flag("X", default=not value) is value


def test_unset_and_empty_are_the_default() -> None:
    assert [Environ({}).flag("X", default=default) for default in (True, False)] == [True, False]
    for variables in ({}, {"X": ""}):
        env = Environ(variables)
        assert env.text("X", "d") == "d"
        assert env.integer("X", 5, least=0, most=9) == 5
        assert env.seconds("X", 1.5) == 1.5
        assert env.choice("X", "a", ("a", "b")) == "a"


@pytest.mark.parametrize(("text", "value"), [("0", 0), ("9", 9), (" 7 ", 7)])
def test_an_integer_within_its_bounds_is_taken(text: str, value: int) -> None:
    assert Environ({"X": text}).integer("X", 5, least=0, most=9) == value


@pytest.mark.parametrize(("text", "value"), [("0", 0.0), ("1.5", 1.5), ("1e1", 10.0)])
def test_seconds_may_be_fractions(text: str, value: float) -> None:
    assert Environ({"X": text}).seconds("X", 5.0, most=10) == value


def test_a_choice_is_given_back_as_it_is_spelt_in_the_list() -> None:
    assert Environ({"X": "json"}).choice("X", "Text", ("Text", "JSON")) == "JSON"


Read = Callable[[Environ], object]


@pytest.mark.parametrize(
    ("text", "read"),
    [
        pytest.param("maybe", lambda env: env.flag("SETTING"), id="flag"),
        pytest.param("1.5", lambda env: env.integer("SETTING", 1, least=1, most=9), id="integer"),
        pytest.param("0", lambda env: env.integer("SETTING", 1, least=1, most=9), id="too-small"),
        pytest.param("10", lambda env: env.integer("SETTING", 1, least=1, most=9), id="too-large"),
        pytest.param("9" * 5000, lambda env: env.integer("SETTING", 1, least=1, most=9), id="long"),
        pytest.param("soon", lambda env: env.seconds("SETTING", 1), id="seconds"),
        pytest.param("nan", lambda env: env.seconds("SETTING", 1), id="nan"),
        pytest.param("inf", lambda env: env.seconds("SETTING", 1), id="inf"),
        pytest.param("-1", lambda env: env.seconds("SETTING", 1), id="negative"),
        pytest.param("c", lambda env: env.choice("SETTING", "a", ("a", "b")), id="choice"),
    ],
)
def test_a_wrong_value_is_one_line_with_name_value_and_what_was_expected(
    text: str, read: Read
) -> None:
    with pytest.raises(ConfigError) as caught:
        read(Environ({"SETTING": text}))

    message = str(caught.value)
    assert message.startswith(f"SETTING is {text!r}; expected ")
    assert "\n" not in message


# --- the broker


@pytest.mark.parametrize(
    ("variables", "uri"),
    [
        ({"AMQP_URI": "amqp://h"}, "amqp://guest:guest@h"),
        ({"AMQP_URI": "amqp://h:5673/v%2Fh?a=1"}, "amqp://guest:guest@h:5673/v%2Fh?a=1"),
        ({"AMQP_URI": "amqp://u:p%40ss@h"}, "amqp://u:p%40ss@h"),
        ({"AMQP_URI": "amqp://u@h"}, "amqp://u:guest@h"),
        ({"AMQP_URI": "amqps://h"}, "amqps://guest:guest@h"),
        ({"AMQP_URI": "amqp://[::1]:5672/"}, "amqp://guest:guest@[::1]:5672/"),
        (
            {"AMQP_URI": "amqp://u:p@h", "AMQP_USERNAME": "a@b", "AMQP_PASSWORD": "c/d:e@"},
            "amqp://a%40b:c%2Fd%3Ae%40@h",
        ),
        ({"AMQP_URI": "amqp://u:p@h", "AMQP_PASSWORD": "x"}, "amqp://u:x@h"),
        ({"AMQP_URI": "amqp://u:p@h", "AMQP_USERNAME": "x"}, "amqp://x:p@h"),
    ],
)  # fmt: skip
def test_credentials_are_put_into_the_uri(variables: dict[str, str], uri: str) -> None:
    address = Environ(variables).broker()

    assert address is not None
    assert address.uri == uri


@pytest.mark.parametrize("variables", [{}, {"AMQP_URI": ""}, {"AMQP_PASSWORD": "x"}])
def test_without_a_uri_there_is_no_broker(variables: dict[str, str]) -> None:
    assert Environ(variables).broker() is None


@pytest.mark.parametrize(
    "uri",
    [
        "http://u:secret@h",
        "h:5672",
        "amqp://",
        "amqp:///vhost",
        "amqp://u:secret@h:port",
        "amqp://u:secret@h:99999",
        "amqp://[::1:5672",
    ],
)
def test_a_wrong_uri_is_refused_without_its_password(uri: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Environ({"AMQP_URI": uri}).broker()

    assert str(caught.value).startswith("AMQP_URI ")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("show", [repr, str, "{}".format], ids=["repr", "str", "format"])
def test_an_address_is_shown_without_its_credentials(show: Callable[[object], str]) -> None:
    assert show(BrokerAddress(uri="amqp://user:secret@h/v")) == "amqp://h:5672/v"
    assert show(BrokerAddress(uri="amqps://user:secret@[::1]/v")) == "amqps://[::1]:5671/v"
