"""RabbitMQ's memory or disk alarm: while it lasts, RabbitMQ reads nothing.

Messages still come, but neither a reply nor an acknowledgement would leave.
Source: RabbitMQ documentation, "Memory and Disk Alarms".
"""

from __future__ import annotations

import logging
import time
from typing import Final

from rapid.metrics import Metrics

logger = logging.getLogger(__name__)

#: After an alarm RabbitMQ reads what waited in its sockets: calls first, and then that their
#: callers have hung up. Callers are asked for only after this, seconds.
SETTLE_S: Final = 0.5
#: How often RabbitMQ is asked whether it has an alarm, seconds.
PROBE_S: Final = 5.0
#: How often a consumer looks after what it has while there is an alarm, seconds.
ALARM_POLL_S: Final = 0.5


class Alarm:
    """Whether there is an alarm. One thread: amqp-consumer."""

    def __init__(self, metrics: Metrics) -> None:
        """Know of none."""
        self.reason: str | None = None  #: RabbitMQ's own words while there is one
        self._metrics = metrics
        self._since = 0.0
        self._ended_at = float("-inf")

    @property
    def holds_calls(self) -> bool:
        """Whether calls wait: there is an alarm, or there was one just now."""
        return self.reason is not None or time.monotonic() - self._ended_at < SETTLE_S

    @property
    def age_s(self) -> float:
        """For how long there has been an alarm."""
        return time.monotonic() - self._since

    def follow(self, reason: str | None) -> bool:
        """Note why RabbitMQ reads nothing now, or that it reads; return whether it has an alarm."""
        if (reason is None) != (self.reason is None):
            if reason is not None:
                self._since = time.monotonic()
                logger.warning("RabbitMQ takes no messages", extra={"broker_says": reason})
            else:
                self._ended_at = time.monotonic()
                logger.info("RabbitMQ takes messages again", extra={"after_s": round(self.age_s)})
            self._metrics.on_broker_blocked(reason is not None)
        self.reason = reason
        return reason is not None

    def forget(self) -> None:
        """Forget an alarm with the connection that told of it."""
        self.reason = None
        self._metrics.on_broker_blocked(False)
