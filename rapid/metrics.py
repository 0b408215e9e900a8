"""The metrics of one function: plain numbers, rendered at each scrape.

prometheus_client is imported on the first scrape: it is a tenth of rapid's memory.
"""

from __future__ import annotations

import bisect
import itertools
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from lambda_protocol.errors import LambdaApiError, TooManyRequestsException

if TYPE_CHECKING:
    from prometheus_client.core import Metric

#: Upper bounds of the histograms' buckets, seconds.
BUCKETS_S: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
    1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0,
)  # fmt: skip
#: The same for the age of events, which may wait for hours.
EVENT_AGE_BUCKETS_S: Final = (
    0.01, 0.1, 1.0, 10.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 10_800.0, 21_600.0,
)  # fmt: skip
#: What became of an invocation: the values of the label ``outcome``.
OUTCOMES: Final = (
    "success", "error", "failure", "timeout", "throttled", "refused", "abandoned",
)  # fmt: skip
#: Counters of one number, in the order in which they are rendered.
COUNTERS: Final = {
    "lambda_cold_starts": "First invocations of an environment.",
    "lambda_timeouts": "Invocations that timed out.",
    "lambda_throttles": "Invocations refused as too many.",
    "lambda_async_events_received": "Events that came for their first attempt.",
    "lambda_async_event_retries": "Attempts of events that were put off to later.",
    "lambda_dead_letters": "Events that went to the dead letters.",
    "lambda_streamed_response_bytes": "Bytes of responses passed on while they were written.",
    "lambda_destination_delivery_failures": (
        "Records that could not be delivered to their destination."
    ),
}


class Histogram:
    """Counts by bucket. Guarded by its owner's lock."""

    def __init__(self, bounds: Sequence[float] = BUCKETS_S) -> None:
        """``bounds`` are ascending; a last bucket takes what is over them."""
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self._counts[bisect.bisect_left(self._bounds, value)] += 1
        self.sum += value

    def buckets(self) -> list[tuple[str, float]]:
        """Return ``(upper bound, cumulated count)`` as Prometheus has them."""
        names = [*(str(bound) for bound in self._bounds), "+Inf"]
        return list(zip(names, map(float, itertools.accumulate(self._counts)), strict=True))


