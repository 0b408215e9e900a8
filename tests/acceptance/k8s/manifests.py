"""Manifests as objects: rendered, parsed strictly, and found by kind, namespace and name."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from devtools.kustomize import find_kustomize, render
from tests.support import ROOT, give_up

K8S: Final = ROOT / "k8s"
#: Kinds that run pods, and where each has its pod's template.
_TEMPLATES: Final = {
    "CronJob": "spec.jobTemplate.spec.template",
    "DaemonSet": "spec.template",
    "Deployment": "spec.template",
    "Job": "spec.template",
    "ReplicaSet": "spec.template",
    "StatefulSet": "spec.template",
}
#: Kinds without a namespace, of those that we have.
_CLUSTER_WIDE: Final = {
    "APIService",
    "Cluster",
    "ClusterRole",
    "ClusterRoleBinding",
    "CustomResourceDefinition",
    "Namespace",
    "PriorityClass",
    "ValidatingWebhookConfiguration",
}


class StrictLoader(yaml.SafeLoader):
    """Refuses a mapping that has a key twice, of which YAML's own loader keeps the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        for key in keys:
            if keys.count(key) > 1:
                problem = f"key {key!r} is there twice"
                raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        return super().construct_mapping(node, deep)


def load(text: str) -> list[Any]:
    """Return the documents of ``text`` that are not empty; a key twice is an error."""
    documents = yaml.load_all(text, Loader=StrictLoader)
    return [each for each in documents if each is not None]


def at(value: Any, path: str, default: Any = None) -> Any:
    """Return what stands at a dotted path of mappings, or ``default`` where a step is missing."""
    for step in path.split("."):
        if not isinstance(value, dict) or value.get(step) is None:
            return default
        value = value[step]
    return value


def everything_at(value: Any, key: str) -> Iterator[Any]:
    """Yield what stands under ``key``, however deep in ``value``."""
    if isinstance(value, dict):
        if value.get(key) is not None:
            yield value[key]
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from everything_at(each, key)


def matches(selector: Any, labels: dict[str, str]) -> bool:
    """Return whether a LabelSelector (or None, which selects all) selects what has ``labels``."""
    for rule in at(selector, "matchExpressions", []):
        value, values = labels.get(rule["key"]), rule.get("values", [])
        holds = {
            "In": value in values,
            "NotIn": value not in values,
            "Exists": value is not None,
            "DoesNotExist": value is None,
        }[rule["operator"]]
        if not holds:
            return False
    return all(labels.get(key) == value for key, value in at(selector, "matchLabels", {}).items())


@dataclass(frozen=True)
class Pod:
    """The pods of one workload, as its template makes them."""

    owner: Resource
    metadata: dict[str, Any]
    spec: dict[str, Any]

    @property
    def labels(self) -> dict[str, str]:
        labels: dict[str, str] = self.metadata.get("labels", {})
        return labels

    @property
    def namespace(self) -> str:
        return self.owner.namespace

    @property
    def service_account(self) -> str:
        return str(self.spec.get("serviceAccountName", "default"))

    @property
    def containers(self) -> list[Any]:
        """Those that stay."""
        return list(self.spec.get("containers", []))

    @property
    def all_containers(self) -> list[Any]:
        return [*self.spec.get("initContainers", []), *self.containers]

    @property
    def ports(self) -> list[Any]:
        return [port for each in self.containers for port in each.get("ports", [])]


@dataclass(frozen=True)
class Resource:
    """One object of the API, and the file or folder that it comes from."""

    origin: str
    data: dict[str, Any] = field(repr=False)

    @property
    def kind(self) -> str:
        return str(self.data["kind"])

    @property
    def name(self) -> str:
        return str(at(self.data, "metadata.name", ""))

    @property
    def namespace(self) -> str:
        return str(at(self.data, "metadata.namespace", ""))

    @property
    def is_namespaced(self) -> bool:
        return self.kind not in _CLUSTER_WIDE

    @property
    def is_foreign(self) -> bool:
        """Whether others decide how it looks: KEDA comes as it is released."""
        return self.origin == "keda" and self.kind != "NetworkPolicy"

    @property
    def labels(self) -> dict[str, str]:
        labels: dict[str, str] = at(self.data, "metadata.labels", {})
        return labels

    @property
    def spec(self) -> dict[str, Any]:
        spec: dict[str, Any] = self.data.get("spec") or {}
        return spec

    @property
    def pod(self) -> Pod | None:
        """Its pods, if it is a workload."""
        if self.kind == "Pod":
            return Pod(self, self.data["metadata"], self.spec)
        template = at(self.data, _TEMPLATES.get(self.kind, ""))
        return template and Pod(self, template.get("metadata", {}), template["spec"])

    def __str__(self) -> str:
        """Return what a message calls it: ``echo-lambda (Deployment in lambda)``."""
        where = f" in {self.namespace}" if self.namespace else ""
        return f"{self.name} ({self.kind}{where})"


@dataclass(frozen=True)
class Cluster:
    """All objects that are in one cluster together."""

    name: str
    resources: list[Resource]

    def of(self, *kinds: str) -> list[Resource]:
        return [each for each in self.resources if each.kind in kinds]

    def find(self, kind: str, name: str, namespace: str = "") -> Resource | None:
        for each in self.resources:
            if (each.kind, each.name, each.namespace) == (kind, name, namespace):
                return each
        return None

    def get(self, kind: str, name: str, namespace: str = "") -> Resource:
        found = self.find(kind, name, namespace)
        assert found is not None, f"no {kind} {name} in {namespace or 'the cluster'}"
        return found

    @property
    def pods(self) -> list[Pod]:
        return [each.pod for each in self.resources if each.pod is not None]

    @property
    def functions(self) -> list[Resource]:
        """The Deployments that are Lambda functions."""
        component = "app.kubernetes.io/component"
        return [each for each in self.of("Deployment") if each.labels.get(component) == "function"]

    def copy(self) -> Cluster:
        """Return a cluster of its own, to be broken; the CRDs, which are large, stay shared."""
        shared = {id(each): each for each in self.of("CustomResourceDefinition")}
        return Cluster(self.name, copy.deepcopy(self.resources, dict(shared)))


def need_kustomize() -> None:
    """Skip the test where nothing here renders kustomizations; fail in CI."""
    if find_kustomize() is None:
        give_up("neither kustomize nor kubectl on this machine; scripts/test-setup builds one")


@functools.cache
def rendered(folder: Path) -> tuple[Resource, ...]:
    """Return the objects of the kustomization in ``folder``, rendered once a session."""
    need_kustomize()
    origin = str(folder.relative_to(K8S if folder.is_relative_to(K8S) else ROOT))
    return tuple(Resource(origin, each) for each in load(render(folder)))
