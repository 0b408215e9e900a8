"""One subscriber of telemetry: what waits for it, and the thread that delivers.

Source: Lambda developer guide, "Lambda Telemetry API", "Configuring memory usage and buffering"
and "Specifying a destination protocol".
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from rapid.telemetry.records import TelemetryRecord, logs_dropped
from rapid.telemetry.schema import render
from rapid.telemetry.subscription import Subscription

logger = logging.getLogger(__name__)

#: How long one delivery may take, seconds.
ATTEMPT_LIMIT_S: Final = 5.0
#: One that has not taken a batch for so long is not waited for at a shutdown, seconds.
STUCK_AFTER_S: Final = 0.3
#: The pause after a first failed delivery, doubled after each further one up to the last, seconds.
_FIRST_PAUSE_S: Final = 0.05
_LONGEST_PAUSE_S: Final = 1.0


#: Gets what ended a delivering thread, in that thread.
OnError = Callable[[Exception], None]


class RecordBuffer:
    """Records in order, within bounds: the oldest are dropped. Guarded by its owner's lock."""

    def __init__(self, max_items: int, max_bytes: int) -> None:
        """Hold nothing; ``max_bytes`` is compared with the events' weights."""
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._records: deque[TelemetryRecord] = deque()
        self._bytes = 0
        self.dropped_records = 0  #: since they were last told of
        self.dropped_bytes = 0

    def __len__(self) -> int:
        """Return how many events wait."""
        return len(self._records)

    @property
    def is_full(self) -> bool:
        """Whether a batch is due."""
        return len(self._records) >= self._max_items or self._bytes >= self._max_bytes

    def add(self, record: TelemetryRecord) -> None:
        """Take ``event``; the oldest go if it is one too many."""
        self._records.append(record)
        self._bytes += record.weight
        while len(self._records) > self._max_items or (
            self._bytes > 2 * self._max_bytes and len(self._records) > 1
        ):
            dropped = self._records.popleft()
            self._bytes -= dropped.weight
            self.dropped_records += 1
            self.dropped_bytes += dropped.weight

    def take(self) -> list[TelemetryRecord]:
        """Return all there is, after a note of what is missing from before it."""
        batch = list(self._records)
        self._records.clear()
        self._bytes = 0
        if self.dropped_records:
            at = batch[0].at if batch else time.time()
            batch.insert(0, logs_dropped(self.dropped_records, self.dropped_bytes, at=at))
            self.dropped_records = self.dropped_bytes = 0
        return batch

    def copy_to(self, other: RecordBuffer, wanted: Callable[[TelemetryRecord], bool]) -> None:
        """Give ``other`` the events it wants, and what is known to be missing."""
        other.dropped_records += self.dropped_records
        other.dropped_bytes += self.dropped_bytes
        for record in self._records:
            if wanted(record):
                other.add(record)


class Subscriber:
    """A bounded buffer and one thread, ``telemetry-NAME``, that empties it. Thread-safe.

    Its buffer is guarded by a lock that it shares with the other subscribers, so that adding an
    event for all of them is one step; it delivers without that lock. A batch that is not taken is
    sent again, and nothing after it before.
    """

    def __init__(
        self,
        name: str,
        subscription: Subscription,
        lock: threading.Lock,
        *,
        logs_json: bool,
        on_error: OnError,
    ) -> None:
        """Deliver nothing before :meth:`start`."""
        from rapid.telemetry.transport import open_transport  # HTTP: a tenth of the start time

        self.name = name
        self.subscription = subscription
        self._logs_json = logs_json
        self._on_error = on_error
        self._changed = threading.Condition(lock)
        # guarded by lock:
        self.buffer = RecordBuffer(subscription.max_items, subscription.max_bytes)
        self._delivering_since: float | None = None  # monotonic seconds
        self._is_failing = False  # the last attempt was not taken
        self._is_hurried = False  # what is there goes at once
        self._is_stopping = False
        # only the thread's:
        self._transport = open_transport(subscription.endpoint)
        self._thread = threading.Thread(target=self._run, name=f"telemetry-{name}", daemon=True)

    def start(self) -> None:
        """Deliver from now on."""
        self._thread.start()

    def wants(self, record: TelemetryRecord) -> bool:
        """Whether it asked for events of this kind."""
        return record.stream in self.subscription.types

    def add_locked(self, record: TelemetryRecord) -> None:
        """Take an event it wants; never blocks."""
        buffer = self.buffer
        buffer.add(record)
        if len(buffer) == 1 or buffer.is_full:  # else it waits for the batch's time
            self._changed.notify_all()

    def flush(self, limit_s: float) -> None:
        """Wait until all records are delivered. A subscriber that takes none is not waited for."""
        with self._changed:
            self._is_hurried = True
            self._changed.notify_all()
            if not self._is_stuck():
                self._changed.wait_for(lambda: self._is_failing or self._is_done(), limit_s)
            self._is_hurried = False

    def stop(self, limit_s: float) -> None:
        """Deliver what is left if it is taken at once, and end the thread. Idempotent."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(limit_s)

    def _run(self) -> None:
        try:
            while (batch := self._next_batch()) is not None:
                self._deliver(self._rendered(batch))
        except Exception as error:
            with self._changed:
                self._is_failing = True  # so that no flush waits for it
                self._changed.notify_all()
            self._on_error(error)
        finally:
            self._transport.close()

    def _next_batch(self) -> list[TelemetryRecord] | None:
        """Wait until a batch is due and return it; None when there is no more to come."""
        with self._changed:
            self._delivering_since = None
            self._changed.notify_all()
            while not len(self.buffer):
                if self._is_stopping:
                    return None
                self._changed.wait(_LONGEST_WAIT_S)
            self._changed.wait_for(
                lambda: self.buffer.is_full or self._is_hurried or self._is_stopping,
                self.subscription.timeout_s,
            )
            self._delivering_since = time.monotonic()
            return self.buffer.take()

    def _is_done(self) -> bool:
        return not len(self.buffer) and self._delivering_since is None

    def _is_stuck(self) -> bool:
        since = self._delivering_since
        return since is not None and time.monotonic() - since > STUCK_AFTER_S

    def _rendered(self, batch: list[TelemetryRecord]) -> list[bytes]:
        schema = self.subscription.schema
        lines: list[bytes] = []
        for number, record in enumerate(batch):
            if self.wants(record):  # what was dropped is told to those who want platform events
                lines += render(record, schema, logs_json=self._logs_json)
            if number % _YIELD_EVERY == 0:
                time.sleep(0)  # a call that wants the interpreter comes first
        return lines

    def _deliver(self, records: list[bytes]) -> None:
        pause_s = _FIRST_PAUSE_S
        while records:
            try:
                self._transport.send(records, ATTEMPT_LIMIT_S)
            except OSError as error:
                logger.debug(
                    "telemetry not taken", extra={"subscriber": self.name, "error": str(error)}
                )
                self._transport.close()
            else:
                break
            with self._changed:
                self._is_failing = True
                self._changed.notify_all()
                if self._changed.wait_for(lambda: self._is_stopping, pause_s):
                    return
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        with self._changed:
            self._is_failing = False


#: So many events are rendered in one go.
_YIELD_EVERY: Final = 16
#: A wait for the first event that ends without one goes on, seconds.
_LONGEST_WAIT_S: Final = 3600.0
