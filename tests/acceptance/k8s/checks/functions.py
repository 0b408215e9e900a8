"""Each function: its name, rapid's way into its pod, its broker, and how long it may run.

That rapid's init container works, a real kubelet shows in tests/acceptance/node.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from lambda_protocol.limits import FUNCTION_TIMEOUT_MAX_S
from rapid.settings.names import PREFIX
from tests.acceptance.k8s.checks.pods import split
from tests.acceptance.k8s.checks.table import check
from tests.acceptance.k8s.manifests import Cluster, Resource, at, everything_at

#: Where AWS's base images look for the emulator, whose place rapid takes.
EMULATOR: Final = "/usr/local/bin/aws-lambda-rie"
_BROKER: Final = {
    "RAPID_AMQP_URI": {"configMapKeyRef": {"name": "broker", "key": "AMQP_URI"}},
    "RAPID_AMQP_USERNAME": {"secretKeyRef": {"name": "broker", "key": "username"}},
    "RAPID_AMQP_PASSWORD": {"secretKeyRef": {"name": "broker", "key": "password"}},
}


@check
def both_examples_are_there(cluster: Cluster) -> Iterator[str]:
    names = sorted(each.name for each in cluster.functions)
    if names != ["echo-lambda", "image-greyscale-lambda"]:
        yield f"the functions are {names}"


@check
def a_function_has_one_name(cluster: Cluster) -> Iterator[str]:
    """Its Deployment's, its label's, its image's; its queue's is what rapid is told."""
    for each in cluster.functions:
        label = each.labels.get("app.kubernetes.io/name", "")
        names = {each.name, label, _image_name(container(each)["image"])}
        names.add(str(variable(each, "AWS_LAMBDA_FUNCTION_NAME")))
        if names != {each.name} or each.namespace != "lambda":
            yield f"{each} is called {sorted(names)}"


@check
def pods_have_longer_to_stop_than_a_call_may_take(cluster: Cluster) -> Iterator[str]:
    """gunicorn waits 30 s longer than its own setting says, and Kubernetes longer than gunicorn."""
    server = _server(cluster)
    told_s = int(variable(server, "AWS_LAMBDA_FUNCTION_TIMEOUT") or FUNCTION_TIMEOUT_MAX_S)
    if _grace_s(server) <= told_s + 30:
        yield f"{server} has {_grace_s(server)} s to stop and calls of {told_s} s"
    for each in cluster.functions:
        timeout_s = int(variable(each, "AWS_LAMBDA_FUNCTION_TIMEOUT") or 0)
        if not 0 < timeout_s < _grace_s(each) or timeout_s > told_s:
            yield f"{each} has {_grace_s(each)} s to stop and calls of {timeout_s} s"


@check
def the_broker_is_known_by_reference(cluster: Cluster) -> Iterator[str]:
    server = _server(cluster)
    for each in (*cluster.functions, server):
        variables = {one["name"]: one.get("valueFrom") for one in container(each).get("env", [])}
        for setting, expected in _BROKER.items():
            name = setting.removeprefix(PREFIX) if each is server else setting
            if variables.get(name) != expected:
                yield f"{each}: {name} comes from {variables.get(name)}"


@check
def a_queue_outlives_scaling_to_zero(cluster: Cluster) -> Iterator[str]:
    """Queues expire without a consumer; the longest that rapid allows is 2,000,000 s."""
    for each in cluster.functions:
        if int(variable(each, "RAPID_AMQP_QUEUE_EXPIRES") or 0) < 1_000_000:
            yield f"{each}: its queue expires after {variable(each, 'RAPID_AMQP_QUEUE_EXPIRES')} s"


@check
def rapid_comes_as_a_folder_of_an_image_volume(cluster: Cluster) -> Iterator[str]:
    """containerd mounts folders of an image, not files, so the command has to name rapid."""
    for each in cluster.functions:
        spec = each.pod.spec if each.pod else {}
        for volume in spec.get("volumes", []):
            if "image" not in volume:
                continue
            mount = next(
                one for one in container(each)["volumeMounts"] if one["name"] == volume["name"]
            )
            program = container(each).get("command", [""])[0]
            # docker/Dockerfile-daemon: /usr/local/bin/rapid.
            programs = {
                "usr/local/bin": f"{mount['mountPath']}/rapid",
                "": f"{mount['mountPath']}/usr/local/bin/rapid",
            }
            is_rapid = programs.get(mount.get("subPath", "")) == program
            is_image = _image_name(volume["image"]["reference"]) == "lambda-runtime-api-daemon"
            is_image &= mount["mountPath"] != EMULATOR
            if not (is_rapid and is_image) or not container(each).get("args"):
                yield f"{each} starts {program!r} from {mount} of {volume}"
            if spec.get("initContainers"):
                yield f"{each}: rapid comes by an init container as well"


@check
def a_function_may_write_to_tmp_only(cluster: Cluster) -> Iterator[str]:
    """That the root file system is read-only, checkov sees."""
    for each in cluster.functions:
        mounts = container(each).get("volumeMounts", [])
        written = [mount["mountPath"] for mount in mounts if not mount.get("readOnly")]
        if written != ["/tmp"]:
            yield f"{each} may write to {written}"


@check
def probes_ask_what_rapid_answers(cluster: Cluster) -> Iterator[str]:
    """Ready with the broker, alive without: a broker that restarts must not restart everything.

    No probe or hook is a command: it would have the broker's password among its variables.
    """
    wanted = {"startupProbe": "/healthz", "readinessProbe": "/readyz", "livenessProbe": "/healthz"}
    for each in (*cluster.functions, _server(cluster)):
        for name, path in wanted.items():
            probe = at(container(each), f"{name}.httpGet", {})
            if (probe.get("path"), probe.get("port")) != (path, "invoke"):
                yield f"{each}: its {name} asks {probe}"
        if each in cluster.functions and list(everything_at(container(each), "exec")):
            yield f"{each} has a probe or hook that is a command"


@check
def the_server_is_there_twice(cluster: Cluster) -> Iterator[str]:
    server = _server(cluster)
    budget = cluster.find("PodDisruptionBudget", "lambda-server", "lambda")
    if server.spec.get("replicas", 1) < 2 or budget is None:
        yield f"{server} has {server.spec.get('replicas')} pods and the budget {budget}"


def container(deployment: Resource) -> Any:
    """Return the container that the function, or the server, is in."""
    assert deployment.pod is not None
    return deployment.pod.containers[0]


def variable(deployment: Resource, name: str) -> str | None:
    """Return the value of a function's variable, also where it comes from a label of its pod."""
    assert deployment.pod is not None
    for each in container(deployment).get("env", []):
        if each["name"] == name:
            path = at(each, "valueFrom.fieldRef.fieldPath", "")
            label = path.removeprefix("metadata.labels['").removesuffix("']")
            return deployment.pod.labels.get(label) if path else each.get("value")
    return None


def _server(cluster: Cluster) -> Resource:
    return cluster.get("Deployment", "lambda-server", "lambda")


def _grace_s(deployment: Resource) -> int:
    assert deployment.pod is not None
    return int(deployment.pod.spec.get("terminationGracePeriodSeconds", 30))


def _image_name(image: str) -> str:
    return split(image)[0].rpartition("/")[2]
