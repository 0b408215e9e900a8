"""The settings of rapid, from its command line and its environment variables."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lambda_protocol.address import EVERY_HOST, Address
from lambda_protocol.byte_budget import LEAST_BYTES
from lambda_protocol.cors import AllowedOrigins
from lambda_protocol.environ import BrokerAddress, ConfigError, WrongValue
from lambda_protocol.errors import LambdaApiError
from lambda_protocol.function_name import FunctionRef, parse_function_name
from lambda_protocol.limits import (
    EVENT_AGE_MAX_S,
    EVENT_AGE_MIN_S,
    FUNCTION_TIMEOUT_LIMIT_S,
    FUNCTION_TIMEOUT_MAX_S,
    INIT_TIMEOUT_S,
    INVOKE_QUEUE_TIMEOUT_S,
)
from lambda_protocol.log_format import LEVEL_NAMES
from rapid.invocations.destinations import Destination, HttpDestination, parse_destination
from rapid.invocations.retry_policy import RetryPolicy
from rapid.logs.lines import LEVELS
from rapid.settings.availability_zone import first_zone_id
from rapid.settings.command import Command, find_command
from rapid.settings.command_line import parse_command_line
from rapid.settings.env_file import read_env_files
from rapid.settings.environment import EnvironmentSettings
from rapid.settings.function_environ import function_environ
from rapid.settings.function_url import FunctionUrlConfig
from rapid.settings.names import Note, Settings

_BARE_NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerSettings:
    """Where RabbitMQ is, and what is declared there."""

    address: BrokerAddress
    queue_type: str
    queue_expires_s: float | None  #: None: auto-delete
    async_queue_type: str
    reruns_redelivered: bool

    @classmethod
    def read(cls, env: Settings) -> BrokerSettings | None:
        """Return what ``env`` says; None without a broker."""
        address = env.broker()
        expires = env.text("RAPID_AMQP_QUEUE_EXPIRES")
        queue_type = env.choice("RAPID_AMQP_QUEUE_TYPE", "classic", ("classic", "quorum"))
        queue_expires_s = (
            None
            if expires == "auto-delete"
            else env.seconds("RAPID_AMQP_QUEUE_EXPIRES", 1800.0, least=0.001, most=2_000_000)
        )
        async_queue_type = env.choice(
            "RAPID_AMQP_EVENT_QUEUE_TYPE", "quorum", ("quorum", "classic")
        )
        redelivery = env.choice("RAPID_SYNC_REDELIVERY", "fail", ("fail", "retry"))
        if address is None:
            return None
        return cls(
            address=address,
            queue_type=queue_type,
            queue_expires_s=queue_expires_s,
            async_queue_type=async_queue_type,
            reruns_redelivered=redelivery == "retry",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AsyncSettings:
    """What becomes of asynchronous invocations."""

    retry_policy: RetryPolicy
    on_success: Destination | None
    on_failure: Destination | None

    @classmethod
    def read(cls, env: Settings, function: FunctionRef, *, has_broker: bool) -> AsyncSettings:
        """Return what ``env`` says; raises ``ConfigError``."""
        return cls(
            retry_policy=_retry_policy(env),
            on_success=_destination(
                "RAPID_ON_SUCCESS", env.text("RAPID_ON_SUCCESS"), function, has_broker=has_broker
            ),
            on_failure=_destination(
                "RAPID_ON_FAILURE", env.text("RAPID_ON_FAILURE"), function, has_broker=has_broker
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Everything rapid was told; made once, by :meth:`from_environ`."""

    environment: EnvironmentSettings
    broker: BrokerSettings | None
    asynchronous: AsyncSettings
    enforces_memory: bool
    init_timeout_s: float
    queue_timeout_s: float  #: how long a call may wait unstarted
    drain_timeout_s: float  #: how long a stop waits for running invocations
    max_concurrency: int  #: runtimes
    has_eager_init: bool
    accepts_any_name: bool
    checks_payload: bool
    bytes_in_hand: int | None  #: of callers' payloads; None: by our memory limit
    system_log_level: str  #: of the platform's
    has_openfaas: bool
    allowed_origins: AllowedOrigins  #: of web pages
    function_url: FunctionUrlConfig | None
    invoke_api: Address
    health_port: Address | None  #: where nothing but health checks and scrapes is answered
    runtime_api: Address
    #: No port was asked for by rapid's own name, so it need not be had.
    takes_any_runtime_port: bool
    log_level: str
    logs_structured: bool
    notes: tuple[Note, ...] = ()  #: what the log is to say of all this

    @classmethod
    def from_environ(
        cls, argv: Sequence[str], variables: Mapping[str, str], *, root: Path = Path("/")
    ) -> Config:
        """Return the settings in ``argv`` (without the program) and ``variables``.

        ``root`` is where bootstraps are looked for. Raises ``ConfigError``.
        """
        line = parse_command_line(argv)
        env = Settings(variables, line.flags, read_env_files(line.env_files))
        broker = BrokerSettings.read(env)
        environment = _environment(env, line.words, root)
        bytes_in_hand = env.integer("RAPID_BYTES_IN_HAND", 0, least=LEAST_BYTES, most=1 << 50)
        return cls(
            environment=environment,
            broker=broker,
            asynchronous=AsyncSettings.read(
                env, environment.function, has_broker=broker is not None
            ),
            enforces_memory=env.flag("RAPID_ENFORCE_MEMORY"),
            init_timeout_s=env.seconds("RAPID_INIT_TIMEOUT", INIT_TIMEOUT_S, least=0.01),
            queue_timeout_s=env.seconds("RAPID_INVOKE_QUEUE_TIMEOUT", INVOKE_QUEUE_TIMEOUT_S),
            drain_timeout_s=env.seconds("RAPID_DRAIN_TIMEOUT", environment.timeout_s),
            max_concurrency=env.integer("RAPID_MAX_CONCURRENCY", 1, least=1, most=10_000),
            has_eager_init=env.flag("RAPID_EAGER_INIT", default=True),
            accepts_any_name=env.flag("RAPID_ANY_FUNCTION_NAME", default=True),
            checks_payload=env.flag("RAPID_CHECK_PAYLOAD", default=True),
            bytes_in_hand=bytes_in_hand or None,
            system_log_level=env.choice("AWS_LAMBDA_SYSTEM_LOG_LEVEL", "INFO", LEVELS),
            has_openfaas=env.flag("RAPID_ENABLE_OPENFAAS"),
            allowed_origins=AllowedOrigins.parse(
                "RAPID_CORS_ALLOW_ORIGINS", env.text("RAPID_CORS_ALLOW_ORIGINS")
            ),
            function_url=FunctionUrlConfig.read(env),
            invoke_api=Address(
                env.host("RAPID_INVOKE_API_HOST", EVERY_HOST),
                env.integer("RAPID_PORT", 8080, least=0, most=65535),
            ),
            health_port=_health_port(env),
            runtime_api=Address(
                env.host("RAPID_RUNTIME_API_HOST", "127.0.0.1"),
                env.integer("RAPID_RUNTIME_API_PORT", 9001, least=0, most=65535),
            ),
            takes_any_runtime_port=not env.is_asked_for("RAPID_RUNTIME_API_PORT"),
            log_level=env.choice("RAPID_LOG_LEVEL", "INFO", LEVEL_NAMES),
            logs_structured=env.flag("RAPID_USE_STRUCTURED_LOGGING"),
            notes=env.all_notes(),  # the last one: every setting is read by now
        )

    @property
    def slots(self) -> int:
        """How many invocations may run at once in this rapid."""
        return self.max_concurrency * self.environment.runtime_concurrency


