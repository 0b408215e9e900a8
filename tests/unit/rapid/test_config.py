from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from lambda_protocol.environ import ConfigError
from rapid.settings.command import BOOTSTRAPS
from rapid.settings.config import BrokerSettings, Config


def config(*argv: str, **variables: Any) -> Config:
    """Return what rapid makes of a command line and variables; ``root`` is where it looks."""
    root = variables.pop("root", Path("/nonexistent"))
    return Config.from_environ(argv, variables, root=root)


def value_of(made: Config, field: str) -> object:
    """Return a setting, in whichever part of the settings it is."""
    parts = (made, made.environment, made.asynchronous, made.broker)
    (part,) = [part for part in parts if part is not None and hasattr(part, field)]
    return getattr(part, field)


def with_broker(field: str) -> dict[str, str]:
    """Return what has to be set for a setting of the broker to be read."""
    return {"RAPID_AMQP_URI": "amqp://h"} if field in BrokerSettings.__slots__ else {}


# --- flags


@pytest.mark.parametrize(
    ("flag", "value", "field", "expected"),
    [
        ("--log-level", "debug", "log_level", "DEBUG"),
        ("--runtime-api-address", "127.0.0.1:9005", "runtime_api", ("127.0.0.1", 9005)),
        ("--runtime-api-address", ":9005", "runtime_api", ("::", 9005)),
        ("--runtime-api-address", "[::1]:9005", "runtime_api", ("::1", 9005)),
        ("--runtime-interface-emulator-address", "0.0.0.0:80", "invoke_api", ("0.0.0.0", 80)),
        ("--port", "9000", "invoke_api", ("::", 9000)),
        ("--timeout", "1.5", "timeout_s", 1.5),
        ("--memory", "128", "memory_mb", 128),
    ],
)
@pytest.mark.parametrize("form", ["=", " "], ids=["equals", "space"])
def test_a_flag_is_taken_in_both_forms(
    flag: str, value: str, field: str, expected: object, form: str
) -> None:
    words = [f"{flag}={value}"] if form == "=" else [flag, value]

    made = config(*words, "python", "app.handler")

    assert value_of(made, field) == expected
    assert made.environment.handler == "app.handler"


def test_flags_stand_in_any_order_and_number() -> None:
    made = config(
        "--enable-init-caching",
        "--log-level",
        "error",
        "--runtime-api-address=127.0.0.1:1",
        "/bin/true",
    )

    assert (made.log_level, made.runtime_api) == ("ERROR", ("127.0.0.1", 1))
    assert made.environment.command.argv == ("/bin/true",)


@pytest.mark.parametrize(
    "words",
    [
        ["--prot", "9000", "x"],
        ["--prot=9000", "x"],
        ["-"],
        ["--", "--prot"],
        ["--port=1", "--prot"],
    ],
    ids=" ".join,
)
def test_a_word_that_begins_with_a_dash_is_never_a_command(words: list[str]) -> None:
    with pytest.raises(ConfigError, match="is no flag of rapid") as caught:
        config(*words)

    assert "\n" not in str(caught.value)
    assert words == ["-"] or "the nearest flag is --port," in str(caught.value)


def test_two_dashes_end_the_flags() -> None:
    assert config("--port", "1", "--", "/bin/echo", "-n").environment.command.argv == (
        "/bin/echo",
        "-n",
    )


@pytest.mark.parametrize(
    "flag", ["--log-level", "--port", "--name", "--timeout", "--memory", "--env-file"]
)
@pytest.mark.parametrize("rest", [[], ["--log-level=error"]], ids=["last", "before-a-flag"])
def test_a_flag_without_its_value_says_so(flag: str, rest: list[str]) -> None:
    with pytest.raises(ConfigError, match=f"^{flag} needs a value"):
        config(flag, *rest)


