"""What was measured, kept and shown as Markdown."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from bench.autoscale.lab.programs import Programs

#: A sample: what was measured, by the name of the scenario's field.
Sample = Mapping[str, float | None]

_HEADS = {
    "scaled_s": "a pod wanted",
    "ready_s": "a pod ready",
    "done_s": "answered or run",
    "calls": "calls",
    "ten_wanted_s": "10 pods wanted",
    "ten_ready_s": "10 pods ready",
    "most_pods": "most pods",
    "answered_s": "all answered",
    "one_wanted_s": "then 1 pod wanted",
    "zero_wanted_s": "then none",
    "wrong": "wrong",
    "killed": "killed",
    "crashed": "crashed",
    "declared_s": "queue declared",
    "zero_s": "none wanted again",
}


@dataclass(slots=True, kw_only=True)
class Figures:
    """Samples of each scenario's variants, in the order in which they were made."""

    programs: Programs
    container_start_s: float
    file: Path | None = None  #: where every sample goes as JSON
    samples: dict[str, dict[str, list[Sample]]] = field(default_factory=dict)

    def add(self, scenario: str, variant: str, sample: Sample) -> None:
        """Keep one sample."""
        self.samples.setdefault(scenario, {}).setdefault(variant, []).append(sample)
        if self.file is not None:
            self.file.write_text(json.dumps(self.samples, indent=2) + "\n")


def render_figures(figures: Figures) -> str:
    """Return what was measured: about it, and a table a scenario, as Markdown."""
    programs = figures.programs
    about = (
        f"{time.strftime('%d %B %Y')}: Kubernetes {programs.kubernetes}, etcd {programs.etcd}, "
        f"KEDA {programs.keda}, {os.cpu_count()} CPUs, "
        f"{figures.container_start_s:g} s for a container to start. "
        "Median, and in brackets the least and the most, of the samples."
    )
    tables = [
        f"### {scenario}\n\n{render_table(variants)}"
        for scenario, variants in figures.samples.items()
    ]
    return "\n\n".join([about, *tables]) + "\n"


def render_table(variants: Mapping[str, Sequence[Sample]]) -> str:
    """Return a table with a row for each variant and a column for each thing measured."""
    names = list(next(iter(variants.values()))[0])
    heads = ["", "samples", *(_HEADS.get(name, name) for name in names)]
    rows = [heads, ["---"] * len(heads)]
    for variant, samples in variants.items():
        cells = [render_cell(name, [sample[name] for sample in samples]) for name in names]
        rows.append([variant, str(len(samples)), *cells])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def render_cell(name: str, values: Sequence[float | None]) -> str:
    """Return the median with the range, in seconds with one decimal; counts are whole."""
    found = [value for value in values if value is not None]
    if not found:
        return "never"
    is_time = name.endswith("_s")
    texts = [
        f"{value:.1f}" if is_time else f"{value:.0f}"
        for value in (median(found), min(found), max(found))
    ]
    middle, least, most = texts
    missing = f", never in {len(values) - len(found)}" if len(found) < len(values) else ""
    unit = " s" if is_time else ""
    spread = f" ({least}-{most})" if least != most else ""
    return f"{middle}{unit}{spread}{missing}"
