"""The server's way to the broker: opened on use, kept alive, dropped after a fault."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Final

from lambda_protocol.amqp_connection import (
    BrokerLost,
    ClosedByBroker,
    broker_blocked,
    connection_parameters,
)
from lambda_protocol.amqp_refusals import Permissions, Refusals, exactly
from lambda_protocol.amqp_stream import NotSentError
from lambda_protocol.environ import BrokerAddress
from lambda_protocol.errors import LambdaApiError, ServiceException, ServiceUnavailable
from lambda_protocol.poller import Poller
from lambda_server.aside import Aside
from lambda_server.clients import KEEP_ALIVE_S, Clients, OwnClients, SharedClients
from lambda_server.link import OwnLink, SharedLink
from lambda_server.metrics import set_broker_blocked
from lambda_server.polled_link import PolledLink
from lambda_server.rpc_client import RpcClient

logger = logging.getLogger(__name__)

#: How long after a failure the broker is tried again while the server starts, seconds.
RETRY_S: Final = 2.0
#: What the server's user has to be granted: it publishes, and replies need no permission.
PERMISSIONS: Final = Permissions(write=exactly("amq.default"))


class Broker:
    """One client a thread. Thread-safe: each gets its own.

    The thread ``broker-keeper`` looks after idle connections, so that the broker does not take them
    for dead.
    """

    def __init__(
        self,
        address: BrokerAddress,
        *,
        queue_timeout_s: float,
        connect_timeout_s: float,
        is_shared: bool = True,
    ) -> None:
        """Connect nowhere yet; raises ``ConfigError`` for a wrong URI.

        If ``is_shared``, all threads use one connection, else each has its own.
        """
        self._address = address
        self._parameters = connection_parameters(address, name="lambda-server")
        self._parameters.socket_timeout = connect_timeout_s
        self._clients: Clients
        if is_shared:
            self._clients = SharedClients(self._connect_shared, queue_timeout_s=queue_timeout_s)
        else:
            self._clients = OwnClients(self._connect_own, queue_timeout_s=queue_timeout_s)
        #: For messages to addresses that may be gone.
        self.aside = Aside(lambda: SharedLink(self._parameters))
        self._lock = threading.Lock()
        self._keeper: threading.Thread | None = None  # guarded by _lock
        self._alarm: str | None = None  # guarded by _lock: why RabbitMQ reads nothing now
        self._last_try = ""  # guarded by _lock: what became of opening a connection
        self._refusals = Refusals(address=address, needs=PERMISSIONS)

    def announce(self) -> None:
        """Log in a thread of its own that the broker is reached, or is not yet and then is."""
        try:
            threading.Thread(target=self._announce, name="broker-announce", daemon=True).start()
        except RuntimeError as error:
            logger.warning(
                "the broker is not looked for before a call", extra={"error": str(error)}
            )

    @contextlib.contextmanager
    def client(self) -> Iterator[RpcClient]:
        """Lend this thread's client; raises ``ServiceException`` when the broker is away.

        A connection that is lost in use is dropped, and the call with it, which may have run;
        ``NotSentError`` comes through, since that call has not. So is one that RabbitMQ stops to
        read: after the alarm a rapid finds the reply address gone, and does not start the call.
        """
        self._start_keeper()
        with contextlib.ExitStack() as stack:
            try:
                lent = stack.enter_context(self._clients.lend())
            except BrokerLost as error:
                raise self._not_reached(error) from error
            except RuntimeError as error:  # for the reader of a shared connection
                raise ServiceUnavailable("No thread can be started; try again.") from error
            link = lent.client.link
            if link.blocked_reason is not None:
                raise broker_blocked(link.blocked_reason)
            try:
                if self.has_alarm:  # RabbitMQ has yet to tell this connection, when it publishes
                    lent.client.require_reading()
                yield lent.client
            except NotSentError:
                lent.drop()
                raise
            except LambdaApiError:
                if link.blocked_reason is not None:
                    lent.drop()
                raise
            except BrokerLost as error:
                reason = link.blocked_reason
                lent.drop()
                if reason is not None:  # what was asked for before anything is sent has no answer
                    raise broker_blocked(reason) from error
                self._log_lost(error)
                raise ServiceException("The connection to the broker was lost.") from error

    @property
    def has_alarm(self) -> bool:
        """Whether RabbitMQ reads nothing, as far as one of the connections was told."""
        return self._alarm is not None

    def missing(self) -> str | None:
        """Return why this thread cannot use the broker now, or None."""
        try:
            with self.client() as client:
                client.require_reading()
                return None
        except ServiceException as error:
            return error.message

    def _start_keeper(self) -> None:
        if self._keeper is not None:
            return
        with self._lock:
            if self._keeper is None:
                keeper = threading.Thread(
                    target=self._keep_alive, name="broker-keeper", daemon=True
                )
                _start(keeper)
                self._keeper = keeper

    def connect_polled(self, poller: Poller) -> PolledLink:
        """Return a link for calls that no thread waits for; raises ``ServiceException``."""
        self._start_keeper()
        try:
            link = PolledLink(
                self._parameters,
                poller,
                on_alarm=self._on_alarm,
                on_lost=self._log_lost,
                unreachable_of=self._unreachable_of,
            )
        except BrokerLost as error:
            raise self._not_reached(error) from error
        self._log_change(logging.INFO, "broker reached")
        return link

    def _unreachable_of(self, queues: Sequence[str]) -> list[str]:
        """Return those of ``queues`` that are known to be on a node that is down."""
        try:
            with self.client() as client:
                return [queue for queue in queues if client.queues.is_unreachable(queue)]
        except (LambdaApiError, NotSentError):
            return []

    def _log_lost(self, error: Exception) -> None:
        logger.warning("broker lost during a call", extra=self._refusals.explain(error))

    def _connect_shared(self) -> SharedLink:
        link = SharedLink(self._parameters, on_alarm=self._on_alarm)
        self._log_change(logging.INFO, "broker reached")
        return link

    def _connect_own(self) -> OwnLink:
        link = OwnLink(self._parameters, on_alarm=self._on_alarm)
        self._log_change(logging.INFO, "broker reached")
        return link

    def _not_reached(self, error: Exception) -> ServiceException:
        """Log why there is no connection, and return the caller's error."""
        told = self._refusals.explain(error)
        if isinstance(error, ClosedByBroker):
            self._log_change(logging.ERROR, "RabbitMQ refuses what the server wants", **told)
            return ServiceException(f"RabbitMQ refuses: {error.reply_text}")
        self._log_change(logging.WARNING, "broker not reached", **told)
        return ServiceException("The broker is not reachable.")

    def _on_alarm(self, reason: str | None) -> None:
        """Log and count that RabbitMQ reads nothing now, for this reason, or that it reads."""
        with self._lock:
            last, self._alarm = self._alarm, reason
        if (last is None) == (reason is None):
            return
        set_broker_blocked(reason is not None)
        if reason is None:
            logger.info("RabbitMQ takes messages again", extra={"broker": self._address})
        else:
            told = {"broker": self._address, "broker_says": reason}
            logger.warning("RabbitMQ takes no messages", extra=told)

    def _announce(self) -> None:
        while self.missing() is not None:
            time.sleep(RETRY_S)

    def _log_change(self, level: int, message: str, **data: object) -> None:
        """Log what became of opening a connection, unless it is the same as the last time."""
        with self._lock:
            last, self._last_try = self._last_try, f"{message} {data}"
            if last == self._last_try:
                return
        logger.log(level, message, extra={"broker": self._address, **data})

    def _keep_alive(self) -> None:
        tick = threading.Event()
        while not tick.wait(KEEP_ALIVE_S):
            self._clients.look_after()
            if self._alarm is not None:
                self.missing()  # no connection may be left that hears of the alarm's end


def _start(thread: threading.Thread) -> None:
    try:
        thread.start()
    except RuntimeError as error:
        raise ServiceUnavailable("No thread can be started; try again.") from error
