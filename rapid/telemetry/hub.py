"""The telemetry of one environment: its subscribers, and early records for later subscribers."""

from __future__ import annotations

import threading
import time
from typing import Final

from rapid.telemetry.records import TelemetryRecord
from rapid.telemetry.subscriber import OnError, RecordBuffer, Subscriber
from rapid.telemetry.subscription import Subscription

#: What one can subscribe to.
STREAMS: Final = ("platform", "function", "extension")
#: Kept until an extension subscribes, as much as the largest subscriber would keep.
_EARLY_ITEMS: Final = 10_000
_EARLY_BYTES: Final = 1_048_576


class Telemetry:
    """The subscribers, which get all records in the same order. Thread-safe.

    Publishing never blocks: it adds to buffers, which threads of the subscribers empty. The lock
    may be taken under any other lock. No lock is taken under it.
    """

    def __init__(self, *, logs_json: bool, on_error: OnError) -> None:
        """Take subscriptions; ``logs_json`` is the function's log format."""
        self._logs_json = logs_json
        self._on_error = on_error
        self.streams = frozenset(STREAMS)  #: what anybody wants, or may yet ask for
        self._lock = threading.Lock()
        # guarded by _lock:
        self._early: RecordBuffer | None = RecordBuffer(_EARLY_ITEMS, _EARLY_BYTES)
        self._subscribers: dict[str, Subscriber] = {}  # by the extension's id

    @property
    def is_open(self) -> bool:
        """Whether subscriptions are taken."""
        return self._early is not None

    @property
    def has_subscribers(self) -> bool:
        """Whether there are subscribers."""
        return bool(self._subscribers)

    def subscription_of(self, extension_id: str) -> Subscription | None:
        """Return what an extension has subscribed to."""
        with self._lock:
            subscriber = self._subscribers.get(extension_id)
            return None if subscriber is None else subscriber.subscription

    def publish(self, record: TelemetryRecord) -> None:
        """Tell everyone who wants it, and while more may come keep it for them."""
        with self._lock:
            if self._early is not None:
                self._early.add(record)
            for subscriber in self._subscribers.values():
                if subscriber.wants(record):
                    subscriber.add_locked(record)

    def subscribe(self, extension_id: str, name: str, subscription: Subscription) -> bool:
        """Begin a subscription, or replace the extension's earlier one; False when it is too late.

        It starts with the events that came before it.
        """
        subscriber = Subscriber(
            name, subscription, self._lock, logs_json=self._logs_json, on_error=self._on_error
        )
        with self._lock:
            if self._early is None:
                return False
            self._early.copy_to(subscriber.buffer, subscriber.wants)
            replaced = self._subscribers.get(extension_id)
            self._subscribers[extension_id] = subscriber
            if replaced is not None:
                replaced.buffer.take()  # the new one has it all
        subscriber.start()
        if replaced is not None:
            replaced.stop(0)
        return True

    def close_subscription(self) -> bool:
        """Refuse subscriptions, forget early records; return whether there are subscribers."""
        with self._lock:
            self._early = None
            wanted = [each.subscription.types for each in self._subscribers.values()]
            self.streams = frozenset().union(*wanted)
            return bool(self._subscribers)

    def flush(self, limit_s: float) -> None:
        """Have everything delivered now, to those who take it."""
        deadline = time.monotonic() + limit_s
        for subscriber in self._all():
            subscriber.flush(max(0.0, deadline - time.monotonic()))

    def stop(self, limit_s: float) -> None:
        """End every subscription. Idempotent."""
        self.close_subscription()
        subscribers = self._all()
        for subscriber in subscribers:
            subscriber.stop(0)
        deadline = time.monotonic() + limit_s
        for subscriber in subscribers:
            subscriber.stop(max(0.0, deadline - time.monotonic()))

    def _all(self) -> list[Subscriber]:
        with self._lock:
            return list(self._subscribers.values())
