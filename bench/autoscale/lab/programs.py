"""Builds the programs that Kubernetes and KEDA consist of, once for each version."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.errors import ToolMissing

_HERE = Path(__file__).parent
_BUILD_LIMIT_S = 3600
_VERSION_VARIABLES = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")


@dataclass(frozen=True, slots=True, kw_only=True)
class Programs:
    """Where the built programs are, and the versions their go.mod files name."""

    folder: Path
    kubernetes: str
    etcd: str
    keda: str

    def __getitem__(self, name: str) -> Path:
        return self.folder / name


def build_programs() -> Programs:
    """Return the programs; the first time takes half an hour of two cores, and a gigabyte."""
    kubernetes = _HERE / "kubernetes"
    keda = _HERE / "keda"
    versions = {
        "kubernetes": required_version((kubernetes / "go.mod").read_text(), "k8s.io/kubernetes"),
        "etcd": required_version((kubernetes / "go.mod").read_text(), "go.etcd.io/etcd/server/v3"),
        "keda": required_version((keda / "go.mod").read_text(), "github.com/kedacore/keda/v2"),
    }
    programs = Programs(folder=_cache(kubernetes, keda), **versions)
    for module, package, name, flags in _recipes(versions):
        if not programs[name].exists():
            _build(module, package, programs[name], flags)
    return programs


def required_version(go_mod: str, module: str) -> str:
    """Return the version of ``module`` that the text of a go.mod file requires."""
    found = re.search(rf"^(?:require)?\s+{re.escape(module)} (v\S+)", go_mod, re.MULTILINE)
    if found is None:
        raise ToolMissing(f"go.mod requires no {module}")
    return found[1]


def _recipes(versions: dict[str, str]) -> list[tuple[Path, str, str, Sequence[str]]]:
    kubernetes, keda = _HERE / "kubernetes", _HERE / "keda"
    major, minor, _ = versions["kubernetes"].removeprefix("v").split(".")
    # Without them a program says v0.0.0, and who checks its version turns features off.
    stamped = [f"-X {name}.gitVersion={versions['kubernetes']}" for name in _VERSION_VARIABLES]
    stamped += [
        f"-X {name}.{field}={value}"
        for name in _VERSION_VARIABLES
        for field, value in (("gitMajor", major), ("gitMinor", minor))
    ]
    keda_flags = [
        f"-X github.com/kedacore/keda/v2/version.Version={versions['keda'].removeprefix('v')}"
    ]
    names = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl")
    return [
        (kubernetes, "go.etcd.io/etcd/server/v3", "etcd", []),
        *((kubernetes, f"k8s.io/kubernetes/cmd/{name}", name, stamped) for name in names),
        *(
            (keda, f"github.com/kedacore/keda/v2/cmd/{name}", f"keda-{name}", keda_flags)
            for name in ("operator", "adapter", "webhooks")
        ),
    ]


def _build(module: Path, package: str, program: Path, flags: Sequence[str]) -> None:
    command = ["go", "build", "-p", str(os.cpu_count() or 1), "-trimpath", "-buildvcs=false"]
    command += ["-ldflags", " ".join(["-s", "-w", *flags]), "-o", str(program), package]
    try:
        subprocess.run(
            command,
            cwd=module,
            env={**os.environ, "CGO_ENABLED": "0"},
            check=True,
            capture_output=True,
            text=True,
            timeout=_BUILD_LIMIT_S,
        )
    except FileNotFoundError as error:
        raise ToolMissing("go is not installed: the lab builds Kubernetes and KEDA") from error
    except subprocess.SubprocessError as error:
        output = str(getattr(error, "stderr", None) or error).strip()
        raise ToolMissing(f"{package}: {output.splitlines()[-1]}") from error


def _cache(*modules: Path) -> Path:
    digest = hashlib.sha256()
    for module in modules:
        digest.update((module / "go.mod").read_bytes())
    home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    folder = home / "lambda-autoscale" / digest.hexdigest()[:12]
    folder.mkdir(parents=True, exist_ok=True)
    return folder
