"""``python -m bench autoscale``: the simulation, for your own function."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import click

from bench.autoscale.alternatives import Options
from bench.autoscale.study import render_bursts, render_reactions, run_bursts
from devtools.progress import Step

_FOLDER = click.Path(path_type=Path, file_okay=False, exists=True)
_POSITIVE = click.FloatRange(min=0, min_open=True)
_COUNT = click.IntRange(min=1)
_DEFAULTS = Options()
_BURSTS = (1000, 10_000, 1_000_000)


@click.command()
@click.option("--burst", "bursts", type=_COUNT, multiple=True, default=_BURSTS, show_default=True)
@click.option(
    "--call",
    "call_s",
    type=_POSITIVE,
    default=_DEFAULTS.call_s,
    show_default=True,
    help="How long an invocation runs, seconds.",
)
@click.option(
    "--startup",
    "startup_s",
    type=_POSITIVE,
    default=_DEFAULTS.startup_s,
    show_default=True,
    help="From the order for a pod to its first invocation, seconds.",
)
@click.option(
    "--max-concurrency",
    type=_COUNT,
    default=_DEFAULTS.max_concurrency,
    show_default=True,
    help="Of each pod.",
)
@click.option("--max-pods", type=_COUNT, default=_DEFAULTS.max_pods, show_default=True)
@click.option(
    "--lone-concurrency",
    type=_COUNT,
    default=_DEFAULTS.lone_concurrency,
    show_default=True,
    help="RAPID_MAX_CONCURRENCY of the one pod that is not scaled.",
)
@click.option("--target", type=_COUNT, help="Invocations a pod; else --max-concurrency.")
@click.option(
    "--scale-up",
    "scale_up_pods",
    type=_COUNT,
    default=_DEFAULTS.scale_up_pods,
    show_default=True,
    help="Pods that may come each 15 s.",
)
@click.option(
    "--window",
    "window_s",
    type=click.FloatRange(min=0),
    default=_DEFAULTS.window_s,
    show_default=True,
    help="How long pods stay that are no longer wanted, seconds.",
)
@click.option("--plots", type=_FOLDER, help="Write autoscaling-BURST.png into this folder.")
def autoscale(
    *,
    bursts: tuple[int, ...],
    call_s: float,
    startup_s: float,
    max_concurrency: int,
    max_pods: int,
    lone_concurrency: int,
    target: int | None,
    scale_up_pods: int,
    window_s: float,
    plots: Path | None,
) -> None:
    """Simulate what autoscaling does with a burst of invocations. Needs no cluster."""
    options = Options(
        call_s=call_s,
        startup_s=startup_s,
        max_concurrency=max_concurrency,
        max_pods=max_pods,
        lone_concurrency=lone_concurrency,
        target=target,
        scale_up_pods=scale_up_pods,
        window_s=window_s,
    )
    # Only developers have matplotlib; its lack is told before the work.
    if plots is not None and importlib.util.find_spec("matplotlib") is None:
        raise click.ClickException(
            f"--plots needs matplotlib: {sys.executable} -m pip install matplotlib"
        )
    results = run_bursts(options, bursts)
    reactions = render_reactions(options)
    if plots is not None:
        from bench.autoscale.plot import plot_burst

        for burst in bursts:
            file = plots / f"autoscaling-{burst}.png"
            with Step(str(file)):
                chosen = [result for result in results if result.burst == burst]
                plot_burst(chosen, _about(options), file)
    click.echo(f"\n{_about(options)}. Seconds, but where it says otherwise.")
    click.echo(f"\n{render_bursts(results)}\n\n{reactions}")


def _about(options: Options) -> str:
    return (
        f"An invocation runs {options.call_s:g} s, a pod starts in {options.startup_s:g} s, "
        f"RAPID_MAX_CONCURRENCY {options.max_concurrency}, at most {options.max_pods} pods; "
        f"max-concurrency: 1 pod, {options.lone_concurrency}"
    )
