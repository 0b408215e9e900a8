"""Slots that waiting calls get soon by themselves: of environments in init or between calls."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from rapid.environment.environment import ExecutionEnvironment

#: How long an answered environment is trusted to come back before another is started, seconds.
PATIENCE_S: Final = 0.05


class ComingSlots:
    """One look at them. Guarded by the scheduler's lock.

    Slots of one environment are for one tenant: its own, or the first that takes one of them.
    """

    def __init__(self, environments: Iterable[ExecutionEnvironment], now: float) -> None:
        """Count those of ``environments``."""
        self._now = now
        self._of_tenants: dict[str, int] = {}
        self._of_nobody: list[int] = []  # slots of each environment that has served none
        for environment in environments:
            self.add(environment)

    def add(self, environment: ExecutionEnvironment) -> None:
        """Count those of one more."""
        slots = environment.coming_slots_locked(self._now, PATIENCE_S)
        if not slots:
            return
        if environment.tenant is None:
            self._of_nobody.append(slots)
        else:
            self._add_to(environment.tenant, slots)

    def take(self, tenant: str) -> bool:
        """Reserve a slot for a call of ``tenant``; False when none is coming for it."""
        if not self._of_tenants.get(tenant) and self._of_nobody:
            self._add_to(tenant, self._of_nobody.pop())
        left = self._of_tenants.get(tenant, 0)
        if left:
            self._of_tenants[tenant] = left - 1
        return left > 0

    def _add_to(self, tenant: str, slots: int) -> None:
        self._of_tenants[tenant] = self._of_tenants.get(tenant, 0) + slots
