"""What there is of the cluster: nodes, workloads, autoscalers, Secrets. Looks, changes nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

from devtools.kind_cluster.answers import read
from devtools.kind_cluster.credentials import BROKER, RABBITMQ, Secrets, decode
from devtools.kind_cluster.names import (
    DASHBOARD,
    FUNCTIONS,
    KEDA,
    LAMBDA,
    MESSAGING,
    MONITORING,
    Dashboard,
    Scaling,
    kind,
    kubectl,
)

_OWNER_LABEL: Final = "scaledobject.keda.sh/name"  #: KEDA names the owner of an HPA by it
_KEDA_KINDS: Final = ("scaledobjects.keda.sh", "scaledjobs.keda.sh")


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A Deployment or StatefulSet."""

    kind: str  #: lower case
    namespace: str
    name: str
    wanted: int = 1  #: how many pods it is to have; none, if it is scaled to zero
    ready: int = 0
    images: tuple[str, ...] = ()
    has_image_volume: bool = False

    @property
    def reference(self) -> str:
        """How kubectl is told which."""
        return f"{self.kind}/{self.name}"

    @property
    def is_ready(self) -> bool:
        """Whether it has the pods that it is to have."""
        return self.ready >= self.wanted

    @classmethod
    def from_answer(cls, item: Any) -> Self:
        """Read it as Kubernetes answers it."""
        pod = item["spec"]["template"]["spec"]
        volumes = [each["image"] for each in pod.get("volumes") or [] if "image" in each]
        containers = [*(pod.get("initContainers") or []), *pod["containers"]]
        return cls(
            kind=item["kind"].lower(),
            namespace=item["metadata"]["namespace"],
            name=item["metadata"]["name"],
            wanted=item["spec"].get("replicas", 1),
            ready=item.get("status", {}).get("readyReplicas", 0),
            images=(
                *(container["image"] for container in containers),
                *(volume.get("reference", "") for volume in volumes),
            ),
            has_image_volume=bool(volumes),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Autoscaler:
    """A HorizontalPodAutoscaler, ScaledObject or ScaledJob, and what it scales."""

    kind: str
    namespace: str
    name: str
    target: str = ""  #: such as Deployment/echo-lambda
    owner: str | None = None  #: the ScaledObject whose HPA it is
    triggers: tuple[str, ...] = ()  #: types of a ScaledObject's

    @property
    def function(self) -> str | None:
        """The function of ours that it scales in the way that our manifests do, if it does."""
        for function in FUNCTIONS:
            is_named_so = function in (self.name, self.owner)
            if self.namespace == LAMBDA and is_named_so and self.target == f"Deployment/{function}":
                return function
        return None

    @property
    def is_foreign(self) -> bool:
        """Whether it is not of our manifests; KEDA's HPA counts as what it is made from."""
        return self.function is None and self.owner is None

    @property
    def is_of_keda(self) -> bool:
        """Whether KEDA's operator looks after it."""
        return self.kind in ("ScaledObject", "ScaledJob")

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"

    @classmethod
    def from_answer(cls, item: Any) -> Self:
        """Read it as Kubernetes answers it."""
        target = item["spec"].get("scaleTargetRef") or {}
        metadata, triggers = item["metadata"], item["spec"].get("triggers") or []
        return cls(
            kind=item["kind"],
            namespace=metadata["namespace"],
            name=metadata["name"],
            target=f"{target.get('kind', 'Deployment')}/{target.get('name', '')}",
            owner=(metadata.get("labels") or {}).get(_OWNER_LABEL),
            triggers=tuple(trigger["type"] for trigger in triggers),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What there is; without nodes there is no cluster, and nothing else either."""

    nodes: tuple[str, ...] = ()
    workloads: tuple[Workload, ...] = ()
    autoscalers: tuple[Autoscaler, ...] = ()
    secrets: Secrets = field(default_factory=dict, repr=False)

    def workload(self, namespace: str, reference: str) -> Workload | None:
        """Return a workload by its name, if it is there."""
        for each in self.workloads:
            if (each.namespace, each.reference) == (namespace, reference):
                return each
        return None

    @property
    def scaling(self) -> Scaling | None:
        """The alternative in use; None if functions or autoscalers are not there yet."""
        echo = self.workload(LAMBDA, f"deployment/{FUNCTIONS[0]}")
        if echo is None:
            return None
        ours = [each for each in self.autoscalers if each.function]
        objects = [each for each in ours if each.kind == "ScaledObject"]
        if objects and echo.has_image_volume:
            return Scaling.IMAGE_VOLUME
        if objects:
            is_prometheus = any("prometheus" in each.triggers for each in objects)
            return Scaling.KEDA_PROMETHEUS if is_prometheus else Scaling.KEDA
        if ours:
            return Scaling.HPA
        is_unfinished = self.has_adapter or (self.has_keda and not self.others_of_keda)
        return None if is_unfinished else Scaling.MAX_CONCURRENCY

    @property
    def dashboard(self) -> Dashboard | None:
        """The dashboard that is installed; NONE where the rest is, and no dashboard."""
        for each, name in _DASHBOARDS.items():
            if self.workload(DASHBOARD, f"deployment/{name}"):
                return each
        return Dashboard.NONE if self.scaling else None

    @property
    def has_keda(self) -> bool:
        """Whether KEDA is installed."""
        return self.workload(KEDA, "deployment/keda-operator") is not None

    @property
    def has_adapter(self) -> bool:
        """Whether prometheus-adapter is installed."""
        return self.workload(MONITORING, "deployment/prometheus-adapter") is not None

    @property
    def others_of_keda(self) -> tuple[Autoscaler, ...]:
        """What is not ours and needs KEDA."""
        return tuple(each for each in self.autoscalers if each.is_foreign and each.is_of_keda)

    @property
    def has_rabbitmq_cluster(self) -> bool:
        """Whether RabbitMQ has more than one node."""
        rabbitmq = self.workload(MESSAGING, "statefulset/rabbitmq")
        return rabbitmq is not None and rabbitmq.wanted > 1


_DASHBOARDS: Final = {
    Dashboard.KUBERNETES: "kubernetes-dashboard",
    Dashboard.HEADLAMP: "headlamp",
}


def nodes() -> tuple[str, ...]:
    """Return the nodes of our cluster, none if there is no cluster. Raises CommandError."""
    return tuple(read(kind("get", "nodes")).split())


def look() -> Found:
    """Return what there is of a cluster that is up. Raises CommandError."""
    known = read(kubectl("get", "crd", *_KEDA_KINDS, "--ignore-not-found", "-o", "name")).split()
    kinds = [name for name in _KEDA_KINDS if any(each.endswith(f"/{name}") for each in known)]
    kinds.append("horizontalpodautoscalers.autoscaling")
    return Found(
        nodes=nodes(),
        workloads=workloads(),
        autoscalers=tuple(
            Autoscaler.from_answer(item) for item in _items("get", ",".join(kinds), "-A")
        ),
        secrets=_secrets(),
    )


def workloads() -> tuple[Workload, ...]:
    """Return every Deployment and StatefulSet. Raises CommandError."""
    answer = _items("get", "deployments.apps,statefulsets.apps", "-A")
    return tuple(Workload.from_answer(item) for item in answer)


def _items(*arguments: str) -> list[Any]:
    items: list[Any] = json.loads(read(kubectl(*arguments, "-o", "json")))["items"]
    return items


def _secrets() -> Secrets:
    found: dict[tuple[str, str], Mapping[str, str]] = {}
    for namespace, name in (RABBITMQ, BROKER):
        command = kubectl(
            "get", "secret", name, "--ignore-not-found", "-o", "json", namespace=namespace
        )
        answer = read(command)
        if answer.strip():
            found[namespace, name] = decode(json.loads(answer))
    return found
