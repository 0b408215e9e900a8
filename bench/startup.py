"""From exec to an open port, and to the first answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.client import InvokeClient
from bench.errors import CallFailed
from bench.launches import Launch
from bench.load import PAYLOAD
from devtools.progress import Step

_POLL_S = 0.0005
_LIMIT_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Startup:
    """One start, in milliseconds since just before exec."""

    port_open_ms: float
    first_answer_ms: float


def measure_startups(
    launches: Mapping[str, Callable[[], Launch]], *, times: int, logs: Path
) -> dict[str, list[Startup]]:
    """Start each program ``times`` times, in turn."""
    startups: dict[str, list[Startup]] = {name: [] for name in launches}
    for number in range(1, times + 1):
        for name, launch in launches.items():
            with Step(f"start {number} of {times}: {name}") as step:
                startup = _measure(launch(), logs)
                startups[name].append(startup)
                step.result(f"{startup.first_answer_ms:.1f} ms")
    return startups


def _measure(launch: Launch, logs: Path) -> Startup:
    begun = time.perf_counter()
    with launch.started(logs), InvokeClient(launch.url) as client:
        while not client.connect():
            if time.perf_counter() - begun > _LIMIT_S:
                raise launch.failure(f"opened no port in {_LIMIT_S:.0f} s", logs)
            time.sleep(_POLL_S)
        port_open = time.perf_counter()
        try:
            client.invoke(PAYLOAD)
        except CallFailed as error:
            raise launch.failure(f"did not serve its first call: {error}", logs) from error
        first_answer = time.perf_counter()
    return Startup(
        port_open_ms=(port_open - begun) * 1000,
        first_answer_ms=(first_answer - begun) * 1000,
    )
