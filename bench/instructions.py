"""Counts the instructions of a call: a figure that a busy machine does not change.

callgrind counts them in one process on three ways of a call, over one connection. What a start
costs is left out: it is the difference of two runs that differ in their number of calls.
"""

from __future__ import annotations

import platform
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from bench import launches
from bench.client import InvokeClient
from bench.errors import ToolMissing
from bench.launches import Launch
from bench.load import PAYLOAD
from devtools.progress import Step
from devtools.rabbitmq_node import RabbitmqNode

RECORD: Final = Path(__file__).with_name("instructions.txt")
#: By how much a figure may differ from the record.
TOLERANCE: Final = 0.05
_CALLS: Final = (1_000, 2_000)
_TOTAL: Final = re.compile(rb"^(?:totals|summary): (\d+)", re.MULTILINE)
_READY_LIMIT_S: Final = 300.0
_STOP_LIMIT_S: Final = 60.0


def count_instructions(echo: Path) -> dict[str, int]:
    """Return the instructions of one call, by the program that they are counted in."""
    if not launches.STATIC_RAPID.exists():
        raise ToolMissing("the one file is missing: make rapid")
    if shutil.which("valgrind") is None:
        raise ToolMissing("valgrind is missing: apt-get install valgrind")
    found = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="instructions-")))
        with Step("start a private RabbitMQ"):
            uri = stack.enter_context(RabbitmqNode(folder / "rabbitmq")).uri
        for name, run in (
            ("direct", _direct),
            ("broker, rapid", _rapid),
            ("broker, server", _server),
            ("broker, polling server", _polling_server),
        ):
            with Step(f"count: {name}") as step:
                few, many = (_count(run(echo, uri), calls, folder) for calls in _CALLS)
                found[name] = (many - few) // (_CALLS[1] - _CALLS[0])
                step.result(f"{found[name]:,} a call")
    return found


def render(found: Mapping[str, int]) -> str:
    """Return the text of the record."""
    lines = [f"python {platform.python_version()}"]
    return "\n".join([*lines, *(f"{name}: {count}" for name, count in found.items()), ""])


def compare(found: Mapping[str, int], record: str) -> list[str]:
    """Return a line for each figure that is not as recorded.

    A server's figure is compared only under the Python version of the record.
    """
    python, *lines = record.splitlines()
    is_same = python == f"python {platform.python_version()}"
    told = []
    for line in lines:
        name, _, text = line.partition(": ")
        ratio = found[name] / int(text)
        if abs(ratio - 1) > TOLERANCE and (is_same or not name.endswith("server")):
            told.append(f"{name}: {found[name]:,} instructions a call, recorded are {int(text):,}")
    return told


@dataclass(frozen=True, slots=True)
class _Run:
    """Programs around one broker, and which of them is counted."""

    counted: Launch
    others: Sequence[Launch]
    url: str


def _direct(echo: Path, _uri: str) -> _Run:
    rapid = launches.static_rapid(echo)
    return _Run(rapid, (), rapid.url)


def _rapid(echo: Path, uri: str) -> _Run:
    server = launches.server(uri)
    return _Run(launches.static_rapid(echo, amqp_uri=uri), (server,), server.url)


def _server(echo: Path, uri: str) -> _Run:
    server = launches.server(uri)
    return _Run(server, (launches.static_rapid(echo, amqp_uri=uri),), server.url)


def _polling_server(echo: Path, uri: str) -> _Run:
    server = launches.server(uri, polls=True)
    rapid = launches.polling_rapid(launches.static_rapid(echo, amqp_uri=uri))
    return _Run(server, (rapid,), server.url)


def _count(run: _Run, calls: int, folder: Path) -> int:
    with tempfile.TemporaryDirectory(dir=folder) as name, ExitStack() as stack:
        for launch in run.others:
            stack.enter_context(launch.running(Path(name)))
        counted = replace(
            run.counted,
            command=(
                "valgrind",
                "--tool=callgrind",
                f"--callgrind-out-file={name}/callgrind.%p",
                *run.counted.command,
            ),
            environ={**run.counted.environ, "PYTHONHASHSEED": "0"},
            ready_limit_s=_READY_LIMIT_S,
            stop_limit_s=_STOP_LIMIT_S,
        )
        with counted.running(Path(name)), InvokeClient(run.url) as client:
            for _ in range(calls):
                client.invoke(PAYLOAD)
        totals = [
            int(total)
            for file in Path(name).glob("callgrind.*")
            for total in _TOTAL.findall(file.read_bytes())
        ]
        if not totals:
            raise counted.failure("left no count", Path(name))
        return max(totals)  # the others are processes that it forked
