"""When a call from the queue was sent at the earliest, without comparing two clocks.

A caller that answers the frame ``wanted`` sends the time on a clock of its own with each call. The
difference to our clock means nothing by itself. Between two calls of one reply address it differs
only by how long the two were on their way, so the smallest difference stands for no wait at all.
An answer to ``wanted`` has just been sent: its difference replaces the smallest one. The first call
of an address could have waited for any time.

Of any other caller only this is known: RabbitMQ sends a message at once while the prefetch allows
it. So the queue was empty when nothing came for a while, and what comes later was sent later.

The price: the first call of a server's connection is confirmed, though it was sent just now. So
are calls of other callers while their queue is never empty for a quarter of a second.
"""

from __future__ import annotations

import threading
import time
from typing import Final

from lambda_protocol.invoke_amqp import IncomingCall

#: A queue is taken for empty when RabbitMQ could send a message and has not for this long, seconds.
QUIET_S: Final = 0.25
#: Reply addresses that are remembered.
_ADDRESSES: Final = 4096

_LONG_AGO: Final = float("-inf")


class Arrivals:
    """What is known of the way of calls through the queue. Thread-safe."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self._lock = threading.Lock()
        # guarded by _lock:
        self._least: dict[str, float] = {}  # by reply address: our clock less its, seconds
        self._was_empty_at = _LONG_AGO

    def sent_at(self, call: IncomingCall, quiet_s: float) -> float:
        """Return when ``call``, which comes now, was sent at the earliest, monotonic seconds.

        ``quiet_s`` is for how long RabbitMQ could have sent another message before it.
        """
        now = time.monotonic()
        with self._lock:
            if quiet_s >= QUIET_S:
                self._was_empty_at = now
            if call.sent_s is None or call.reply_to is None:
                return self._was_empty_at
            difference = now - call.sent_s
            least = self._least.get(call.reply_to)
            if least is None:
                return _LONG_AGO
            if difference < least:
                self._least[call.reply_to] = least = difference
            return now - (difference - least)

    def learn(self, call: IncomingCall, sent_s: float | None) -> None:
        """Note that the caller sent a message now, at ``sent_s`` on its clock.

        None: the caller has not answered. Its call counts as sent now.
        """
        if call.reply_to is None or call.sent_s is None:
            return
        with self._lock:
            if sent_s is not None:
                self._least[call.reply_to] = time.monotonic() - sent_s
            else:
                self._least.setdefault(call.reply_to, time.monotonic() - call.sent_s)
            if len(self._least) > _ADDRESSES:
                del self._least[next(iter(self._least))]
