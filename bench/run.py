"""One run of the benchmark, from start-up times to the last check."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from bench import launches
from bench.client import Answers, check_answers
from bench.launches import Launch
from bench.payloads import measure_payloads
from bench.results import Memory, Results
from bench.rounds import measure_rounds
from bench.startup import Startup, measure_startups
from bench.subjects import Setup, Subject, running
from devtools.progress import Step

_STARTS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much is measured, and of what."""

    subjects: Collection[str]
    rounds: int
    seconds: int  #: of each load
    with_payloads: bool


def run(plan: Plan, setup: Setup, about: dict[str, str], folder: Path) -> Results:
    """Measure everything planned; programs keep their logs and data in ``folder``."""
    startups = _measure_startups(plan, setup, folder)
    with running(plan.subjects, setup, folder) as subjects:
        idle_mb = _memory(subjects)
        samples = measure_rounds(subjects, rounds=plan.rounds, seconds=plan.seconds)
        loaded_mb = _memory(subjects)
        answers = _check_answers(subjects)
        payloads = measure_payloads(subjects) if plan.with_payloads else {}
    return Results(
        about=about,
        samples=samples,
        memory={
            program: Memory(idle_mb=idle_mb[program], loaded_mb=loaded_mb[program])
            for program in idle_mb
        },
        startups=startups,
        answers=answers,
        payloads=payloads,
    )


def _measure_startups(plan: Plan, setup: Setup, folder: Path) -> dict[str, list[Startup]]:
    programs: dict[str, Callable[[], Launch]] = {}
    if "direct" in plan.subjects:
        programs["rapid"] = lambda: launches.rapid(setup.echo)
    if "static" in plan.subjects and launches.STATIC_RAPID.exists():
        programs["rapid, one file"] = lambda: launches.static_rapid(setup.echo)
    if "rie" in plan.subjects and setup.rie is not None:
        binary = setup.rie
        programs["aws-lambda-rie"] = lambda: launches.rie(binary, setup.echo)
    if setup.peer_rapid is not None:
        peer = setup.peer_rapid
        programs["peer"] = lambda: launches.peer_rapid(peer, setup.echo)
    return measure_startups(programs, times=_STARTS, logs=folder)


def _memory(subjects: Mapping[str, Subject]) -> dict[str, float]:
    return {
        program: rss_mb
        for subject in subjects.values()
        for program, rss_mb in subject.rss_mb().items()
    }


def _check_answers(subjects: Mapping[str, Subject]) -> dict[str, Answers]:
    """Check ours and the peer's; a second call at once would break aws-lambda-rie."""
    checks = {}
    for name, subject in subjects.items():
        if name != "rie":
            with Step(f"check 1,000 answers: {name}") as step:
                checks[name] = check_answers(subject.url)
                step.result(f"{checks[name].own:,} right")
    return checks
