"""The command line: ``python -m bench`` measures; its commands compare, or look inside."""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import tempfile
from dataclasses import replace
from pathlib import Path

import click

from bench.autoscale.command import autoscale
from bench.errors import BenchError, ToolMissing
from bench.events import measure_events, render_events
from bench.extensions import compare_extensions
from bench.instructions import RECORD, compare, count_instructions
from bench.instructions import render as render_instructions
from bench.picture import draw
from bench.profile import PROGRAMS, profile_program
from bench.report import label, render, save_json
from bench.run import Plan, run
from bench.scale import CALLERS, measure_scale, render_scale
from bench.streaming import measure_streaming, render_streaming
from bench.subjects import SUBJECTS, Setup
from bench.tools import Tool, build_echo, build_extension, build_floor, install_rie, require_wrk
from devtools.progress import Step
from devtools.rabbitmq_node import RabbitmqError
from lambda_protocol.descriptors import raise_descriptor_limit

_FILE = click.Path(path_type=Path, dir_okay=False)
_QUICK_S = 2


class _Commands(click.Group):
    """Shows what ended a benchmark as a message, without a traceback."""

    def invoke(self, ctx: click.Context) -> None:
        """Run the command."""
        try:
            super().invoke(ctx)
        except (BenchError, RabbitmqError) as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=_Commands, invoke_without_command=True)
@click.option("--rounds", default=5, show_default=True)
@click.option("--seconds", default=4, show_default=True, help="Length of each load.")
@click.option("--quick", is_flag=True, help="One round with loads of two seconds.")
@click.option("--only", default=",".join(SUBJECTS), show_default=True, help="Measure these.")
@click.option("--payloads", is_flag=True, help="Also time calls with large payloads.")
@click.option("--json", "json_file", type=_FILE, help="Write everything found to this file.")
@click.option("--picture", type=_FILE, help="Draw the CPU time of a call, by part, as a PNG.")
@click.option("--rie", type=_FILE, help="Use this aws-lambda-rie, and install none.")
@click.option("--peer-rapid", type=_FILE, help="Measure this daemon of another make as well.")
@click.option("--peer-server", type=_FILE, help="Its server; needs --peer-rapid.")
@click.option(
    "--max-concurrency", default=1, show_default=True, help="rapid's RAPID_MAX_CONCURRENCY."
)
@click.option("--workers", type=int, help="gunicorn's; else as gunicorn.conf.py says.")
@click.option("--amqp-uri", envvar="AMQP_URI", help="The broker; else a private one is started.")
@click.pass_context
def main(
    context: click.Context,
    *,
    rounds: int,
    seconds: int,
    quick: bool,
    only: str,
    payloads: bool,
    json_file: Path | None,
    picture: Path | None,
    rie: Path | None,
    peer_rapid: Path | None,
    peer_server: Path | None,
    max_concurrency: int,
    workers: int | None,
    amqp_uri: str | None,
) -> None:
    """Measure rapid and lambda_server, with aws-lambda-rie beside them where it can be had."""
    # As Ctrl-C does, so that all that was started is stopped.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if context.invoked_subcommand == autoscale.name:
        return  # a simulation needs neither a load nor a function
    require_wrk()
    with Step("echo function") as step:
        echo = build_echo()
        step.result(echo.origin)
    setup = Setup(
        echo=echo.path,
        peer_rapid=peer_rapid,
        peer_server=peer_server,
        amqp_uri=amqp_uri,
        max_concurrency=max_concurrency,
        workers=workers,
    )
    if context.invoked_subcommand is not None:
        context.obj = setup
        return

    plan = Plan(
        subjects=_parse_subjects(only),
        rounds=1 if quick else rounds,
        seconds=_QUICK_S if quick else seconds,
        with_payloads=payloads,
    )
    if "floor" in plan.subjects:
        with contextlib.suppress(ToolMissing):
            setup = replace(setup, floor=build_floor())
    rie_origin = "not asked for"
    if "rie" in plan.subjects:
        setup, rie_origin = _with_rie(setup, rie)
    about = {
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, "
        f"load average {os.getloadavg()[0]:.1f} before",
        "python": platform.python_version(),
        "function": echo.origin,
        "aws-lambda-rie": rie_origin,
        "peer": "not asked for" if peer_rapid is None else str(peer_rapid),
        "broker": "a private RabbitMQ" if amqp_uri is None else "the one of AMQP_URI",
        "max concurrency": str(max_concurrency),
        "gunicorn workers": "as configured" if workers is None else str(workers),
        "loads": f"{plan.rounds} rounds of {plan.seconds} s",
    }
    with _folder() as name:
        folder = Path(name)
        results = run(plan, setup, about, folder)
    if json_file is not None:
        save_json(results, json_file)
    if picture is not None:
        draw(results.samples, {name: label(name) for name in results.samples}, picture)
    click.echo("\n" + render(results))


