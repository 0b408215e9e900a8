"""What RabbitMQ refused, in its own words, and what to change so that it does not.

RabbitMQ refuses a method by closing the channel, and a login or a virtual host by closing the
connection, with a code and a text. Both programs log the two, what was wanted, and a remedy.
Source: RabbitMQ documentation, "Access Control", "Virtual Hosts" and "Per-user Limits".
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

from lambda_protocol.amqp_connection import ClosedByBroker
from lambda_protocol.environ import BrokerAddress


@dataclass(frozen=True, slots=True, kw_only=True)
class Permissions:
    """What a program has to be granted: regular expressions of names, as RabbitMQ has them.

    The default exchange is called amq.default there.
    """

    configure: str = "^$"
    write: str = "^$"
    read: str = "^$"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusals:
    """Explains refusals to the user of one broker. Thread-safe."""

    address: BrokerAddress
    needs: Permissions  #: the least permissions of the program

    def explain(self, error: Exception) -> dict[str, object]:
        """Return what the log says of ``error``: a refusal in full, any other error as it is."""
        if not isinstance(error, ClosedByBroker):
            return {"error": repr(error)}
        said: dict[str, object] = {"broker_says": error.reply_text}
        wanted = "; ".join(getattr(error, "__notes__", ()))
        if wanted:
            said["wanted"] = wanted
        remedy = self._remedy(error.reply_code, error.reply_text)
        if remedy:
            said["remedy"] = remedy
        return said

    def _remedy(self, code: int, text: str) -> str | None:
        vhost = shlex.quote(self.address.virtual_host)
        user = shlex.quote(self.address.user)
        for refused, pattern, remedy in _REMEDIES:
            if code == refused and re.search(pattern, text):
                return remedy.format(vhost=vhost, user=user, grant=self._grant(vhost, user))
        return None

    def _grant(self, vhost: str, user: str) -> str:
        patterns = (self.needs.configure, self.needs.write, self.needs.read)
        words = " ".join(map(shlex.quote, patterns))
        return f"grant at least: rabbitmqctl set_permissions -p {vhost} {user} {words}"


def exactly(*names: str) -> str:
    """Return RabbitMQ's regular expression for these names. A name with ``*`` last is a prefix."""
    return "^(" + "|".join(map(_pattern, names)) + ")$"


def _pattern(name: str) -> str:
    if name.endswith("*"):
        return _pattern(name[:-1]) + ".*"
    return re.escape(name).replace(r"\-", "-")


#: Reply code, what the text contains, and the remedy; the first that fits is taken.
_REMEDIES = (
    (403, "Login was refused", "correct the user and password of the broker's URI"),
    (403, "exclusive use", "stop the consumer that has the queue for itself alone"),
    (403, "", "{grant}"),
    (404, "down or inaccessible", "start the node that has the queue, or delete the queue"),
    (405, "", "close the connection that has the queue for itself, or rename the function"),
    (406, "inequivalent arg", "delete the queue, or change the settings to what it has"),
    (406, "limit", "raise the limit: rabbitmqctl set_vhost_limits -p {vhost}"),
    (
        406,
        "acknowledgement on channel",
        "raise RabbitMQ's consumer_timeout over the function's timeout",
    ),
    (530, "not found", "create it: rabbitmqctl add_vhost {vhost}, or correct the broker's URI"),
    (
        530,
        "limit",
        "close connections, or raise the limit: rabbitmqctl set_user_limits {user}, "
        "rabbitmqctl set_vhost_limits -p {vhost}, or connection_max of rabbitmq.conf",
    ),
    (530, "refused", "{grant}"),
    (541, "is down", "start it again: rabbitmqctl restart_vhost -p {vhost}"),
)
