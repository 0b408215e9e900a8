"""What the parts of one execution environment share."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from rapid.environment.owner import EnvironmentOwner
from rapid.settings.environment import EnvironmentSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentContext:
    """An environment's number, its settings, and the scheduler that owns it."""

    index: int
    settings: EnvironmentSettings
    owner: EnvironmentOwner
    lock: threading.Lock  #: the scheduler's, for the state of all environments
    init_phase: str  #: ``init``, or ``invoke`` when a failed init is done again for a call
    init_limit_s: float
    clock: Callable[[], float] = time.monotonic
