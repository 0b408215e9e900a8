"""The table of deliberate faults: how to break a cluster, and the check that has to notice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from tests.acceptance.k8s.checks.every import Check
from tests.acceptance.k8s.manifests import Cluster

Break = Callable[[Cluster], object]


@dataclass(frozen=True)
class Fault:
    """One way to break a cluster."""

    name: str
    cluster: str  #: of ``CLUSTERS``
    check: Check  #: that has to notice
    break_it: Break


FAULTS: Final[list[Fault]] = []


def fault(check: Check, cluster: str = "keda") -> Callable[[Break], Break]:
    """Put a function into the table; its name says what is wrong."""

    def add(break_it: Break) -> Break:
        FAULTS.append(Fault(break_it.__name__, cluster, check, break_it))
        return break_it

    return add


def echo(cluster: Cluster) -> Any:
    """Return the Deployment of echo-lambda."""
    return cluster.get("Deployment", "echo-lambda", "lambda").data


def echo_pod(cluster: Cluster) -> Any:
    """Return the spec of its pods."""
    return echo(cluster)["spec"]["template"]["spec"]


def echo_container(cluster: Cluster) -> Any:
    """Return the container of the function."""
    return echo_pod(cluster)["containers"][0]


def server_pod(cluster: Cluster) -> Any:
    """Return the spec of the Lambda Server's pods."""
    deployment = cluster.get("Deployment", "lambda-server", "lambda")
    return deployment.data["spec"]["template"]["spec"]


def spec(cluster: Cluster, kind: str, name: str, namespace: str = "lambda") -> Any:
    """Return the spec of any object."""
    return cluster.get(kind, name, namespace).data["spec"]


def remove(cluster: Cluster, kind: str, name: str, namespace: str = "") -> None:
    """Take an object out of the cluster."""
    cluster.resources.remove(cluster.get(kind, name, namespace))


def config(cluster: Cluster, key: str) -> Any:
    """Return the data of the ConfigMap that has ``key``."""
    (found,) = [
        each.data["data"] for each in cluster.of("ConfigMap") if key in each.data.get("data", {})
    ]
    return found


def drop_variable(container: Any, name: str) -> None:
    """Take a variable from a container."""
    container["env"] = [each for each in container["env"] if each["name"] != name]


def set_variable(container: Any, name: str, value: str) -> None:
    """Give a variable a value in place of what it had."""
    drop_variable(container, name)
    container["env"].append({"name": name, "value": value})
