"""Lint the manifests: yamllint on the files, checkov on what they render to.

checkov brings two hundred packages, so it has an environment of its own in the user's cache.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

from devtools.commands import CommandError, run
from devtools.interrupts import exit_with
from devtools.kustomize import KustomizeError, cache, install_kustomize, render
from devtools.progress import Step

ROOT: Final = Path(__file__).resolve().parent.parent
K8S: Final = ROOT / "k8s"
SKIPS: Final = K8S / "checkov-skips.yaml"
CHECKOV: Final = "3.3.30"
_INSTALL_LIMIT_S: Final = 900.0
_CHECK_LIMIT_S: Final = 300.0


@dataclass(frozen=True, slots=True)
class Finding:
    """What checkov does not like."""

    check: str
    title: str
    where: str  #: FOLDER:KIND.NAMESPACE.NAME


@dataclass(frozen=True, slots=True)
class Skip:
    """A finding that is left as it is, and why; both expressions match the whole."""

    check: str
    where: str
    reason: str

    def covers(self, finding: Finding) -> bool:
        """Return whether this is about ``finding``."""
        return bool(
            re.fullmatch(self.check, finding.check) and re.fullmatch(self.where, finding.where)
        )


def main() -> int:
    """Print what is found; return 0 if that is nothing new."""
    try:
        return max(yamllint(), checkov())
    except (CommandError, KustomizeError) as error:
        print(f"  {error}", file=sys.stderr)
        return 1


def yamllint() -> int:
    """Run yamllint on the manifests as they are written; return its exit status."""
    places = [
        "k8s",
        *(str(each.relative_to(ROOT)) for each in sorted(ROOT.glob("examples/**/*.yaml"))),
    ]
    command = [sys.executable, "-m", "yamllint", "--strict", "--config-file", "k8s/.yamllint"]
    # From the root: the files that the configuration leaves out are named from there.
    done = subprocess.run([*command, *places], cwd=ROOT, check=False, timeout=_CHECK_LIMIT_S)
    print(f"  yamllint: {'nothing' if done.returncode == 0 else 'see above'}")
    return done.returncode


def checkov() -> int:
    """Run checkov on the rendered manifests; return 0 if every finding has its reason."""
    program = _install_checkov()
    install_kustomize()
    skips = read_skips()
    with tempfile.TemporaryDirectory() as name:
        _render_all(Path(name))
        findings = list(_findings(program, Path(name)))
    new = [each for each in findings if not any(skip.covers(each) for skip in skips)]
    stale = unused(skips, findings)
    for each in new:
        print(f"  {each.check} {each.where}: {each.title}", file=sys.stderr)
    for skip in stale:
        print(f"  {skip.check} {skip.where}: skipped, and no longer found", file=sys.stderr)
    print(f"  checkov: {len(findings) - len(new)} left as they are, {len(new)} to mend")
    return 1 if new or stale else 0


def read_skips(file: Path = SKIPS) -> list[Skip]:
    """Return the findings that are left as they are."""
    return [Skip(**each) for each in yaml.safe_load(file.read_text())]


def unused(skips: Iterable[Skip], findings: list[Finding]) -> list[Skip]:
    """Return the skips that cover nothing."""
    return [skip for skip in skips if not any(skip.covers(each) for each in findings)]


def applied_folders() -> list[Path]:
    """Return the folders of ``k8s/`` that are applied; components and the base are part of them."""
    return [
        file.parent
        for file in sorted(K8S.rglob("kustomization.yaml"))
        if yaml.safe_load(file.read_text())["kind"] == "Kustomization"
        and file.parent.name != "base"
    ]


def _install_checkov() -> Path:
    environment = cache() / f"checkov-{CHECKOV}"
    program = environment / "bin" / "checkov"
    if not program.exists():
        with Step(f"checkov {CHECKOV}") as step:
            run([sys.executable, "-m", "venv", "--clear", environment], _INSTALL_LIMIT_S, step.tick)
            pip = str(environment / "bin" / "pip")
            run([pip, "install", "--quiet", f"checkov=={CHECKOV}"], _INSTALL_LIMIT_S, step.tick)
            step.result("installed")
    return program


def _render_all(target: Path) -> None:
    for folder in applied_folders():
        file = target / folder.relative_to(K8S) / "all.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(render(folder))


def _findings(program: Path, folder: Path) -> Iterator[Finding]:
    how = ["--framework", "kubernetes", "secrets", "--compact", "--quiet", "--output", "json"]
    done = subprocess.run(
        [program, "--directory", folder, "--skip-download", *how],
        capture_output=True,
        text=True,
        check=False,
        timeout=_CHECK_LIMIT_S,
    )
    if not done.stdout.strip():
        raise CommandError(f"checkov failed: {done.stderr.strip()}")
    reports = json.loads(done.stdout)
    for report in reports if isinstance(reports, list) else [reports]:
        for error in report.get("results", {}).get("parsing_errors", []):
            raise CommandError(f"checkov cannot read {error}")
        for each in report.get("results", {}).get("failed_checks", []):
            place = str(Path(each["file_path"]).parent).strip("/")  # as in ours
            yield Finding(each["check_id"], each["check_name"], f"{place}:{each['resource']}")


if __name__ == "__main__":
    exit_with(main)
