"""A picture of the CPU time of a call, by the programs that spend it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Final

from bench.rounds import Sample

_PARTS: Final = ("daemon", "function", "server", "broker")


def draw(samples: Mapping[str, Sequence[Sample]], labels: Mapping[str, str], file: Path) -> None:
    """Draw a bar for each scenario into ``file``, a PNG; needs matplotlib."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 0.4 * len(samples) + 1.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    names = [labels[name] for name in samples]
    left = [0.0] * len(names)
    for part in _PARTS:
        widths = [
            1000 * median(sample.cpu_ms.get(part, 0.0) for sample in rounds)
            for rounds in samples.values()
        ]
        axes.barh(names, widths, left=left, label=part)
        left = [begin + width for begin, width in zip(left, widths, strict=True)]
    axes.invert_yaxis()
    axes.set_xlabel("CPU µs per call")
    axes.legend(loc="lower right")
    figure.savefig(file, dpi=100, metadata={"Software": None})