class Metrics:
    """What rapid counts. Thread-safe."""

    def __init__(self, function_name: str, running: Callable[[], int] = lambda: 0) -> None:
        """``running`` tells how many invocations run now."""
        self._function_name = function_name
        self.running = running
        self._is_broker_blocked = False
        self._lock = threading.Lock()
        # guarded by _lock:
        self._outcomes = dict.fromkeys(OUTCOMES, 0)
        self._counts = dict.fromkeys(COUNTERS, 0)
        self._duration = Histogram()
        self._init = Histogram()
        self._wait = Histogram()
        self._first_byte = Histogram()
        self._event_age = Histogram(EVENT_AGE_BUCKETS_S)
        self._events_dropped: Counter[str] = Counter()

    def on_started(self, waited_s: float, *, is_cold: bool) -> None:
        """A call was handed to a runtime."""
        with self._lock:
            self._wait.observe(waited_s)
            self._counts["lambda_cold_starts"] += is_cold

    def on_finished(self, outcome: str, duration_s: float) -> None:
        """A call that was handed to a runtime has its outcome."""
        with self._lock:
            self._outcomes[outcome] += 1
            self._duration.observe(duration_s)

    def on_streamed(self, first_byte_s: float, count: int) -> None:
        """A runtime has passed on ``count`` bytes, the first so long after the call's start."""
        with self._lock:
            self._first_byte.observe(first_byte_s)
            self._counts["lambda_streamed_response_bytes"] += count

    def on_refused(self, error: LambdaApiError) -> None:
        """A call was refused before any runtime had it."""
        outcome = "throttled" if isinstance(error, TooManyRequestsException) else "refused"
        with self._lock:
            self._outcomes[outcome] += 1

    def on_abandoned(self) -> None:
        """A call was dropped before its start: its caller was gone."""
        with self._lock:
            self._outcomes["abandoned"] += 1

    def on_async_received(self) -> None:
        """An event has come for its first attempt."""
        with self._lock:
            self._counts["lambda_async_events_received"] += 1

    def on_async_age(self, age_s: float) -> None:
        """An event is handed to the scheduler, so long after it was accepted."""
        with self._lock:
            self._event_age.observe(age_s)

    def on_async_retried(self) -> None:
        """An event will be tried again."""
        with self._lock:
            self._counts["lambda_async_event_retries"] += 1

    def on_async_discarded(self, condition: str) -> None:
        """An asynchronous invocation is discarded, for the reason in its record."""
        with self._lock:
            self._events_dropped[condition] += 1

    def on_dead_letter(self) -> None:
        """An event goes to the dead letters."""
        with self._lock:
            self._counts["lambda_dead_letters"] += 1

    def on_destination_failed(self) -> None:
        """A record could not be delivered to its destination."""
        with self._lock:
            self._counts["lambda_destination_delivery_failures"] += 1

    def on_init(self, init_s: float) -> None:
        """An init phase has succeeded."""
        with self._lock:
            self._init.observe(init_s)

    def on_broker_blocked(self, is_blocked: bool) -> None:
        """RabbitMQ has an alarm and reads nothing, or does so no longer."""
        self._is_broker_blocked = is_blocked

    def render(self) -> tuple[str, bytes]:
        """Return content type and text of the Prometheus exposition."""
        from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

        registry = CollectorRegistry()
        registry.register(self)
        return CONTENT_TYPE_LATEST, generate_latest(registry)

    def collect(self) -> Iterator[Metric]:
        """Yield every metric, as a Prometheus collector does."""
        with self._lock:
            families = [*self._counters_locked(), *self._histograms_locked()]
        yield from families
        yield from self._gauges()

    def _counters_locked(self) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily

        by_outcome = CounterMetricFamily(
            "lambda_invocations",
            "Invocations by what became of them.",
            labels=["function_name", "outcome"],
        )
        for outcome, count in self._outcomes.items():
            by_outcome.add_metric([self._function_name, outcome], count)
        by_reason = CounterMetricFamily(
            "lambda_async_events_dropped",
            "Events that were given up, by reason.",
            labels=["function_name", "reason"],
        )
        for reason, count in self._events_dropped.items():
            by_reason.add_metric([self._function_name, reason], count)
        yield by_outcome
        yield by_reason
        counts = {
            **self._counts,
            # Counted by their outcome.
            "lambda_timeouts": self._outcomes["timeout"],
            "lambda_throttles": self._outcomes["throttled"],
        }
        for name, text in COUNTERS.items():
            counter = CounterMetricFamily(name, text, labels=["function_name"])
            counter.add_metric([self._function_name], counts[name])
            yield counter

    def _histograms_locked(self) -> Iterator[Metric]:
        from prometheus_client.core import HistogramMetricFamily

        for name, text, histogram in (
            (
                "lambda_duration_seconds",
                "From the event's delivery to its outcome.",
                self._duration,
            ),
            ("lambda_init_duration_seconds", "Init phases that succeeded.", self._init),
            (
                "lambda_first_byte_seconds",
                "From the event's delivery to the first byte of a streamed response.",
                self._first_byte,
            ),
            ("lambda_queue_wait_seconds", "From arrival to the event's delivery.", self._wait),
            (
                "lambda_async_event_age_seconds",
                "From an event's acceptance to its attempt.",
                self._event_age,
            ),
        ):
            family = HistogramMetricFamily(name, text, labels=["function_name"])
            family.add_metric([self._function_name], histogram.buckets(), histogram.sum)
            yield family

    def _gauges(self) -> Iterator[Metric]:
        from prometheus_client.core import GaugeMetricFamily

        for name, text, value in (
            ("lambda_concurrent_executions", "Invocations that run now.", self.running()),
            (
                "lambda_broker_blocked",
                "1 while RabbitMQ has an alarm and takes no messages.",
                float(self._is_broker_blocked),
            ),
        ):
            family = GaugeMetricFamily(name, text, labels=["function_name"])
            family.add_metric([self._function_name], value)
            yield family
