"""What the autoscalers can see of a queue, and how old it is."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

#: How often a queue of RabbitMQ publishes its counts (collect_statistics_interval), seconds.
STATISTICS_PERIOD_S = 5.0
#: scrape_interval of our Prometheus, seconds. prometheus-adapter adds nothing to it: it asks
#: Prometheus at each request, and its relist interval is about names of metrics.
SCRAPE_PERIOD_S = 5.0


class Source(StrEnum):
    """Where a count comes from."""

    AMQP = "amqp"  #: a passive declare: ready messages, as of now
    MANAGEMENT = "http"  #: ready and unacknowledged, as of the last statistics
    PROMETHEUS = "prometheus"  #: the same, as of the last scrape


@dataclass(slots=True)
class QueueMetrics:
    """The counts of one queue as each source tells them."""

    ready: int = 0
    unacknowledged: int = 0
    _statistics: int = 0
    _scraped: int = 0

    def publish_statistics(self) -> None:
        """RabbitMQ refreshes what its management API and its metrics show."""
        self._statistics = self.ready + self.unacknowledged

    def scrape(self) -> None:
        """Prometheus fetches what RabbitMQ shows."""
        self._scraped = self._statistics

    @property
    def shows_work(self) -> bool:
        """Whether any number, old ones too, is above zero."""
        return any(self.read(source) > 0 for source in Source)

    def read(self, source: Source) -> int:
        """Return what an autoscaler is told."""
        match source:
            case Source.AMQP:
                return self.ready
            case Source.MANAGEMENT:
                return self._statistics
            case Source.PROMETHEUS:
                return self._scraped
