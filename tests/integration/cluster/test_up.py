"""What ``scripts/cluster up`` refuses, and how it fails. On a real node it runs to its end."""

from __future__ import annotations

import re
import signal
import socket
from typing import Any

import pytest

from devtools.kind_cluster.manifests import SERVER_PORT
from devtools.ports import LOOPBACK
from tests.integration.cluster.conftest import LIMIT_S, Machine, kubeconfig
from tests.integration.cluster.things import hpa, items, secret
from tests.support import wait_until

pytestmark = pytest.mark.timeout(LIMIT_S + 30)


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        pytest.param(
            {
                "^kind --version": {"out": "kind version 0.31.0\n"},
                "version --client": {"out": '{"clientVersion": {"gitVersion": "v1.34.9-x"}}'},
                "^docker image ls": {"out": "echo-lambda:0.1.0\nlambda-server:0.0.9\n"},
            },
            "kind is 0.31.0; expected 0.32 or newer\n"
            "kubectl is 1.34.9; expected 1.35 or newer\n"
            "Images are not built: image-greyscale-lambda:0.1.0, lambda-runtime-api-daemon:0.1.0, "
            "lambda-server:0.1.0. Build them with: make docker\n",
            id="too old, and not built",
        ),
        pytest.param(
            {"^docker version": {"out": '{"Server": {"Version": "23.0.6"}}'}},
            "docker is 23.0.6; expected 24.0 or newer\n",
            id="docker",
        ),
        pytest.param(
            {
                "^docker version": {
                    "out": '{"Client": {"Version": "28.2.2"}, "Server": null}',
                    "err": "Cannot connect to the Docker daemon at unix:///var/run/docker.sock.\n",
                    "rc": 1,
                }
            },
            "The docker daemon does not answer: "
            "Cannot connect to the Docker daemon at unix:///var/run/docker.sock.\n",
            id="no daemon",
        ),
        pytest.param(
            {"config view": {"out": kubeconfig("https://prod.example.com:6443")}},
            "kind-lambda points to https://prod.example.com:6443, but kind knows no such",
            id="the context of another machine",
        ),
        pytest.param(
            {"get horizontalpodautoscalers": {"out": items(hpa("mine", "echo-lambda"))}},
            "HorizontalPodAutoscaler lambda/mine scales Deployment/echo-lambda",
            id="something else scales a function",
        ),
    ],
)
def test_nothing_is_started_and_all_reasons_are_told(
    machine: Machine, answers: dict[str, dict[str, Any]], said: str
) -> None:
    if "get horizontalpodautoscalers" in answers:
        machine.has_cluster()
    for match, answer in answers.items():
        machine.answer(match, **answer)

    done = machine.run("up")

    assert done.returncode == 1
    assert said in done.stderr
    assert machine.changes == []


@pytest.mark.parametrize("tool", ["kind", "kubectl", "docker"])
def test_a_tool_that_is_missing_is_told(machine: Machine, tool: str) -> None:
    machine.lacks(tool)

    done = machine.run("up")

    assert done.returncode == 1
    assert f"{tool} is not installed, or not on PATH. Install {tool} " in done.stderr
    assert machine.changes == []


def test_a_port_that_is_taken_is_told(machine: Machine) -> None:
    port = machine.ports[SERVER_PORT]
    with socket.create_server((LOOPBACK, port)):
        done = machine.run("up")

    assert done.returncode == 1
    assert re.match(rf"Port {port} is taken by .*, pid \d+; ", done.stderr)
    assert machine.changes == []


def test_a_cluster_that_cannot_be_made_ends_all(machine: Machine) -> None:
    machine.answer("^kind create", err="ERROR: no space left on device\n", rc=1)

    done = machine.run("up")

    assert done.returncode == 1
    assert "Cluster: failed" in done.stdout
    assert "failed with status 1\nERROR: no space left on device" in done.stderr
    assert [line.split()[:2] for line in machine.changes] == [["kind", "create"]]


def test_an_interrupt_ends_all_and_says_how_to_go_on(machine: Machine) -> None:
    machine.answer("^kind create", sleep=LIMIT_S)

    with machine.start("up") as process:
        wait_until(lambda: machine.is_up, "kind to be started")
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=LIMIT_S)

    assert process.returncode == 130
    assert error == "Interrupted. Run it again to go on, or: scripts/cluster down\n"
    assert [line.split()[:2] for line in machine.changes] == [["kind", "create"]]


def test_a_rollout_that_takes_too_long_is_explained(machine: Machine) -> None:
    machine.has_cluster()
    machine.answer("rollout status", err="error: timed out waiting for the condition\n", rc=1)
    machine.answer("get pods -A", items(*PODS))
    machine.answer(
        "get events .*registry-1",
        items(*({"reason": f"R{n}", "message": f"m{n}", "lastTimestamp": f"2026-0{n}"}
                for n in (3, 1, 4, 2))),
    )  # fmt: skip
    machine.answer("logs registry-1 --container=registry", "line 1\nfatal: no disk\n")

    done = machine.run("up")

    assert done.returncode == 1
    assert "Registry: failed" in done.stdout
    assert done.stderr.splitlines()[1:] == [
        "error: timed out waiting for the condition",
        "Pod registry/registry-1 is not ready: registry: CrashLoopBackOff, back-off 10s",
        "    event: R2: m2",
        "    event: R3: m3",
        "    event: R4: m4",
        "    the end of the log of its container registry:",
        "      line 1",
        "      fatal: no disk",
        "Pod lambda/echo-1 is not ready: 0/5 nodes are available",
    ]
    assert not any("k8s/rabbitmq" in line for line in machine.changes)


def test_a_failure_shows_no_secret(machine: Machine) -> None:
    password = "p" * 32
    machine.has_cluster()
    machine.answer("get secret rabbitmq", secret(username="u", password=password))
    machine.answer("apply .*-f -$", err=f"error: {password} is no good\n", rc=1)

    done = machine.run("up")

    assert done.returncode == 1
    assert "error: *** is no good" in done.stderr
    assert password not in done.stdout + done.stderr


def pod(
    namespace: str, name: str, condition: str, message: str, **status: object
) -> dict[str, Any]:
    """Return a pod that a condition is false of; true without a message."""
    conditions = [{"type": condition, "status": str(not message), "message": message}]
    return {
        "metadata": {"namespace": namespace, "name": name},
        "status": {"phase": "Running", "conditions": conditions, **status},
    }


_WAITING = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}}
PODS = (
    pod("registry", "registry-1", "Ready", "not ready",
        containerStatuses=[{"name": "registry", "restartCount": 3, "state": _WAITING}]),
    pod("lambda", "echo-1", "PodScheduled", "0/5 nodes are available", phase="Pending"),
    pod("messaging", "rabbitmq-0", "Ready", ""),
    pod("shop", "cart-1", "Ready", "of others", phase="Pending"),
)  # fmt: skip
