"""Builds the functions of the matrix into the user's cache, and finds them there.

A build's folder is named after its sources and toolchain, so it is made once. Building asks
registries and takes minutes, so the tests never do it:
``python -m tests.acceptance.runtimes.builds`` does.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from devtools.apt import AptError, install
from devtools.commands import CommandError, run
from devtools.interrupts import exit_with
from devtools.progress import Step
from tests.acceptance.runtimes.recipes import RECIPES, Recipe

#: For all builds together, seconds.
_LIMIT_S: Final = 900.0
_VERSION_LIMIT_S: Final = 60.0
#: Of the digest that a build is named after.
_DIGITS: Final = 16


class NotBuilt(Exception):
    """The function is not there, and nobody is to blame: the message says what is missing."""


class BuildBroken(Exception):
    """Everything that the build needs was there, and it failed; the message has its output."""


@dataclass(frozen=True, slots=True)
class Cache:
    """Where builds are kept; whoever builds holds the lock."""

    folder: Path

    @classmethod
    def of_user(cls) -> Cache:
        """Return the cache in the user's own cache folder."""
        root = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
        return cls(root / "lambda-runtimes")

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Wait until nobody else builds here, and keep others out."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def find(self, recipe: Recipe) -> Path:
        """Return the built folder; raises ``NotBuilt`` or ``BuildBroken``."""
        folder = self._folder_of(recipe)
        if folder.exists():
            return folder
        for error in (NotBuilt, BuildBroken):
            note = _note(folder, error)
            if note.exists():
                raise error(note.read_text())
        raise NotBuilt("not built on this machine yet; make runtimes builds it")

    def build(self, recipe: Recipe, deadline: float) -> Path:
        """Return the built folder, having built it if it was not there.

        ``deadline`` is monotonic seconds. Raises ``NotBuilt`` or ``BuildBroken``, which the next
        ``find`` raises again.
        """
        folder = self._folder_of(recipe)
        if folder.exists():
            return folder
        self._forget(recipe)
        unfinished = folder.with_suffix(".unfinished")
        shutil.copytree(recipe.source, unfinished)
        try:
            _install(recipe)
            with Step(f"{recipe.name} for the tests") as step:
                _make(recipe, unfinished, deadline, step)
                step.result("built")
        except (NotBuilt, BuildBroken) as error:
            _note(folder, type(error)).write_text(str(error))
            raise
        unfinished.rename(folder)
        return folder

    def _folder_of(self, recipe: Recipe) -> Path:
        digest = hashlib.sha256("\n".join(toolchain(recipe)).encode())
        for file in sorted(path for path in recipe.source.rglob("*") if path.is_file()):
            digest.update(str(file.relative_to(recipe.source)).encode())
            digest.update(file.read_bytes())
        return self.folder / f"{recipe.name}-{digest.hexdigest()[:_DIGITS]}"

    def _forget(self, recipe: Recipe) -> None:
        """Remove what earlier sources or toolchains, or a build that failed, have left."""
        for old in self.folder.glob(f"{recipe.name}-{'[0-9a-f]' * _DIGITS}*"):
            if old.is_dir():
                shutil.rmtree(old)
            else:
                old.unlink()


@functools.cache
def built(recipe: Recipe) -> Path:
    """Return the built folder of ``recipe``; without it the test is skipped, or fails if broken."""
    try:
        return Cache.of_user().find(recipe)
    except NotBuilt as reason:
        pytest.skip(str(reason))
    except BuildBroken as error:
        pytest.fail(str(error))


def toolchain(recipe: Recipe) -> list[str]:
    """Return what each tool prints of its version; raises ``NotBuilt``."""
    return [version_line(command) for command in recipe.toolchain]


def version_line(command: Sequence[str]) -> str:
    """Return the first line that ``command`` prints; raises ``NotBuilt`` when it does not work."""
    if shutil.which(command[0]) is None:
        raise NotBuilt(f"no {command[0]} on this machine")
    try:
        asked = subprocess.run(
            command, capture_output=True, text=True, timeout=_VERSION_LIMIT_S, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise NotBuilt(f"{command[0]} does not work here: {error}") from error
    return asked.stdout.partition("\n")[0]


def main(recipes: Sequence[Recipe] = RECIPES) -> int:
    """Build what is missing and say what came of it; return 1 if a build is broken."""
    cache, deadline, code = Cache.of_user(), time.monotonic() + _LIMIT_S, 0
    with cache.lock():
        for recipe in recipes:
            try:
                cache.build(recipe, deadline)
            except NotBuilt as reason:
                print(f"  {recipe.name}: left out, {reason}")
            except BuildBroken as error:
                print(f"  {recipe.name}: {error}", file=sys.stderr)
                code = 1
    return code


def _install(recipe: Recipe) -> None:
    missing = [name for tool, name in recipe.packages.items() if shutil.which(tool) is None]
    if missing:
        try:
            install(missing, f"to build the {recipe.name} function of the tests")
        except AptError as error:
            raise NotBuilt(str(error)) from error


def _make(recipe: Recipe, folder: Path, deadline: float, step: Step) -> None:
    environ = {**os.environ, **recipe.environ}

    def run_here(command: Sequence[str]) -> None:
        left_s = max(0.0, deadline - time.monotonic())
        try:
            run(command, left_s, step.tick, env=environ, cwd=folder)
        except CommandError as error:
            if time.monotonic() >= deadline:
                raise NotBuilt(f"no time was left for {' '.join(command)}") from error
            raise

    try:
        for command in recipe.fetch:
            run_here(command)
    except CommandError as error:
        last_line = str(error).strip().splitlines()[-1]
        raise NotBuilt(f"its registry did not give what it needs: {last_line}") from error
    try:
        for command in recipe.build:
            run_here(command)
    except CommandError as error:
        raise BuildBroken(str(error)) from error


def _note(folder: Path, error: type[Exception]) -> Path:
    """Return where it is written down why ``folder`` is not there."""
    return folder.with_suffix(f".{error.__name__}")


if __name__ == "__main__":
    exit_with(main)
