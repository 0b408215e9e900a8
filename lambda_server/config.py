"""The settings of the Lambda Server, read from environment variables."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from lambda_protocol.address import EVERY_HOST, Address
from lambda_protocol.byte_budget import LEAST_BYTES, default_bytes
from lambda_protocol.cors import AllowedOrigins
from lambda_protocol.environ import BrokerAddress, ConfigError, Environ, WrongValue
from lambda_protocol.limits import FUNCTION_TIMEOUT_MAX_S, INVOKE_QUEUE_TIMEOUT_S
from lambda_protocol.log_format import LEVEL_NAMES

#: RabbitMQ takes an expiration of 32 bits of milliseconds; no caller waits for a day.
_QUEUE_TIMEOUT_MAX_S = 86_400

#: To how many functions a thread keeps its connections, in direct mode.
KEPT_ENDPOINTS: Final = 4

_ADDRESS = Address(EVERY_HOST, 8080)
_NO_ORIGINS = AllowedOrigins("CORS_ALLOW_ORIGINS")
_NAME = re.compile(r"[a-zA-Z0-9_.-]+")
_HOST_NAME = re.compile(r"[a-zA-Z0-9_.-]{1,253}")


class UrlTarget(NamedTuple):
    """The function that a setting names for requests to function URLs."""

    name: str
    qualifier: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Everything the server was told; made once, by :meth:`from_environ`."""

    broker: BrokerAddress | None = None
    endpoints: Mapping[str, Address] = field(default_factory=dict)  #: function name → its rapid
    region: str = "us-east-1"
    account_id: str = "123456789012"
    queue_timeout_s: float = INVOKE_QUEUE_TIMEOUT_S  #: how long a call may wait unstarted
    invoke_timeout_s: float = float(FUNCTION_TIMEOUT_MAX_S)  #: longest run, in direct mode
    connect_timeout_s: float = 5.0
    shares_broker_connection: bool = True  #: among the threads of a process
    checks_payload: bool = True
    bytes_in_hand: int | None = None  #: of payloads, in all workers; None: by our memory limit
    allowed_origins: AllowedOrigins = _NO_ORIGINS  #: of web pages
    log_level: str = "INFO"
    logs_structured: bool = False
    address: Address = _ADDRESS
    url_hosts: Mapping[str, UrlTarget] = field(default_factory=dict)  #: host → its function
    url_default: UrlTarget | None = None  #: gets every path that is not the server's own
    health_port: int | None = None  #: where only health checks and scrapes are answered
    workers: int = 1  #: gunicorn's processes
    polls: bool = False  #: they have one thread for all plain invocations

    @classmethod
    def from_environ(cls, variables: Mapping[str, str]) -> Config:
        """Return the settings in ``variables``. Raises ``ConfigError``.

        AMQP_URI and LAMBDA_ENDPOINTS exclude each other. If neither is set, the server knows no
        function and logs a warning.
        """
        env = Environ(variables)
        broker = env.broker()
        endpoints = _endpoints(env.text("LAMBDA_ENDPOINTS"))
        if broker is not None and endpoints:
            raise ConfigError(
                "AMQP_URI and LAMBDA_ENDPOINTS are both set; expected one: a broker, or direct mode"
            )
        return cls(
            broker=broker,
            endpoints=endpoints,
            region=env.text("AWS_REGION") or env.text("AWS_DEFAULT_REGION", "us-east-1"),
            account_id=env.text("AWS_ACCOUNT_ID", "123456789012"),
            queue_timeout_s=env.seconds(
                "INVOKE_QUEUE_TIMEOUT", INVOKE_QUEUE_TIMEOUT_S, most=_QUEUE_TIMEOUT_MAX_S
            ),
            invoke_timeout_s=env.seconds(
                "AWS_LAMBDA_FUNCTION_TIMEOUT", float(FUNCTION_TIMEOUT_MAX_S), least=0.01
            ),
            connect_timeout_s=env.seconds("CONNECT_TIMEOUT", 5.0, least=0.1, most=60),
            shares_broker_connection=(
                env.choice("BROKER_CONNECTIONS", "shared", ("shared", "thread")) == "shared"
            ),
            checks_payload=env.flag("CHECK_PAYLOAD", default=True),
            bytes_in_hand=env.integer("BYTES_IN_HAND", 0, least=LEAST_BYTES, most=1 << 50) or None,
            allowed_origins=AllowedOrigins.parse(
                "CORS_ALLOW_ORIGINS", env.text("CORS_ALLOW_ORIGINS")
            ),
            log_level=env.choice("LOG_LEVEL", "INFO", LEVEL_NAMES),
            logs_structured=env.flag("USE_STRUCTURED_LOGGING"),
            address=Address(
                env.host("INVOKE_API_HOST", EVERY_HOST),
                env.integer("PORT", 8080, least=0, most=65535),
            ),
            url_hosts=_url_hosts(env.text("LAMBDA_URL_HOSTS")),
            url_default=env.parsed("LAMBDA_URL_DEFAULT", None, _url_target),
            health_port=env.integer("HEALTH_PORT", 0, least=1, most=65535) or None,
            workers=env.integer("WEB_CONCURRENCY", 1, least=1, most=1024),
            polls=env.choice("LAMBDA_WORKER", "threads", ("threads", "polling")) == "polling",
        )

    @property
    def worker_bytes_in_hand(self) -> int:
        """How many bytes of payloads one of gunicorn's processes may hold."""
        return max(LEAST_BYTES, (self.bytes_in_hand or default_bytes()) // self.workers)

    @property
    def descriptors_per_call(self) -> int:
        """How many connections a thread that serves calls has open at most."""
        if self.broker is not None:
            return 1 if self.shares_broker_connection else 2
        return 1 + min(len(self.endpoints), KEPT_ENDPOINTS)


def _endpoints(text: str) -> dict[str, Address]:
    """Return ``echo=http://127.0.0.1:8081,…`` as a mapping."""
    endpoints: dict[str, Address] = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        name, _, url = item.partition("=")
        try:
            endpoints[name] = Address.of_url(url)
            is_right = urlsplit(url)._replace(netloc="") in _NOTHING_ELSE
        except ValueError:
            is_right = False
        if not is_right or not _NAME.fullmatch(name):
            raise ConfigError(
                f"LAMBDA_ENDPOINTS has {item!r}; expected NAME=http://HOST:PORT, comma-separated"
            )
    return endpoints


def _url_hosts(text: str) -> dict[str, UrlTarget]:
    """Return ``shop.example.org=shop,…`` as a mapping of hosts in lower case."""
    hosts: dict[str, UrlTarget] = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        host, _, target = item.partition("=")
        try:
            if not _HOST_NAME.fullmatch(host):
                raise WrongValue("is no host", "HOST")
            hosts[host.lower()] = _url_target(target)
        except WrongValue:
            raise ConfigError(
                f"LAMBDA_URL_HOSTS has {item!r}; expected HOST=FUNCTION or "
                "HOST=FUNCTION:QUALIFIER, comma-separated, the host without a port"
            ) from None
    return hosts


def _url_target(text: str) -> UrlTarget:
    """Return the function that ``shop`` or ``shop:live`` names. Raises ``WrongValue``."""
    name, colon, qualifier = text.partition(":")
    if not _NAME.fullmatch(name) or bool(colon) != bool(_NAME.fullmatch(qualifier)):
        raise WrongValue(f"is {text!r}", "FUNCTION or FUNCTION:QUALIFIER")
    return UrlTarget(name, qualifier or None)


#: What is left of a base URL without its address.
_NOTHING_ELSE = (urlsplit("http:"), urlsplit("http:/"))
