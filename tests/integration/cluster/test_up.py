"""``scripts/cluster up`` with tools that only write down how they are called."""

from __future__ import annotations

import base64
import json
import re
import signal
import socket
from collections.abc import Sequence
from typing import Any

import pytest

from devtools.kind_cluster.manifests import SERVER_PORT
from devtools.ports import LOOPBACK
from tests.integration.cluster.conftest import LIMIT_S, NODES, Machine, kubeconfig
from tests.integration.cluster.things import encoded, hpa, items, scaled_object, secret, workload
from tests.support import wait_until

pytestmark = pytest.mark.timeout(LIMIT_S + 30)

#: What each line of a whole run has, in this order.
ORDER = (
    "^kind create cluster .*--name lambda$",
    "^docker exec .*lambda-control-plane",
    "^docker exec .*lambda-worker4",
    "apply .*k8s/namespaces$",
    "apply .*-f -$",
    "apply .*k8s/registry$",
    "rollout status deployment/registry ",
    "^docker tag lambda-server:0.1.0 localhost:5000/lambda-server:0.1.0$",
    "^docker push .*localhost:5000/lambda-server:0.1.0$",
    "apply .*k8s/rabbitmq$",
    "rollout status statefulset/rabbitmq ",
    "apply .*k8s/metrics-server$",
    "apply .*k8s/prometheus$",
    "apply .*k8s/keda$",
    "wait --for=condition=Established crd/scaledobjects.keda.sh ",
    "apply .*k8s/dashboard$",
    "apply .*k8s/lambda-server$",
    "rollout status deployment/lambda-server ",
    "apply .*k8s/overlays/keda$",
    "rollout status deployment/image-greyscale-lambda ",
)


def assert_in_order(lines: Sequence[str], patterns: Sequence[str]) -> None:
    rest = iter(lines)
    for pattern in patterns:
        assert any(re.search(pattern, line) for line in rest), (pattern, lines)


def secrets_of(machine: Machine) -> dict[str, dict[str, str]]:
    """Return the Secrets that were applied, as namespace/name."""
    found = {}
    for call in machine.calls:
        if call.line.endswith("-f -"):
            made = json.loads(call.stdin)
            metadata = made["metadata"]
            found[f"{metadata['namespace']}/{metadata['name']}"] = {
                key: base64.b64decode(value).decode() for key, value in made["data"].items()
            }
    return found


class Run:
    """``up`` on a machine without a cluster, to its end."""

    def __init__(self, machine: Machine) -> None:
        with machine.serving():
            self.done = machine.run("up")
        self.machine = machine


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run(Machine.make(tmp_path_factory.mktemp("first")))


class TestAFirstRun:
    def test_starts_everything_in_order(self, first: Run) -> None:
        assert (first.done.returncode, first.done.stderr) == (0, "")
        assert_in_order(first.machine.changes, ORDER)

    def test_calls_a_function_and_tells_how_to(self, first: Run) -> None:
        shown = first.done.stdout

        assert "A call of echo-lambda: answered" in shown
        server = f"http://127.0.0.1:{first.machine.ports[SERVER_PORT]}"
        assert f"curl -XPOST {server}/2015-03-31/functions/echo-lambda/invocations" in shown
        assert f"aws lambda invoke --endpoint-url {server} " in shown
        assert "scripts/cluster token" in shown

    def test_names_the_cluster_each_time_from_any_folder_and_makes_no_token(
        self, first: Run
    ) -> None:
        for call in first.machine.calls:
            if call.line.startswith("kubectl"):
                assert call.line.startswith("kubectl --context kind-lambda ")
            if call.line.startswith("kind") and call.line != "kind --version":
                assert call.line.endswith("--name lambda")
            assert call.cwd == str(first.machine.checkout)
            assert "token" not in call.line

    def test_shows_no_secret_and_names_none_in_a_command(self, first: Run) -> None:
        made = secrets_of(first.machine)
        login = {key: made["lambda/broker"][key] for key in ("username", "password")}
        cookie = made["messaging/rabbitmq"]["erlang-cookie"]
        shown = first.done.stdout + "".join(call.line for call in first.machine.calls)

        assert made["messaging/rabbitmq"] == {**login, "erlang-cookie": cookie}
        for value in (login["password"], cookie):
            assert len(value) >= 32
            assert value not in shown
            assert encoded(value) not in shown

    def test_tells_each_node_where_the_registry_is(self, first: Run) -> None:
        told = [call for call in first.machine.calls if call.line.startswith("docker exec")]

        assert [call.line.split()[3] for call in told] == NODES.split()
        assert {call.stdin for call in told} == {'[host."http://lambda-control-plane:30500"]\n'}


