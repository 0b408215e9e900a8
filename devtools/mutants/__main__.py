"""``python -m devtools.mutants [--check [--only MODULE]] [--measured FOLDER] [tests ...]``."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import itertools
import queue
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from devtools.mutants.measure import PACKAGES, ROOT, Measured, read, run_tests
from devtools.mutants.record import PATH, Record, find
from devtools.mutants.source import Mutant, mutants_of
from devtools.mutants.trial import Tree
from devtools.rabbitmq_node import RabbitmqNode, find_server

_SEED: Final = "lambda"
_COUNT: Final = 150
_AT_ONCE: Final = 2
#: Those that are quick, and near the code.
_TESTS: Final = ("tests/unit", "tests/integration", "tests/acceptance/conformance")
#: What the tests that a mutant is run against may take together, seconds; quick ones come first.
#: A check runs survivors against the tests that are left, as long as these take so much at most.
_BUDGET_S: Final = 20.0
_REST_S: Final = 300.0
#: Coverage changes by this much from run to run, since threads take turns differently; per cent.
#: A package of 460 branches had 82.5 to 83.0 in four runs of the same tests.
_JITTER: Final = 1.0


def main(arguments: Sequence[str]) -> int:
    """Write the record, or compare with it; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m devtools.mutants", description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare with the record")
    parser.add_argument(
        "--coverage", action="store_true", help="run no mutant, compare only what tests run"
    )
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="MODULE",
        help="check the mutants of this module or package alone; may be given again",
    )
    parser.add_argument("--measured", type=Path, help="the data of an earlier run")
    parser.add_argument("tests", nargs="*", default=_TESTS)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="mutants-") as name:
        folder = options.measured or Path(name)
        if options.measured is None and run_tests(folder, options.tests) != 0:
            print("Tests fail without a mutant; mutants are run against the others.", flush=True)
        measured = read(folder)
        for package, share in measured.covered.items():
            print(f"{package}: {share} %")
        if options.coverage:
            return _compare_coverage(measured)
        with _trees(Path(name)) as trees:
            if options.check:
                return _check(measured, trees, options.only)
            return _record(measured, trees)


def _record(measured: Measured, trees: Sequence[Tree]) -> int:
    covered = [mutant for mutant in _all_mutants() if _tests_of(mutant, measured)]
    chosen = sorted(covered, key=_lot)[:_COUNT]
    killed = _run({mutant: _split(mutant, measured)[0] for mutant in chosen}, measured, trees)
    named = {mutant.name: is_killed for mutant, is_killed in killed.items()}
    PATH.write_text(Record(covered=measured.covered, killed=named).text())
    print(f"{sum(killed.values())} of {len(killed)} mutants of {len(covered)} were killed.")
    return 0


def _check(measured: Measured, trees: Sequence[Tree], only: Sequence[str]) -> int:
    """Run what was killed before; return 1 if any of it survives, or less is covered.

    With ``only`` some modules' mutants are run, and what is covered is not compared.
    """
    record = Record.parse(PATH.read_text())
    wanted = [
        name
        for name, is_killed in record.killed.items()
        if is_killed and (not only or _is_of(name, only))
    ]
    found = find(wanted, _all_mutants())
    tests = {name: _split(mutant, measured) for name, mutant in found.items()}
    killed = _run({found[name]: first for name, (first, _) in tests.items()}, measured, trees)
    left = {found[name]: rest for name, (_, rest) in tests.items() if not killed[found[name]]}
    killed |= _run(left, measured, trees)
    gone = [name for name in wanted if name not in found]
    for name in gone:
        print(f"gone\t{name}")
    missed = [name for name, mutant in found.items() if not killed[mutant]]
    print(f"{len(killed) - len(missed)} killed as before, {len(gone)} gone, {len(missed)} missed.")
    print(*missed, sep="\n")
    return (not only and _compare_coverage(measured)) or bool(missed)


def _is_of(name: str, modules: Sequence[str]) -> bool:
    """Return whether a mutant's name begins with one of the modules or their packages."""
    module = name.partition("\t")[0]
    return any(module == wanted or module.startswith(f"{wanted}.") for wanted in modules)


def _compare_coverage(measured: Measured) -> int:
    """Return 1 if fewer branches are run than when the record was written."""
    less = [
        f"{name}: {measured.covered.get(name, 0.0)} %, in the record {share} %"
        for name, share in Record.parse(PATH.read_text()).covered.items()
        if name.endswith("branches") and measured.covered.get(name, 0.0) < share - _JITTER
    ]
    print(*less, sep="\n", end="\n" if less else "")
    return 1 if less else 0


def _all_mutants() -> list[Mutant]:
    return [
        mutant
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
        for mutant in mutants_of(_module(path), path.read_bytes())
    ]


def _module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def _tests_of(mutant: Mutant, measured: Measured) -> list[str]:
    path = ROOT / Path(*mutant.module.split(".")).with_suffix(".py")
    return measured.tests_of(path, mutant.line, mutant.statement)


def _split(mutant: Mutant, measured: Measured) -> tuple[list[str], list[str]]:
    """Return the quick tests of a mutant, and those that are run if these do not kill it."""
    return measured.split(_tests_of(mutant, measured), _BUDGET_S, _REST_S)


def _lot(mutant: Mutant) -> bytes:
    """Return where the mutant stands in the seed's order, which other code does not change."""
    return hashlib.sha256(f"{_SEED}\t{mutant.name}".encode()).digest()


def _run(
    trials: Mapping[Mutant, Sequence[str]], measured: Measured, trees: Sequence[Tree]
) -> dict[Mutant, bool]:
    """Return whether each mutant is killed by its tests; print each as it is known."""
    free: queue.SimpleQueue[Tree] = queue.SimpleQueue()
    for tree in trees:
        free.put(tree)
    number = itertools.count(1)

    def is_killed(trial: tuple[Mutant, Sequence[str]]) -> bool:
        mutant, tests = trial
        tree = free.get()
        try:
            killed = bool(tests) and tree.kills(mutant, tests, measured.seconds_of(tests))
        finally:
            free.put(tree)
        outcome = "killed" if killed else "survived"
        place = f"{next(number)}/{len(trials)}"
        print(f"{place}\t{outcome}\t{len(tests)} tests\t{mutant.name}", flush=True)
        return killed

    with ThreadPoolExecutor(len(trees)) as pool:
        return dict(zip(trials, pool.map(is_killed, trials.items()), strict=True))


@contextlib.contextmanager
def _trees(folder: Path) -> Iterator[list[Tree]]:
    """Give copies of the tree, and their tests one broker if this machine has one."""
    node = RabbitmqNode(folder / "rabbitmq") if find_server() else None
    if node is not None:
        node.start()
    environ = {"AMQP_URI": node.uri} if node is not None else {}
    try:
        yield [Tree(folder / f"tree-{number}", environ) for number in range(_AT_ONCE)]
    finally:
        if node is not None:
            node.stop()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