def test_a_flag_wins_over_its_variable() -> None:
    made = config("--port", "1", "--name", "mine", "--timeout", "2", RAPID_PORT="0", PORT="0",
                  AWS_LAMBDA_FUNCTION_NAME="other", AWS_LAMBDA_FUNCTION_TIMEOUT="3")  # fmt: skip

    assert (made.invoke_api[1], made.environment.function.name, made.environment.timeout_s) == (
        1,
        "mine",
        2.0,
    )
    assert made.environment.environ["AWS_LAMBDA_FUNCTION_NAME"] == "mine"

    made = config("--log-level", "error", "--runtime-api-address", "h:1", RAPID_LOG_LEVEL="DEBUG",
                  RAPID_RUNTIME_API_HOST="other", RAPID_RUNTIME_API_PORT="2")  # fmt: skip

    assert (made.log_level, made.runtime_api) == ("ERROR", ("h", 1))


# --- the command


def test_without_a_bootstrap_the_command_is_empty_and_says_where_it_looked(tmp_path: Path) -> None:
    command = config(root=tmp_path).environment.command

    assert command.argv == ()
    assert command.searched == (f"{tmp_path}/var/task/bootstrap", f"{tmp_path}/opt/bootstrap")


def test_a_folder_is_no_bootstrap(tmp_path: Path) -> None:
    (tmp_path / BOOTSTRAPS[0]).mkdir(parents=True)

    assert config(root=tmp_path).environment.command.argv == ()


def test_the_function_handler_variable_wins() -> None:
    made = config("/bin/echo", "app.handler", AWS_LAMBDA_FUNCTION_HANDLER="mine.handler")

    assert (made.environment.handler, made.environment.environ["_HANDLER"]) == (
        "mine.handler",
        "mine.handler",
    )


def test_a_bare_program_is_looked_up_in_path() -> None:
    assert Path(config("sh").environment.command.argv[0]).is_absolute()


def test_a_program_that_is_nowhere_is_kept_for_the_error() -> None:
    assert config("no-such-program").environment.command.argv == ("no-such-program",)


# --- settings

DEFAULTS: dict[str, Any] = {
    "version": "$LATEST",
    "memory_mb": 3008,
    "timeout_s": 300.0,
    "idle_timeout_s": 1800.0,
    "init_timeout_s": 10.0,
    "queue_timeout_s": 30.0,
    "drain_timeout_s": 300.0,
    "max_concurrency": 1,
    "runtime_concurrency": 1,
    "is_multi_concurrency": False,
    "has_eager_init": True,
    "accepts_any_name": True,
    "checks_payload": True,
    "prints_reports": False,
    "logs_json": False,
    "application_log_level": "INFO",
    "system_log_level": "INFO",
    "has_openfaas": False,
    "is_snap_start": False,
    "invoke_api": ("::", 8080),
    "runtime_api": ("127.0.0.1", 9001),
    "takes_any_runtime_port": True,
    "extensions_dir": Path("/opt/extensions"),
    "broker": None,
    "queue_type": "classic",
    "queue_expires_s": 1800.0,
    "reruns_redelivered": False,
    "log_level": "INFO",
    "logs_structured": False,
}


@pytest.mark.parametrize("field", DEFAULTS)
def test_a_setting_has_its_default(field: str) -> None:
    assert value_of(config(**with_broker(field)), field) == DEFAULTS[field]


