"""Interleaved rounds of load: each round meets every scenario, so a noisy minute hits all alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bench.load import run_wrk
from bench.subjects import Subject
from devtools.progress import Step

_WARM_UP_S = 1


@dataclass(frozen=True, slots=True)
class Scenario:
    """One subject under one number of connections."""

    subject: str
    connections: int

    @property
    def name(self) -> str:
        """The key in tables and JSON: ``direct-16``."""
        return f"{self.subject}-{self.connections}"


#: In the order of a round: what is compared with each other stands side by side.
#: aws-lambda-rie takes one call at a time; a second one breaks it.
SCENARIOS = (
    Scenario("direct", 1),
    Scenario("static", 1),
    Scenario("floor", 1),
    Scenario("peer", 1),
    Scenario("rie", 1),
    Scenario("server", 1),
    Scenario("polling", 1),
    Scenario("peer-server", 1),
    Scenario("server", 16),
    Scenario("polling", 16),
    Scenario("peer-server", 16),
    Scenario("server", 64),
    Scenario("polling", 64),
    Scenario("peer-server", 64),
    Scenario("direct", 16),
    Scenario("static", 16),
    Scenario("floor", 16),
    Scenario("peer", 16),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One scenario in one round."""

    rate: float  #: answers per second
    p50_ms: float
    p99_ms: float
    cpu_ms: dict[str, float]  #: per answer, by part: daemon, function, server, broker
    answers: int
    errors: dict[str, int]  #: by wrk's kinds; ``status`` is answers of 400 and above
    served: int | None = None  #: connections that still had answers at the end; None: not known


def measure_rounds(
    subjects: Mapping[str, Subject], *, rounds: int, seconds: int
) -> dict[str, list[Sample]]:
    """Return the samples of each scenario whose subject runs, one per round."""
    scenarios = [scenario for scenario in SCENARIOS if scenario.subject in subjects]
    for scenario in scenarios:
        with Step(f"warm-up: {scenario.name}"):
            measure(subjects[scenario.subject], scenario.connections, _WARM_UP_S)
    samples: dict[str, list[Sample]] = {scenario.name: [] for scenario in scenarios}
    for number in range(1, rounds + 1):
        for scenario in scenarios:
            with Step(f"round {number} of {rounds}: {scenario.name}") as step:
                sample = measure(subjects[scenario.subject], scenario.connections, seconds)
                samples[scenario.name].append(sample)
                step.result(f"{sample.rate:,.0f} req/s, p50 {sample.p50_ms:.2f} ms")
    return samples


def measure(subject: Subject, connections: int, seconds: int) -> Sample:
    """Load ``subject`` once, and divide the CPU time of its parts by the answers."""
    before = subject.cpu_s()
    load = run_wrk(subject.url, connections=connections, seconds=seconds)
    after = subject.cpu_s()
    return Sample(
        rate=load.answers / load.duration_s,
        p50_ms=load.p50_ms,
        p99_ms=load.p99_ms,
        cpu_ms={part: (after[part] - before[part]) * 1000 / load.answers for part in after},
        answers=load.answers,
        errors=load.errors,
        served=load.served,
    )
