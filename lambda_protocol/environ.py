"""Typed settings from environment variables; a wrong value is one clear line."""

from __future__ import annotations

import math
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Self, TypeVar

from lambda_protocol.address import Address, parse_host, split_url

T = TypeVar("T")

_TRUE: Final = frozenset({"1", "true", "yes", "on"})
_FALSE: Final = frozenset({"", "0", "false", "no", "off"})


class ConfigError(ValueError):
    """A setting has an invalid value. The message is for the user."""


class WrongValue(ValueError):
    """A text that a setting cannot have. ``found`` is shown, so it holds no secret."""

    def __init__(self, found: str, expected: str) -> None:
        """Say what was found (``is 'x'``) and what was expected."""
        super().__init__(f"{found}; expected {expected}")
        self.expected = expected


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerAddress:
    """Where the broker is and the credentials for it; never printed with its password."""

    uri: str  #: amqp or amqps, with the credentials in it
    setting: str = field(default="AMQP_URI", compare=False)  #: where it was read, for messages

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the address of a URI. Raises ``WrongValue``, which does not show the URI."""
        try:
            parts = split_url(text)
            has_place = parts.port != 0 and bool(parse_host(parts.hostname or "none"))
        except ValueError:
            has_place = False
        if not has_place:
            raise WrongValue("is not a URI", "amqp://host:port/vhost")
        if parts.scheme not in _PORTS or not parts.hostname:
            raise WrongValue(
                f"has scheme {parts.scheme!r} and host {parts.hostname!r}",
                "amqp://host:port/vhost or amqps://host:port/vhost",
            )
        return cls(uri=text)

    def with_credentials(self, user: str, password: str) -> Self:
        """Return the address with each of the two that is not empty in place of the URI's own.

        So a URI can stand in a manifest and the credentials in a secret. Without any: guest.
        """
        parts = urllib.parse.urlsplit(self.uri)
        quote = urllib.parse.quote
        userinfo, _, host = parts.netloc.rpartition("@")
        old_user, _, old_password = userinfo.partition(":")
        new_user = quote(user, safe="") if user else old_user or "guest"
        new_password = quote(password, safe="") if password else old_password or "guest"
        netloc = f"{new_user}:{new_password}@{host}"
        return replace(self, uri=urllib.parse.urlunsplit(parts._replace(netloc=netloc)))

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
        return self.parsed(name, default, str)

    def flag(self, name: str, *, default: bool = False) -> bool:
        """Return a yes-or-no setting: 1/true/yes/on or 0/false/no/off, in any case."""
        return self.parsed(name, default, _flag, takes_empty=True)

    def host(self, name: str, default: str) -> str:
        """Return a host name or an IP address, without brackets."""

        def parse(text: str) -> str:
            try:
                return parse_host(text)
            except ValueError as error:
                found, _, expected = str(error).partition("; expected ")
                raise WrongValue(f"is {found}", expected) from None

        return self.parsed(name, default, parse)

    def integer(self, name: str, default: int, *, least: int, most: int) -> int:
        """Return a whole number from ``least`` to ``most``."""

        def parse(text: str) -> int:
            try:
                value = int(text)
            except ValueError:
                value = least - 1
            if not least <= value <= most:
                raise WrongValue(f"is {text!r}", f"a whole number from {least} to {most}")
            return value

        return self.parsed(name, default, parse)

    def seconds(self, name: str, default: float, *, least: float = 0, most: float = 1e9) -> float:
        """Return a duration in seconds, fractions allowed."""

        def parse(text: str) -> float:
            value = _number(text)
            if not least <= value <= most:
                raise WrongValue(f"is {text!r}", f"seconds from {least:g} to {most:g}")
            return value

        return self.parsed(name, default, parse)

    def durations(self, name: str, default: str) -> tuple[float, ...]:
        """Return durations in seconds, separated by commas; none of them is nothing."""

        def parse(text: str) -> tuple[float, ...]:
            values = tuple(map(_number, text.split(",")))
            if not all(0 < value < math.inf for value in values):
                raise WrongValue(f"is {text!r}", "seconds separated by commas")
            return values

        return self.parsed(name, parse(default), parse)

    def choice(self, name: str, default: str, choices: tuple[str, ...]) -> str:
        """Return one of ``choices``, compared without regard to case."""

        def parse(text: str) -> str:
            for choice in choices:
                if text.lower() == choice.lower():
                    return choice
            raise WrongValue(f"is {text!r}", f"one of {', '.join(choices)}")

        return self.parsed(name, default, parse)

    def broker(self) -> BrokerAddress | None:
        """Return ``AMQP_URI`` with ``AMQP_USERNAME`` and ``AMQP_PASSWORD``; None if it is unset."""
        address = self.parsed("AMQP_URI", None, BrokerAddress.parse)
        if address is None:
            return None
        return address.with_credentials(self.text("AMQP_USERNAME"), self.text("AMQP_PASSWORD"))

    def parsed(
        self, name: str, default: T, parse: Callable[[str], T], *, takes_empty: bool = False
    ) -> T:
        """Return what ``parse`` makes of the variable, or ``default`` when it is unset.

        An empty variable is unset too, unless ``takes_empty``. ``parse`` raises ``WrongValue``.
        """
        source, text = self.find(name)
        if text is None or (not text and not takes_empty):
            return default
        try:
            return parse(text)
        except WrongValue as error:
            self.refuse(name, source, error)
            return default

    def find(self, name: str) -> tuple[str, str | None]:
        """Return under which name the setting ``name`` is given, and its text if it is."""
        return name, self._variables.get(name)

    def refuse(self, name: str, source: str, error: WrongValue) -> None:
        """Raise ``ConfigError`` for the setting ``name``, which ``source`` gives wrongly."""
        raise ConfigError(f"{source} {error}") from None


def _flag(text: str) -> bool:
    word = text.strip().lower()
    if word not in _TRUE | _FALSE:
        raise WrongValue(f"is {text!r}", "TRUE or FALSE")
    return word in _TRUE


def _number(text: str) -> float:
    """Return a number, or NaN, which is within no bounds."""
    try:
        return float(text)
    except ValueError:
        return math.nan


_PORTS: Final = {"amqp": 5672, "amqps": 5671}
