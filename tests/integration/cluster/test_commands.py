"""The other commands of ``scripts/cluster``, with the same tools that only write down calls."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from devtools.kind_cluster.context import mismatch
from tests.integration.cluster.conftest import LIMIT_S, SERVER, Machine, kubeconfig
from tests.integration.cluster.things import items, scaled_object, workload
from tests.support import ROOT, run_command

pytestmark = pytest.mark.timeout(LIMIT_S + 30)

NO_CLUSTER = "There is no kind cluster lambda. Start with: scripts/cluster up\n"
IMAGE = "localhost:5000/echo-lambda:0.1.0"
OURS, OTHER = kubeconfig(SERVER), kubeconfig("https://127.0.0.1:1")
ELSEWHERE = kubeconfig("https://prod.example.com:6443")
#: All that is there with a dashboard and KEDA, ready.
WHOLE = (
    workload("registry", "registry"),
    workload("messaging", "rabbitmq", kind="StatefulSet"),
    workload("kube-system", "metrics-server"),
    workload("monitoring", "prometheus"),
    *(workload("keda", f"keda-{name}") for name in ("operator", "metrics-apiserver", "admission")),
    workload("kubernetes-dashboard", "kubernetes-dashboard"),
    workload("kubernetes-dashboard", "dashboard-metrics-scraper"),
    workload("lambda", "lambda-server", wanted=2, image="localhost:5000/lambda-server:0.1.0"),
    workload("lambda", "echo-lambda", wanted=0, image=IMAGE),
    workload("lambda", "image-greyscale-lambda", wanted=3),
)


@pytest.fixture
def whole(machine: Machine) -> Machine:
    """Give a machine with a whole cluster."""
    machine.has_cluster()
    machine.answer(
        "get crd", "customresourcedefinition.apiextensions.k8s.io/scaledobjects.keda.sh\n"
    )
    machine.answer("get deployments", items(*WHOLE))
    machine.answer("get scaledobjects", items(scaled_object("echo-lambda", "echo-lambda")))
    return machine


@pytest.mark.parametrize(
    ("view", "kind", "said"),
    [
        pytest.param(OURS, OURS, None, id="ours"),
        pytest.param("", "", None, id="neither context nor cluster"),
        pytest.param(OURS, "", None, id="left over from a deleted cluster"),
        pytest.param(ELSEWHERE, OURS, "points to https://prod.example.com:6443", id="elsewhere"),
        pytest.param(ELSEWHERE, "", "points to https://prod.example.com:6443", id="no cluster"),
        pytest.param(OTHER, OURS, "points to https://127.0.0.1:1", id="other cluster"),
        pytest.param("", OURS, "kind export kubeconfig --name lambda", id="no context"),
    ],
)
def test_a_context_that_is_another_clusters_is_told(view: str, kind: str, said: str | None) -> None:
    found = mismatch(view, kind)

    assert found is None if said is None else said in str(found)


def test_down_is_harmless_when_there_is_no_cluster(machine: Machine) -> None:
    done = machine.run("down")

    assert (done.returncode, done.stdout) == (0, "  There is no kind cluster lambda.\n")
    assert machine.changes == []


def test_down_deletes_our_cluster_also_when_its_context_is_gone(machine: Machine) -> None:
    machine.has_cluster()
    machine.answer("config view", rc=1)
    machine.answer("^kind get kubeconfig", err="ERROR: no such file\n", rc=1)

    done = machine.run("down")

    assert (done.returncode, done.stdout) == (0, "  Cluster: deleted\n")
    assert machine.changes == ["kind delete cluster --name lambda"]


def test_status_tells_how_each_component_is(whole: Machine) -> None:
    done = whole.run("status")

    assert done.returncode == 0
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["Cluster", "5", "nodes", "context", "kind-lambda"] in lines
    assert ["echo-lambda", "0/0", "scaled", "to", "zero"] in lines
    assert ["image-greyscale-lambda", "3/3"] in lines
    assert ["Scaling", "keda"] in lines
    assert any(line[:2] == ["lambda-server", "2/2"] and "http://" in line[2] for line in lines)
    assert whole.changes == []


@pytest.mark.parametrize(
    ("present", "code"),
    [(WHOLE[1:], 1), ((workload("registry", "registry", ready=0),), 3)],
    ids=["some", "none"],
)
def test_status_exits_as_it_is(machine: Machine, present: tuple[object, ...], code: int) -> None:
    machine.has_cluster()
    machine.answer("get deployments", items(*present))

    done = machine.run("status")

    assert done.returncode == code, done.stdout


def test_status_when_the_cluster_does_not_answer(machine: Machine) -> None:
    machine.has_cluster()
    machine.answer(" get ", err="The connection to the server was refused\n", rc=1)
    machine.answer("^kind get nodes", "lambda-control-plane\n")
    machine.answer("^kind get kubeconfig", kubeconfig("https://127.0.0.1:45678"))

    done = machine.run("status")

    assert done.returncode == 1
    assert "The connection to the server was refused" in done.stderr


def test_push_replaces_the_pods_that_use_the_images(whole: Machine) -> None:
    users_own = workload("shop", "cart", volumes=[{"name": "rapid", "image": {
        "reference": "localhost:5000/lambda-runtime-api-daemon:0.1.0"}}])  # fmt: skip
    whole.answer("get deployments", items(*WHOLE, users_own))

    done = whole.run("push")

    assert done.returncode == 0, done.stderr
    restarted = [line for line in whole.changes if "rollout restart" in line]
    assert restarted == [
        f"kubectl --context kind-lambda --namespace {namespace} rollout restart deployment/{name}"
        for namespace, name in (
            ("lambda", "lambda-server"),
            ("lambda", "echo-lambda"),
            ("shop", "cart"),
        )
    ]


def test_push_says_that_images_are_not_built(whole: Machine) -> None:
    whole.answer("^docker image ls", "echo-lambda:0.0.9\n")

    done = whole.run("push")

    assert done.returncode == 1
    assert done.stderr.startswith("Images are not built: echo-lambda:0.1.0, ")
    assert whole.changes == []


@pytest.mark.parametrize(
    ("command", "status"), [("restart", 1), ("push", 1), ("token", 1), ("status", 3)]
)
def test_a_command_for_a_cluster_says_that_there_is_none(
    machine: Machine, command: str, status: int
) -> None:
    done = machine.run(command)

    assert (done.returncode, done.stdout + done.stderr) == (status, NO_CLUSTER)


@pytest.mark.parametrize("command", ["restart", "push", "token", "status", "down", "up"])
def test_a_command_touches_no_other_cluster(machine: Machine, command: str) -> None:
    machine.has_cluster()
    machine.answer("config view", OTHER)

    done = machine.run(command)

    assert done.returncode == 1
    assert "The context kind-lambda points to https://127.0.0.1:1, but kind's" in done.stderr
    assert not any(" get " in call.line for call in machine.calls if "kubectl" in call.line)
    assert machine.changes == []


def test_a_dry_run_runs_nothing_and_prints_a_script(machine: Machine) -> None:
    for tool in ("kind", "kubectl", "docker"):
        machine.lacks(tool)

    done = machine.run("up", "--dry-run", "--scaling", "hpa", "--dashboard", "none")

    assert (done.returncode, done.stderr) == (0, "")
    assert subprocess.run(["bash", "-n"], input=done.stdout, text=True, check=False).returncode == 0
    assert "apply --server-side" in done.stdout
    assert "k8s/overlays/hpa" in done.stdout
    assert '"password": "***"' in done.stdout
    assert '"erlang-cookie": "***"' in done.stdout


@pytest.fixture
def launcher(tmp_path: Path) -> Path:
    """Give the launcher in a checkout of its own, whose make and Python say what they are told."""
    folder = tmp_path / "a checkout"
    (folder / "scripts").mkdir(parents=True)
    shutil.copy(ROOT / "scripts" / "cluster", folder / "scripts")
    make = tmp_path / "bin" / "make"
    make.parent.mkdir()
    make.write_text(
        '#!/bin/sh\necho "make $*"\nmkdir -p .venv/bin && touch .venv/.runtime\n'
        "printf '#!/bin/sh\\necho \"python $*, in $PWD\"\\n' > .venv/bin/python\n"
        "chmod +x .venv/bin/python\n"
    )
    make.chmod(0o755)
    return folder / "scripts" / "cluster"


def test_the_launcher_makes_what_it_needs_and_keeps_standard_output(
    launcher: Path, tmp_path: Path
) -> None:
    link = tmp_path / "cluster"
    link.symlink_to(launcher)

    def run() -> subprocess.CompletedProcess[str]:
        environ = {"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin"}
        return run_command(link, "token", env=environ, cwd="/")

    done = run()
    assert done.stdout == f"python -m devtools.kind_cluster token, in {launcher.parents[1]}\n"
    assert done.stderr == "  First run here: making .venv\nmake --silent .venv/.runtime\n"

    (tmp_path / "bin" / "make").write_text("#!/bin/sh\nexit 2\n")
    shutil.rmtree(launcher.parents[1] / ".venv")
    failed = run()
    assert (failed.returncode, failed.stdout) == (2, "")
