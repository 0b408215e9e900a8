"""Results as pictures: backlog, pods and waiting time of one burst, for every alternative."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.autoscale.study import CALL_LIMIT_S, Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, slots=True, kw_only=True)
class _Style:
    """A colour the colour-blind can tell from the others (Okabe and Ito's), a dash, a width.

    Where lines lie on each other the earlier one is wider, so that it shows.
    """

    colour: str
    dash: str = "-"
    width: float = 2.0


_STYLES = {
    "keda": _Style(colour="#56B4E9", width=7.0),
    "keda-prometheus": _Style(colour="#E69F00", width=4.0),
    "hpa": _Style(colour="#00664B", width=1.5),
    "max-concurrency": _Style(colour="#000000", dash="-."),
    "keda, defaults": _Style(colour="#CC79A7", width=4.0),
    "hpa, defaults": _Style(colour="#B34700", dash=":"),
}
#: How the shares of waiting times are drawn: marker and size.
_MARKERS = {"p50": ("o", 9), "p99": ("D", 6), "max": ("|", 15)}
_FIRST_S = 1.0
#: Stands for no wait at all, which a logarithmic axis does not have.
_LEAST_WAIT_S = 0.1
#: Ticks within each power of ten, where few of them and where many have to fit.
_FEW_DECADES, _MANY_DECADES = (1, 2, 5), (1, 3)


def plot_burst(results: Sequence[Result], about: str, file: Path) -> None:
    """Write the results of one burst as a PNG that knows what it shows.

    ``about`` goes under the title: with which options it was simulated. The file's ``Description``
    is ``fingerprint(results)``: it tells whether a picture is current, wherever it was drawn.
    """
    # Neither a display nor the time it takes to load is wanted elsewhere.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.5, 11.0), layout="constrained")
    figure.suptitle(f"A burst of {results[0].burst:,} invocations\n", fontsize=15, weight="bold")
    figure.text(0.5, 0.962, about, ha="center", fontsize=10)
    backlog, pods, waits = figure.subplots(3, 1, height_ratios=(3, 3, 2.2))
    end_s = max(result.history.moments[-1].time for result in results) * 1.05
    for axes in (backlog, pods):
        _log_seconds(axes, _FIRST_S, end_s)
        axes.set_xlabel("seconds from the burst")
    _plot_backlog(backlog, results)
    _plot_pods(pods, results)
    _plot_waits(waits, results)
    handles, labels = backlog.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=10)
    FigureCanvasAgg(figure)
    # Without Software matplotlib's version would be in the file.
    metadata = {"Software": None, "Description": fingerprint(results)}
    figure.savefig(file, dpi=110, metadata=metadata)


def fingerprint(results: Sequence[Result]) -> str:
    """Return what two results have in common only if their curves are the same."""
    curves = [
        (
            result.alternative.name,
            result.burst,
            [(each.time, each.ready, each.running, each.pods) for each in result.history.moments],
            [result.history.wait_s(share) for share in (0.5, 0.99, 1.0)],
        )
        for result in results
    ]
    return hashlib.sha256(repr(curves).encode()).hexdigest()


def _plot_backlog(axes: Axes, results: Sequence[Result]) -> None:
    for result in results:
        moments = [each for each in result.history.moments if each.time >= _FIRST_S]
        _step(
            axes,
            result,
            [_FIRST_S, *(each.time for each in moments)],
            [result.burst, *(each.ready + each.running for each in moments)],
        )
    axes.set_title("Backlog: invocations that wait or run", loc="left", fontsize=11)
    axes.set_ylabel("invocations")
    axes.set_ylim(0, results[0].burst * 1.05)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")


def _plot_pods(axes: Axes, results: Sequence[Result]) -> None:
    for result in results:
        moments = result.history.moments
        before = [each.pods for each in moments if each.time < _FIRST_S]
        after = [each for each in moments if each.time >= _FIRST_S]
        _step(
            axes,
            result,
            [_FIRST_S, *(each.time for each in after)],
            [before[-1], *(each.pods for each in after)],
        )
    axes.set_title("Pods that run", loc="left", fontsize=11)
    axes.set_ylabel("pods")
    axes.set_ylim(bottom=0)


def _plot_waits(axes: Axes, results: Sequence[Result]) -> None:
    names = [result.alternative.name for result in results]
    waits = [
        [max(each.history.wait_s(share), _LEAST_WAIT_S) for share in (0.5, 0.99, 1.0)]
        for each in results
    ]
    for row, (name, times) in enumerate(zip(names, waits, strict=True)):
        colour = _STYLES[name].colour
        axes.plot([times[0], times[2]], [row, row], color=colour, linewidth=2)
        for time, (marker, size) in zip(times, _MARKERS.values(), strict=True):
            axes.plot(time, row, marker, color=colour, markersize=size, markeredgewidth=2)
    for label, (marker, size) in _MARKERS.items():
        axes.plot([], [], marker, color="#555555", label=label, markersize=size, markeredgewidth=2)
    label = f"{CALL_LIMIT_S:g} s, when a call is given up"
    axes.axvline(CALL_LIMIT_S, color="#777777", linewidth=1, linestyle="--", label=label)
    axes.set_title("Waiting time before the start", loc="left", fontsize=11)
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 0.99), ncols=4, frameon=False, fontsize=9)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    least = min(CALL_LIMIT_S, *(times[0] for times in waits))
    most = max(CALL_LIMIT_S, *(times[2] for times in waits))
    _log_seconds(axes, max(least / 1.5, _LEAST_WAIT_S), most * 1.3)
    axes.set_xlabel("seconds")


def _step(axes: Axes, result: Result, times: Sequence[float], values: Sequence[float]) -> None:
    style = _STYLES[result.alternative.name]
    axes.step(
        times,
        values,
        where="post",
        color=style.colour,
        linestyle=style.dash,
        linewidth=style.width,
        label=result.alternative.name,
    )


def _log_seconds(axes: Axes, first_s: float, last_s: float) -> None:
    axes.set_xscale("log")
    axes.set_xlim(first_s, last_s)
    parts = _FEW_DECADES if last_s / first_s < 1000 else _MANY_DECADES
    ticks = [part * 10.0**power for power in range(-1, 8) for part in parts]
    ticks = [tick for tick in ticks if first_s <= tick <= last_s]
    axes.set_xticks(ticks, [f"{tick:,g}" for tick in ticks])
    axes.minorticks_off()
    axes.grid(color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
