"""Which names each setting of rapid is read by, and which variables are left to the function.

A setting has one name, ``RAPID_<NAME>``, and perhaps a flag. Some have a plain name too, since the
system that rapid follows has it. A plain name may as well be meant for the function: rapid never
ends because of its value. Names of AWS (``AWS_*``, ``_HANDLER``) describe the function to both.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from lambda_protocol.address import Address
from lambda_protocol.environ import BrokerAddress, Environ, WrongValue

PREFIX: Final = "RAPID_"
#: The one setting of rapid's own that has no ``RAPID_`` form. Source: the kind example's manifests.
INIT_CONTAINER: Final = "KUBERNETES_INIT_CONTAINER"

#: Where the broker is, as a whole: one of them with the prefix makes the others plain variables.
_BROKER: Final = ("AMQP_URI", "AMQP_USERNAME", "AMQP_PASSWORD")
#: Plain names that set rapid too, where the same name with the prefix does not.
ALIASES: Final = frozenset(
    {
        *_BROKER,
        "ENABLE_OPENFAAS",
        "INVOKE_API_HOST",
        "LOG_LEVEL",
        "MAX_CONCURRENCY",
        "PRINT_REPORTS",
        "RUNTIME_API_HOST",
        "RUNTIME_API_PORT",
        "USE_STRUCTURED_LOGGING",
    }
)
#: Plain names that once set rapid. They are the function's.
FORMER: Final = frozenset(
    {
        "AMQP_EVENT_QUEUE_TYPE",
        "AMQP_QUEUE_EXPIRES",
        "AMQP_QUEUE_TYPE",
        "ANY_FUNCTION_NAME",
        "CHECK_PAYLOAD",
        "DRAIN_TIMEOUT",
        "DUMMY_CREDENTIALS",
        "EAGER_INIT",
        "EVENT_BACKOFF",
        "EVENT_RETRY_DELAYS",
        "EXTENSIONS_DIR",
        "INIT_TIMEOUT",
        "INVOKE_QUEUE_TIMEOUT",
        "MAXIMUM_EVENT_AGE",
        "MAX_RETRY_ATTEMPTS",
        "ON_FAILURE",
        "ON_SUCCESS",
        "PORT",
        "SYNC_REDELIVERY",
    }
)
#: The most of an unknown name that is logged, characters.
_NAME_SHOWN: Final = 64


@dataclass(frozen=True, slots=True)
class Note:
    """What the log says of the settings, once logging is configured by them."""

    level: int
    message: str


class Settings(Environ):
    """Reads each setting from its flag, its variable or its plain name, the first that is given.

    One thread. Each setting is read once, so that what is to be said of it is said once.
    """

    def __init__(
        self,
        variables: Mapping[str, str],
        flags: Mapping[str, tuple[str, str]] | None = None,
        function_variables: Mapping[str, str] | None = None,
    ) -> None:
        """Read from ``variables`` and ``flags``, by setting: the flag's name and its value.

        ``function_variables`` are meant for the function, so that plain names in them set nothing.
        """
        given = function_variables or {}
        own = {name: value for name, value in given.items() if _is_unmistakable(name)}
        super().__init__({**own, **variables})
        self._flags = flags or {}
        self._function_variables = given
        self._aliases = ALIASES - set(_BROKER) if variables.get("RAPID_AMQP_URI") else ALIASES
        self._known = {INIT_CONTAINER}
        self._credentials: set[str] = set()
        self._notes: list[Note] = []

    def broker(self) -> BrokerAddress | None:
        """Return the broker's address with its credentials; None if it is unset or ``none``."""
        setting, text = self.find("RAPID_AMQP_URI")
        if text == "" and setting not in self._aliases:
            self.warn(
                "RAPID_AMQP_URI is empty, so rapid uses no broker; the value none asks for that"
            )
        address = self.parsed("RAPID_AMQP_URI", None, _broker_or_none)
        user, password = self.text("RAPID_AMQP_USERNAME"), self.text("RAPID_AMQP_PASSWORD")
        if address is None:
            return None
        self._credentials = {self.find(PREFIX + name)[0] for name in _BROKER}
        return BrokerAddress(uri=address.uri, setting=setting).with_credentials(user, password)

    def host(self, name: str, default: str) -> str:
        """Return a host; by its plain name one of this machine: others are the function's peers."""
        host = super().host(name, default)
        source, _ = self.find(name)
        if source in self._aliases and not Address(host, 0).is_ours:
            self.refuse(name, source, WrongValue("is elsewhere", "an address of this machine"))
            return default
        return host

    def is_asked_for(self, name: str) -> bool:
        """Whether a setting has a value that is meant for rapid: no plain name, not the default."""
        source, text = self.find(name)
        return bool(text) and source not in self._aliases

    def left_to_function(self) -> dict[str, str]:
        """Return the variables but for rapid's own and the credentials that rapid itself uses."""
        left = {
            **self._function_variables,
            **{n: v for n, v in self._variables.items() if n not in self._credentials},
        }
        return {name: value for name, value in left.items() if not name.startswith(PREFIX)}

    def warn(self, message: str) -> None:
        """Have the log say ``message`` as a warning."""
        self._notes.append(Note(logging.WARNING, message))

    def all_notes(self) -> tuple[Note, ...]:
        """Return what is to be said, once every setting has been read.

        That includes former settings, and variables ``RAPID_*`` that no setting has.
        """
        for name in sorted(self._variables):
            if name.startswith(PREFIX) and name not in self._known:
                self.warn(
                    f"{name[:_NAME_SHOWN]!r} is no setting of rapid and has no effect; "
                    f"the nearest is {nearest(name, self._known)}"
                )
            elif name in FORMER and not self.find(PREFIX + name)[1]:
                text = f"{name} is left to the function; rapid reads {PREFIX}{name}"
                self._notes.append(Note(logging.INFO, text))
        return tuple(self._notes)

    def find(self, name: str) -> tuple[str, str | None]:
        """Return the flag or variable that gives the setting ``name``, and its text."""
        self._known.add(name)
        if name in self._flags:
            return self._flags[name]
        plain = name.removeprefix(PREFIX)
        if plain in self._aliases and plain in self._variables and not self._variables.get(name):
            return plain, self._variables[plain]
        return super().find(name)

    def refuse(self, name: str, source: str, error: WrongValue) -> None:
        """Leave a plain name to the function, with a warning; raise ``ConfigError`` for others."""
        if source not in self._aliases:
            super().refuse(name, source, error)
        self.warn(
            f"{source} is left to the function, as its value is not for rapid "
            f"(expected {error.expected}); rapid reads {name}"
        )


def _is_unmistakable(name: str) -> bool:
    return name.startswith((PREFIX, "AWS_")) or name == "_HANDLER"


def nearest(word: str, words: Iterable[str]) -> str:
    """Return which of ``words`` looks most like ``word``."""
    from difflib import get_close_matches

    return get_close_matches(word[:_NAME_SHOWN], sorted(words), n=1, cutoff=0)[0]


def is_init_container(variables: Mapping[str, str]) -> bool:
    """Whether rapid runs to copy itself: the variable is set, even to nothing, and not to no."""
    text = variables.get(INIT_CONTAINER)
    return text is not None and text.strip().lower() not in ("0", "false", "no", "off")


def _broker_or_none(text: str) -> BrokerAddress | None:
    return None if text.strip().lower() == "none" else BrokerAddress.parse(text)
