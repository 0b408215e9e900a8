"""How long the fuzz targets run: the same few inputs in every test run, or ``make fuzz``."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

settings.register_profile("short", max_examples=150, derandomize=True, deadline=None, database=None)
settings.register_profile(
    "long", max_examples=100_000, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(os.environ.get("FUZZ", "short"))
