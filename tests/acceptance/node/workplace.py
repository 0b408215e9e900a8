"""Where a user works: tools, images, an environment, and a cluster once there is one."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.acceptance.node.kube import Kube
from tests.acceptance.node.node import Node
from tests.support import ROOT


@dataclass(frozen=True, slots=True, kw_only=True)
class Workplace:
    """What a user has before there is a cluster: tools, images, an environment."""

    node: Node
    environ: dict[str, str]
    folder: Path
    has_keda: bool

    @property
    def kube(self) -> Kube:
        """The API server of the cluster that runs."""
        return self.node.kube

    def cluster(self, *words: str, status: int = 0) -> str:
        """Run ``scripts/cluster`` and return what it printed; it is shown as well."""
        done = self.run("scripts/cluster", *words)
        said = done.stdout + done.stderr
        assert done.returncode == status, said
        return said

    def run(self, *command: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command as the user would."""
        return subprocess.run(
            command,
            env=self.environ,
            cwd=ROOT,
            capture_output=True,
            text=True,
            input=stdin,
            check=False,
        )

    def kubectl(self, *words: str, stdin: str | None = None) -> str:
        """Run kubectl on the cluster and return what it printed."""
        done = self.run("kubectl", "--context=kind-lambda", *words, stdin=stdin)
        assert done.returncode == 0, done.stderr
        return done.stdout
