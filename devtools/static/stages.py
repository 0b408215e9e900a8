"""A stage of the build: a script, what goes into it, and a folder that keeps what came out."""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from devtools.commands import run
from devtools.progress import OnWait

HERE: Final = Path(__file__).resolve().parent
CHECKOUT: Final = HERE.parent.parent

_LIMIT_S: Final = 7200.0  # an instrumented interpreter on a busy machine


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Something compiled once, and again only when what goes into it changes."""

    name: str  #: its script is ``NAME.sh``
    cache: Path
    sources: Path
    package: str  #: the source package that it compiles
    needs: tuple[Stage, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)  #: variables of the script
    inputs: tuple[Path, ...] = ()  #: other files that it reads

    @property
    def folder(self) -> Path:
        """Where it is installed; the name tells what went in."""
        return self.cache / f"{self.name}-{self._key()[:12]}"

    def is_built(self) -> bool:
        """Return whether the folder is complete."""
        return (self.folder / ".built").exists()

    def build(self, on_wait: OnWait) -> None:
        """Run the script; raises ``CommandError``."""
        folder = self.folder
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        run(["sh", HERE / f"{self.name}.sh"], _LIMIT_S, on_wait, env=self.environ(), cwd=folder)
        (folder / ".built").touch()

    def environ(self) -> dict[str, str]:
        """Return the script's variables: where things are, and nothing of the caller's own."""
        folders = {stage.name.upper(): str(stage.folder) for stage in self.needs}
        return {
            **self.settings,
            **folders,
            "CHECKOUT": str(CHECKOUT),
            "JOBS": str(len(os.sched_getaffinity(0))),
            "LC_ALL": "C",
            "PATH": ":".join(
                [*(f"{folder}/bin" for folder in folders.values()), os.environ["PATH"]]
            ),
            "PREFIX": str(self.folder),
            "SOURCES": str(self.sources),
            "SOURCE_DATE_EPOCH": "0",  # no time of the day in the result
        }

    def _key(self) -> str:
        parts = [
            (HERE / f"{self.name}.sh").read_bytes(),
            *(path.read_bytes() for path in sorted(self.sources.glob(f"{self.package}_*.dsc"))),
            *(path.read_bytes() for path in self.inputs),
            *(f"{name}={value}".encode() for name, value in sorted(self.settings.items())),
            *(stage._key().encode() for stage in self.needs),
            compiler().encode(),
        ]
        return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()


@functools.cache
def compiler() -> str:
    """Return the version of the machine's gcc and what it compiles for."""
    words = ["gcc", "-dumpfullversion", "-dumpmachine"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout
