"""Which name a setting of rapid is read by, and what the function's own variables do to rapid."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from lambda_protocol.environ import ConfigError
from rapid.settings.config import Config
from rapid.settings.names import ALIASES, FORMER, is_init_container
from tests.unit.rapid.test_config import value_of


def config(*argv: str, **variables: Any) -> Config:
    return Config.from_environ(argv, variables, root=Path("/nonexistent"))


def said(made: Config, level: int) -> list[str]:
    return [note.message for note in made.notes if note.level == level]


def seen(made: Config) -> dict[str, str]:
    """Return the environment of the function."""
    return made.environment.runtime_environ(0, "h:1")


#: A value, as a function may use the name for something else.
NONSENSE = {name: "a secret" for name in (*ALIASES, *FORMER)}
#: Each alias with a value that rapid can use, the field it sets, and what the field becomes.
MEANT = [
    ("AMQP_URI", "amqp://h", "address", "amqp://h:5672"),
    ("ENABLE_OPENFAAS", "TRUE", "has_openfaas", True),
    ("INVOKE_API_HOST", "127.0.0.1", "invoke_api", ("127.0.0.1", 8080)),
    ("LOG_LEVEL", "debug", "log_level", "DEBUG"),
    ("MAX_CONCURRENCY", "4", "max_concurrency", 4),
    ("PRINT_REPORTS", "TRUE", "prints_reports", True),
    ("RUNTIME_API_HOST", "::1", "runtime_api", ("::1", 9001)),
    ("RUNTIME_API_PORT", "9005", "runtime_api", ("127.0.0.1", 9005)),
    ("USE_STRUCTURED_LOGGING", "TRUE", "logs_structured", True),
]


# --- plain names


def test_every_alias_is_tried_here() -> None:
    assert {row[0] for row in MEANT} == ALIASES - {"AMQP_USERNAME", "AMQP_PASSWORD"}


@pytest.mark.parametrize(("name", "value", "field", "expected"), MEANT)
def test_an_alias_sets_rapid_without_a_word(
    name: str, value: str, field: str, expected: object
) -> None:
    made = config(**{name: value})

    found = value_of(made, field)
    assert (str(found) if field == "address" else found) == expected
    assert made.notes == ()


@pytest.mark.parametrize(("name", "value", "field", "_"), MEANT)
def test_the_name_with_the_prefix_goes_before_the_alias(
    name: str, value: str, field: str, _: object
) -> None:
    made = config(**{f"RAPID_{name}": value, name: NONSENSE[name]})

    expected = config(**{f"RAPID_{name}": value})
    assert value_of(made, field) == value_of(expected, field)
    assert made.notes == ()
    assert seen(made)[name] == NONSENSE[name]


@pytest.mark.parametrize("name", sorted(ALIASES))
def test_an_alias_that_is_not_for_rapid_is_one_warning_and_the_functions(name: str) -> None:
    made = config(**{name: NONSENSE[name]})

    if name not in ("AMQP_USERNAME", "AMQP_PASSWORD"):
        (warning,) = said(made, logging.WARNING)
        assert warning.startswith(f"{name} is left to the function")
        assert warning.endswith(f"rapid reads RAPID_{name}")
        assert NONSENSE[name] not in warning
    assert seen(made)[name] == NONSENSE[name]
    assert made.broker is None


@pytest.mark.parametrize("name", ["INVOKE_API_HOST", "RUNTIME_API_HOST"])
@pytest.mark.parametrize("host", ["api.example.com", "10.99.99.99", "2001:db8::1"])
def test_a_host_elsewhere_in_an_alias_is_the_functions(name: str, host: str) -> None:
    made = config(**{name: host})

    (warning,) = said(made, logging.WARNING)
    assert warning.startswith(f"{name} is left to the function")
    assert host not in warning
    assert (made.invoke_api.host, made.runtime_api.host) == ("::", "127.0.0.1")


@pytest.mark.parametrize("name", sorted(FORMER))
def test_a_former_setting_is_one_line_and_the_functions(name: str) -> None:
    made = config(**{name: NONSENSE[name]})

    assert said(made, logging.INFO) == [f"{name} is left to the function; rapid reads RAPID_{name}"]
    assert said(made, logging.WARNING) == []
    assert seen(made)[name] == NONSENSE[name]


def test_a_former_setting_is_not_mentioned_where_rapid_has_its_own() -> None:
    assert config(RAPID_PORT="1", PORT="3000").notes == ()
    assert config("--port", "1", PORT="3000").notes == ()


def test_an_empty_name_with_the_prefix_is_unset() -> None:
    assert config(RAPID_MAX_CONCURRENCY="", MAX_CONCURRENCY="4").max_concurrency == 4


# --- names that nothing has


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("RAPID_PROT", "RAPID_PORT"),
        ("RAPID_MAX_CONCURENCY", "RAPID_MAX_CONCURRENCY"),
        ("RAPID_ONFAILURE", "RAPID_ON_FAILURE"),
        ("RAPID_AWS_LAMBDA_FUNCTION_NAME", "AWS_LAMBDA_FUNCTION_NAME"),
        ("RAPID_KUBERNETES_INIT_CONTAINER", "KUBERNETES_INIT_CONTAINER"),
    ],
)
def test_an_unknown_name_is_one_warning_with_the_nearest(name: str, nearest: str) -> None:
    made = config(**{name: "a secret"})

    (warning,) = said(made, logging.WARNING)
    assert repr(name) in warning
    assert warning.endswith(f"the nearest is {nearest}")
    assert name not in seen(made)


def test_an_unknown_name_of_any_length_and_content_is_one_short_line() -> None:
    made = config(**{"RAPID_" + "X\n" * 10_000: "x"})

    (warning,) = said(made, logging.WARNING)
    assert len(warning) < 300
    assert "\n" not in warning


# --- the broker


def test_with_a_broker_of_its_own_rapid_leaves_the_plain_one_to_the_function() -> None:
    own = {"AMQP_URI": "amqp://theirs", "AMQP_USERNAME": "u", "AMQP_PASSWORD": "p"}

    made = config(RAPID_AMQP_URI="amqp://ours", RAPID_AMQP_PASSWORD="x", **own)

    assert made.broker is not None
    assert made.broker.address.uri == "amqp://guest:x@ours"
    assert own.items() <= seen(made).items()
    assert not [name for name in seen(made) if name.startswith("RAPID")]


@pytest.mark.parametrize("none", ["none", "NONE"])
def test_none_is_no_broker_and_leaves_the_plain_one_to_the_function(none: str) -> None:
    made = config(RAPID_AMQP_URI=none, AMQP_URI="amqp://theirs", AMQP_PASSWORD="p")

    assert made.broker is None
    assert (seen(made)["AMQP_URI"], seen(made)["AMQP_PASSWORD"]) == ("amqp://theirs", "p")
    assert made.notes == ()


def test_an_empty_address_is_no_broker_and_a_warning_that_says_so() -> None:
    made = config(RAPID_AMQP_URI="")

    assert made.broker is None
    (note,) = made.notes
    assert note.message.startswith("RAPID_AMQP_URI is empty, so rapid uses no broker; ")


def test_credentials_that_rapid_uses_are_kept_from_the_function_and_no_others() -> None:
    made = config(AMQP_URI="amqp://h", AMQP_USERNAME="u", AMQP_PASSWORD="theirs",
                  RAPID_AMQP_PASSWORD="ours", AMQP_QUEUE_TYPE="x", AMQP_EXCHANGE="y")  # fmt: skip

    assert made.broker is not None
    assert made.broker.address.uri == "amqp://u:ours@h"
    names = {name: value for name, value in seen(made).items() if name.startswith("AMQP")}
    assert names == {"AMQP_PASSWORD": "theirs", "AMQP_QUEUE_TYPE": "x", "AMQP_EXCHANGE": "y"}


# --- what the function sees


def test_instance_is_set_where_the_image_does_not() -> None:
    assert config().environment.runtime_environ(3, "h:1")["INSTANCE"] == "3"
    assert config(INSTANCE="prod-7").environment.runtime_environ(3, "h:1")["INSTANCE"] == "prod-7"


# --- the init container


@pytest.mark.parametrize(
    ("texts", "is_init"),
    [
        (["", "TRUE", "1", "yes", "anything"], True),
        (["0", "false", "FALSE", "No", " off "], False),
    ],
)
def test_set_to_anything_but_no_is_an_init_container(texts: list[str], is_init: bool) -> None:
    for text in texts:
        assert is_init_container({"KUBERNETES_INIT_CONTAINER": text}) is is_init
    assert not is_init_container({})


# --- files of variables


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "variables"


def test_a_file_holds_the_functions_variables(file: Path) -> None:
    file.write_text(
        "\ufeff# a comment\n\nA=1\n export B = two words # a comment\r\nC='#3'\nD=\"4 \" # four\n"
        "E=\nF=x#y\nG={\"a\": 'b'}\nH=a=b\nA=5\n"
    )

    environ = seen(config("--env-file", str(file)))

    assert {"A": "5", "B": "two words", "C": "#3", "D": "4 ", "E": "", "F": "x#y",
            "G": "{\"a\": 'b'}", "H": "a=b"}.items() <= environ.items()  # fmt: skip


def test_plain_names_in_a_file_are_the_functions_and_others_are_rapids(file: Path) -> None:
    file.write_text(
        "PORT=3000\nMAX_CONCURRENCY=unlimited\nAMQP_URI=amqp://theirs\nLOG_LEVEL=loud\n"
        "RAPID_PORT=9000\nRAPID_SECRET=x\nAWS_LAMBDA_FUNCTION_NAME=mine\n_HANDLER=a.b\n"
    )

    made = config(f"--env-file={file}")

    assert (made.invoke_api[1], made.environment.function.name, made.environment.handler) == (
        9000,
        "mine",
        "a.b",
    )
    assert (made.broker, made.max_concurrency) == (None, 1)
    assert [note.message for note in made.notes if "RAPID_SECRET" not in note.message] == []
    environ = seen(made)
    assert (environ["PORT"], environ["AMQP_URI"]) == ("3000", "amqp://theirs")
    assert not [name for name in environ if name.startswith("RAPID")]


def test_the_environment_goes_before_a_file_and_a_later_file_before_an_earlier(
    file: Path, tmp_path: Path
) -> None:
    file.write_text("A=file\nB=file\nC=file\nRAPID_PORT=1\nAMQP_URI=amqp://theirs")
    later = tmp_path / "later"
    later.write_text("B=later")

    made = config("--env-file", str(file), "--env-file", str(later), A="environment",
                  RAPID_PORT="2", AMQP_URI="amqp://rapids")  # fmt: skip

    environ = seen(made)
    assert (environ["A"], environ["B"], environ["C"]) == ("environment", "later", "file")
    assert made.invoke_api[1] == 2
    assert environ["AMQP_URI"] == "amqp://theirs"  # the environment's has rapid's credentials


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"A=1\nsecret\n", ", line 2: expected NAME=VALUE"),
        (b"1A=secret\n", ", line 1: expected NAME=VALUE"),
        (b"A='secret\n", ", line 1: expected NAME=VALUE"),
        (b"A='secret' secret\n", ", line 1: expected NAME=VALUE"),
        (b"A=sec\0ret\n", " has a NUL byte"),
        (b"A=\xff\n", " is no UTF-8 text"),
        (b"A=" + b"x" * (1 << 20), " is too large"),
    ],
    ids=["no-equals", "name", "open-quote", "after-a-quote", "nul", "no-utf-8", "too-large"],
)
def test_a_wrong_file_is_one_line_without_what_is_in_it(file: Path, data: bytes, what: str) -> None:
    file.write_bytes(data)

    with pytest.raises(ConfigError) as caught:
        config("--env-file", str(file))

    assert str(caught.value).startswith(f"--env-file {file}{what}")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("name", ["missing", "."])
def test_a_file_that_cannot_be_read_is_named(name: str) -> None:
    with pytest.raises(ConfigError, match=r"^--env-file .* cannot be read: "):
        config("--env-file", name)


@pytest.mark.parametrize(("timeout", "warnings"), [("900", 0), ("901", 1), ("86400", 1)])
def test_a_timeout_longer_than_awss_is_one_warning(timeout: str, warnings: int) -> None:
    made = config(AWS_LAMBDA_FUNCTION_TIMEOUT=timeout)

    assert made.environment.timeout_s == float(timeout)
    assert len(said(made, logging.WARNING)) == warnings
