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
from rapid.settings.function_environ import extension_environ, function_environ
from rapid.settings.names import Note, Settings

_BARE_NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Everything rapid was told; made once, by :meth:`from_environ`."""

    command: Command
    handler: str
    function: FunctionRef  #: unqualified
    version: str
    memory_mb: int
    enforces_memory: bool
    timeout_s: float
    idle_timeout_s: float
    init_timeout_s: float
    queue_timeout_s: float  #: how long a call may wait unstarted
    drain_timeout_s: float  #: how long a stop waits for running invocations
    max_concurrency: int  #: runtimes
    runtime_concurrency: int  #: calls one runtime takes at a time (AWS_LAMBDA_MAX_CONCURRENCY)
    is_multi_concurrency: bool  #: whether AWS_LAMBDA_MAX_CONCURRENCY was given
    has_eager_init: bool
    accepts_any_name: bool
    checks_payload: bool
    bytes_in_hand: int | None  #: of callers' payloads; None: by our memory limit
    prints_reports: bool
    logs_json: bool  #: the function's log format
    application_log_level: str  #: of the function's own records, in a JSON log
    system_log_level: str  #: of the platform's
    has_openfaas: bool
    allowed_origins: AllowedOrigins  #: of web pages
    is_snap_start: bool
    availability_zone_id: str  #: what the metadata endpoint answers
    invoke_api: Address
    health_port: Address | None  #: where nothing but health checks and scrapes is answered
    runtime_api: Address
    takes_any_runtime_port: (
        bool  #: no port was asked for by rapid's own name, so it need not be had
    )
    extensions_dir: Path
    broker: BrokerAddress | None
    queue_type: str
    queue_expires_s: float | None  #: None: auto-delete
    event_queue_type: str
    retry_policy: RetryPolicy  #: of events
    on_success: Destination | None  #: of events
    on_failure: Destination | None
    reruns_redelivered: bool
    log_level: str
    logs_structured: bool
    log_stream: str
    environ: Mapping[str, str]  #: what the function gets, but for what differs by instance
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
        command, handler = find_command(line.words, root)
        handler = env.text("AWS_LAMBDA_FUNCTION_HANDLER") or handler or env.text("_HANDLER")
        region = env.text("AWS_REGION") or env.text("AWS_DEFAULT_REGION", "us-east-1")
        function = _function(env, handler, region)
        timeout_s = env.seconds(
            "AWS_LAMBDA_FUNCTION_TIMEOUT", 300.0, least=0.01, most=FUNCTION_TIMEOUT_LIMIT_S
        )
        if timeout_s > FUNCTION_TIMEOUT_MAX_S:
            env.warn(
                f"the function's timeout is {timeout_s:g} s; AWS allows {FUNCTION_TIMEOUT_MAX_S} s"
            )
        multi = env.integer("AWS_LAMBDA_MAX_CONCURRENCY", 0, least=1, most=1600)
        expires = env.text("RAPID_AMQP_QUEUE_EXPIRES")
        logs_json = env.choice("AWS_LAMBDA_LOG_FORMAT", "Text", ("Text", "JSON")) == "JSON"
        version = env.text("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")
        log_stream = f"{time.strftime('%Y/%m/%d', time.gmtime())}/[{version}]{os.urandom(16).hex()}"
        memory_mb = env.integer("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", 3008, least=1, most=1 << 20)
        broker = env.broker()
        return cls(
            command=command,
            handler=handler,
            function=function,
            version=version,
            memory_mb=memory_mb,
            enforces_memory=env.flag("RAPID_ENFORCE_MEMORY"),
            timeout_s=timeout_s,
            idle_timeout_s=env.seconds("AWS_LAMBDA_FUNCTION_IDLETIMEOUT", 1800.0, least=0.01),
            init_timeout_s=env.seconds("RAPID_INIT_TIMEOUT", INIT_TIMEOUT_S, least=0.01),
            queue_timeout_s=env.seconds("RAPID_INVOKE_QUEUE_TIMEOUT", INVOKE_QUEUE_TIMEOUT_S),
            drain_timeout_s=env.seconds("RAPID_DRAIN_TIMEOUT", timeout_s),
            max_concurrency=env.integer("RAPID_MAX_CONCURRENCY", 1, least=1, most=10_000),
            runtime_concurrency=multi or 1,
            is_multi_concurrency=bool(multi),
            has_eager_init=env.flag("RAPID_EAGER_INIT", default=True),
            accepts_any_name=env.flag("RAPID_ANY_FUNCTION_NAME", default=True),
            checks_payload=env.flag("RAPID_CHECK_PAYLOAD", default=True),
            bytes_in_hand=(
                env.integer("RAPID_BYTES_IN_HAND", 0, least=LEAST_BYTES, most=1 << 50) or None
            ),
            prints_reports=env.flag("RAPID_PRINT_REPORTS"),
            logs_json=logs_json,
            application_log_level=env.choice("AWS_LAMBDA_LOG_LEVEL", "INFO", LEVELS),
            system_log_level=env.choice("AWS_LAMBDA_SYSTEM_LOG_LEVEL", "INFO", LEVELS),
            has_openfaas=env.flag("RAPID_ENABLE_OPENFAAS"),
            allowed_origins=AllowedOrigins.parse(
                "RAPID_CORS_ALLOW_ORIGINS", env.text("RAPID_CORS_ALLOW_ORIGINS")
            ),
            is_snap_start=env.text("AWS_LAMBDA_INITIALIZATION_TYPE") == "snap-start",
            availability_zone_id=env.text("RAPID_AVAILABILITY_ZONE_ID") or first_zone_id(region),
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
            extensions_dir=Path(env.text("RAPID_EXTENSIONS_DIR", "/opt/extensions")),
            broker=broker,
            queue_type=env.choice("RAPID_AMQP_QUEUE_TYPE", "classic", ("classic", "quorum")),
            queue_expires_s=(
                None
                if expires == "auto-delete"
                else env.seconds("RAPID_AMQP_QUEUE_EXPIRES", 1800.0, least=0.001, most=2_000_000)
            ),
            event_queue_type=env.choice(
                "RAPID_AMQP_EVENT_QUEUE_TYPE", "quorum", ("quorum", "classic")
            ),
            retry_policy=_retry_policy(env),
            on_success=_destination(
                "RAPID_ON_SUCCESS", env.text("RAPID_ON_SUCCESS"), function, broker
            ),
            on_failure=_destination(
                "RAPID_ON_FAILURE", env.text("RAPID_ON_FAILURE"), function, broker
            ),
            reruns_redelivered=env.choice("RAPID_SYNC_REDELIVERY", "fail", ("fail", "retry"))
            == "retry",
            log_level=env.choice("RAPID_LOG_LEVEL", "INFO", LEVEL_NAMES),
            logs_structured=env.flag("RAPID_USE_STRUCTURED_LOGGING"),
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
            notes=env.all_notes(),  # the last one: every setting is read by now
        )

    @property
    def slots(self) -> int:
        """How many invocations may run at once in this rapid."""
        return self.max_concurrency * self.runtime_concurrency

    @property
    def least_level_kept(self) -> str | None:
        """The lowest level of the function's own records that a JSON log keeps; None: all."""
        return self.application_log_level if self.logs_json else None

    @property
    def initialization_type(self) -> str:
        """What the function is told of how it was started."""
        return self.environ["AWS_LAMBDA_INITIALIZATION_TYPE"]

    @property
    def about(self) -> dict[str, str]:
        """What extensions may know of the function."""
        return {
            "functionName": self.function.name,
            "functionVersion": self.version,
            "handler": self.handler,
            "accountId": self.function.account_id,
        }

    def runtime_environ(self, instance: int, runtime_api: str) -> dict[str, str]:
        """Return the environment of the runtime of environment number ``instance``.

        ``_INSTANCE`` lets runtimes side by side stay out of each other's way. ``INSTANCE`` is the
        same, where the function has no variable of that name.
        """
        return {
            "INSTANCE": str(instance),
            **self.environ,
            "AWS_LAMBDA_RUNTIME_API": runtime_api,
            "_INSTANCE": str(instance),
        }

    def extension_environ(self, instance: int, runtime_api: str) -> dict[str, str]:
        """Return the environment of an extension of environment number ``instance``."""
        return extension_environ(self.runtime_environ(instance, runtime_api))


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
    name: str, text: str, function: FunctionRef, broker: BrokerAddress | None
) -> Destination | None:
    if not text:
        return None
    destination = parse_destination(name, text, function)
    if broker is None and not isinstance(destination, HttpDestination):
        raise ConfigError(
            f"{name} needs a broker (RAPID_AMQP_URI); without one expected http(s)://..."
        )
    return destination


def _name_in(handler: str) -> str:
    """Return the name a handler suggests; Java's and .NET's, and paths, suggest none."""
    name = handler.partition(".")[0]
    return name if _BARE_NAME.fullmatch(name) else "function"
