"""The parts of the benchmark that reckon and read; the measuring itself needs wrk and time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.client import Answers
from bench.extensions import render_extensions
from bench.load import parse_load
from bench.profile import summarize
from bench.report import render, save_json
from bench.results import Memory, Results
from bench.rounds import Sample
from bench.startup import Startup
from bench.streaming import Figures, render_streaming
from bench.targets import judge

WRK_OUTPUT = """\
Running 1s test @ http://127.0.0.1:8080/
  2037 requests in 1.00s, 300 KB read
Requests/sec:   2037.12
requests=2037
duration_us=1000442
p50_us=450
p99_us=3400
errors_connect=0
errors_status=2
errors_timeout=1
"""


def make_sample(rate: float, p50_ms: float = 1.0, errors: int = 0) -> Sample:
    return Sample(
        rate=rate,
        p50_ms=p50_ms,
        p99_ms=3.0,
        cpu_ms={"daemon": 0.2, "function": 0.1},
        answers=1000,
        errors={"status": errors},
    )


def make_results(
    samples: dict[str, list[Sample]], *, idle_mb: float = 25.0, missing: int = 0
) -> Results:
    return Results(
        about={"python": "3.11"},
        samples=samples,
        memory={"rapid": Memory(idle_mb=idle_mb, loaded_mb=40.0)},
        startups={"rapid": [Startup(port_open_ms=80.0, first_answer_ms=90.0)]},
        answers={"server": Answers(own=1000 - missing, other=0, missing=missing)},
        payloads={},
    )


def test_wrk_figures_are_read_below_its_own_report() -> None:
    load = parse_load(WRK_OUTPUT)

    assert load.answers == 2037
    assert load.duration_s == pytest.approx(1.000442)
    assert (load.p50_ms, load.p99_ms) == (0.45, 3.4)
    assert load.errors == {"connect": 0, "status": 2, "timeout": 1}


@pytest.mark.parametrize(
    ("results", "target", "is_reached"),
    [
        (make_results({"direct-1": [make_sample(3400)], "rie-1": [make_sample(2000)]}),
         "direct, 1 connection: rate >= 1.7 x RIE's", True),
        (make_results({"direct-1": [make_sample(3399)], "rie-1": [make_sample(2000)]}),
         "direct, 1 connection: rate >= 1.7 x RIE's", False),
        (make_results({"direct-1": [make_sample(3400)]}),
         "direct, 1 connection: rate >= 1.7 x RIE's", None),
        (make_results({"server-1": [make_sample(9, 1.1)], "rie-1": [make_sample(2000, 0.5)]}),
         "server + broker, 1 connection: p50 <= 2.2 x RIE's", True),
        (make_results({"server-1": [make_sample(9, 1.11)], "rie-1": [make_sample(2000, 0.5)]}),
         "server + broker, 1 connection: p50 <= 2.2 x RIE's", False),
        # RIE's errors are not ours.
        (make_results({"rie-1": [make_sample(1, errors=9)], "direct-1": [make_sample(1)]}),
         "no errors under load", True),
        (make_results({}, missing=1), "every call answered with its own payload", False),
        (make_results({}, idle_mb=30.1), "rapid, idle: <= 30 MB", False),
    ],
)  # fmt: skip
def test_targets_are_judged(results: Results, target: str, is_reached: bool | None) -> None:
    verdicts = {verdict.target: verdict.is_reached for verdict in judge(results)}

    assert verdicts[target] is is_reached


def test_tables_and_json_show_what_was_measured(tmp_path: Path) -> None:
    results = make_results({"direct-16": [make_sample(rate) for rate in (1000, 3000, 2000)]})
    file = tmp_path / "bench.json"

    save_json(results, file)

    content = json.loads(file.read_text())
    assert "| rapid, direct, 16 | 2,000 [1,000..3,000] |" in render(results)
    assert content["samples"]["direct-16"][0]["rate"] == 1000
    assert {verdict["found"] for verdict in content["verdicts"]} >= {"not compared", "25.0 MB"}


def test_profile_tells_own_time_from_total() -> None:
    table = summarize(["main;serve;parse 30", "main;serve 10", "main;serve;serve;write 60"])

    assert table.splitlines()[1:] == [
        "  60.0   60.0  write",
        "  30.0   30.0  parse",
        "  10.0  100.0  serve",
    ]


def test_extensions_are_compared_by_their_medians() -> None:
    none = [make_sample(1000, p50_ms) for p50_ms in (0.1, 0.3, 9.0)]
    samples = {"none": none, "one": [make_sample(900)]}

    rows = render_extensions(samples).splitlines()[2:]

    assert rows == [
        "| none | 0.30 | 3.0 | 1,000 | 0.200 |",
        "| one | 1.00 | 3.0 | 900 | 0.200 |",
    ]


def test_a_row_of_streamed_responses_has_median_and_spread() -> None:
    rounds = [
        Figures(plain_ms=number, first_byte_ms=2 * number, mb_per_s=100, grown_mb=1.5)
        for number in (3, 1, 2)
    ]

    table = render_streaming({"rapid": rounds})

    assert table.splitlines()[2] == (
        "| rapid | 2.00 [1.00..3.00] | 4.00 [2.00..6.00] | 100 [100..100] | 1.5 [1.5..1.5] |"
    )
