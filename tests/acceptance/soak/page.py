"""The figures of a soak, as docs/reference/soak.md has them."""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Mapping, Sequence
from typing import Final

from tests.acceptance.soak.load import Load
from tests.acceptance.soak.verdicts import thirds
from tests.support import ROOT

DOCUMENT: Final = ROOT / "docs" / "reference" / "soak.md"

_PAGE: Final = """# Soak

All attacks at once, for {minutes} minutes. `make soak` runs them and writes this page.
Do not edit the page. `make soak MINUTES=1` is a short try that writes nothing.
[attacks.py](../../tests/acceptance/soak/attacks.py) has a function for each attack.

A RabbitMQ of its own, a Lambda Server with one gunicorn worker and three rapids from source are
attacked. Two of the rapids serve one function through RabbitMQ. The third has no broker and is
called directly. Its destination of failed events answers without end, and the subscriber of its
telemetry a byte at a time. Each rapid has two slots. Two healthy callers go on meanwhile, and each
answer is checked. The attacks pause after each tenth of the time.

Last result: {when}.

## Promises

{promises}

## Healthy callers

RabbitMQ was disturbed on purpose {faults} times: its connections closed, or a queue deleted.
Until both rapids consume again, calls through the server may fail.

{callers}

## Processes

RSS in MB (10⁶ bytes): the first sample, before the attacks, and the median of each third of the
run. Descriptors and threads: the first sample, the most, and when all attacks were over. The server
ends a thread that had no connection for 10 s, and keeps 8.

{processes}

## Attacks

An outcome is an answer, a word of the attack's own, or an exception in the caller. An exception may
come only while RabbitMQ is disturbed. So may 404 and 5xx that the attack does not provoke.

{attacks}
"""

Verdict = Mapping[str, Sequence[str]]
_Rows = list[tuple[str, ...]]


def as_page(load: Load, verdict: Verdict) -> str:
    """Return the page of this run."""
    now = datetime.datetime.now(datetime.UTC)
    verdicts: _Rows = [("promise", "verdict")]
    for promise, broken in verdict.items():
        verdicts.append((promise, "broken: " + "; ".join(broken) if broken else "kept"))
    machine = f"{os.cpu_count()} cores, Python {platform.python_version()}"
    return _PAGE.format(
        minutes=f"{load.minutes:g}",
        when=f"{now:%d %B %Y}, {machine}, RabbitMQ {load.stand.rabbitmq_version}",
        promises=_markdown(verdicts),
        faults=len(load.stand.faults),
        callers=_markdown(_callers(load)),
        processes=_markdown(_processes(load)),
        attacks=_markdown(_attacks(load)),
    )


def _attacks(load: Load) -> _Rows:
    rows: _Rows = [("attack", "tries", "what came of them")]
    for attack in load.attacks:
        counts = sorted(attack.outcomes.items(), key=lambda item: -item[1])
        told = ", ".join(f"{str(outcome)[:60]} ({count})" for outcome, count in counts[:6])
        rows.append((attack.name, str(sum(attack.outcomes.values())), told))
    return rows


def _callers(load: Load) -> _Rows:
    rows: _Rows = [("caller", "calls", "failed in faults", "failed otherwise", "slowest, s")]
    for way, caller in load.callers.items():
        faults = ", ".join(f"{status} ({n})" for status, n in caller.failures_in_faults.items())
        counts = (str(caller.calls), faults or "0", str(len(caller.failures)))
        rows.append((way, *counts, f"{caller.longest_s:.1f}"))
    return rows


def _processes(load: Load) -> _Rows:
    rows: _Rows = [
        ("process", "RSS first sample", "first", "middle", "last", "descriptors", "threads")
    ]
    for name, samples in load.samples.items():
        rss = [samples[0].rss_mb, *thirds([sample.rss_mb for sample in samples])]
        to_the_end = [*samples, load.after.get(name, samples[-1])]
        descriptors = [sample.descriptors for sample in to_the_end]
        threads = [sample.threads for sample in to_the_end]
        rows.append((name, *(f"{each:.1f}" for each in rss), _range(descriptors), _range(threads)))
    return rows


def _range(values: Sequence[int]) -> str:
    return f"{values[0]}, most {max(values)}, {values[-1]}"


def _markdown(rows: _Rows) -> str:
    cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    lines = [f"| {' | '.join(row)} |" for row in cells]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])
