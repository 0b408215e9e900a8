"""Render kustomizations: with kustomize of one version from the user's cache, or kubectl's own."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from devtools.commands import CommandError, run
from devtools.progress import Step

VERSION: Final = "5.8.1"
_MODULE: Final = f"sigs.k8s.io/kustomize/kustomize/v5@v{VERSION}"
_BUILD_LIMIT_S: Final = 600.0
_RENDER_LIMIT_S: Final = 60.0


class KustomizeError(Exception):
    """There is no kustomize, or it refused; the message says which and why."""


def cache() -> Path:
    """Return the user's folder for the tools that this project builds for itself."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return root / "lambda-tools"


def is_kustomize_built() -> bool:
    """Return whether the pinned version is in the cache."""
    return _program().exists()


def find_kustomize() -> list[str] | None:
    """Return the command that renders a folder, or None if this machine has none.

    The pinned version comes first: what kubectl brings depends on kubectl.
    """
    if is_kustomize_built():
        return [str(_program()), "build"]
    if shutil.which("kubectl") is not None:
        return ["kubectl", "kustomize"]
    return None


def install_kustomize() -> None:
    """Build kustomize into the cache unless it is there; raises KustomizeError."""
    if is_kustomize_built():
        return
    if shutil.which("go") is None:
        raise KustomizeError(f"kustomize {VERSION} is built with Go, and there is no go here")
    with Step(f"kustomize {VERSION}") as step:
        environ = {**os.environ, "GOBIN": str(_program().parent)}
        try:
            run(["go", "install", _MODULE], _BUILD_LIMIT_S, step.tick, env=environ)
        except CommandError as error:
            raise KustomizeError(str(error)) from error
        step.result("built")


def render(folder: Path) -> str:
    """Return the YAML documents of the kustomization in ``folder``; raises KustomizeError."""
    command = find_kustomize()
    if command is None:
        raise KustomizeError("neither kustomize nor kubectl here; scripts/test-setup builds one")
    done = subprocess.run(
        [*command, str(folder)],
        capture_output=True,
        text=True,
        check=False,
        timeout=_RENDER_LIMIT_S,
    )
    if done.returncode != 0:
        raise KustomizeError(f"{folder}: {done.stderr.strip()}")
    return done.stdout


def _program() -> Path:
    return cache() / f"kustomize-{VERSION}" / "kustomize"
