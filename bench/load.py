"""One wrk run against one Invoke URL."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from bench.errors import LoadFailed

PAYLOAD = b'{"key":"value"}'

_SCRIPT = Path(__file__).with_name("wrk.lua")
_FIGURE = re.compile(r"^(\w+)=(\d+)$", re.MULTILINE)
_END_LIMIT_S = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What wrk saw."""

    answers: int
    duration_s: float
    p50_ms: float
    p99_ms: float
    errors: dict[str, int]  #: by kind; ``status`` is answers of 400 and above


def run_wrk(url: str, *, connections: int, seconds: int, as_events: bool = False) -> Load:
    """Call ``url`` for ``seconds`` from one wrk thread; each connection has one call at a time."""
    environ = {**os.environ, "BENCH_PAYLOAD": PAYLOAD.decode()}
    if as_events:
        environ["BENCH_INVOCATION_TYPE"] = "Event"
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout=10s"]
    run = subprocess.run(
        [*command, "-s", str(_SCRIPT), url],
        env=environ,
        stdout=subprocess.PIPE,
        text=True,
        timeout=seconds + _END_LIMIT_S,
        check=True,
    )
    load = parse_load(run.stdout)
    if not load.answers:
        raise LoadFailed(f"{url} answered nothing in {seconds} s: {load.errors}")
    return load


def parse_load(output: str) -> Load:
    """Read the ``key=value`` lines that wrk.lua prints below wrk's own report."""
    figures = {name: int(value) for name, value in _FIGURE.findall(output)}
    return Load(
        answers=figures["requests"],
        duration_s=figures["duration_us"] / 1e6,
        p50_ms=figures["p50_us"] / 1e3,
        p99_ms=figures["p99_us"] / 1e3,
        errors={
            name.removeprefix("errors_"): count
            for name, count in sorted(figures.items())
            if name.startswith("errors_")
        },
    )
