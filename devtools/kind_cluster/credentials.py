"""RabbitMQ's user, password and cookie: two Secrets that always agree, made once."""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

from devtools.kind_cluster.names import LAMBDA, MESSAGING

#: Namespace and name of a Secret -> its values.
Secrets = Mapping[tuple[str, str], Mapping[str, str]]

RABBITMQ: Final = (MESSAGING, "rabbitmq")  #: what RabbitMQ is told when its data is empty
BROKER: Final = (LAMBDA, "broker")  #: what its clients log in with

_USERNAME: Final = "lambda"
_TOKEN_BYTES: Final = 24
_MASK: Final = "***"


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What both Secrets are made of."""

    username: str
    password: str = field(repr=False)
    erlang_cookie: str = field(repr=False)

    @classmethod
    def complete(cls, found: Secrets) -> Self:
        """Return what ``found`` holds, and random values for what it lacks.

        RabbitMQ's own Secret goes first: the password in it is the one that RabbitMQ knows.
        """
        known = {**found.get(BROKER, {}), **found.get(RABBITMQ, {})}
        return cls(
            username=known.get("username") or _USERNAME,
            password=known.get("password") or secrets.token_urlsafe(_TOKEN_BYTES),
            erlang_cookie=known.get("erlang-cookie") or secrets.token_urlsafe(_TOKEN_BYTES),
        )

    @classmethod
    def masked(cls) -> Self:
        """Return what stands in the place of secrets where commands are only shown."""
        return cls(username=_USERNAME, password=_MASK, erlang_cookie=_MASK)

    @property
    def hidden(self) -> tuple[str, ...]:
        """What must never be shown: the values, and how a Secret of Kubernetes spells them."""
        plain = (self.password, self.erlang_cookie)
        return (*plain, *(_encoded(value) for value in plain))

    @property
    def secrets(self) -> Secrets:
        """The two Secrets."""
        login = {"username": self.username, "password": self.password}
        return {RABBITMQ: {**login, "erlang-cookie": self.erlang_cookie}, BROKER: login}


def decode(secret: Any) -> dict[str, str]:
    """Return the values of a Secret as Kubernetes answers it."""
    data = secret.get("data") or {}
    return {key: base64.b64decode(value).decode(errors="replace") for key, value in data.items()}


def manifest(name: tuple[str, str], values: Mapping[str, str]) -> str:
    """Return a Secret as ``kubectl apply`` takes it."""
    namespace, own_name = name
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {
                "name": own_name,
                "namespace": namespace,
                "labels": {
                    "app.kubernetes.io/name": own_name,
                    "app.kubernetes.io/part-of": "lambda",
                },
            },
            "data": {key: _encoded(value) for key, value in values.items()},
        }
    )


def _encoded(value: str) -> str:
    """Return a value as a Secret has it. ``stringData`` is not for server-side apply."""
    return value if value == _MASK else base64.b64encode(value.encode()).decode()
