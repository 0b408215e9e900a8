"""What is installed: each directory of ``k8s/``, and what must be ready before the next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from devtools.kind_cluster import names
from devtools.kind_cluster.names import Dashboard, Scaling, kubectl
from devtools.kind_cluster.steps import Command, Step

_ROLLOUT_S: Final = 300  # images are pulled meanwhile
_CONDITION_S: Final = 120
_REMOVAL_S: Final = 180
_GRACE_S: Final = 15.0  # a tool that keeps its own limit needs a little longer


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """A directory, and how to know that what is in it works."""

    title: str
    directory: str  #: below the checkout
    namespace: str = ""
    workloads: tuple[str, ...] = ()  #: such as deployment/registry
    conditions: tuple[tuple[str, str], ...] = ()  #: of other resources: condition, resource
    rollout_s: int = _ROLLOUT_S
    retry_s: float = 0.0  #: how long applying may fail

    def install(self) -> Step:
        """Return the step that applies it and waits."""
        conditions = (_wait_for(condition, what) for condition, what in self.conditions)
        return Step(
            title=self.title,
            actions=(
                apply("-k", self.directory, retry_s=self.retry_s),
                *self.wait(),
                *conditions,
            ),
            result="ready" if self.workloads else "done",
        )

    def wait(self) -> tuple[Command, ...]:
        """Return the commands that wait for its workloads."""
        return tuple(rollout(self.namespace, each, self.rollout_s) for each in self.workloads)

    def remove(self) -> Command:
        """Return the command that removes it, and waits until it is gone."""
        return delete("-k", self.directory)


def apply(*source: str, stdin: str = "", retry_s: float = 0.0) -> Command:
    """Return a command that makes the cluster have what ``source`` says.

    On the server's side: a client would keep a copy of all of it, Secrets too, in an annotation.
    """
    how = ("--server-side", "--force-conflicts", f"--field-manager={names.FIELD_MANAGER}")
    return Command(argv=kubectl("apply", *how, *source), stdin=stdin, retry_s=retry_s)


def delete(*what: str, namespace: str | None = None) -> Command:
    """Return a command that deletes what may be there, and waits until it is gone."""
    how = ("--ignore-not-found", f"--timeout={_REMOVAL_S}s")
    argv = kubectl("delete", *what, *how, namespace=namespace)
    return Command(argv=argv, limit_s=_REMOVAL_S + _GRACE_S)


def wait_until_gone(resource: str, namespace: str) -> Command:
    """Return a command that waits until something else has deleted ``resource``."""
    argv = kubectl(
        "wait", "--for=delete", resource, f"--timeout={_CONDITION_S}s", namespace=namespace
    )
    return Command(argv=argv, limit_s=_CONDITION_S + _GRACE_S)


def rollout(namespace: str, workload: str, limit_s: int = _ROLLOUT_S) -> Command:
    """Return a command that waits until ``workload`` has all its pods, new and ready.

    All that it wants: a function that is scaled to zero wants none, and nobody waits for one.
    """
    argv = kubectl("rollout", "status", workload, f"--timeout={limit_s}s", namespace=namespace)
    return Command(argv=argv, limit_s=limit_s + _GRACE_S)


def _wait_for(condition: str, resource: str) -> Command:
    argv = kubectl("wait", f"--for=condition={condition}", resource, f"--timeout={_CONDITION_S}s")
    return Command(argv=argv, limit_s=_CONDITION_S + _GRACE_S)


NAMESPACES: Final = Component(title="Namespaces", directory="k8s/namespaces")
REGISTRY: Final = Component(
    title="Registry",
    directory="k8s/registry",
    namespace=names.REGISTRY,
    workloads=("deployment/registry",),
)
RABBITMQ: Final = Component(
    title="RabbitMQ",
    directory="k8s/rabbitmq",
    namespace=names.MESSAGING,
    workloads=("statefulset/rabbitmq",),
    rollout_s=600,
)
RABBITMQ_CLUSTER: Final = Component(
    title="RabbitMQ, three nodes",
    directory="k8s/rabbitmq-cluster",
    namespace=names.MESSAGING,
    workloads=("statefulset/rabbitmq",),
    rollout_s=1_800,  # a node that is replaced hands its queues over first, for 540 s at most
)
METRICS_SERVER: Final = Component(
    title="metrics-server",
    directory="k8s/metrics-server",
    namespace=names.SYSTEM,
    workloads=("deployment/metrics-server",),
    conditions=(("Available", "apiservice/v1beta1.metrics.k8s.io"),),
)
PROMETHEUS: Final = Component(
    title="Prometheus",
    directory="k8s/prometheus",
    namespace=names.MONITORING,
    workloads=("deployment/prometheus",),
)
ADAPTER: Final = Component(
    title="prometheus-adapter",
    directory="k8s/prometheus-adapter",
    namespace=names.MONITORING,
    workloads=("deployment/prometheus-adapter",),
    conditions=(("Available", "apiservice/v1beta1.external.metrics.k8s.io"),),
)
KEDA: Final = Component(
    title="KEDA",
    directory="k8s/keda",
    namespace=names.KEDA,
    workloads=(
        "deployment/keda-operator",
        "deployment/keda-metrics-apiserver",
        "deployment/keda-admission",
    ),
    conditions=(
        ("Established", "crd/scaledobjects.keda.sh"),
        ("Established", "crd/triggerauthentications.keda.sh"),
        ("Available", "apiservice/v1beta1.external.metrics.k8s.io"),
    ),
)
LAMBDA_SERVER: Final = Component(
    title="Lambda Server",
    directory="k8s/lambda-server",
    namespace=names.LAMBDA,
    workloads=(f"deployment/{names.SERVER}",),
)
DASHBOARDS: Final = {
    Dashboard.KUBERNETES: Component(
        title="Kubernetes Dashboard",
        directory="k8s/dashboard",
        namespace=names.DASHBOARD,
        workloads=("deployment/kubernetes-dashboard", "deployment/dashboard-metrics-scraper"),
    ),
    Dashboard.HEADLAMP: Component(
        title="Headlamp",
        directory="k8s/headlamp",
        namespace=names.DASHBOARD,
        workloads=("deployment/headlamp",),
    ),
}
OVERLAYS: Final = {
    scaling: Component(
        title=f"Functions, scaling {scaling}",
        directory=f"k8s/overlays/{scaling}",
        namespace=names.LAMBDA,
        workloads=tuple(f"deployment/{function}" for function in names.FUNCTIONS),
        retry_s=60.0,  # KEDA's webhook refuses for a moment: its certificate is new
    )
    for scaling in Scaling
}


def rabbitmq(is_cluster: bool) -> Component:
    """Return RabbitMQ with one node or with three."""
    return RABBITMQ_CLUSTER if is_cluster else RABBITMQ


def components(
    scaling: Scaling, dashboard: Dashboard, has_rabbitmq_cluster: bool
) -> list[Component]:
    """Return what a whole installation has, in the order in which it is installed."""
    return [
        NAMESPACES,
        REGISTRY,
        rabbitmq(has_rabbitmq_cluster),
        METRICS_SERVER,
        PROMETHEUS,
        *([KEDA] if scaling.uses_keda else []),
        *([ADAPTER] if scaling.uses_adapter else []),
        *([DASHBOARDS[dashboard]] if dashboard in DASHBOARDS else []),
        LAMBDA_SERVER,
        OVERLAYS[scaling],
    ]
