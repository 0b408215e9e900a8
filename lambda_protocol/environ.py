"""Typed settings from environment variables; a wrong value is one clear line."""

from __future__ import annotations

import math
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from lambda_protocol.address import Address, parse_host

_TRUE: Final = frozenset({"1", "true", "yes", "on"})
_FALSE: Final = frozenset({"", "0", "false", "no", "off"})


class ConfigError(ValueError):
    """A setting has a value that it cannot have; the message is for whoever set it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerAddress:
    """Where the broker is and who we are there; never printed with its password."""

    uri: str  #: amqp or amqps, with the credentials in it

    @property
    def user(self) -> str:
        """The user's name; RabbitMQ's own default when the URI has none."""
        return urllib.parse.unquote(urllib.parse.urlsplit(self.uri).username or "guest")

    @property
    def virtual_host(self) -> str:
        """The virtual host, which is ``/`` when the URI has none."""
        return urllib.parse.unquote(urllib.parse.urlsplit(self.uri).path[1:]) or "/"

    def __repr__(self) -> str:
        """Return the address without user and password."""
        parts = urllib.parse.urlsplit(self.uri)
        port = parts.port or _PORTS[parts.scheme]
        return f"{parts.scheme}://{Address(parts.hostname or '', port)}{parts.path}"

    __str__ = __repr__


class Environ:
    """Reads typed values from a mapping; raises :class:`ConfigError` for a wrong one."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        """Read from ``variables``, which is not changed."""
        self._variables = variables

    def text(self, name: str, default: str = "") -> str:
        """Return the variable, or ``default`` when it is unset or empty."""
        return self._variables.get(name) or default

    def flag(self, name: str, *, default: bool = False) -> bool:
        """Return a yes-or-no setting: 1/true/yes/on or 0/false/no/off, in any case."""
        text = self._variables.get(name)
        if text is None:
            return default
        if text.strip().lower() in _TRUE:
            return True
        if text.strip().lower() in _FALSE:
            return False
        raise ConfigError(f"{name} is {text!r}; expected TRUE or FALSE")

    def host(self, name: str, default: str) -> str:
        """Return a host name or an IP address, without brackets."""
        try:
            return parse_host(self.text(name, default))
        except ValueError as error:
            raise ConfigError(f"{name} is {error}") from None

    def integer(self, name: str, default: int, *, least: int, most: int) -> int:
        """Return a whole number from ``least`` to ``most``."""
        text = self.text(name)
        if not text:
            return default
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if not least <= value <= most:
            raise ConfigError(f"{name} is {text!r}; expected a whole number from {least} to {most}")
        return value

    def seconds(self, name: str, default: float, *, least: float = 0, most: float = 1e9) -> float:
        """Return a duration in seconds, fractions allowed."""
        text = self.text(name)
        if not text:
            return default
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most:
            raise ConfigError(f"{name} is {text!r}; expected seconds from {least:g} to {most:g}")
        return value

    def durations(self, name: str, default: str) -> tuple[float, ...]:
        """Return durations in seconds, separated by commas; none of them is nothing."""
        values = []
        for part in self.text(name, default).split(","):
            try:
                value = float(part)
            except ValueError:
                value = math.nan
            if not 0 < value < math.inf:
                raise ConfigError(
                    f"{name} is {self.text(name)!r}; expected seconds separated by commas"
                )
            values.append(value)
        return tuple(values)

    def choice(self, name: str, default: str, choices: tuple[str, ...]) -> str:
        """Return one of ``choices``, compared without regard to case."""
        text = self.text(name, default)
        for choice in choices:
            if text.lower() == choice.lower():
                return choice
        raise ConfigError(f"{name} is {text!r}; expected one of {', '.join(choices)}")

    def broker(self) -> BrokerAddress | None:
        """Return ``AMQP_URI`` with ``AMQP_USERNAME`` and ``AMQP_PASSWORD`` put in, if any is set.

        The two replace what the URI says, so that a URI can stand in a manifest and the
        credentials in a secret.
        """
        uri = self.text("AMQP_URI")
        if not uri:
            return None
        # Never show the value: it may hold a password.
        try:
            parts = urllib.parse.urlsplit(uri)
            _ = parts.port
        except ValueError:
            raise ConfigError("AMQP_URI is not a URI; expected amqp://host:port/vhost") from None
        if parts.scheme not in _PORTS or not parts.hostname:
            raise ConfigError(
                f"AMQP_URI has scheme {parts.scheme!r} and host {parts.hostname!r}; "
                "expected amqp://host:port/vhost or amqps://host:port/vhost"
            )
        quote = urllib.parse.quote
        user = self.text("AMQP_USERNAME")
        password = self.text("AMQP_PASSWORD")
        userinfo, _, host = parts.netloc.rpartition("@")
        old_user, _, old_password = userinfo.partition(":")
        new_user = quote(user, safe="") if user else old_user or "guest"
        new_password = quote(password, safe="") if password else old_password or "guest"
        netloc = f"{new_user}:{new_password}@{host}"
        return BrokerAddress(uri=urllib.parse.urlunsplit(parts._replace(netloc=netloc)))


_PORTS: Final = {"amqp": 5672, "amqps": 5671}
