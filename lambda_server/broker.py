"""This thread's connection to the broker: opened on use, kept alive, dropped after a fault."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator
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
from lambda_server.metrics import set_broker_blocked
from lambda_server.queue_state import QueueStates
from lambda_server.rpc_client import RpcClient

logger = logging.getLogger(__name__)

#: How often idle connections are looked after, seconds: below any sensible heartbeat.
KEEP_ALIVE_S: Final = 5.0
#: How long after a failure the broker is tried again while the server starts, seconds.
RETRY_S: Final = 2.0
#: An unused connection is closed after this, seconds.
IDLE_LIMIT_S: Final = 300.0


#: What the server's user has to be granted: it publishes, and replies need no permission.
PERMISSIONS: Final = Permissions(write=exactly("amq.default"))


class Broker:
    """One client a thread. Thread-safe: each gets its own.

    A keeper thread reads heartbeats for the connections whose threads have nothing to call, so
    that the broker does not take them for dead.
    """

    def __init__(
        self, address: BrokerAddress, *, queue_timeout_s: float, connect_timeout_s: float
    ) -> None:
        """Connect nowhere yet; raises ``ConfigError`` for a wrong URI."""
        self._address = address
        self._parameters = connection_parameters(address, name="lambda-server")
        self._parameters.socket_timeout = connect_timeout_s
        self._queue_timeout_s = queue_timeout_s
        self._queue_states = QueueStates()
        self._local = threading.local()
        self._lock = threading.Lock()
        self._slots: list[_Slot] = []  # guarded by _lock
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
        """Lend this thread's client. Raises ``ServiceException`` if the broker is not reached.

        * If an idle connection was lost, it is replaced before it is lent.
        * If a connection is lost in use, it is dropped, and the call may have run.
          ``NotSentError`` passes through: the call has not run.
        * If RabbitMQ stops reading a connection, the connection is dropped. After the alarm rapid
          finds the reply address gone, and does not start the call.
        """
        slot = self._slot()
        with slot.lock:
            client = self._open(slot)
            if client.blocked_reason is not None:
                raise broker_blocked(client.blocked_reason)
            try:
                yield client
            except NotSentError:
                slot.drop()
                raise
            except LambdaApiError:
                if client.blocked_reason is not None:
                    slot.drop()
                raise
            except BrokerLost as error:
                reason = client.blocked_reason
                slot.drop()
                if reason is not None:  # what was asked for before anything is sent has no answer
                    raise broker_blocked(reason) from error
                logger.warning("broker lost during a call", extra=self._refusals.explain(error))
                raise ServiceException("The connection to the broker was lost.") from error
            slot.used_at = time.monotonic()

    def missing(self) -> str | None:
        """Return why this thread cannot use the broker now, or None."""
        try:
            with self.client() as client:
                client.require_reading()
                return None
        except ServiceException as error:
            return error.message

    def _slot(self) -> _Slot:
        slot: _Slot | None = getattr(self._local, "slot", None)
        if slot is None:
            slot = _Slot(threading.current_thread())
            with self._lock:
                if self._keeper is None:
                    self._keeper = self._start_keeper()
                self._slots.append(slot)
            self._local.slot = slot
        return slot

    def _start_keeper(self) -> threading.Thread:
        keeper = threading.Thread(target=self._keep_alive, name="broker-keeper", daemon=True)
        try:
            keeper.start()
        except RuntimeError as error:
            raise ServiceUnavailable("No thread can be started; try again.") from error
        return keeper

    def _open(self, slot: _Slot) -> RpcClient:
        if slot.client is not None:
            try:
                slot.client.keep_alive()
                return slot.client
            except BrokerLost:
                slot.drop()
        try:
            slot.client = RpcClient(
                self._parameters,
                queue_timeout_s=self._queue_timeout_s,
                queue_states=self._queue_states,
                on_alarm=self._on_alarm,
            )
        except BrokerLost as error:
            told = self._refusals.explain(error)
            if not isinstance(error, ClosedByBroker):
                self._log_change(logging.WARNING, "broker not reached", **told)
                raise ServiceException("The broker is not reachable.") from error
            self._log_change(logging.ERROR, "RabbitMQ refuses what the server wants", **told)
            raise ServiceException(f"RabbitMQ refuses: {error.reply_text}") from error
        self._log_change(logging.INFO, "broker reached")
        return slot.client

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
            with self._lock:
                self._slots = [slot for slot in self._slots if not slot.is_finished()]
                slots = list(self._slots)
            for slot in slots:
                slot.look_after()
            if self._alarm is not None:
                self.missing()  # no connection may be left that hears of the alarm's end


class _Slot:
    """A thread and its client. The user of the client holds ``lock``."""

    def __init__(self, owner: threading.Thread) -> None:
        self.lock = threading.Lock()
        self.client: RpcClient | None = None  # guarded by lock
        self.used_at = time.monotonic()  # guarded by lock
        self._owner = owner

    def drop(self) -> None:
        """Close the client; the lock is held."""
        client, self.client = self.client, None
        if client is not None:
            client.close()

    def is_finished(self) -> bool:
        """Whether the thread is gone and its client closed."""
        if self._owner.is_alive():
            return False
        with self.lock:
            self.drop()
        return True

    def look_after(self) -> None:
        """Keep an idle client's connection alive, or close it when it has been idle for long."""
        if not self.lock.acquire(blocking=False):
            return  # in use: its own thread reads
        try:
            if self.client is None:
                return
            if time.monotonic() - self.used_at > IDLE_LIMIT_S:
                self.drop()
                return
            try:
                self.client.keep_alive()
                if self.client.blocked_reason is None:
                    self.client.probe()
            except BrokerLost:
                self.drop()
        finally:
            self.lock.release()
