"""KEDA's own loop: from nothing to one pod, and back to nothing.

What lies between is the HPA's, which asks KEDA for its metrics. Source: RequestScale and
scaleToZeroOrIdle in pkg/scaling/executor/scale_scaledobjects.go of KEDA 2.21.0.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, kw_only=True)
class Activation:
    """One ScaledObject; ``poll`` is a run of its loop, one each ``pollingInterval``."""

    min_replicas: int
    cooldown_s: float  #: cooldownPeriod
    last_active: float | None = None

    def poll(self, now: float, replicas: int, *, is_active: bool) -> int:
        """Return how many replicas there are to be; active is any trigger above its activation.

        The cooldown ends whatever number of pods is left, not only the last one. Where nothing
        was ever active there is none.
        """
        if is_active:
            self.last_active = now
            return replicas or max(self.min_replicas, 1)
        if self.min_replicas == 0 and replicas > 0:
            is_over = self.last_active is None or self.last_active + self.cooldown_s < now
            return 0 if is_over else replicas
        return max(replicas, self.min_replicas)
