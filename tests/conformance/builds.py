"""Test programs in compiled languages, built once per source and compiler into the user's cache."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

SOURCES: Final = Path(__file__).parent / "functions"
#: A first build fetches and compiles the client's dependencies, on two busy cores, seconds.
BUILD_LIMIT_S: Final = 240


def go_program(name: str) -> Path:
    """Return a program of one Go source folder; the test is skipped where it cannot be had."""

    def build(folder: Path) -> Path:
        _run(folder, "go", "build", "-trimpath", "-o", name, ".")
        return folder / name

    return _built(name, ("go", "env", "GOVERSION"), build)


def rust_program(name: str) -> Path:
    """Return a program of one Rust source folder; the test is skipped where it cannot be had."""

    def build(folder: Path) -> Path:
        _run(folder, "cargo", "build", "--quiet")
        return folder / "target" / "debug" / name

    return _built(name, ("cargo", "--version"), build)


def _built(name: str, version: tuple[str, ...], build: Callable[[Path], Path]) -> Path:
    source = SOURCES / name
    digest = hashlib.sha256(_run(source, *version).encode())
    for path in sorted(path for path in source.rglob("*") if path.is_file()):
        digest.update(path.read_bytes())
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    binary = cache / "lambda-conformance" / f"{name}-{digest.hexdigest()[:16]}"
    if not binary.exists():
        binary.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=binary.parent) as folder:
            copy = Path(folder) / "source"  # what a build leaves behind stays out of the checkout
            shutil.copytree(source, copy)
            build(copy).rename(binary)
    return binary


def _run(folder: Path, *command: str) -> str:
    try:
        run = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, "CGO_ENABLED": "0"},
            capture_output=True,
            text=True,
            timeout=BUILD_LIMIT_S,
            check=False,
        )
    except FileNotFoundError:
        pytest.skip(f"no {command[0]} on this machine")
    except subprocess.TimeoutExpired:
        pytest.skip(f"{command[0]} {command[1]} took over {BUILD_LIMIT_S} s")
    if run.returncode != 0:
        pytest.skip(f"{command[0]} {command[1]}: {run.stderr.strip().splitlines()[-1]}")
    return run.stdout