def _environment(env: Settings, words: Sequence[str], root: Path) -> EnvironmentSettings:
    """Return the settings of the environments; ``words`` are the command and its arguments."""
    command, handler = find_command(words, root)
    handler = env.text("AWS_LAMBDA_FUNCTION_HANDLER") or handler or env.text("_HANDLER")
    region = env.text("AWS_REGION") or env.text("AWS_DEFAULT_REGION", "us-east-1")
    function = _function(env, handler, region)
    multi = env.integer("AWS_LAMBDA_MAX_CONCURRENCY", 0, least=1, most=1600)
    logs_json = env.choice("AWS_LAMBDA_LOG_FORMAT", "Text", ("Text", "JSON")) == "JSON"
    version = env.text("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")
    log_stream = f"{time.strftime('%Y/%m/%d', time.gmtime())}/[{version}]{os.urandom(16).hex()}"
    memory_mb = env.integer("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", 3008, least=1, most=1 << 20)
    return EnvironmentSettings(
        command=command,
        handler=handler,
        function=function,
        version=version,
        memory_mb=memory_mb,
        timeout_s=_timeout_s(env),
        idle_timeout_s=env.seconds("AWS_LAMBDA_FUNCTION_IDLETIMEOUT", 1800.0, least=0.01),
        stream_rate=env.integer("RAPID_STREAM_RATE", 0, least=1, most=1 << 40),
        runtime_concurrency=multi or 1,
        is_multi_concurrency=bool(multi),
        prints_reports=env.flag("RAPID_PRINT_REPORTS"),
        logs_json=logs_json,
        application_log_level=env.choice("AWS_LAMBDA_LOG_LEVEL", "INFO", LEVELS),
        is_snap_start=env.text("AWS_LAMBDA_INITIALIZATION_TYPE") == "snap-start",
        availability_zone_id=env.text("RAPID_AVAILABILITY_ZONE_ID") or first_zone_id(region),
        extensions_dir=Path(env.text("RAPID_EXTENSIONS_DIR", "/opt/extensions")),
        log_stream=log_stream,
        environ=function_environ(
            env.left_to_function(),
            handler,
            function,
            version,
            memory_mb,
            region,
            log_stream,
            task_root=_task_root(root, command),
            dummy_credentials=env.flag("RAPID_DUMMY_CREDENTIALS"),
            logs_json=logs_json,
        ),
    )


