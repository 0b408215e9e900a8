"""The record: what became of each mutant, and how much of the product the tests ran."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from devtools.mutants.source import Mutant

PATH: Final = Path(__file__).with_name("record.txt")
_HEAD: Final = """\
# What became of each mutant: outcome, module, function, change. Written by make mutants.
"""
_COVERED: Final = "# covered: "
#: How alike the names must be of a mutant then and now, when words around it were changed.
_LIKENESS: Final = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One run of ``make mutants``."""

    covered: Mapping[str, float]  #: per cent of a package's branches or lines
    killed: Mapping[str, bool]  #: by the mutant's name

    def text(self) -> str:
        """Return the record as it is kept."""
        lines = [f"{_COVERED}{name} {share}\n" for name, share in self.covered.items()]
        lines += sorted(
            f"{'killed' if is_killed else 'survived'}\t{name}\n"
            for name, is_killed in self.killed.items()
        )
        return _HEAD + "".join(lines)

    @classmethod
    def parse(cls, text: str) -> Record:
        """Read what :meth:`text` wrote."""
        covered, killed = {}, {}
        for line in text.splitlines():
            if line.startswith(_COVERED):
                name, share = line.removeprefix(_COVERED).rsplit(" ", 1)
                covered[name] = float(share)
            elif not line.startswith("#"):
                outcome, name = line.split("\t", 1)
                killed[name] = outcome == "killed"
        return cls(covered=covered, killed=killed)


def find(names: Iterable[str], mutants: Sequence[Mutant]) -> dict[str, Mutant]:
    """Return the mutants that are called so today, or nearly so after a renaming.

    A name that is not there was of code that is gone, or of code that is written anew.
    """
    by_name = {mutant.name: mutant for mutant in mutants}
    wanted = list(names)
    found = {name: by_name[name] for name in wanted if name in by_name}
    left = {name: mutant for name, mutant in by_name.items() if name not in found}
    for name in wanted:
        if name not in found:
            ending = _ending(name)
            alike = [other for other in left if _ending(other) == ending]
            for nearest in difflib.get_close_matches(name, alike, 1, _LIKENESS):
                found[name] = left.pop(nearest)
    return found


def _ending(name: str) -> str:
    """Return the part of a name that a renaming around it leaves: what stands there now."""
    return name.rpartition(" -> ")[2]
