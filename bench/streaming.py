"""Streamed responses: the first byte beside that of a plain call, throughput, and memory."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench import launches
from bench.errors import LoadFailed
from bench.usage import session_rss_mb
from devtools.ports import LOOPBACK
from devtools.processes import BackgroundProcess
from devtools.progress import Step
from devtools.rabbitmq_node import RabbitmqNode
from lambda_protocol.limits import STREAMED_BYTES

_STREAM = Path(__file__).parent / "stream" / "stream.py"
_CALLS = 200
_LIMIT_S = 120.0
_LOOK_S = 0.01
_OPERATIONS = {
    "plain": "/2015-03-31/functions/{}/invocations",
    "streamed": "/2021-11-15/functions/{}/response-streaming-invocations",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """Where the function is called, and the programs on the way."""

    port: int
    processes: Sequence[BackgroundProcess]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """One round of one way."""

    plain_ms: float  #: to the first byte of a plain call, median
    first_byte_ms: float  #: to that of a streamed response, median
    mb_per_s: float  #: of a response as large as one may be, 10^6 bytes
    grown_mb: float  #: the memory of all programs meanwhile, above what they had before


def measure_streaming(folder: Path, *, rounds: int) -> dict[str, list[Figures]]:
    """Return what each way needs, one a round; the rounds are interleaved."""
    found: dict[str, list[Figures]] = {}
    with ExitStack() as stack:
        with Step("start a private RabbitMQ"):
            node = stack.enter_context(RabbitmqNode(folder / "node"))
        ways = stack.enter_context(_ways(folder, node.uri))
        for number in range(1, rounds + 1):
            for name, way in ways.items():
                with Step(f"round {number} of {rounds}: {name}") as step:
                    figures = _measure(way)
                    found.setdefault(name, []).append(figures)
                    step.result(f"{figures.first_byte_ms:.2f} ms, {figures.mb_per_s:.0f} MB/s")
    return found


@contextmanager
def _ways(folder: Path, uri: str) -> Iterator[dict[str, Way]]:
    """Start all programs; each way has a rapid of its own."""
    alone = launches.rapid(_STREAM, name="rapid alone")
    behind = launches.rapid(_STREAM, name="rapid behind the server")
    queued = launches.rapid(_STREAM, amqp_uri=uri)
    direct = launches.direct_server(behind)
    broker = launches.server(uri, workers=None)
    with ExitStack() as stack:
        started = {
            each.name: stack.enter_context(each.running(folder))
            for each in (alone, behind, queued, direct, broker)
        }
        yield {
            "rapid": Way(port=alone.port, processes=[started[alone.name]]),
            "server, direct": Way(
                port=direct.port, processes=[started[behind.name], started[direct.name]]
            ),
            "server and broker": Way(
                port=broker.port, processes=[started[queued.name], started[broker.name]]
            ),
        }


def _measure(way: Way) -> Figures:
    times: dict[str, list[float]] = {name: [] for name in _OPERATIONS}
    connection = http.client.HTTPConnection(LOOPBACK, way.port, timeout=_LIMIT_S)
    for _ in range(_CALLS):
        for name, path in _OPERATIONS.items():
            times[name].append(_call(connection, path, 1)[0])
    idle = _rss_mb(way)
    with _watched(way) as most:
        _, took_s = _call(connection, _OPERATIONS["streamed"], STREAMED_BYTES)
    connection.close()
    return Figures(
        plain_ms=median(times["plain"]) * 1000,
        first_byte_ms=median(times["streamed"]) * 1000,
        mb_per_s=STREAMED_BYTES / took_s / 1e6,
        grown_mb=max(most) - idle,
    )


def _call(connection: http.client.HTTPConnection, path: str, size: int) -> tuple[float, float]:
    """Return when the first byte of the body was there, and when all of it was, seconds."""
    begun = time.monotonic()
    connection.request("POST", path.format(launches.FUNCTION_NAME), json.dumps({"bytes": size}))
    answer = connection.getresponse()
    first = answer.read1(1)
    first_s = time.monotonic() - begun
    count = len(first)
    while data := answer.read1(1 << 20):
        count += len(data)
    answer.read()  # ends it for http.client
    if answer.status != http.client.OK or count < size:
        raise LoadFailed(f"{path} was answered {answer.status} with {count} bytes of {size}")
    return first_s, time.monotonic() - begun


@contextmanager
def _watched(way: Way) -> Iterator[list[float]]:
    """Look at the memory now and then, until the end."""
    most, is_over = [_rss_mb(way)], threading.Event()

    def look() -> None:
        while not is_over.wait(_LOOK_S):
            most.append(_rss_mb(way))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield most
    finally:
        is_over.set()
        thread.join()


def _rss_mb(way: Way) -> float:
    return sum(session_rss_mb(process.pid) for process in way.processes)


def render_streaming(found: Mapping[str, Sequence[Figures]]) -> str:
    """Return the table, in Markdown: medians, [least..most] beside them."""
    lines = [
        "| way | plain call, ms | first byte, ms | MB/s | memory, MB more |",
        "|---|---|---|---|---|",
    ]
    for name, rounds in found.items():
        cells = []
        for field, form in (
            ("plain_ms", ".2f"),
            ("first_byte_ms", ".2f"),
            ("mb_per_s", ".0f"),
            ("grown_mb", ".1f"),
        ):
            every = [getattr(one, field) for one in rounds]
            cells.append(f"{median(every):{form}} [{min(every):{form}}..{max(every):{form}}]")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)
