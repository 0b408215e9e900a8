"""Which test runs which line, and how much of the product the tests run.

``python -m devtools.mutants.measure FOLDER [pytest's arguments]`` is a run of pytest that leaves in
FOLDER what it measured: ``make test COVERAGE=FOLDER`` calls it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import coverage

from devtools.mutants.contexts import FOLDER_VARIABLE, TEST_VARIABLE

ROOT: Final = Path(__file__).resolve().parents[2]
PACKAGES: Final = ("lambda_protocol", "lambda_server", "rapid")
_CONFIG: Final = Path(__file__).with_name("coveragerc")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a run of tests showed."""

    tests: dict[Path, dict[int, list[str]]]  #: of each file and line, those that run it
    seconds: dict[str, float]  #: of each test that passed, what it took
    covered: dict[str, float]  #: of each package, branches and lines in per cent

    def tests_of(self, path: Path, *lines: int) -> list[str]:
        """Return the passed tests that run the first of ``lines`` that runs at all, quick first."""
        of_file = self.tests.get(path, {})
        found = next((of_file[line] for line in lines if of_file.get(line)), [])
        return sorted(
            (test for test in found if test in self.seconds), key=self.seconds.__getitem__
        )

    def seconds_of(self, tests: Sequence[str]) -> float:
        """Return what ``tests`` took together."""
        return sum(self.seconds[test] for test in tests)

    def split(
        self, tests: Sequence[str], first_s: float, rest_s: float
    ) -> tuple[list[str], list[str]]:
        """Return the first of ``tests``, at least one, that take ``first_s``, and then others."""
        first: list[str] = []
        rest: list[str] = []
        for test in tests:
            first_s -= self.seconds[test]
            if not first or first_s >= 0:
                first.append(test)
            elif (rest_s := rest_s - self.seconds[test]) >= 0:
                rest.append(test)
        return first, rest


def run_tests(folder: Path, arguments: Sequence[str]) -> int:
    """Run tests with coverage, whose data goes into ``folder``; return pytest's status."""
    folder.mkdir(parents=True, exist_ok=True)
    environ = {
        **os.environ,
        FOLDER_VARIABLE: str(folder.resolve()),
        "COVERAGE_PROCESS_START": str(_CONFIG),
    }
    command = [sys.executable, "-m", "pytest", "-p", "devtools.mutants.contexts", "--quiet"]
    command += ["--numprocesses", "2", "--dist", "worksteal", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environ, check=False).returncode


def read(folder: Path) -> Measured:
    """Return what the run left in ``folder``."""
    os.environ.update({FOLDER_VARIABLE: str(folder), TEST_VARIABLE: ""})
    measuring = coverage.Coverage(config_file=str(_CONFIG))
    measuring.combine([str(folder)], keep=True)
    data = measuring.get_data()
    notes = [json.loads(path.read_text()) for path in folder.glob("tests.*.json")]
    failed = {test for note in notes for test in note["failed"]}
    return Measured(
        tests={
            Path(name): {
                line: [test for test in tests if test]
                for line, tests in data.contexts_by_lineno(name).items()
            }
            for name in data.measured_files()
        },
        seconds={
            test: seconds
            for note in notes
            for test, seconds in note["seconds"].items()
            if test not in failed
        },
        covered=_covered(measuring, folder / "coverage.json"),
    )


def _covered(measuring: coverage.Coverage, report: Path) -> dict[str, float]:
    measuring.json_report(outfile=str(report))
    counts: Counter[str] = Counter()
    files: dict[str, dict[str, Any]] = json.loads(report.read_text())["files"]
    for name, file in files.items():
        package = next(part for part in Path(name).parts if part in PACKAGES)
        for kind in ("num_branches", "covered_branches", "num_statements", "covered_lines"):
            counts[f"{package} {kind}"] += file["summary"][kind]
    shares = {}
    for package in PACKAGES:
        for word, part, whole in (
            ("branches", "covered_branches", "num_branches"),
            ("lines", "covered_lines", "num_statements"),
        ):
            if count := counts[f"{package} {whole}"]:
                shares[f"{package} {word}"] = round(100 * counts[f"{package} {part}"] / count, 1)
    return shares


if __name__ == "__main__":
    sys.exit(run_tests(Path(sys.argv[1]), sys.argv[2:]))
