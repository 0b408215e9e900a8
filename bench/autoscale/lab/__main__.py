"""The command line: ``python -m bench.autoscale.lab`` measures and prints Markdown."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import click

from bench.autoscale.lab.admission import check_admission, render_admission
from bench.autoscale.lab.figures import Figures, render_figures
from bench.autoscale.lab.manifests import EVENTS, FUNCTION, Settings, Trigger
from bench.autoscale.lab.programs import CONTROL_PLANE, KEDA, Programs, build_programs
from bench.autoscale.lab.scenarios import burst, lose_queue, wake
from bench.autoscale.lab.stage import Stage, stage
from bench.errors import BenchError
from devtools.progress import Step
from devtools.rabbitmq_node import RabbitmqError

_FILE = click.Path(path_type=Path, dir_okay=False)
_LONG_S = 60
_QUICK_COOLDOWN_S = 20  # the way to 0 is not what a wake measures


class _Commands(click.Group):
    """Shows what ended the lab as a message, without a traceback."""

    def invoke(self, ctx: click.Context) -> None:
        """Run the command."""
        try:
            super().invoke(ctx)
        except (BenchError, RabbitmqError) as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=_Commands, invoke_without_command=True)
@click.option("--rounds", default=3, show_default=True, help="Times each measurement is made.")
@click.option("--calls", default=950, show_default=True, help="Length of a burst.")
@click.option("--container-start", default=1.5, show_default=True, help="Seconds, for each pod.")
@click.option("--only", default="", help="Scenarios, comma-separated; none: all.")
@click.option("--json", "json_file", type=_FILE, help="Write every sample to this file.")
@click.pass_context
def main(
    context: click.Context,
    *,
    rounds: int,
    calls: int,
    container_start: float,
    only: str,
    json_file: Path | None,
) -> None:
    """Measure how functions are scaled by KEDA on a real control plane, without containers."""
    # As Ctrl-C does, so that all that was started is stopped.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    programs = build_programs([*CONTROL_PLANE, *KEDA])
    context.obj = programs
    if context.invoked_subcommand is not None:
        return
    chosen = only.split(",") if only else list(_SCENARIOS)
    unknown = set(chosen) - set(_SCENARIOS)
    if unknown:
        raise click.BadParameter(f"no scenario {unknown}; there are {', '.join(_SCENARIOS)}")
    figures = Figures(programs=programs, container_start_s=container_start, file=json_file)
    for name in chosen:
        _SCENARIOS[name](figures, rounds, calls)
    click.echo("\n" + render_figures(figures))


@main.command()
@click.pass_obj
def admission(programs: Programs) -> None:
    """Apply every directory of k8s/ to a real API server, and list what it refuses."""
    with tempfile.TemporaryDirectory(prefix="lambda-lab-") as name:
        click.echo(render_admission(check_admission(programs, Path(name))))


def _wakes(figures: Figures, rounds: int, _calls: int) -> None:
    """How soon a call and an event find a pod, with which triggers and statistics."""
    calls, events = (Trigger("http", queue) for queue in (FUNCTION, EVENTS))
    by_amqp, events_by_amqp = (Trigger("amqp", queue) for queue in (FUNCTION, EVENTS))
    none = Settings(cooldown_s=_QUICK_COOLDOWN_S, triggers=[calls, events])
    one = replace(none, triggers=[by_amqp, calls, events])
    both = replace(none, triggers=[by_amqp, events_by_amqp, calls, events])
    variants = {
        "both queues asked by AMQP": (5000, both),
        "both, statistics each 1 s": (1000, both),
        "calls alone by AMQP, statistics each 1 s": (1000, one),
        "none by AMQP, statistics each 1 s": (1000, none),
        "none by AMQP": (5000, none),
    }
    for name, (statistics_ms, settings) in variants.items():
        with _running(figures, settings, statistics_ms=statistics_ms) as running:
            for kind in ("call", "event"):
                for _ in range(rounds):
                    with Step(f"{kind}, {name}") as step:
                        found = wake(running, event=kind == "event")
                        step.result(f"{found.done_s:.1f} s")
                    figures.add("From 0 pods", f"{kind}, {name}", asdict(found))


def _bursts(figures: Figures, rounds: int, calls: int) -> None:
    """How soon there are 10 pods, and none again; whether every call is answered."""
    variants = (  # RAPID_MAX_CONCURRENCY, from one pod or none, the HPA's period
        (1, True, 15),
        (1, False, 15),
        (4, True, 15),
        (1, True, 5),
        (1, False, 5),
    )
    for concurrency, from_one, sync_s in variants:
        pods = "1 pod" if from_one else "0 pods"
        name = f"from {pods}, RAPID_MAX_CONCURRENCY {concurrency}, HPA each {sync_s} s"
        settings = Settings(max_concurrency=concurrency)
        with _running(figures, settings, hpa_sync_s=sync_s) as running:
            for _ in range(rounds):
                with Step(name) as step:
                    found = burst(running, calls=calls, sleep_ms=1000, from_one=from_one)
                    step.result(f"10 pods ready: {found.ten_ready_s}, wrong: {found.wrong}")
                figures.add(f"{calls} calls of 1 s", name, asdict(found))


def _long_calls(figures: Figures, rounds: int, _calls: int) -> None:
    """Whether calls that run while pods are scaled away are answered."""
    with _running(figures, Settings(max_concurrency=1, timeout_s=_LONG_S + 30)) as running:
        name = f"6 calls of {_LONG_S} s beside 200 of 1 s"
        for _ in range(rounds):
            with Step(name) as step:
                found = burst(
                    running,
                    calls=200,
                    sleep_ms=1000,
                    from_one=True,
                    long_calls_ms=(_LONG_S * 1000,) * 6,
                )
                step.result(f"wrong: {found.wrong}, killed: {found.killed}")
            figures.add("Long calls", name, asdict(found))
        name = f"1 call of {_LONG_S} s alone"
        with Step(name) as step:
            found = burst(running, calls=1, sleep_ms=_LONG_S * 1000, from_one=False)
            step.result(f"wrong: {found.wrong}, killed: {found.killed}")
        figures.add("Long calls", name, asdict(found))


def _lost_queue(figures: Figures, rounds: int, _calls: int) -> None:
    """What becomes of a queue that is deleted while the function has no pod."""
    with _running(figures, Settings()) as running:
        for _ in range(rounds):
            with Step("a lost queue") as step:
                found = lose_queue(running)
                step.result(f"declared again after {found.declared_s:.1f} s")
            figures.add("A queue deleted at 0 pods", "as in k8s/overlays/keda", asdict(found))


@contextmanager
def _running(
    figures: Figures, settings: Settings, *, statistics_ms: int = 5000, hpa_sync_s: int = 15
) -> Iterator[Stage]:
    with (
        tempfile.TemporaryDirectory(prefix="lambda-lab-") as name,
        stage(
            figures.programs,
            Path(name),
            container_start_s=figures.container_start_s,
            statistics_ms=statistics_ms,
            hpa_sync_s=hpa_sync_s,
        ) as running,
    ):
        running.deploy(settings)
        running.wait_for_queues()
        yield running


_SCENARIOS: dict[str, Callable[[Figures, int, int], None]] = {
    "wake": _wakes,
    "burst": _bursts,
    "long": _long_calls,
    "lost": _lost_queue,
}

if __name__ == "__main__":
    main()
