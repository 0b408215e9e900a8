"""Builds the programs of Kubernetes, KEDA and a registry from Go modules, once for each version."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from devtools.commands import CommandError, run
from devtools.progress import Step

_HERE: Final = Path(__file__).parent
_BUILD_LIMIT_S: Final = 3600.0
_VERSION_VARIABLES: Final = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")

#: The programs by what needs them; the names are those of ``Programs``.
CONTROL_PLANE: Final = (
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubectl",
)
NODE: Final = ("kubelet", "kube-proxy", "registry", "pause", "stand-in")
KEDA: Final = ("keda-operator", "keda-adapter", "keda-webhooks")


class ToolMissing(Exception):
    """A program cannot be built here; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Programs:
    """Where the built programs are, and the versions their go.mod files name."""

    kubernetes: str
    keda: str

    def __getitem__(self, name: str) -> Path:
        return _cache(_HERE / _RECIPES[name].module) / name

    def missing(self, names: Collection[str]) -> list[str]:
        """Return those of ``names`` that are not built."""
        return [name for name in names if not self[name].exists()]


@dataclass(frozen=True, slots=True)
class _Recipe:
    module: str  #: folder of the go.mod
    package: str


_RECIPES: Final = {
    "etcd": _Recipe("kubernetes", "go.etcd.io/etcd/server/v3"),
    **{
        name: _Recipe("kubernetes", f"k8s.io/kubernetes/cmd/{name}")
        for name in (*CONTROL_PLANE[1:], "kubelet", "kube-proxy")
    },
    **{
        name: _Recipe("keda", f"github.com/kedacore/keda/v2/cmd/{name.removeprefix('keda-')}")
        for name in KEDA
    },
    "registry": _Recipe("images", "./registry"),
    "pause": _Recipe("images", "./pause"),
    "stand-in": _Recipe("images", "./stand-in"),
}


def known_programs() -> Programs:
    """Return where the programs are, or will be."""
    kubernetes, keda = ((_HERE / name / "go.mod").read_text() for name in ("kubernetes", "keda"))
    return Programs(
        kubernetes=required_version(kubernetes, "k8s.io/kubernetes"),
        keda=required_version(keda, "github.com/kedacore/keda/v2"),
    )


def build_programs(names: Collection[str]) -> Programs:
    """Build those of ``names`` that are missing. The first time takes minutes, and a gigabyte.

    Raises ``ToolMissing``, with the reason, where a program cannot be built.
    """
    programs = known_programs()
    for name in programs.missing(names):
        if shutil.which("go") is None:
            raise ToolMissing(f"go is not installed, and {name} is built with it")
        flags = _flags(_RECIPES[name].module, programs)
        with Step(f"{name}, built with Go") as step:
            try:
                _build(_RECIPES[name], programs[name], flags, step)
            except CommandError as error:
                raise ToolMissing(f"{name} cannot be built: {error}") from error
    return programs


def required_version(go_mod: str, module: str) -> str:
    """Return the version of ``module`` that the text of a go.mod file requires."""
    found = re.search(rf"^(?:require)?\s+{re.escape(module)} (v\S+)", go_mod, re.MULTILINE)
    if found is None:
        raise ToolMissing(f"go.mod requires no {module}")
    return found[1]


def _flags(module: str, programs: Programs) -> Sequence[str]:
    """Return what the linker writes into a program: without it a program says v0.0.0.

    Whoever checks that version turns features off.
    """
    if module == "keda":
        version = programs.keda.removeprefix("v")
        return [f"-X github.com/kedacore/keda/v2/version.Version={version}"]
    if module != "kubernetes":
        return []
    major, minor, _ = programs.kubernetes.removeprefix("v").split(".")
    fields = {"gitVersion": programs.kubernetes, "gitMajor": major, "gitMinor": minor}
    return [
        f"-X {name}.{field}={value}"
        for name in _VERSION_VARIABLES
        for field, value in fields.items()
    ]


def _build(recipe: _Recipe, program: Path, flags: Sequence[str], step: Step) -> None:
    command = ["go", "build", "-p", str(os.cpu_count() or 1), "-trimpath", "-buildvcs=false"]
    command += ["-ldflags", " ".join(["-s", "-w", *flags]), "-o", str(program), recipe.package]
    environ = {**os.environ, "CGO_ENABLED": "0"}
    run(command, _BUILD_LIMIT_S, step.tick, env=environ, cwd=_HERE / recipe.module)


def _cache(module: Path) -> Path:
    """Return the folder of a module's programs, which another go.mod does not share."""
    digest = hashlib.sha256((module / "go.mod").read_bytes())
    for source in sorted(module.glob("*/*.go")):
        digest.update(source.read_bytes())
    home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    folder = home / "lambda-autoscale" / f"{module.name}-{digest.hexdigest()[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
