"""What an extension adds to a call: rapid alone, one that hears of each, and telemetry."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from bench import launches
from bench.rounds import Sample, measure
from bench.subjects import Subject
from devtools.progress import Step

_WARM_UP_S = 1

#: By the name in the table, rapid's settings beside the extension's folder; None: no extension.
_SUBJECTS: Final[Mapping[str, Mapping[str, str] | None]] = {
    "no extension": None,
    "one, INVOKE": {},
    "one, INVOKE and telemetry": {"EXTENSION_TELEMETRY": "1"},
}


def compare_extensions(
    echo: Path, extension: Path, *, rounds: int, seconds: int, folder: Path
) -> str:
    """Load the three in turn, one connection each; return a table of medians."""
    directory = folder / "extensions"
    directory.mkdir()
    (directory / "bench-extension").symlink_to(extension)
    samples: dict[str, list[Sample]] = {name: [] for name in _SUBJECTS}
    with ExitStack() as stack:
        subjects = {}
        for name, environ in _SUBJECTS.items():
            settings = (
                {} if environ is None else {"RAPID_EXTENSIONS_DIR": str(directory), **environ}
            )
            launch = launches.rapid(echo, name=f"rapid, {name}", settings=settings)
            process = stack.enter_context(launch.running(folder))
            subjects[name] = Subject(url=launch.url, daemon_name=name, daemon=process.pid)
            measure(subjects[name], 1, _WARM_UP_S)
        for number in range(1, rounds + 1):
            for name, subject in subjects.items():
                with Step(f"round {number} of {rounds}: {name}") as step:
                    sample = measure(subject, 1, seconds)
                    samples[name].append(sample)
                    step.result(f"p50 {sample.p50_ms:.2f} ms")
    return render_extensions(samples)


def render_extensions(samples: Mapping[str, list[Sample]]) -> str:
    """Return the medians, one row a subject."""
    rows = [
        f"| {name} | {_median(own, 'p50_ms'):.2f} | {_median(own, 'p99_ms'):.1f} "
        f"| {_median(own, 'rate'):,.0f} "
        f"| {statistics.median(sample.cpu_ms['daemon'] for sample in own):.3f} |"
        for name, own in samples.items()
    ]
    head = "| extensions | p50 ms | p99 ms | req/s | CPU ms per call, rapid |"
    return "\n".join([head, "|---|---|---|---|---|", *rows])


def _median(samples: list[Sample], figure: str) -> float:
    return float(statistics.median(getattr(sample, figure) for sample in samples))
