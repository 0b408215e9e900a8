"""One wrk run against one Invoke URL."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from bench.errors import LoadFailed

PAYLOAD = b'{"key":"value"}'

_SCRIPT = Path(__file__).with_name("wrk.lua")
_FIGURE = re.compile(r"^(\w+)=(\d+)$", re.MULTILINE)
_END_LIMIT_S = 30
#: How long before the end connections are looked at, seconds.
_LOOK_S = 0.3
_LAST_RECEIVED = re.compile(r"\blastrcv:(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What wrk saw."""

    answers: int
    duration_s: float
    p50_ms: float
    p99_ms: float
    errors: dict[str, int]  #: by kind; ``status`` is answers of 400 and above
    served: int | None = None  #: connections that had an answer just before the end


def run_wrk(url: str, *, connections: int, seconds: int, as_events: bool = False) -> Load:
    """Call ``url`` for ``seconds`` from one wrk thread; each connection has one call at a time."""
    environ = {**os.environ, "BENCH_PAYLOAD": PAYLOAD.decode()}
    if as_events:
        environ["BENCH_INVOCATION_TYPE"] = "Event"
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout=10s"]
    with subprocess.Popen(
        [*command, "-s", str(_SCRIPT), url], env=environ, stdout=subprocess.PIPE, text=True
    ) as wrk:
        time.sleep(max(0.0, seconds - _LOOK_S))
        served = _count_served(urlsplit(url).port)
        output, _ = wrk.communicate(timeout=seconds + _END_LIMIT_S)
    if wrk.returncode:
        raise LoadFailed(f"wrk ended with {wrk.returncode}")
    load = replace(parse_load(output), served=served)
    if not load.answers:
        raise LoadFailed(f"{url} answered nothing in {seconds} s: {load.errors}")
    return load


def _count_served(port: int | None) -> int | None:
    """Return to how many connections of wrk something came in the last second."""
    if shutil.which("ss") is None:
        return None
    command = ["ss", "--tcp", "--info", "--no-header", "--oneline", f"dport = :{port}"]
    found = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    quiet = sum(int(ms) >= 1000 for ms in _LAST_RECEIVED.findall(found))  # 0 ms are left out
    return len(found.splitlines()) - quiet


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
