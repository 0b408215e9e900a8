"""The control loop of a HorizontalPodAutoscaler, as Kubernetes documents it.

Source: https://kubernetes.io/docs/concepts/workloads/autoscaling/horizontal-pod-autoscale/, and
where that is vague pkg/controller/podautoscaler/horizontal.go of 1.36.3, read November 2026.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

#: How often the controller looks, seconds (--horizontal-pod-autoscaler-sync-period).
SYNC_PERIOD_S = 15.0
#: How far from its target a metric may be before anything is done.
TOLERANCE = 0.1
#: For how long the highest recommendation holds where nothing is set, seconds.
DOWNSCALE_WINDOW_S = 300.0


class PolicyType(StrEnum):
    """What a policy counts."""

    PODS = "Pods"
    PERCENT = "Percent"


class SelectPolicy(StrEnum):
    """Which of several policies counts: the one of most or least change, or no change at all."""

    MAX = "Max"
    MIN = "Min"
    DISABLED = "Disabled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How much may change in a period."""

    type: PolicyType
    value: int
    period_s: float = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingRules:
    """One direction of ``behavior``."""

    policies: tuple[Policy, ...]
    window_s: float  #: stabilizationWindowSeconds
    select: SelectPolicy = SelectPolicy.MAX


#: The documented defaults of ``behavior.scaleUp`` and ``behavior.scaleDown``.
DEFAULT_SCALE_UP = ScalingRules(
    policies=(
        Policy(type=PolicyType.PODS, value=4),
        Policy(type=PolicyType.PERCENT, value=100),
    ),
    window_s=0.0,
)
DEFAULT_SCALE_DOWN = ScalingRules(
    policies=(Policy(type=PolicyType.PERCENT, value=100),), window_s=DOWNSCALE_WINDOW_S
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Behavior:
    """How fast replicas may change, and how long a change waits."""

    scale_up: ScalingRules = DEFAULT_SCALE_UP
    scale_down: ScalingRules = DEFAULT_SCALE_DOWN


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """An External metric as it was read, and its target ``AverageValue``."""

    value: float
    target: float


@dataclass(slots=True, kw_only=True)
class HorizontalPodAutoscaler:
    """One autoscaler; ``sync`` is a run of its loop.

    Ready or not does not matter: an External metric with an ``AverageValue`` is divided by the
    target, and pods are not looked at.
    """

    min_replicas: int
    max_replicas: int
    behavior: Behavior = field(default_factory=Behavior)
    tolerance: float = TOLERANCE
    _recommendations: list[tuple[float, int]] = field(default_factory=list)
    _added: list[tuple[float, int]] = field(default_factory=list)
    _removed: list[tuple[float, int]] = field(default_factory=list)

    def sync(self, now: float, replicas: int, readings: Sequence[Reading]) -> int:
        """Return how many replicas there are to be, of ``replicas`` that are asked for now."""
        if not self._recommendations:
            self._recommendations.append((now, replicas))
        if replicas == 0:
            return 0  # scaling is disabled, until KEDA or a person makes it one
        if not self.min_replicas <= replicas <= self.max_replicas:
            desired = min(max(replicas, self.min_replicas), self.max_replicas)
        else:
            proposed = max(self._proposal(replicas, reading) for reading in readings)
            desired = self._within_limits(now, replicas, self._stabilized(now, replicas, proposed))
        change = desired - replicas
        if change:
            (self._added if change > 0 else self._removed).append((now, abs(change)))
        return desired

    def _proposal(self, replicas: int, reading: Reading) -> int:
        ratio = reading.value / (reading.target * replicas)
        # The tests of Kubernetes compare floats as they come, and so do we.
        if 1.0 - self.tolerance <= ratio <= 1.0 + self.tolerance:
            return replicas
        return math.ceil(reading.value / reading.target)

    def _stabilized(self, now: float, replicas: int, proposed: int) -> int:
        """Scale up to the least, down to the most that was proposed within the windows."""
        up_since = now - self.behavior.scale_up.window_s
        down_since = now - self.behavior.scale_down.window_s
        recent = self._recommendations
        least = min([proposed, *(count for time, count in recent if time > up_since)])
        most = max([proposed, *(count for time, count in recent if time > down_since)])
        recent.append((now, proposed))
        oldest = min(up_since, down_since)
        self._recommendations = [each for each in recent if each[0] >= oldest]
        return min(max(replicas, least), most)

    def _within_limits(self, now: float, replicas: int, desired: int) -> int:
        if desired > replicas:
            limit = max(self._limit(now, replicas, self.behavior.scale_up, +1), replicas)
            return min(desired, limit, self.max_replicas)
        if desired < replicas:
            limit = min(self._limit(now, replicas, self.behavior.scale_down, -1), replicas)
            return max(desired, limit, self.min_replicas)
        return desired

    def _limit(self, now: float, replicas: int, rules: ScalingRules, sign: int) -> int:
        """Return how far the policies let the count go; each counts from its period's start."""
        if rules.select is SelectPolicy.DISABLED:
            return replicas
        limits = []
        for policy in rules.policies:
            added, removed = (
                sum(count for time, count in changes if time > now - policy.period_s)
                for changes in (self._added, self._removed)
            )
            start = replicas - added + removed
            if policy.type is PolicyType.PODS:
                limits.append(start + sign * policy.value)
            else:
                # Up is rounded up, so that 1 grows at all; down is cut off, as in Kubernetes.
                share = start * (1 + sign * policy.value / 100)
                limits.append(math.ceil(share) if sign > 0 else int(share))
        most_change = rules.select is SelectPolicy.MAX
        return max(limits) if most_change == (sign > 0) else min(limits)
