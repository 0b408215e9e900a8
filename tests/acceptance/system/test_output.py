"""What every process prints comes out of rapid in whole lines, on a pipe and on a terminal."""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.conftest import StartRapid
from tests.support import AWSLAMBDARIC, MISBEHAVE, RAPID, wait_until

#: Runs rapid with both outputs in one file.
ONE_FILE = ("sh", "-c", 'exec "$@" 2>&1', "sh", *RAPID)
#: Runs rapid on a terminal of its own, and prints what that shows.
TERMINAL = (sys.executable, "-c", "import pty, sys; sys.exit(pty.spawn(sys.argv[1:]))", *RAPID)

#: Runs rapid with both outputs in one pipe that nobody reads.
UNREAD = (
    sys.executable,
    "-c",
    "import os, sys; _, full = os.pipe(); [os.dup2(full, n) for n in (1, 2)];"
    " os.set_inheritable(_, True); os.execv(sys.argv[1], sys.argv[1:])",
    *RAPID,
)


def test_halves_of_lines_of_two_calls_are_not_torn_into_each_other(
    start_rapid: StartRapid, tmp_path: Path, pool: ThreadPoolExecutor
) -> None:
    rapid = start_rapid(MISBEHAVE, RAPID_MAX_CONCURRENCY="2")
    gate = tmp_path / "gate"
    wrote = [tmp_path / "a", tmp_path / "b"]

    calls = [
        pool.submit(
            rapid.do,
            do="print_halves",
            first='{"a":',
            rest="1}\n",
            wrote=str(file),
            until=str(gate),
        )
        for file in wrote
    ]
    wait_until(lambda: all(file.exists() for file in wrote), "half a line of each")
    gate.touch()
    for call in calls:
        call.result()

    wait_until(lambda: len(rapid.stdout) >= 16, "both lines")
    assert rapid.stdout == b'{"a":1}\n' * 2


@pytest.mark.parametrize("concurrency", ["", "2"], ids=["one at a time", "several at a time"])
def test_output_without_a_line_end_comes_with_its_invocation_and_apart_from_rapids_next_line(
    start_rapid: StartRapid, concurrency: str
) -> None:
    rapid = start_rapid(MISBEHAVE, program=ONE_FILE, AWS_LAMBDA_MAX_CONCURRENCY=concurrency)

    rapid.do(do="print", text="no line end")
    wait_until(lambda: b"no line end" in rapid.stdout, "the half line")
    assert rapid.stop() == 0

    assert "no line end" in rapid.log
    assert [line for line in rapid.log if line.endswith("(rapid) stopping")]


def test_a_half_line_of_a_process_that_ends_comes_out(start_rapid: StartRapid) -> None:
    rapid = start_rapid(MISBEHAVE, program=ONE_FILE, RAPID_PRINT_REPORTS="TRUE")

    rapid.do(do="print_halves", first="last", rest=" words", wrote="/dev/null", until="/dev/null")
    rapid.do(do="signal", name="KILL")

    rapid.wait_for_log("REPORT", count=2)
    assert "last words" in rapid.log


def test_a_traceback_of_python_is_readable_on_a_terminal_and_untouched_elsewhere(
    start_rapid: StartRapid,
) -> None:
    command = (*AWSLAMBDARIC, "handlers.fail")
    shown, piped = start_rapid(*command, program=TERMINAL), start_rapid(*command)

    for rapid in (shown, piped):
        assert rapid.invoke().error_type == "ValueError"
        rapid.wait_for_log("in fail")

    wait_until(lambda: b"on purpose\r\n" in shown.stdout, "the source line")
    assert b"\r" not in shown.stdout.replace(b"\r\n", b"")
    assert [line.strip() for line in shown.log if "on purpose" in line] == [
        "[ERROR] ValueError: on purpose",
        'raise ValueError("on purpose")',
    ]
    assert b"[ERROR] ValueError: on purpose\rTraceback (most recent call last):\r" in piped.stdout


def test_a_flood_that_nobody_reads_delays_no_deadline_of_another_environment(
    start_rapid: StartRapid, pool: ThreadPoolExecutor
) -> None:
    """Every timeout logs a warning and two REPORT lines: the clock would wait for the pipe."""
    rapid = start_rapid(
        MISBEHAVE,
        program=UNREAD,
        RAPID_MAX_CONCURRENCY="2",
        RAPID_PRINT_REPORTS="TRUE",
        AWS_LAMBDA_FUNCTION_TIMEOUT="1",
    )

    for _ in range(2):
        flood = pool.submit(
            rapid.invoke,
            json.dumps({"do": "print", "text": "x" * 1023 + "\n", "times": 10_000}),
            **{"X-Amz-Log-Type": "Tail"},
        )
        other = rapid.do(do="sleep", s=60)

        assert other.error_type == flood.result().error_type == "Sandbox.Timedout"

    assert rapid.invoke("[1]").body == b"[1]"
    assert rapid.stop() == 0
