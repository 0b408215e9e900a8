"""How long one call takes by the size of its payload."""

from __future__ import annotations

import time
from collections.abc import Mapping
from statistics import median

from bench.client import InvokeClient
from bench.subjects import Subject
from devtools.progress import Step

#: Up to just below what an Invoke request may hold.
SIZES = {"1 KB": 1 << 10, "64 KB": 1 << 16, "1 MB": 1 << 20, "5.9 MB": 5_900_000}

_WARM_UP_CALLS = 3
_MOST_CALLS = 200
_BUDGET_S = 2.0


def measure_payloads(subjects: Mapping[str, Subject]) -> dict[str, dict[str, float]]:
    """Return the median milliseconds of one call after another, by subject and size."""
    times: dict[str, dict[str, float]] = {name: {} for name in subjects}
    for size, size_bytes in SIZES.items():
        for name, subject in subjects.items():
            with Step(f"payload of {size}: {name}") as step:
                times[name][size] = _median_ms(subject.url, size_bytes)
                step.result(f"{times[name][size]:.2f} ms")
    return times


def _median_ms(url: str, size_bytes: int) -> float:
    payload = b'{"key":"%s"}' % (b"x" * (size_bytes - len('{"key":""}')))
    times_ms: list[float] = []
    with InvokeClient(url) as client:
        for _ in range(_WARM_UP_CALLS):
            client.invoke(payload)
        while len(times_ms) < _MOST_CALLS and sum(times_ms) < _BUDGET_S * 1000:
            begun = time.perf_counter()
            client.invoke(payload)
            times_ms.append((time.perf_counter() - begun) * 1000)
    return median(times_ms)