@pytest.mark.usefixtures("serving")
class TestARunWithACluster:
    def test_keeps_cluster_and_passwords(self, machine: Machine) -> None:
        machine.has_cluster()
        machine.answer("get secret rabbitmq", secret(username="u", password="p", erlang_cookie="c"))
        machine.answer("get secret broker", secret(username="u", password="p"))
        machine.answer(
            "get deployments", items(workload("messaging", "rabbitmq", kind="StatefulSet"))
        )

        done = machine.run("up")

        assert done.returncode == 0, done.stderr
        assert not any("kind create" in line for line in machine.changes)
        assert secrets_of(machine) == {}
        assert not any(" delete " in line for line in machine.changes)

    def test_goes_from_keda_to_hpa(self, machine: Machine) -> None:
        machine.has_cluster()
        machine.answer(
            "get crd", "customresourcedefinition.apiextensions.k8s.io/scaledobjects.keda.sh\n"
        )
        machine.answer(
            "get scaledobjects.keda.sh,horizontalpodautoscalers",
            items(
                scaled_object("echo-lambda", "echo-lambda"),
                hpa("keda-hpa-echo-lambda", "echo-lambda", owner="echo-lambda"),
            ),
        )
        machine.answer(
            "get deployments",
            items(workload("keda", "keda-operator"), workload("lambda", "echo-lambda", wanted=0)),
        )

        done = machine.run("up", "--scaling", "hpa")

        assert done.returncode == 0, done.stderr
        assert_in_order(
            machine.changes,
            (
                "lambda delete scaledobjects.keda.sh echo-lambda ",
                "lambda wait --for=delete hpa/keda-hpa-echo-lambda ",
                "lambda scale deployment/echo-lambda --replicas=1",
                "delete -k k8s/keda ",
                "apply .*k8s/prometheus-adapter$",
                "apply .*k8s/overlays/hpa$",
            ),
        )


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        pytest.param(
            {
                "^kind --version": {"out": "kind version 0.31.0\n"},
                "version --client": {"out": '{"clientVersion": {"gitVersion": "v1.34.9-x"}}'},
                "^docker image ls": {"out": "echo-lambda:0.1.0\nlambda-server:0.0.9\n"},
                "^docker version": {"out": '{"Server": {"Version": "23.0.6"}}'},
            },
            "kind is 0.31.0; expected 0.32 or newer\n"
            "kubectl is 1.34.9; expected 1.35 or newer\n"
            "docker is 23.0.6; expected 24.0 or newer\n"
            "Images are not built: image-greyscale-lambda:0.1.0, lambda-runtime-api-daemon:0.1.0, "
            "lambda-server:0.1.0. Build them with: make docker\n",
            id="too old, and not built",
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


class TestWhatFails:
    def test_a_cluster_that_cannot_be_made_ends_all(self, machine: Machine) -> None:
        machine.answer("^kind create", err="ERROR: no space left on device\n", rc=1)

        done = machine.run("up")

        assert done.returncode == 1
        assert "Cluster: failed" in done.stdout
        assert "failed with status 1\nERROR: no space left on device" in done.stderr
        assert [line.split()[:2] for line in machine.changes] == [["kind", "create"]]

    def test_an_interrupt_ends_all_and_says_how_to_go_on(self, machine: Machine) -> None:
        machine.answer("^kind create", sleep=LIMIT_S)

        with machine.start("up") as process:
            wait_until(lambda: machine.is_up, "kind to be started")
            process.send_signal(signal.SIGINT)
            _, error = process.communicate(timeout=LIMIT_S)

        assert process.returncode == 130
        assert error == "Interrupted. Run it again to go on, or: scripts/cluster down\n"
        assert [line.split()[:2] for line in machine.changes] == [["kind", "create"]]

    def test_a_rollout_that_takes_too_long_is_explained(self, machine: Machine) -> None:
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

    def test_a_failure_shows_no_secret(self, machine: Machine) -> None:
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
