"""The other commands of ``scripts/cluster``, with the same tools that only write down calls."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.integration.cluster.conftest import Machine, kubeconfig
from tests.integration.cluster.things import items, scaled_object, workload
from tests.support import ROOT

NO_CLUSTER = "There is no kind cluster lambda. Start with: scripts/cluster up\n"
IMAGE = "localhost:5000/echo-lambda:0.1.0"
RAPID = {"image": "localhost:5000/lambda-runtime-api-daemon:0.1.0"}
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


def test_down_deletes_our_cluster_and_no_other(machine: Machine) -> None:
    machine.has_cluster()

    done = machine.run("down")

    assert (done.returncode, done.stdout) == (0, "  Cluster: deleted\n")
    assert machine.changes == ["kind delete cluster --name lambda"]


def test_down_is_harmless_when_there_is_no_cluster(machine: Machine) -> None:
    done = machine.run("down")

    assert (done.returncode, done.stdout) == (0, "  There is no kind cluster lambda.\n")
    assert machine.changes == []


def test_down_leaves_the_context_of_another_cluster(machine: Machine) -> None:
    machine.has_cluster()
    machine.answer("config view", kubeconfig("https://prod.example.com:6443"))

    done = machine.run("down")

    assert done.returncode == 1
    assert machine.changes == []


def test_down_works_when_the_context_is_gone(machine: Machine) -> None:
    machine.has_cluster()
    machine.answer("config view", rc=1)
    machine.answer("^kind get kubeconfig", err="ERROR: no such file\n", rc=1)

    done = machine.run("down")

    assert done.returncode == 0
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


def test_status_of_nothing(machine: Machine) -> None:
    done = machine.run("status")

    assert (done.returncode, done.stdout) == (3, NO_CLUSTER)


def test_status_when_the_cluster_does_not_answer(machine: Machine) -> None:
    machine.has_cluster()
    machine.answer(" get ", err="The connection to the server was refused\n", rc=1)
    machine.answer("^kind get nodes", "lambda-control-plane\n")
    machine.answer("^kind get kubeconfig", kubeconfig("https://127.0.0.1:45678"))

    done = machine.run("status")

    assert done.returncode == 1
    assert "The connection to the server was refused" in done.stderr


def test_token_prints_the_token_alone(whole: Machine) -> None:
    whole.answer("create token", "a-token\n")

    done = whole.run("token")

    assert (done.returncode, done.stdout, done.stderr) == (0, "a-token\n", "")
    token = "kubectl --context kind-lambda -n kubernetes-dashboard create token admin-user"
    assert whole.changes == [token]


def test_push_replaces_the_pods_that_use_the_images(whole: Machine) -> None:
    users_own = workload("shop", "cart", volumes=[{"name": "rapid", "image": {
        "reference": "localhost:5000/lambda-runtime-api-daemon:0.1.0"}}])  # fmt: skip
    whole.answer("get deployments", items(*WHOLE, users_own))

    done = whole.run("push")

    assert done.returncode == 0, done.stderr
    pushed = [line.rpartition("/")[2] for line in whole.changes if line.startswith("docker push")]
    assert sorted(pushed) == [
        f"{name}:0.1.0"
        for name in (
            "echo-lambda",
            "image-greyscale-lambda",
            "lambda-runtime-api-daemon",
            "lambda-server",
        )
    ]
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


def test_restart_replaces_functions_and_server_alone(whole: Machine) -> None:
    done = whole.run("restart")

    assert done.returncode == 0, done.stderr
    assert [line.rpartition(" ")[2] for line in whole.changes if "rollout restart" in line] == [
        "deployment/lambda-server",
        "deployment/echo-lambda",
        "deployment/image-greyscale-lambda",
    ]


@pytest.mark.parametrize("command", ["restart", "push", "token"])
def test_a_command_for_a_cluster_says_that_there_is_none(machine: Machine, command: str) -> None:
    done = machine.run(command)

    assert (done.returncode, done.stdout, done.stderr) == (1, "", NO_CLUSTER)


@pytest.mark.parametrize("command", ["restart", "push", "token", "status"])
def test_a_command_touches_no_other_cluster(machine: Machine, command: str) -> None:
    machine.has_cluster()
    machine.answer("config view", kubeconfig("https://127.0.0.1:1"))

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


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), ["up", "down", "restart", "status", "push", "token", "named lambda"]),
        (
            ("up",),
            [
                "[keda|hpa|keda-prometheus|max-concurrency|image-volume]",
                "[kubernetes|headlamp|none]",
                "--rabbitmq-cluster",
                "--dry-run",
            ],
        ),
        (("down",), ["queues too"]),
        (("restart",), ["RabbitMQ and the cluster stay", "down, then up"]),
        (("status",), ["0 if all are ready, 1 if some are, 3 if none is"]),
        (("push",), ["make docker"]),
        (("token",), ["and nothing else"]),
    ],
)
def test_help_tells(machine: Machine, arguments: tuple[str, ...], said: list[str]) -> None:
    done = machine.run(*arguments, "--help")

    assert done.stdout.startswith("Usage: scripts/cluster ")
    for words in said:
        assert words in " ".join(done.stdout.split())


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


def run_launcher(launcher: Path, by: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [by or launcher, "token"],
        env={"PATH": f"{launcher.parents[2] / 'bin'}:/usr/bin:/bin"},
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_launcher_makes_what_it_needs_and_keeps_standard_output(launcher: Path) -> None:
    done = run_launcher(launcher)

    assert done.stdout == f"python -m devtools.kind_cluster token, in {launcher.parents[1]}\n"
    assert done.stderr == "  First run here: making .venv\nmake --silent .venv/.runtime\n"


def test_the_launcher_may_be_a_link(launcher: Path, tmp_path: Path) -> None:
    link = tmp_path / "cluster"
    link.symlink_to(launcher)

    assert run_launcher(launcher, link).stdout.startswith("python -m devtools.kind_cluster token")


def test_the_launcher_stops_where_make_fails(launcher: Path, tmp_path: Path) -> None:
    (tmp_path / "bin" / "make").write_text("#!/bin/sh\nexit 2\n")

    done = run_launcher(launcher)

    assert (done.returncode, done.stdout) == (2, "")