@pytest.mark.parametrize(
    ("variable", "value", "field", "expected"),
    [
        ("AWS_LAMBDA_FUNCTION_VERSION", "7", "version", "7"),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128", "memory_mb", 128),
        ("AWS_LAMBDA_FUNCTION_TIMEOUT", "1.5", "timeout_s", 1.5),
        ("AWS_LAMBDA_FUNCTION_TIMEOUT", "86400", "timeout_s", 86_400.0),
        ("AWS_LAMBDA_FUNCTION_TIMEOUT", "7", "drain_timeout_s", 7.0),
        ("AWS_LAMBDA_FUNCTION_IDLETIMEOUT", "60", "idle_timeout_s", 60.0),
        ("RAPID_INIT_TIMEOUT", "2", "init_timeout_s", 2.0),
        ("RAPID_INVOKE_QUEUE_TIMEOUT", "0", "queue_timeout_s", 0.0),
        ("RAPID_DRAIN_TIMEOUT", "5", "drain_timeout_s", 5.0),
        ("RAPID_MAX_CONCURRENCY", "64", "max_concurrency", 64),
        ("AWS_LAMBDA_MAX_CONCURRENCY", "1", "is_multi_concurrency", True),
        ("AWS_LAMBDA_MAX_CONCURRENCY", "8", "runtime_concurrency", 8),
        ("RAPID_EAGER_INIT", "false", "has_eager_init", False),
        ("RAPID_ANY_FUNCTION_NAME", "FALSE", "accepts_any_name", False),
        ("RAPID_CHECK_PAYLOAD", "0", "checks_payload", False),
        ("RAPID_PRINT_REPORTS", "TRUE", "prints_reports", True),
        ("AWS_LAMBDA_LOG_FORMAT", "JSON", "logs_json", True),
        ("AWS_LAMBDA_LOG_LEVEL", "trace", "application_log_level", "TRACE"),
        ("AWS_LAMBDA_SYSTEM_LOG_LEVEL", "WARN", "system_log_level", "WARN"),
        ("RAPID_ENABLE_OPENFAAS", "true", "has_openfaas", True),
        ("AWS_LAMBDA_INITIALIZATION_TYPE", "snap-start", "is_snap_start", True),
        ("RAPID_INVOKE_API_HOST", "127.0.0.1", "invoke_api", ("127.0.0.1", 8080)),
        ("RAPID_PORT", "80", "invoke_api", ("::", 80)),
        ("RAPID_INVOKE_API_HOST", "[::1]", "invoke_api", ("::1", 8080)),
        ("RAPID_RUNTIME_API_HOST", "::1", "runtime_api", ("::1", 9001)),
        ("RAPID_RUNTIME_API_HOST", "0.0.0.0", "runtime_api", ("0.0.0.0", 9001)),
        ("RAPID_RUNTIME_API_PORT", "0", "runtime_api", ("127.0.0.1", 0)),
        ("RAPID_RUNTIME_API_PORT", "9001", "takes_any_runtime_port", False),
        ("RAPID_EXTENSIONS_DIR", "/ext", "extensions_dir", Path("/ext")),
        ("RAPID_AMQP_QUEUE_TYPE", "quorum", "queue_type", "quorum"),
        ("RAPID_AMQP_QUEUE_EXPIRES", "60", "queue_expires_s", 60.0),
        ("RAPID_AMQP_QUEUE_EXPIRES", "auto-delete", "queue_expires_s", None),
        ("RAPID_SYNC_REDELIVERY", "retry", "reruns_redelivered", True),
        ("RAPID_LOG_LEVEL", "warn", "log_level", "WARN"),
        ("RAPID_USE_STRUCTURED_LOGGING", "true", "logs_structured", True),
    ],
)
def test_a_variable_sets_its_setting(
    variable: str, value: str, field: str, expected: object
) -> None:
    made = config(**{variable: value, **with_broker(field)})

    assert value_of(made, field) == expected


