"""Runs every alternative against bursts, and tells what came of it as tables."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from bench.autoscale.alternatives import Alternative, Options, alternatives
from bench.autoscale.simulation import History, Phases, Simulation
from devtools.progress import Step

#: A call that waits longer is answered 429 (INVOKE_QUEUE_TIMEOUT); an event just waits.
CALL_LIMIT_S = 30.0
_REACTION_BURST = 1000
_REACTION_PODS = 10
_REACTION_RUNS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of one burst."""

    alternative: Alternative
    burst: int
    history: History


def run_bursts(options: Options, bursts: Sequence[int]) -> list[Result]:
    """Return a result for each burst and alternative, told of while it goes."""
    results = []
    for burst in bursts:
        for alternative in alternatives(options):
            with Step(f"{burst:,} invocations, {alternative.name}") as step:
                history = Simulation(alternative, options, [(0.0, burst)]).run()
                step.result(f"done after {_seconds(history.last_end_s)} s")
            results.append(Result(alternative=alternative, burst=burst, history=history))
    return results


def render_bursts(results: Sequence[Result]) -> str:
    """Return a table of all results, in Markdown; times in seconds."""
    header = (
        "burst", "alternative", "first starts", "all done", "at rest, later",
        "wait p50", "p99", "max", "over 30 s", "pod-minutes",
    )  # fmt: skip
    return _table(header, (_burst_row(result) for result in results))


def render_reactions(options: Options) -> str:
    """Return how soon pods come and go, over chance phases of the loops; times in seconds."""
    header = (
        f"{_REACTION_BURST:,} invocations", "first starts", f"{_REACTION_PODS} pods", "all done",
        "at rest, later", "wait p99", "pod-minutes",
    )  # fmt: skip
    with Step(f"{_REACTION_RUNS} bursts of {_REACTION_BURST:,}, at other moments of the loops"):
        rows = [_reaction_row(alternative, options) for alternative in alternatives(options)]
    return _table(header, rows)


def _burst_row(result: Result) -> list[str]:
    history = result.history
    return [
        f"{result.burst:,}",
        result.alternative.name,
        *(_seconds(each) for each in (history.first_start_s, history.last_end_s)),
        _seconds(_rest_s(history)),
        *(_seconds(history.wait_s(share)) for share in (0.5, 0.99, 1.0)),
        f"{history.share_over(CALL_LIMIT_S):.0%}",
        f"{history.pod_seconds / 60:,.0f}",
    ]


def _reaction_row(alternative: Alternative, options: Options) -> list[str]:
    source = random.Random(_REACTION_RUNS)  # noqa: S311 -- draws phases, guards nothing
    histories = [
        Simulation(alternative, options, [(0.0, _REACTION_BURST)], Phases.drawn(source)).run()
        for _ in range(_REACTION_RUNS)
    ]
    figures: list[Callable[[History], float | None]] = [
        lambda history: history.first_start_s,
        lambda history: history.pods_reached_s(_REACTION_PODS),
        lambda history: history.last_end_s,
        _rest_s,
        lambda history: history.wait_s(0.99),
        lambda history: history.pod_seconds / 60,
    ]
    cells = (_spread([figure(history) for history in histories]) for figure in figures)
    return [alternative.name, *cells]


def _rest_s(history: History) -> float | None:
    return None if history.at_rest_s is None else history.at_rest_s - history.last_end_s


def _spread(found: Sequence[float | None]) -> str:
    times = [time for time in found if time is not None]
    if len(times) < len(found):
        return "never"
    return f"{_seconds(median(times))} [{_seconds(min(times))}..{_seconds(max(times))}]"


def _seconds(time: float | None) -> str:
    return "never" if time is None else f"{time:,.0f}"


def _table(header: Sequence[str], rows: Iterator[list[str]] | list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines).replace(" --- ", "---")
