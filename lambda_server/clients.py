"""The RPC client of each thread: with a connection of its own, or one that all threads share."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Protocol

from lambda_protocol.amqp_connection import BrokerLost
from lambda_server.link import Link, OwnLink, SharedLink
from lambda_server.queue_state import QueueStates
from lambda_server.rpc_client import RpcClient

#: How often idle connections are looked after, seconds: below any sensible heartbeat.
KEEP_ALIVE_S: Final = 5.0
#: An unused connection is closed after this, seconds.
IDLE_LIMIT_S: Final = 300.0


@dataclass(frozen=True, slots=True)
class Lent:
    """A client, for as long as a thread uses it."""

    client: RpcClient
    drop: Callable[[], None]  #: closes its connection, which is of no further use


class Clients(Protocol):
    """Lends each thread a client. Thread-safe."""

    def lend(self) -> contextlib.AbstractContextManager[Lent]:
        """Lend this thread's client; raises one of ``BrokerLost`` if there is no connection."""

    def look_after(self) -> None:
        """Keep what is idle alive; called every ``KEEP_ALIVE_S``."""


class SharedClients:
    """One connection for all threads of the process."""

    def __init__(self, connect: Callable[[], SharedLink], *, queue_timeout_s: float) -> None:
        """Connect on use."""
        self._connect = connect
        self._queue_timeout_s = queue_timeout_s
        self._states = QueueStates()
        self._lock = threading.Lock()
        self._first: RpcClient | None = None  # these three are guarded by _lock
        self._failures = 0
        self._failure: Exception | None = None
        self._local = threading.local()

    @contextlib.contextmanager
    def lend(self) -> Iterator[Lent]:
        """Lend this thread's client of the one connection."""
        client = self._client()
        yield Lent(client, lambda: self._drop(client.link))

    def look_after(self) -> None:
        """Have RabbitMQ tell of an alarm; heartbeats are the connection's reader's."""
        first = self._first
        if first is not None and not _is_lost(first) and first.link.blocked_reason is None:
            with contextlib.suppress(*BrokerLost):
                first.link.probe()

    def _client(self) -> RpcClient:
        first = self._first
        client: RpcClient | None = getattr(self._local, "client", None)
        if client is None or first is None or client.link is not first.link or _is_lost(first):
            failures = self._failures
            with self._lock:
                if self._first is None or _is_lost(self._first):
                    self._first = self._open(failures)
                client = self._local.client = self._first.for_another_thread()
        return client

    def _open(self, failures: int) -> RpcClient:
        """Connect, unless another thread has just failed to while this one waited for it."""
        if self._failures != failures:
            assert self._failure is not None
            raise self._failure
        try:
            link = self._connect()
        except BrokerLost as error:
            self._failures += 1
            self._failure = error
            raise
        return RpcClient.over(link, queue_timeout_s=self._queue_timeout_s, states=self._states)

    def _drop(self, link: Link) -> None:
        with self._lock:
            if self._first is not None and self._first.link is link:
                self._first = None
        link.close()


class OwnClients:
    """A connection for each thread."""

    def __init__(self, connect: Callable[[], OwnLink], *, queue_timeout_s: float) -> None:
        """Connect on use."""
        self._connect = connect
        self._queue_timeout_s = queue_timeout_s
        self._states = QueueStates()
        self._local = threading.local()
        self._lock = threading.Lock()
        self._slots: list[_Slot] = []  # guarded by _lock

    @contextlib.contextmanager
    def lend(self) -> Iterator[Lent]:
        """Lend this thread's client. A connection that was lost while idle is replaced first."""
        slot = self._slot()
        with slot.lock:
            if not slot.is_alive():
                slot.open(self._make_client())
            assert slot.client is not None
            yield Lent(slot.client, slot.drop)
            slot.used_at = time.monotonic()

    def look_after(self) -> None:
        """Read heartbeats for threads with nothing to call, and close what is not used."""
        with self._lock:
            self._slots = [slot for slot in self._slots if not slot.is_finished()]
            slots = list(self._slots)
        for slot in slots:
            slot.look_after()

    def _slot(self) -> _Slot:
        slot: _Slot | None = getattr(self._local, "slot", None)
        if slot is None:
            slot = self._local.slot = _Slot(threading.current_thread())
            with self._lock:
                self._slots.append(slot)
        return slot

    def _make_client(self) -> RpcClient:
        link = self._connect()
        return RpcClient.over(link, queue_timeout_s=self._queue_timeout_s, states=self._states)


class _Slot:
    """A thread and its client. The user of the client holds ``lock``."""

    def __init__(self, owner: threading.Thread) -> None:
        self.lock = threading.Lock()
        self.client: RpcClient | None = None  # guarded by lock
        self.used_at = time.monotonic()  # guarded by lock
        self._owner = owner

    def open(self, client: RpcClient) -> None:
        """Use ``client`` from now on; the lock is held."""
        self.client = client

    def is_alive(self) -> bool:
        """Whether there is a connection, which has just been looked at; the lock is held."""
        if self.client is None:
            return False
        try:
            _own(self.client).keep_alive()
            return True
        except BrokerLost:
            self.drop()
            return False

    def drop(self) -> None:
        """Close the connection; the lock is held."""
        client, self.client = self.client, None
        if client is not None:
            client.link.close()

    def is_finished(self) -> bool:
        """Whether the thread is gone and its connection closed."""
        if self._owner.is_alive():
            return False
        with self.lock:
            self.drop()
        return True

    def look_after(self) -> None:
        """Keep an idle connection alive, or close it when it has been idle for long."""
        if not self.lock.acquire(blocking=False):
            return  # in use: its own thread reads
        try:
            if self.client is not None and time.monotonic() - self.used_at > IDLE_LIMIT_S:
                self.drop()
            elif self.is_alive():
                assert self.client is not None
                if self.client.link.blocked_reason is None:
                    self._probe()
        finally:
            self.lock.release()

    def _probe(self) -> None:
        assert self.client is not None
        try:
            self.client.link.probe()
        except BrokerLost:
            self.drop()


def _own(client: RpcClient) -> OwnLink:
    assert isinstance(client.link, OwnLink)
    return client.link


def _is_lost(client: RpcClient) -> bool:
    assert isinstance(client.link, SharedLink)
    return client.link.is_lost
