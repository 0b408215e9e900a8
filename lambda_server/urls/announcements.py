"""The thread ``url-announcements``: hears what rapids announce of their functions.

It has a connection of its own to RabbitMQ, with a queue that ends with it. So neither a refusal
nor a burst of announcements concerns invocations.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import Final

from lambda_protocol.amqp_connection import AmqpConnection, BrokerLost, connection_parameters
from lambda_protocol.amqp_frames import Delivery
from lambda_protocol.amqp_refusals import Permissions, Refusals, exactly
from lambda_protocol.environ import BrokerAddress, WrongValue
from lambda_protocol.function_url import decode_announcement
from lambda_protocol.queues import ANNOUNCEMENTS, subscribe_to_announcements
from lambda_server.urls.sources import AnnouncedUrls

logger = logging.getLogger(__name__)

#: How long until it is tried again to listen, seconds.
RETRY_S: Final = 5.0
#: How long news are waited for at a time, seconds; heartbeats are timers, and end the wait.
_POLL_S: Final = 60.0
#: RabbitMQ's own names of queues that a client leaves it to name.
_OWN_QUEUES: Final = "amq.gen*"
#: What the server's user has to be granted, with function URLs.
PERMISSIONS: Final = Permissions(
    configure=exactly(_OWN_QUEUES, ANNOUNCEMENTS),
    write=exactly("amq.default", _OWN_QUEUES),
    read=exactly(_OWN_QUEUES, ANNOUNCEMENTS),
)


class Announcements:
    """Listens, and tells :class:`AnnouncedUrls`. Thread-safe: :meth:`listen`."""

    def __init__(self, address: BrokerAddress, *, connect_timeout_s: float) -> None:
        """Connect nowhere yet; raises ``ConfigError`` for a wrong URI."""
        self._parameters = connection_parameters(address, name="lambda-server urls")
        self._parameters.socket_timeout = connect_timeout_s
        self._refusals = Refusals(address=address, needs=PERMISSIONS)
        self._lock = threading.Lock()
        self._pid = 0  # guarded by _lock: of the process that has the thread
        self._last_fault = ""  # the thread's

    def listen(self, known: AnnouncedUrls) -> None:
        """Have ``known`` told from now on. Idempotent, also in a process that was forked."""
        if self._pid == os.getpid():
            return
        with self._lock:
            if self._pid == os.getpid():
                return
            thread = threading.Thread(
                target=self._run, args=(known,), name="url-announcements", daemon=True
            )
            try:
                thread.start()
            except RuntimeError as error:
                logger.warning("function URLs are not known", extra={"error": str(error)})
                return
            self._pid = os.getpid()

    # --- the thread

    def _run(self, known: AnnouncedUrls) -> None:
        while True:
            try:
                self._serve(known)
            except BrokerLost as error:
                self._log(error)
            except Exception:
                logger.exception("function URLs are not known; trying again")
            known.on_deaf()
            time.sleep(RETRY_S)

    def _serve(self, known: AnnouncedUrls) -> None:
        """Listen until the connection is lost."""

        def on_delivery(delivery: Delivery) -> None:
            try:
                known.take(decode_announcement(delivery.body))
            except WrongValue as error:
                logger.debug("no announcement", extra={"error": str(error)})

        connection = AmqpConnection(self._parameters, on_delivery)
        try:
            channel = connection.open_channel()
            queue = subscribe_to_announcements(connection, channel)
            connection.consume(channel, queue, auto_ack=True)
            known.on_listening()
            self._last_fault = ""
            while channel.is_open:
                connection.poll(_POLL_S)
        finally:
            connection.shut_down()

    def _log(self, error: Exception) -> None:
        """Log why function URLs are not known, unless it is the same as the last time."""
        told = self._refusals.explain(error)
        if str(told) != self._last_fault:
            self._last_fault = str(told)
            logger.info("function URLs are not known; trying again", extra=told)