@pytest.mark.parametrize(
    ("argv", "variables", "start"),
    [
        pytest.param(["--log-level", "loud"], {}, "--log-level is 'loud'", id="--log-level"),
        pytest.param(["--runtime-api-address", "9001"], {}, "--runtime-api-address is", id="port"),
        pytest.param(["--runtime-api-address=h:x"], {}, "--runtime-api-address is", id="no-number"),
        pytest.param(["--runtime-api-address=h:70000"], {}, "--runtime-api-address is", id="70000"),
        pytest.param(["--runtime-api-address=h:²"], {}, "--runtime-api-address is", id="no-ascii"),
        pytest.param(["--port", "http"], {}, "--port is 'http'", id="--port"),
        pytest.param(["--name", "a b"], {}, "--name is 'a b'", id="--name"),
        pytest.param(["--timeout", "3s"], {}, "--timeout is '3s'", id="--timeout"),
        pytest.param(["--memory", "1GB"], {}, "--memory is '1GB'", id="--memory"),
        *(
            pytest.param([], {name: value}, name, id=f"{name}={value}")
            for name, value in [
                ("AWS_LAMBDA_FUNCTION_TIMEOUT", "0"),
                ("AWS_LAMBDA_FUNCTION_TIMEOUT", "86401"),
                ("AWS_LAMBDA_FUNCTION_TIMEOUT", "3s"),
                ("AWS_LAMBDA_FUNCTION_IDLETIMEOUT", "0"),
                ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "1GB"),
                ("AWS_LAMBDA_MAX_CONCURRENCY", "0"),
                ("AWS_LAMBDA_MAX_CONCURRENCY", "1601"),
                ("AWS_LAMBDA_LOG_FORMAT", "XML"),
                ("AWS_LAMBDA_LOG_LEVEL", "loud"),
                ("AWS_LAMBDA_SYSTEM_LOG_LEVEL", "loud"),
                ("AWS_LAMBDA_FUNCTION_NAME", "a b"),
                ("AWS_LAMBDA_FUNCTION_NAME", "f:v1"),
                ("AWS_LAMBDA_FUNCTION_NAME", "f.events"),
                ("AWS_LAMBDA_FUNCTION_NAME", "arn:aws:lambda:us-east-1:123456789012:function:f"),
                ("RAPID_INIT_TIMEOUT", "never"),
                ("RAPID_INVOKE_QUEUE_TIMEOUT", "-1"),
                ("RAPID_DRAIN_TIMEOUT", "nan"),
                ("RAPID_MAX_CONCURRENCY", "0"),
                ("RAPID_MAX_CONCURRENCY", "many"),
                ("RAPID_EAGER_INIT", "perhaps"),
                ("RAPID_ANY_FUNCTION_NAME", "perhaps"),
                ("RAPID_CHECK_PAYLOAD", "perhaps"),
                ("RAPID_PRINT_REPORTS", "perhaps"),
                ("RAPID_ENABLE_OPENFAAS", "perhaps"),
                ("RAPID_DUMMY_CREDENTIALS", "perhaps"),
                ("RAPID_USE_STRUCTURED_LOGGING", "perhaps"),
                ("RAPID_PORT", "http"),
                ("RAPID_PORT", "65536"),
                ("RAPID_RUNTIME_API_PORT", "-1"),
                ("RAPID_LOG_LEVEL", "loud"),
                ("RAPID_AMQP_URI", "http://h"),
                ("RAPID_AMQP_QUEUE_TYPE", "stream"),
                ("RAPID_AMQP_QUEUE_EXPIRES", "soon"),
                ("RAPID_AMQP_QUEUE_EXPIRES", "0"),
                ("RAPID_SYNC_REDELIVERY", "perhaps"),
                ("RAPID_AMQP_EVENT_QUEUE_TYPE", "stream"),
                ("RAPID_MAX_RETRY_ATTEMPTS", "3"),
                ("RAPID_MAXIMUM_EVENT_AGE", "59"),
                ("RAPID_EVENT_RETRY_DELAYS", "60,x"),
                ("RAPID_EVENT_RETRY_DELAYS", "60,,120"),
                ("RAPID_EVENT_BACKOFF", "1"),
                ("RAPID_EVENT_BACKOFF", "300,1"),
                ("RAPID_ON_FAILURE", "queue:x"),
                ("RAPID_ON_FAILURE", "function:x"),
                ("RAPID_ON_FAILURE", "exchange:x"),
            ]
        ),
    ],
)
def test_a_wrong_setting_is_refused_by_its_name(
    argv: list[str], variables: dict[str, str], start: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        config(*argv, **variables)

    assert str(caught.value).startswith(start)
    assert "\n" not in str(caught.value)


def test_slots_are_runtimes_times_what_each_takes() -> None:
    assert config(RAPID_MAX_CONCURRENCY="3", AWS_LAMBDA_MAX_CONCURRENCY="4").slots == 12


# --- the function's name


@pytest.mark.parametrize(
    ("argv", "variables", "name"),
    [
        ([], {"AWS_LAMBDA_FUNCTION_NAME": "mine"}, "mine"),
        (["/bin/echo", "app.handler"], {}, "app"),
        (["/bin/echo", "app.handler"], {"AWS_LAMBDA_FUNCTION_NAME": "mine"}, "mine"),
        (["/bin/true"], {"_HANDLER": "index.handler"}, "index"),
        ([], {}, "function"),
    ],
    ids=["given", "from-the-handler", "given-wins", "from-_HANDLER", "neither"],
)
def test_the_function_has_a_name(argv: list[str], variables: dict[str, str], name: str) -> None:
    assert config(*argv, **variables).environment.function.name == name


@pytest.mark.parametrize(
    "handler", ["src/app.handler", "com.example.Handler::handleRequest", "Assembly::Type::Method"]
)
def test_a_handler_that_is_no_function_name_is_no_reason_not_to_start(handler: str) -> None:
    """Java, .NET and code in a folder have such handlers."""
    config("/bin/echo", handler)


def test_region_and_account_are_those_of_the_environment() -> None:
    function = config(AWS_REGION="eu-west-1", AWS_ACCOUNT_ID="111122223333").environment.function

    assert function.arn == "arn:aws:lambda:eu-west-1:111122223333:function:function"


# --- what the function sees


def test_the_containers_variables_pass() -> None:
    made = config(MY_SETTING="x", _MINE="y", EMPTY="", PYTHONPATH="/p")

    environ = made.environment.runtime_environ(0, "h:1")
    assert (environ["MY_SETTING"], environ["_MINE"], environ["EMPTY"]) == ("x", "y", "")


@pytest.mark.parametrize(
    "name",
    [
        "RAPID_AMQP_URI",
        "RAPID_AMQP_USERNAME",
        "RAPID_AMQP_PASSWORD",
        "PWD",
        "OLDPWD",
        "TERM",
        "SHLVL",
        "_",
        "_X_AMZN_TRACE_ID",
    ],
)
def test_what_describes_us_is_hidden_from_the_function(name: str) -> None:
    value = "amqp://u:p@h" if name == "RAPID_AMQP_URI" else "x"

    made = config(**{name: value}).environment

    assert name not in made.runtime_environ(0, "h:1")
    assert name not in made.extension_environ(0, "h:1")


def test_outside_an_image_for_lambda_the_task_root_is_the_working_folder(tmp_path: Path) -> None:
    environ = config("/bin/echo", "app.handler", root=tmp_path).environment.runtime_environ(
        0, "h:1"
    )

    assert environ["LAMBDA_TASK_ROOT"] == str(Path.cwd())


@pytest.mark.parametrize(
    ("name", "value"),
    [("PATH", "/my/bin"), ("TZ", "Europe/Berlin"), ("LAMBDA_TASK_ROOT", "/code"), ("LANG", "C")],
)
def test_what_the_image_says_is_kept(name: str, value: str) -> None:
    assert config(**{name: value}).environment.runtime_environ(0, "h:1")[name] == value


@pytest.mark.parametrize("name", ["AWS_LAMBDA_RUNTIME_API", "_INSTANCE"])
def test_what_the_platform_says_wins_over_the_container(name: str) -> None:
    """An image whose entrypoint was wrapped has AWS_LAMBDA_RUNTIME_API preset."""
    assert config(**{name: "preset"}).environment.runtime_environ(0, "h:1")[name] != "preset"


def test_without_a_handler_there_is_no_handler_variable() -> None:
    assert "_HANDLER" not in config("/bin/true").environment.runtime_environ(0, "h:1")


def test_dummy_credentials_are_given_only_when_asked_for() -> None:
    plain = config().environment.environ
    asked = config(RAPID_DUMMY_CREDENTIALS="true").environment.environ
    own = config(RAPID_DUMMY_CREDENTIALS="true", AWS_ACCESS_KEY_ID="mine").environment.environ

    assert "AWS_ACCESS_KEY_ID" not in plain
    assert asked["AWS_SECRET_ACCESS_KEY"] == "dummy"
    assert own["AWS_ACCESS_KEY_ID"] == "mine"


# --- the help


def test_reading_the_settings_does_not_change_the_environment() -> None:
    variables = {"RAPID_AMQP_URI": "amqp://u:p@h", "PATH": sys.prefix}
    before = dict(variables)

    Config.from_environ(["/bin/true"], variables)

    assert variables == before
