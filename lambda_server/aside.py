"""Messages to the instances of functions, over a connection of their own.

They go to addresses of instances, as their credit does for a streamed response. If the node of the
broker that such an address is on is down, RabbitMQ 3.10 closes the connection of who publishes to
it. So no call may depend on that connection.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from lambda_protocol.amqp_connection import BrokerLost
from lambda_protocol.amqp_frames import Properties, publish_pieces
from lambda_protocol.invoke_amqp import ReplyAddress
from lambda_server.link import SharedLink
from lambda_server.queue_state import ask_queue_state

logger = logging.getLogger(__name__)

#: How long after a failure to connect nothing is tried, seconds: many streams would wait in turn.
RETRY_S: Final = 5.0


class Aside:
    """The connection, opened on use. Thread-safe."""

    def __init__(self, connect: Callable[[], SharedLink]) -> None:
        """Connect on use."""
        self._connect = connect
        self._lock = threading.Lock()
        # guarded by _lock:
        self._link: SharedLink | None = None
        self._retry_at = 0.0  # after a failure, monotonic seconds

    def send(self, address: ReplyAddress, properties: Properties) -> None:
        """Send an empty message, if the broker is there: what comes next tells more."""

        def publish(link: SharedLink) -> None:
            if link.blocked_reason is None:
                number = link.replies().number
                link.send(
                    publish_pieces(number, address.queue, properties, b"", frame_max=link.frame_max)
                )

        self._use(publish)

    def is_gone(self, address: ReplyAddress) -> bool:
        """Whether RabbitMQ says that an address is no more; False if it says nothing."""
        return self._use(lambda link: not ask_queue_state(link, address.queue).exists) or False

    def _use(self, work: Callable[[SharedLink], bool | None]) -> bool | None:
        """Return the result of ``work``; None if the broker is away, or was a moment ago."""
        try:
            with self._lock:
                if time.monotonic() < self._retry_at:
                    return None
                if self._link is None or self._link.is_lost:
                    self._link = self._open_locked()
                link = self._link
            return work(link)
        except (*BrokerLost, RuntimeError) as error:
            logger.warning("an instance was not told", extra={"error": repr(error)})
            return None

    def _open_locked(self) -> SharedLink:
        try:
            return self._connect()
        except BaseException:
            self._retry_at = time.monotonic() + RETRY_S
            raise
