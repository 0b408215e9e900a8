"""Each function: its name, rapid's way into its pod, its broker, and how long it may run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from lambda_protocol.limits import FUNCTION_TIMEOUT_MAX_S
from rapid.self_copy import TARGET
from rapid.settings.names import INIT_CONTAINER, PREFIX
from tests.acceptance.k8s.checks.images import name_of
from tests.acceptance.k8s.manifests import Cluster, Resource, at, everything_at

#: Where AWS's base images look for the emulator, whose place rapid takes.
EMULATOR: Final = "/usr/local/bin/aws-lambda-rie"
_RAPID: Final = "lambda-runtime-api-daemon"
_CLOSED: Final = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
_BROKER: Final = {
    "RAPID_AMQP_URI": {"configMapKeyRef": {"name": "broker", "key": "AMQP_URI"}},
    "RAPID_AMQP_USERNAME": {"secretKeyRef": {"name": "broker", "key": "username"}},
    "RAPID_AMQP_PASSWORD": {"secretKeyRef": {"name": "broker", "key": "password"}},
}


def both_examples_are_there(cluster: Cluster) -> Iterator[str]:
    names = sorted(each.name for each in cluster.functions)
    if names != ["echo-lambda", "image-greyscale-lambda"]:
        yield f"the functions are {names}"


def a_function_has_one_name(cluster: Cluster) -> Iterator[str]:
    """Its Deployment's, its label's, its image's; its queue's is what rapid is told."""
    for each in cluster.functions:
        label = each.labels.get("app.kubernetes.io/name", "")
        image = name_of(function_container(each)["image"]).rpartition("/")[2]
        names = {each.name, label, image, variable(each, "AWS_LAMBDA_FUNCTION_NAME")}
        if names != {each.name} or each.namespace != "lambda":
            yield f"{each} is called {sorted(map(str, names))}"


def a_pod_has_longer_to_stop_than_a_call_may_take(cluster: Cluster) -> Iterator[str]:
    for each in cluster.functions:
        timeout_s = int(variable(each, "AWS_LAMBDA_FUNCTION_TIMEOUT") or 0)
        grace_s = each.pod.spec.get("terminationGracePeriodSeconds", 30) if each.pod else 0
        if not 0 < timeout_s < grace_s:
            yield f"{each} has {grace_s} s to stop and calls of {timeout_s} s"


def the_server_has_longer_to_stop_than_a_call_may_take(cluster: Cluster) -> Iterator[str]:
    """gunicorn waits 30 s longer than its own setting says, and Kubernetes longer than gunicorn."""
    server = cluster.get("Deployment", "lambda-server", "lambda")
    assert server.pod is not None
    told = variable(server, "AWS_LAMBDA_FUNCTION_TIMEOUT") or FUNCTION_TIMEOUT_MAX_S
    timeout_s, grace_s = int(told), server.pod.spec["terminationGracePeriodSeconds"]
    if grace_s <= timeout_s + 30:
        yield f"{server} has {grace_s} s to stop and calls of {timeout_s} s"
    for each in cluster.functions:
        longest_s = int(variable(each, "AWS_LAMBDA_FUNCTION_TIMEOUT") or 0)
        if longest_s > timeout_s:
            yield f"{each} has calls of {longest_s} s; the server waits for {timeout_s} s"


def the_broker_is_known_by_reference(cluster: Cluster) -> Iterator[str]:
    server = cluster.get("Deployment", "lambda-server", "lambda")
    for each in (*cluster.functions, server):
        container = each.pod.containers[0] if each.pod else {}
        variables = {one["name"]: one.get("valueFrom") for one in container.get("env", [])}
        for setting, expected in _BROKER.items():
            name = setting.removeprefix(PREFIX) if each is server else setting
            if variables.get(name) != expected:
                yield f"{each}: {name} comes from {variables.get(name)}"


def a_queue_outlives_scaling_to_zero(cluster: Cluster) -> Iterator[str]:
    """Queues expire without a consumer; the longest that rapid allows is 2,000,000 s."""
    for each in cluster.functions:
        if int(variable(each, "RAPID_AMQP_QUEUE_EXPIRES") or 0) < 1_000_000:
            yield f"{each}: its queue expires after {variable(each, 'RAPID_AMQP_QUEUE_EXPIRES')} s"


def rapid_comes_by_an_init_container(cluster: Cluster) -> Iterator[str]:
    """The injection that the kind example promises, unless an image volume replaces it."""
    for each in cluster.functions:
        spec = each.pod.spec if each.pod else {}
        if _image_volumes(spec):
            continue
        inits = spec.get("initContainers", [])
        if len(inits) != 1:
            yield f"{each} has {len(inits)} init containers"
            continue
        init, function = inits[0], function_container(each)
        if name_of(init["image"]).rpartition("/")[2] != _RAPID:
            yield f"{each}: the init container is {init['image']}"
        if init.get("env") != [{"name": INIT_CONTAINER}]:
            yield f"{each}: rapid is not told that it is an init container"
        if init.get("securityContext") != _CLOSED:
            yield f"{each}: the init container may {init.get('securityContext')}"
        mounts = {mount["mountPath"]: mount for mount in init.get("volumeMounts", [])}
        source = mounts.get(str(TARGET.parent), {}).get("name")
        volume: dict[str, Any] = next((one for one in spec["volumes"] if one["name"] == source), {})
        if mounts.keys() != {str(TARGET.parent)} or "emptyDir" not in volume:
            yield f"{each}: rapid copies itself to {sorted(mounts)} in {volume}"
        there = [mount for mount in function["volumeMounts"] if mount["mountPath"] == EMULATOR]
        expected = {"name": source, "mountPath": EMULATOR, "subPath": TARGET.name, "readOnly": True}
        if there != [expected]:
            yield f"{each}: in the emulator's place is {there}"
        if "command" in function:
            yield f"{each}: the image's own entry point is replaced"


def rapid_comes_as_a_folder_of_an_image_volume(cluster: Cluster) -> Iterator[str]:
    """containerd mounts folders of an image, not files, so the command has to name rapid."""
    for each in cluster.functions:
        spec = each.pod.spec if each.pod else {}
        for volume in _image_volumes(spec):
            function = function_container(each)
            if name_of(volume["image"].get("reference", "")).rpartition("/")[2] != _RAPID:
                yield f"{each}: the image volume is {volume['image']}"
            (mount,) = [one for one in function["volumeMounts"] if one["name"] == volume["name"]]
            program = function.get("command", [""])[0]
            # docker/Dockerfile-daemon: /usr/local/bin/rapid.
            folder = mount.get("subPath", "").rstrip("/")
            is_rapid = (folder, program) in (
                ("usr/local/bin", f"{mount['mountPath']}/rapid"),
                ("", f"{mount['mountPath']}/usr/local/bin/rapid"),
            )
            if not is_rapid or mount["mountPath"] == EMULATOR:
                yield f"{each} starts {program} from {mount}"
            if not function.get("args"):
                yield f"{each}: rapid is told no handler"
            if spec.get("initContainers"):
                yield f"{each}: rapid comes by an init container as well"


def a_function_may_write_to_tmp_only(cluster: Cluster) -> Iterator[str]:
    for each in cluster.functions:
        function = function_container(each)
        mounts = function.get("volumeMounts", [])
        written = [mount["mountPath"] for mount in mounts if not mount.get("readOnly")]
        if written != ["/tmp"] or function.get("securityContext") != _CLOSED:
            yield f"{each} may write to {written} and {function.get('securityContext')}"


def probes_ask_what_rapid_answers(cluster: Cluster) -> Iterator[str]:
    """Ready with the broker, alive without: a broker that restarts must not restart everything."""
    wanted = {"startupProbe": "/healthz", "readinessProbe": "/readyz", "livenessProbe": "/healthz"}
    server = cluster.get("Deployment", "lambda-server", "lambda")
    for each in (*cluster.functions, server):
        for name, path in wanted.items():
            probe = at(function_container(each), f"{name}.httpGet", {})
            if (probe.get("path"), probe.get("port")) != (path, "invoke"):
                yield f"{each}: its {name} asks {probe}"


def nothing_else_is_started_in_a_function(cluster: Cluster) -> Iterator[str]:
    """It would have the broker's password among its variables, where the function reads them."""
    for each in cluster.functions:
        if list(everything_at(function_container(each), "exec")):
            yield f"{each} has a probe or hook that is a command"


