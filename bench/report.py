"""The results as tables for a person, and as JSON for a program."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from operator import attrgetter
from pathlib import Path
from statistics import median

from bench.payloads import SIZES
from bench.results import Results
from bench.rounds import Sample
from bench.targets import judge

_SUBJECTS = {
    "direct": "rapid, direct",
    "static": "rapid in one file, direct",
    "floor": "floor in C, direct",
    "rie": "aws-lambda-rie",
    "server": "server + broker",
    "polling": "polling server + broker",
    "peer": "peer, direct",
    "peer-server": "peer's server + broker",
}
_PARTS = ("daemon", "function", "server", "broker")
_REACHED = {True: "yes", False: "NO", None: "-"}


def save_json(results: Results, file: Path) -> None:
    """Write every sample and every verdict."""
    verdicts = [asdict(verdict) for verdict in judge(results)]
    file.write_text(json.dumps(asdict(results) | {"verdicts": verdicts}, indent=2) + "\n")


def render(results: Results) -> str:
    """Return all tables, in Markdown; a figure is the median, [least..most] stand beside it."""
    sections = [
        "\n".join(f"{name}: {value}" for name, value in results.about.items()),
        _table(
            (
                "connections",
                "req/s",
                "p50 ms",
                "p99 ms",
                "rate / RIE",
                "p50 / RIE",
                "served",
                "errors",
            ),
            _loads(results),
        ),
        _table(("CPU ms per call", *_PARTS, "all"), _cpu(results)),
        _table(("ours / peer's", "req/s", "p50", "CPU daemon", "CPU server"), _beside(results)),
        _table(("calls of one check", "own payload back", "another's", "none"), _answers(results)),
        _table(("ms from exec", "to port open", "to first answer"), _startups(results)),
        _table(("memory, MB", "idle", "loaded"), _memory(results)),
        _table(("ms per call, payload of", *SIZES), _payloads(results)),
        _table(("target", "found", "reached"), _verdicts(results)),
    ]
    return "\n\n".join(section for section in sections if section)


def _loads(results: Results) -> Iterator[list[str]]:
    for name, samples in results.samples.items():
        yield [
            label(name),
            _spread([sample.rate for sample in samples], ",.0f"),
            _spread([sample.p50_ms for sample in samples], ".2f"),
            _spread([sample.p99_ms for sample in samples], ".1f"),
            _spread(results.ratios(name, attrgetter("rate")), ".2f"),
            _spread(results.ratios(name, attrgetter("p50_ms")), ".2f"),
            _middle([sample.served for sample in samples if sample.served is not None], ".0f"),
            f"{sum(sum(sample.errors.values()) for sample in samples):,}",
        ]


def _cpu(results: Results) -> Iterator[list[str]]:
    for name, samples in results.samples.items():
        parts = [
            [sample.cpu_ms[part] for sample in samples if part in sample.cpu_ms] for part in _PARTS
        ]
        whole = [sum(sample.cpu_ms.values()) for sample in samples]
        yield [label(name), *(_middle(values, ".3f") for values in (*parts, whole))]


def _beside(results: Results) -> Iterator[list[str]]:
    for name in results.samples:
        peer = results.peer_of(name)
        if peer not in results.samples:
            continue
        figures: list[Callable[[Sample], float]] = [
            attrgetter("rate"),
            attrgetter("p50_ms"),
            lambda sample: sample.cpu_ms["daemon"],
            lambda sample: sample.cpu_ms.get("server", math.nan),
        ]
        ratios = [results.ratios(name, figure, beside=peer) for figure in figures]
        yield [label(name), *("-" if math.isnan(r[0]) else _spread(r, ".2f") for r in ratios)]


def _answers(results: Results) -> Iterator[list[str]]:
    for subject, answers in results.answers.items():
        counts = (answers.own, answers.other, answers.missing)
        yield [_SUBJECTS[subject], *(f"{count:,}" for count in counts)]


def _startups(results: Results) -> Iterator[list[str]]:
    for program, startups in results.startups.items():
        yield [
            program,
            _spread([startup.port_open_ms for startup in startups], ".1f"),
            _spread([startup.first_answer_ms for startup in startups], ".1f"),
        ]


def _memory(results: Results) -> Iterator[list[str]]:
    for program, memory in results.memory.items():
        yield [program, f"{memory.idle_mb:.1f}", f"{memory.loaded_mb:.1f}"]


def _payloads(results: Results) -> Iterator[list[str]]:
    for subject, times_ms in results.payloads.items():
        yield [_SUBJECTS[subject], *(f"{times_ms[size]:.2f}" for size in SIZES)]


def _verdicts(results: Results) -> Iterator[list[str]]:
    for verdict in judge(results):
        yield [verdict.target, verdict.found, _REACHED[verdict.is_reached]]


def label(scenario: str) -> str:
    """Return what readers call a scenario."""
    subject, _, connections = scenario.rpartition("-")
    return f"{_SUBJECTS[subject]}, {connections}"


def _middle(values: Sequence[float], form: str) -> str:
    return format(median(values), form) if values else "-"


def _spread(values: Sequence[float], form: str) -> str:
    if len(values) < 2:
        return _middle(values, form)
    return f"{median(values):{form}} [{min(values):{form}}..{max(values):{form}}]"


def _table(head: Sequence[str], rows: Iterator[list[str]]) -> str:
    """Lay out a Markdown table in columns that line up; empty without rows."""
    body = list(rows)
    if not body:
        return ""
    widths = [max(map(len, column)) for column in zip(head, *body, strict=True)]

    def line(cells: Sequence[str]) -> str:
        first, *others = (
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return " | ".join(["| " + first, *others]) + " |"

    rule = "|".join("-" * (width + 2) for width in widths)
    return "\n".join([line(head), f"|{rule}|", *map(line, body)])
