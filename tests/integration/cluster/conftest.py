"""A checkout of its own for each test, with tools that only write down how they are called."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pytest
import yaml

from devtools.kind_cluster.manifests import Manifests
from devtools.ports import free_ports
from tests.integration.cluster.things import items
from tests.support import ROOT

LIMIT_S = 150  # a guard: up calls its tools sixty times
SERVER = "https://127.0.0.1:45678"
NODES = "lambda-control-plane\nlambda-worker\nlambda-worker2\nlambda-worker3\nlambda-worker4\n"


def kubeconfig(server: str) -> str:
    return json.dumps({"clusters": [{"name": "kind-lambda", "cluster": {"server": server}}]})


#: What the tools answer on a machine where all is as it should be, and no cluster.
USUAL: list[dict[str, Any]] = [
    {"match": "^kind --version", "out": "kind version 0.32.0\n"},
    {"match": "^kind get nodes", "err": 'No kind nodes found for cluster "lambda".\n'},
    {"match": "^kind get kubeconfig", "out": kubeconfig(SERVER)},
    {"match": "^kubectl .*config view", "rc": 1, "err": "error: cannot locate context\n"},
    {
        "match": "^kubectl .*version --client",
        "out": json.dumps({"clientVersion": {"gitVersion": "v1.36.1"}}),
    },
    {
        "match": "^docker version",
        "out": json.dumps({"Client": {"Version": "28.2.2"}, "Server": {"Version": "28.2.2"}}),
    },
    {
        "match": "^docker image ls",
        "out": "debian:trixie-slim\necho-lambda:0.1.0\nimage-greyscale-lambda:0.1.0\n"
        "lambda-runtime-api-daemon:0.1.0\nlambda-server:0.1.0\n",
    },
    {"match": "get crd", "out": ""},
    {"match": "get secret", "out": ""},
    {"match": "^kubectl .* get .*json", "out": items()},
]


@dataclass(frozen=True, slots=True)
class Call:
    """How a tool was called."""

    line: str
    stdin: str
    cwd: str


class Machine:
    """Runs scripts/cluster of a copy of the checkout, with nothing but fakes on PATH."""

    def __init__(self, folder: Path, checkout: Path, ports: dict[int, int]) -> None:
        self.checkout = checkout
        self.ports = ports  #: port of the node -> port of this machine
        self._tools = folder / "bin"
        self._elsewhere = folder / "elsewhere"
        self._rules: list[dict[str, Any]] = list(USUAL)
        self._has_cluster = False
        self._elsewhere.mkdir()
        self._tools.mkdir()
        (self._tools / "calls.jsonl").touch()
        text = (Path(__file__).with_name("fake_tool.py")).read_text()
        for name in ("kind", "kubectl", "docker"):
            tool = self._tools / name
            tool.write_text(f"#!{sys.executable} -IS\n{text}")
            tool.chmod(0o755)

    def answer(self, match: str, out: str = "", **rule: Any) -> None:
        """Answer so from now on, where earlier rules say something else."""
        self._rules.insert(0, {"match": match, "out": out, **rule})

    def has_cluster(self) -> None:
        """Have a cluster, with nothing of ours in it."""
        self._has_cluster = True
        self.answer("^kind get nodes", NODES)
        self.answer("^kubectl .*config view", kubeconfig(SERVER))

    def lacks(self, tool: str) -> None:
        """Have no such tool."""
        (self._tools / tool).unlink()

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of scripts/cluster to its end."""
        with self.start(*arguments) as process:
            out, error = process.communicate(timeout=LIMIT_S)
        return subprocess.CompletedProcess(process.args, process.returncode, out, error)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command of scripts/cluster."""
        (self._tools / "rules.json").write_text(json.dumps(self._rules))
        # A job in the background ignores SIGINT, and so does all that it starts.
        python = ("/usr/bin/env", "--default-signal=INT", sys.executable)
        return subprocess.Popen(
            [*python, "-m", "devtools.kind_cluster", *arguments],
            env={"PATH": str(self._tools), "PYTHONPATH": str(self.checkout)},
            cwd=self._elsewhere,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @property
    def is_up(self) -> bool:
        """Whether there is a cluster by now."""
        return self._has_cluster or any("kind create" in call.line for call in self.calls)

    @property
    def calls(self) -> list[Call]:
        """Every call of a tool so far."""
        lines = (self._tools / "calls.jsonl").read_text().splitlines()
        return [Call(**json.loads(line)) for line in lines]

    @property
    def changes(self) -> list[str]:
        """The command lines of the calls that may change something."""
        asking = (" get ", " config view ", " version", " image ls ", "--version", " logs ")
        return [call.line for call in self.calls if not any(each in call.line for each in asking)]

    @classmethod
    def make(cls, folder: Path) -> Self:
        """Return one below ``folder``, with a copy of the checkout for free ports."""
        checkout = folder / "check out"
        unneeded = shutil.ignore_patterns("__pycache__", "static")
        for name in ("devtools", "scripts"):
            shutil.copytree(ROOT / name, checkout / name, ignore=unneeded)
        versions = checkout / "k8s" / "versions"
        versions.mkdir(parents=True)
        shutil.copy(ROOT / "k8s" / "versions" / "kustomization.yaml", versions)
        kind = yaml.safe_load((ROOT / "k8s" / "kind.yaml").read_text())
        mappings = kind["nodes"][0]["extraPortMappings"]
        ports = free_ports(len(mappings))
        for mapping, port in zip(mappings, ports, strict=True):
            mapping["hostPort"] = port
        (checkout / "k8s" / "kind.yaml").write_text(yaml.safe_dump(kind))
        by_node_port = {mapping["containerPort"]: mapping["hostPort"] for mapping in mappings}
        return cls(folder, checkout, by_node_port)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine.make(tmp_path)


@pytest.fixture(scope="session")
def manifests() -> Manifests:
    return Manifests.read(ROOT)
