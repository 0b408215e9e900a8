"""Runs one alternative against one load: a list of moments, each with what happens then."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Self

from bench.autoscale.alternatives import Alternative, Options
from bench.autoscale.hpa import SYNC_PERIOD_S, HorizontalPodAutoscaler, Reading
from bench.autoscale.keda import Activation
from bench.autoscale.metrics import SCRAPE_PERIOD_S, STATISTICS_PERIOD_S
from bench.autoscale.pods import Pod, Queue

#: (seconds from the start, how many invocations come then)
Arrivals = Sequence[tuple[float, int]]

#: A run that has not come to rest this long after its last invocation never will.
_REST_LIMIT_S = 1000.0
_FINEST_S = 0.05
_FINEST_SHARE = 0.002


@dataclass(frozen=True, slots=True, kw_only=True)
class Phases:
    """Where in its period each loop is as the load begins: its next run is this share away."""

    sync: float = 0.5
    poll: float = 0.5
    statistics: float = 0.5
    scrape: float = 0.25

    @classmethod
    def drawn(cls, source: random.Random) -> Self:
        """Return phases as chance has them."""
        sync, poll, statistics, scrape = (source.random() for _ in range(4))
        return cls(sync=sync, poll=poll, statistics=statistics, scrape=scrape)


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """What could be seen at one time."""

    time: float
    ready: int  #: invocations that wait
    running: int
    pods: int  #: that are ready or stopping
    wanted: int  #: replicas that are asked for


@dataclass(slots=True)
class History:
    """What came of a run; seconds count from its first arrival."""

    moments: list[Moment] = field(default_factory=list)
    waits: list[tuple[float, int]] = field(default_factory=list)  #: (seconds, invocations)
    served: int = 0
    first_start_s: float = 0.0
    last_end_s: float = 0.0
    at_rest_s: float | None = None  #: the replicas are at their least again; None: never
    pod_seconds: float = 0.0

    def wait_s(self, share: float) -> float:
        """Return the waiting time that this share of the invocations did not exceed."""
        waits = sorted(self.waits)
        left = share * self.served
        for wait, number in waits:
            left -= number
            if left <= 0:
                return wait
        return waits[-1][0]

    def share_over(self, limit_s: float) -> float:
        """Return the share of the invocations that waited longer."""
        return sum(number for wait, number in self.waits if wait > limit_s) / self.served

    def pods_reached_s(self, number: int) -> float | None:
        """Return when so many pods were there first."""
        return next((each.time for each in self.moments if each.pods >= number), None)


class Simulation:
    """One run. A million invocations are some 250,000 moments: a pod's invocations go together."""

    def __init__(
        self,
        alternative: Alternative,
        options: Options,
        arrivals: Arrivals,
        phases: Phases | None = None,
    ) -> None:
        self._alternative = alternative
        self._options = options
        self._phases = phases or Phases()
        self._expected = sum(number for _, number in arrivals)
        self._queue = Queue()
        self._pods: list[Pod] = []  # ready or starting, oldest first
        self._stopping = 0
        self._history = History()
        self._now = 0.0
        self._next_sample = 0.0
        self._is_over = False
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._hpa: HorizontalPodAutoscaler | None = None
        self._activation: Activation | None = None
        for time, number in arrivals:
            self._at(time, partial(self._arrive, number))
        self._start_loops()
        for _ in range(alternative.min_replicas):
            self._pods.append(Pod(free=alternative.max_concurrency, created_at=0.0, is_ready=True))

    def run(self) -> History:
        """Let it happen, until everything is done and the pods are back at their least."""
        while not self._is_over:
            time, _, action = heapq.heappop(self._agenda)
            if time > max(self._now, self._next_sample):
                self._sample()  # all of the last moment has happened
            self._now = time
            action()
        self._sample()
        for pod in self._pods:
            self._account(pod)
        return self._history

    # --- what happens

    def _arrive(self, number: int) -> None:
        self._queue.put(self._now, number)
        for pod in self._pods:
            self._take(pod)

    def _take(self, pod: Pod) -> None:
        """Start as much of what waits as the pod has free runtimes for."""
        if not pod.is_ready or pod.is_stopping or not pod.free:
            return
        taken = self._queue.take(pod.free)
        number = sum(each for _, each in taken)
        if not number:
            return
        if not self._history.waits:
            self._history.first_start_s = self._now
        self._history.waits += [(self._now - came_at, each) for came_at, each in taken]
        pod.free -= number
        pod.running += number
        self._at(self._now + self._options.call_s, partial(self._finish, pod, number))

    def _finish(self, pod: Pod, number: int) -> None:
        self._queue.acknowledge(number)
        self._history.served += number
        self._history.last_end_s = self._now
        pod.running -= number
        pod.free += number
        self._take(pod)
        if pod.is_stopping and not pod.running:
            self._end(pod)
        self._check_rest()

    def _become_ready(self, pod: Pod) -> None:
        pod.is_ready = True
        self._take(pod)
        self._sample()

    # --- scaling

    def _scale(self, wanted: int) -> None:
        if wanted == len(self._pods):
            return
        while len(self._pods) < wanted:
            pod = Pod(free=self._alternative.max_concurrency, created_at=self._now)
            self._pods.append(pod)
            self._at(self._now + self._options.startup_s, partial(self._become_ready, pod))
        while len(self._pods) > wanted:
            # As a ReplicaSet chooses: what is not ready goes first, then the newest. Nobody
            # asks which of them are idle.
            pod = self._pods.pop()
            pod.is_stopping = True
            self._stopping += 1
            if not pod.running:
                self._end(pod)
        self._sample()
        self._check_rest()

    def _end(self, pod: Pod) -> None:
        self._stopping -= 1
        self._account(pod)

    def _account(self, pod: Pod) -> None:
        self._history.pod_seconds += self._now - pod.created_at

    def _check_rest(self) -> None:
        """All is done, no more pods than there must be, and no old number that asks for more."""
        is_done = self._history.served == self._expected and not self._stopping
        if not is_done or len(self._pods) != self._alternative.min_replicas:
            self._history.at_rest_s = None
            return
        if self._history.at_rest_s is None:
            self._history.at_rest_s = self._now
        is_scaled = self._alternative.behavior is not None
        self._is_over = not (is_scaled and self._queue.metrics.shows_work)

    # --- the loops

    def _start_loops(self) -> None:
        alternative, phases = self._alternative, self._phases
        metrics = self._queue.metrics
        self._every(STATISTICS_PERIOD_S, phases.statistics, metrics.publish_statistics)
        self._every(SCRAPE_PERIOD_S, phases.scrape, metrics.scrape)
        if alternative.keda is not None:
            self._activation = Activation(
                min_replicas=alternative.min_replicas, cooldown_s=alternative.keda.cooldown_s
            )
            self._every(alternative.keda.polling_s, phases.poll, self._poll)
        if alternative.behavior is not None:
            self._hpa = HorizontalPodAutoscaler(
                min_replicas=max(alternative.min_replicas, 1),
                max_replicas=alternative.max_replicas,
                behavior=alternative.behavior,
            )
            self._every(SYNC_PERIOD_S, phases.sync, self._sync)

    def _poll(self) -> None:
        assert self._activation is not None
        is_active = any(self._queue.metrics.read(each) > 0 for each in self._alternative.sources)
        self._scale(self._activation.poll(self._now, len(self._pods), is_active=is_active))

    def _sync(self) -> None:
        assert self._hpa is not None
        target = self._alternative.target
        readings = [
            Reading(value=self._queue.metrics.read(each), target=target)
            for each in self._alternative.sources
        ]
        self._scale(self._hpa.sync(self._now, len(self._pods), readings))

    # --- time

    def _at(self, time: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._agenda, (time, next(self._order), action))

    def _every(self, period_s: float, phase: float, action: Callable[[], None]) -> None:
        """Run it for ever; once before the load begins, so that each loop has its past."""

        def again() -> None:
            action()
            self._check_rest()
            is_stuck = self._now > self._history.last_end_s + _REST_LIMIT_S
            if is_stuck and self._history.served == self._expected:
                self._is_over = True
            self._at(self._now + period_s, again)

        self._at((phase - 1.0) * period_s, again)

    def _sample(self) -> None:
        """Note what can be seen, but not more often than a plot could show."""
        self._next_sample = self._now + max(_FINEST_S, self._now * _FINEST_SHARE)
        metrics = self._queue.metrics
        ready_pods = sum(pod.is_ready for pod in self._pods)
        self._history.moments.append(
            Moment(
                time=self._now,
                ready=metrics.ready,
                running=metrics.unacknowledged,
                pods=ready_pods + self._stopping,
                wanted=len(self._pods),
            )
        )
