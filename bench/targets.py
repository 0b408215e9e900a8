"""What is to be reached, and whether a run reached it."""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter
from statistics import median

from bench.results import YARDSTICK, Results

_MOST_IDLE_MB = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A target beside what was found."""

    target: str
    found: str
    is_reached: bool | None  #: None: what it needs was not run


@dataclass(frozen=True, slots=True, kw_only=True)
class _RatioTarget:
    """A figure of a scenario as a multiple of the yardstick's, the median over the rounds."""

    text: str
    scenario: str
    figure: str  #: a field of Sample
    at_least: float = 0.0
    at_most: float = float("inf")

    def judge(self, results: Results) -> Verdict:
        ratios = results.ratios(self.scenario, attrgetter(self.figure))
        if not ratios:
            return Verdict(target=self.text, found="not compared", is_reached=None)
        ratio = median(ratios)
        return Verdict(
            target=self.text,
            found=f"{ratio:.2f} x [{min(ratios):.2f}..{max(ratios):.2f}]",
            is_reached=self.at_least <= ratio <= self.at_most,
        )


_RATIO_TARGETS = (
    _RatioTarget(
        text="direct, 1 connection: rate >= 1.7 x RIE's",
        scenario="direct-1",
        figure="rate",
        at_least=1.7,
    ),
    _RatioTarget(
        text="server + broker, 1 connection: p50 <= 2.2 x RIE's",
        scenario="server-1",
        figure="p50_ms",
        at_most=2.2,
    ),
    _RatioTarget(
        text="server + broker, 16 connections: rate >= 1.0 x RIE's at 1",
        scenario="server-16",
        figure="rate",
        at_least=1.0,
    ),
)


def judge(results: Results) -> list[Verdict]:
    """Hold the results against every target."""
    return [
        *(target.judge(results) for target in _RATIO_TARGETS),
        _judge_errors(results),
        _judge_answers(results),
        _judge_idle_memory(results),
    ]


def _judge_errors(results: Results) -> Verdict:
    """Count our own errors, and not those of others."""
    ours = [name for name in results.samples if name != YARDSTICK and "peer" not in name]
    errors = sum(sum(sample.errors.values()) for name in ours for sample in results.samples[name])
    return Verdict(
        target="no errors under load",
        found=f"{errors:,} errors" if ours else "not run",
        is_reached=errors == 0 if ours else None,
    )


def _judge_answers(results: Results) -> Verdict:
    ours = [answers for name, answers in results.answers.items() if "peer" not in name]
    wrong = sum(answers.other + answers.missing for answers in ours)
    calls = wrong + sum(answers.own for answers in ours)
    return Verdict(
        target="every call answered with its own payload",
        found=f"{calls - wrong:,} of {calls:,}" if calls else "not run",
        is_reached=wrong == 0 if calls else None,
    )


def _judge_idle_memory(results: Results) -> Verdict:
    """Take the larger of rapid alone and rapid behind the broker."""
    idle_mb = max(
        (memory.idle_mb for program, memory in results.memory.items() if "rapid" in program),
        default=None,
    )
    return Verdict(
        target=f"rapid, idle: <= {_MOST_IDLE_MB:.0f} MB",
        found=f"{idle_mb:.1f} MB" if idle_mb is not None else "not run",
        is_reached=idle_mb <= _MOST_IDLE_MB if idle_mb is not None else None,
    )
