"""Which broker the local stack uses: a given one, one found, a private one, or none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from devtools.apt import AptError, install
from devtools.ports import LOOPBACK, speaks_amqp
from devtools.progress import Step
from devtools.rabbitmq_node import RabbitmqError, RabbitmqNode, find_server
from lambda_protocol.environ import BrokerAddress, ConfigError, Environ

_USUAL_PORT = 5672


class BrokerChoice(StrEnum):
    """What ``make up BROKER=...`` may ask for."""

    AUTO = "auto"
    RABBITMQ = "rabbitmq"  #: as auto, and RabbitMQ is installed if there is none
    NONE = "none"


class BrokerKind(StrEnum):
    """Where the broker came from."""

    GIVEN = "given"
    FOUND = "found"
    PRIVATE = "private"
    NONE = "none"


class BrokerUnusable(Exception):
    """The broker that was asked for cannot be used; the message says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Broker:
    """The broker in use; without one, ``address`` is None and calls go directly over HTTP."""

    kind: BrokerKind
    address: BrokerAddress | None

    def __str__(self) -> str:
        return {
            BrokerKind.GIVEN: f"{self.address}, from AMQP_URI",
            BrokerKind.FOUND: f"{self.address}, found running",
            BrokerKind.PRIVATE: f"RabbitMQ on {self.address}, private to this checkout",
            BrokerKind.NONE: "none, the Lambda Server calls the function directly over HTTP",
        }[self.kind]

    def answers(self) -> bool:
        """Return whether the broker, where there is one, takes a connection."""
        return self.address is None or _refusal(self.address) is None


_NO_BROKER = Broker(kind=BrokerKind.NONE, address=None)


def find_broker(
    choice: BrokerChoice,
    environ: Mapping[str, str],
    node: RabbitmqNode,
    usual_port: int = _USUAL_PORT,
) -> Broker:
    """Return the broker to use, having started ``node`` if it is the private one.

    Tells on the way what was found and why it is not taken. Raises BrokerUnusable.
    """
    if choice is BrokerChoice.NONE:
        return _NO_BROKER
    found = _given(environ) or _running(usual_port) or _private(choice, node)
    if found is None:
        print(
            f"  No broker found: AMQP_URI is not set, none is usable on {LOOPBACK}:{usual_port}, "
            "no rabbitmq-server is installed;\n  `make up BROKER=rabbitmq` installs one with apt"
        )
    return found or _NO_BROKER


def _given(environ: Mapping[str, str]) -> Broker | None:
    try:
        address = Environ(environ).broker()
        reason = _refusal(address) if address is not None else None
    except ConfigError as error:
        raise BrokerUnusable(str(error)) from error
    if address is None:
        return None
    if reason is not None:
        raise BrokerUnusable(
            f"AMQP_URI names {address}, but {reason}; expected a broker that takes the login. "
            "Start that broker, or unset AMQP_URI, or go without one: make up BROKER=none"
        )
    return Broker(kind=BrokerKind.GIVEN, address=address)


def _running(port: int) -> Broker | None:
    if not speaks_amqp(LOOPBACK, port):
        return None
    address = BrokerAddress(uri=f"amqp://guest:guest@{LOOPBACK}:{port}")
    reason = _refusal(address)
    if reason is not None:
        print(f"  Broker: {address} is passed over, {reason} of guest; AMQP_URI can name another")
        return None
    return Broker(kind=BrokerKind.FOUND, address=address)


def _private(choice: BrokerChoice, node: RabbitmqNode) -> Broker | None:
    try:
        if find_server() is None:
            if choice is not BrokerChoice.RABBITMQ:
                return None
            install(["rabbitmq-server"], "for BROKER=rabbitmq")
        with Step("RabbitMQ") as step:
            node.start(on_wait=step.tick)
            step.result("started")
    except (AptError, RabbitmqError) as error:
        raise BrokerUnusable(f"{error}\nTo go on without a broker: make up BROKER=none") from error
    return Broker(kind=BrokerKind.PRIVATE, address=BrokerAddress(uri=node.uri))


def _refusal(address: BrokerAddress) -> str | None:
    """Return why a client cannot log in to the broker at ``address``, or None if it can.

    Raises ConfigError. The client library is missing while .venv is made, or half made.
    """
    try:
        from devtools.broker_login import refusal
    except ImportError:
        return "no client to ask it with: make up finishes the .venv"
    return refusal(address)
