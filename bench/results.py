"""Everything that one run found."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from bench.client import Answers
from bench.rounds import Sample
from bench.startup import Startup
from bench.subjects import PEERS

#: aws-lambda-rie at one connection, the scenario that the others are compared with.
YARDSTICK = "rie-1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Resident memory of one program, in MB of 10^6 bytes."""

    idle_mb: float
    loaded_mb: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """One run. What was not asked for is empty."""

    about: dict[str, str]  #: the machine, the tools, the options
    samples: dict[str, list[Sample]]  #: by scenario, such as ``direct-16``; one per round
    memory: dict[str, Memory]  #: by program
    startups: dict[str, list[Startup]]  #: by program
    answers: dict[str, Answers]  #: by subject
    payloads: dict[str, dict[str, float]]  #: median milliseconds, by subject and size

    def ratios(
        self, scenario: str, figure: Callable[[Sample], float], *, beside: str = YARDSTICK
    ) -> list[float]:
        """Divide a figure by that of another scenario in the same round.

        Empty for that scenario itself, and when one of the two was not run. A round in which the
        other answered nothing is infinitely far ahead.
        """
        if scenario == beside or not {scenario, beside} <= self.samples.keys():
            return []
        pairs = zip(self.samples[scenario], self.samples[beside], strict=True)
        return [
            figure(ours) / theirs_is if (theirs_is := figure(theirs)) else math.inf
            for ours, theirs in pairs
        ]

    def peer_of(self, scenario: str) -> str:
        """Return the scenario of the other implementation that is like ``scenario``."""
        subject, _, connections = scenario.rpartition("-")
        return f"{PEERS.get(subject)}-{connections}"