def pods_are_spread_over_nodes(cluster: Cluster) -> Iterator[str]:
    server = cluster.get("Deployment", "lambda-server", "lambda")
    for each in (*cluster.functions, server):
        spread = each.pod.spec.get("topologySpreadConstraints", []) if each.pod else []
        keys = [(one["topologyKey"], one["whenUnsatisfiable"]) for one in spread]
        # Rather all on one node than none at all.
        if keys != [("kubernetes.io/hostname", "ScheduleAnyway")]:
            yield f"{each} is spread over {keys}"


def the_server_is_there_twice(cluster: Cluster) -> Iterator[str]:
    server = cluster.get("Deployment", "lambda-server", "lambda")
    budget = cluster.find("PodDisruptionBudget", "lambda-server", "lambda")
    if server.spec.get("replicas", 1) < 2 or budget is None:
        yield f"{server} has {server.spec.get('replicas')} pods and the budget {budget}"


def function_container(deployment: Resource) -> Any:
    """Return the container that the function, or the server, is in."""
    assert deployment.pod is not None
    return deployment.pod.containers[0]


def variable(deployment: Resource, name: str) -> str | None:
    """Return the value of a function's variable, also where it comes from a label of its pod."""
    assert deployment.pod is not None
    for each in function_container(deployment).get("env", []):
        if each["name"] == name:
            path = at(each, "valueFrom.fieldRef.fieldPath", "")
            label = path.removeprefix("metadata.labels['").removesuffix("']")
            return deployment.pod.labels.get(label) if path else each.get("value")
    return None


def _image_volumes(spec: Any) -> list[Any]:
    return [volume for volume in spec.get("volumes", []) if any(everything_at(volume, "image"))]


CHECKS: Final = (
    both_examples_are_there,
    a_function_has_one_name,
    a_pod_has_longer_to_stop_than_a_call_may_take,
    the_server_has_longer_to_stop_than_a_call_may_take,
    the_broker_is_known_by_reference,
    a_queue_outlives_scaling_to_zero,
    rapid_comes_by_an_init_container,
    rapid_comes_as_a_folder_of_an_image_volume,
    a_function_may_write_to_tmp_only,
    probes_ask_what_rapid_answers,
    nothing_else_is_started_in_a_function,
    pods_are_spread_over_nodes,
    the_server_is_there_twice,
)