@main.command()
@click.argument("program", type=click.Choice(list(PROGRAMS)))
@click.option("--connections", default=16, show_default=True)
@click.option("--seconds", default=5, show_default=True)
@click.option("--stacks", type=_FILE, help="Keep py-spy's folded stacks, for a flame graph.")
@click.pass_obj
def profile(
    setup: Setup, *, program: str, connections: int, seconds: int, stacks: Path | None
) -> None:
    """Show where a program under load spends its time, by function, as py-spy sees it."""
    with _folder() as name:
        folder = Path(name)
        click.echo(
            profile_program(
                program,
                setup,
                connections=connections,
                seconds=seconds,
                stacks=stacks or folder / "stacks.txt",
                folder=folder,
            )
        )


@main.command()
@click.option("--check", is_flag=True, help="Compare with the record, and write nothing.")
@click.pass_obj
def instructions(setup: Setup, *, check: bool) -> None:
    """Count the instructions of a call; a busy machine does not change them."""
    found = count_instructions(setup.echo)
    if not check:
        RECORD.write_text(render_instructions(found))
        return
    told = compare(found, RECORD.read_text())
    if told:
        raise click.ClickException("\n".join([*told, "make instructions records anew"]))


@main.command()
@click.option("--rounds", default=7, show_default=True)
@click.option("--seconds", default=3, show_default=True, help="Length of each load.")
@click.pass_obj
def extensions(setup: Setup, *, rounds: int, seconds: int) -> None:
    """Measure what an extension adds to a call, and what telemetry adds to that."""
    with Step("extension") as step:
        tool = build_extension()
        step.result(tool.origin)
    with _folder() as name:
        table = compare_extensions(
            setup.echo, tool.path, rounds=rounds, seconds=seconds, folder=Path(name)
        )
    click.echo("\n" + table)


@main.command()
@click.option("--callers", default=CALLERS, show_default=True)
@click.pass_obj
def scale(setup: Setup, *, callers: int) -> None:
    """Let many callers call a function that takes a second, all at once."""
    raise_descriptor_limit()
    with _folder() as name:
        found = measure_scale(setup, Path(name), callers=callers)
    click.echo("\n" + render_scale(found, callers))


@main.command()
@click.option("--rounds", default=3, show_default=True)
@click.option("--seconds", default=4, show_default=True, help="Length of each load.")
@click.pass_obj
def events(setup: Setup, *, rounds: int, seconds: int) -> None:
    """Measure how many events are accepted and run a second."""
    with _folder() as name:
        rates = measure_events(setup, Path(name), rounds=rounds, seconds=seconds)
    click.echo("\n" + render_events(rates))


@main.command()
@click.option("--rounds", default=5, show_default=True)
def streaming(*, rounds: int) -> None:
    """Measure streamed responses: the first byte, throughput, and memory."""
    with _folder() as name:
        found = measure_streaming(Path(name), rounds=rounds)
    click.echo("\n" + render_streaming(found))


main.add_command(autoscale)


def _parse_subjects(text: str) -> frozenset[str]:
    subjects = frozenset(text.split(","))
    if not subjects <= set(SUBJECTS):
        raise click.BadParameter(f"{text!r} is not a list of some of {', '.join(SUBJECTS)}")
    return subjects


def _with_rie(setup: Setup, given: Path | None) -> tuple[Setup, str]:
    """Return the set-up with aws-lambda-rie if it can be had, and which one it is or why not."""
    with Step("aws-lambda-rie") as step:
        try:
            tool = install_rie() if given is None else Tool(path=given.resolve(), origin="--rie")
        except ToolMissing as missing:
            step.result(f"not to be had, so nothing is compared with it ({missing})")
            return setup, f"not run: {missing}"
        step.result(tool.origin)
        return replace(setup, rie=tool.path), tool.origin


def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="lambda-bench-")


if __name__ == "__main__":
    main()
