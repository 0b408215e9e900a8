"""Announces the function's URL to Lambda Servers, by the topic exchange of announcements.

A function without a URL says so, for it may have had one. RabbitMQ may refuse that, and need not:
an exchange that does not exist, or may not be written to, has told nobody of a URL.
"""

from __future__ import annotations

import json
import logging
import math
import time
from typing import TYPE_CHECKING

from lambda_protocol.amqp_connection import AmqpConnection, BrokerLost, Channel
from lambda_protocol.amqp_refusals import Refusals
from lambda_protocol.queues import ANNOUNCE_EVERY_S, ANNOUNCEMENTS, declare_announcements

if TYPE_CHECKING:
    from lambda_protocol.function_url import UrlSettings

logger = logging.getLogger(__name__)


class Announcer:
    """Announces by a channel of its own, whose faults are nobody else's.

    One thread: amqp-consumer.
    """

    def __init__(
        self, function_name: str, settings: UrlSettings | None, *, refusals: Refusals
    ) -> None:
        """``settings`` are those of the function's URL, if it has one."""
        self._function_name = function_name
        self._has_url = settings is not None
        self._body = _encode(function_name, settings)
        self._refusals = refusals
        self._channel: Channel | None = None
        self._due = 0.0  # monotonic seconds

    def open(self, connection: AmqpConnection) -> None:
        """Announce for the first time on ``connection``. Raises ``BrokerLost`` if that is lost."""
        self._channel = None
        try:
            channel = connection.open_channel()
            if self._has_url:
                declare_announcements(connection, channel)
        except BrokerLost as error:
            if not connection.is_open:
                raise
            logger.error(
                "the function's URL cannot be announced", extra=self._refusals.explain(error)
            )
            return
        self._channel = channel
        self._announce(channel)

    @property
    def poll_limit_s(self) -> float:
        """When :meth:`announce_if_due` has something to do."""
        return math.inf if self._channel is None else max(0.0, self._due - time.monotonic())

    def announce_if_due(self) -> None:
        """Announce again, if it is time to."""
        if self._channel is not None and time.monotonic() >= self._due:
            self._announce(self._channel)

    def announce(self) -> None:
        """Announce for the last time: the function may come back, so its URL stays known."""
        if self._channel is not None:
            self._announce(self._channel)

    def _announce(self, channel: Channel) -> None:
        self._due = time.monotonic() + ANNOUNCE_EVERY_S
        if channel.is_open:
            channel.basic_publish(ANNOUNCEMENTS, self._function_name, self._body)


def _encode(function_name: str, settings: UrlSettings | None) -> bytes:
    if settings is None:
        members = {"FunctionName": function_name, "FunctionUrlConfig": None}
        return json.dumps(members, separators=(",", ":")).encode()
    from lambda_protocol.function_url import Announcement, encode_announcement

    return encode_announcement(Announcement(function_name, settings))