def _timeout_s(env: Settings) -> float:
    timeout_s = env.seconds(
        "AWS_LAMBDA_FUNCTION_TIMEOUT", 300.0, least=0.01, most=FUNCTION_TIMEOUT_LIMIT_S
    )
    if timeout_s > FUNCTION_TIMEOUT_MAX_S:
        env.warn(
            f"the function's timeout is {timeout_s:g} s; AWS allows {FUNCTION_TIMEOUT_MAX_S} s"
        )
    return timeout_s


def _task_root(root: Path, command: Command) -> str:
    """Return where the function's code is: outside an image for Lambda, where the runtime runs."""
    task = root / "var/task"
    return str(task) if command.cwd is None or task.is_dir() else command.cwd


def _function(env: Settings, handler: str, region: str) -> FunctionRef:
    account_id = env.text("AWS_ACCOUNT_ID", "123456789012")

    def parse(name: str) -> FunctionRef:
        expected = "a name of letters, digits, - and _, at most 64"
        try:
            function = parse_function_name(name, region=region, account_id=account_id)
        except LambdaApiError as error:
            raise WrongValue(f"is {name!r}", f"{expected} ({error.message})") from None
        if function.qualifier is not None or function.name != name:
            raise WrongValue(f"is {name!r}", expected)
        return function

    return env.parsed("AWS_LAMBDA_FUNCTION_NAME", parse(_name_in(handler)), parse)


def _health_port(env: Settings) -> Address | None:
    port = env.integer("RAPID_HEALTH_PORT", 0, least=1, most=65535)
    return Address(env.host("RAPID_INVOKE_API_HOST", EVERY_HOST), port) if port else None


def _retry_policy(env: Settings) -> RetryPolicy:
    """Source: API_PutFunctionEventInvokeConfig, for the ranges; AWS's delays are not settings."""
    delays_s = env.durations("RAPID_EVENT_RETRY_DELAYS", "60,120")
    backoff_s = env.durations("RAPID_EVENT_BACKOFF", "1,300")
    if len(backoff_s) != 2 or backoff_s[0] > backoff_s[1]:
        raise ConfigError("RAPID_EVENT_BACKOFF has to be two durations: the first, and the longest")
    return RetryPolicy(
        max_retries=env.integer("RAPID_MAX_RETRY_ATTEMPTS", 2, least=0, most=2),
        delays_s=delays_s,
        backoff_s=(backoff_s[0], backoff_s[1]),
        max_age_s=env.seconds(
            "RAPID_MAXIMUM_EVENT_AGE", EVENT_AGE_MAX_S, least=EVENT_AGE_MIN_S, most=EVENT_AGE_MAX_S
        ),
    )


def _destination(
    name: str, text: str, function: FunctionRef, *, has_broker: bool
) -> Destination | None:
    if not text:
        return None
    destination = parse_destination(name, text, function)
    if not has_broker and not isinstance(destination, HttpDestination):
        raise ConfigError(
            f"{name} needs a broker (RAPID_AMQP_URI); without one expected http(s)://..."
        )
    return destination


def _name_in(handler: str) -> str:
    """Return the name a handler suggests; Java's and .NET's, and paths, suggest none."""
    name = handler.partition(".")[0]
    return name if _BARE_NAME.fullmatch(name) else "function"
