"""What to run for what was asked for, given what is there: nothing here looks or runs anything."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from devtools.kind_cluster import components, credentials, names
from devtools.kind_cluster.credentials import Credentials
from devtools.kind_cluster.found import Found, Workload
from devtools.kind_cluster.manifests import (
    KIND_CONFIG,
    NODE_IMAGE,
    REGISTRY_PORT,
    SERVER_PORT,
    Manifests,
)
from devtools.kind_cluster.names import Dashboard, Scaling, kind, kubectl
from devtools.kind_cluster.steps import Command, HttpCall, Step
from devtools.kind_cluster.switch import refuse_foreign, switch_dashboard, switch_scaling

ECHO: Final = names.FUNCTIONS[0]
EVENT: Final = '{"key": "value"}'

_CREATE_S: Final = 900.0  # the node image is a gigabyte
_NODE_READY_S: Final = 300
_PUSH_S: Final = 600.0
_RETRY_S: Final = 60.0  # a NodePort answers a moment after its pod is ready
_SMOKE_S: Final = 180.0

_HOSTS_FOLDER: Final = "/etc/containerd/certs.d/localhost:5000"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What ``up`` was asked for; None is: as it is, or else the default."""

    scaling: Scaling | None = None
    dashboard: Dashboard | None = None
    has_rabbitmq_cluster: bool = False

    def choice(self, found: Found) -> Choice:
        """Return what that is, given what is there.

        Nothing makes three RabbitMQ nodes one again: queues would lose the majority they need.
        """
        return Choice(
            scaling=self.scaling or found.scaling or Scaling.KEDA,
            dashboard=self.dashboard or found.dashboard or Dashboard.KUBERNETES,
            has_rabbitmq_cluster=self.has_rabbitmq_cluster or found.has_rabbitmq_cluster,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What a whole installation is to be."""

    scaling: Scaling
    dashboard: Dashboard
    has_rabbitmq_cluster: bool


def plan(wish: Wish, found: Found, secret: Credentials, manifests: Manifests) -> list[Step]:
    """Return all steps of ``up``. Raises Refused."""
    if not found.nodes:
        return [
            create(manifests),
            *install(wish, Found(nodes=manifests.nodes), secret, manifests),
        ]
    return install(wish, found, secret, manifests)


def create(manifests: Manifests) -> Step:
    """Return the step that makes the cluster."""
    image = manifests.images[NODE_IMAGE]
    how = ("--config", KIND_CONFIG, "--image", image, "--wait", f"{_NODE_READY_S}s")
    command = Command(argv=kind("create", "cluster", *how), limit_s=_CREATE_S)
    return Step(title="Cluster", actions=(command,), result="created")


def install(wish: Wish, found: Found, secret: Credentials, manifests: Manifests) -> list[Step]:
    """Return the steps after the cluster is there. Raises Refused."""
    choice = wish.choice(found)
    refuse_foreign(choice.scaling, found)
    return [
        _registry_for_nodes(found.nodes),
        components.NAMESPACES.install(),
        *_secrets(found, secret),
        _registry(manifests),
        push(manifests),
        components.rabbitmq(choice.has_rabbitmq_cluster).install(),
        components.METRICS_SERVER.install(),
        components.PROMETHEUS.install(),
        *switch_scaling(choice.scaling, found),
        *([components.KEDA.install()] if choice.scaling.uses_keda else []),
        *([components.ADAPTER.install()] if choice.scaling.uses_adapter else []),
        *switch_dashboard(choice.dashboard, found),
        *(each.install() for key, each in components.DASHBOARDS.items() if key == choice.dashboard),
        components.LAMBDA_SERVER.install(),
        components.OVERLAYS[choice.scaling].install(),
        *_restart_for_login(found, secret),
        _smoke_call(manifests),
    ]


def push(manifests: Manifests) -> Step:
    """Return the step that brings our images into the registry."""
    commands = []
    for name in names.IMAGES:
        pushed = manifests.images[name]
        commands.append(Command(argv=("docker", "tag", local_image(name, manifests), pushed)))
        argv = ("docker", "push", "--quiet", pushed)
        commands.append(Command(argv=argv, limit_s=_PUSH_S, retry_s=_RETRY_S))
    return Step(title="Images", actions=tuple(commands), result="pushed")


def restart(workloads: Iterable[Workload]) -> list[Step]:
    """Return the steps that replace the pods of ``workloads``, few at a time."""
    return [
        Step(
            title=each.name,
            actions=(
                Command(
                    argv=kubectl("rollout", "restart", each.reference, namespace=each.namespace)
                ),
                components.rollout(each.namespace, each.reference),
            ),
            result="restarted",
        )
        for each in workloads
    ]


def users_of_images(found: Found, manifests: Manifests) -> list[Workload]:
    """Return the workloads with a container of one of our images; a user's functions too."""
    ours = {manifests.images[name] for name in names.IMAGES}
    return [each for each in found.workloads if ours.intersection(each.images)]


def local_image(name: str, manifests: Manifests) -> str:
    """Return what ``make docker`` calls an image of ours."""
    return f"{name}:{manifests.images[name].rpartition(':')[2]}"


def path(function: str) -> str:
    """Return the path that invokes a function."""
    return f"/2015-03-31/functions/{function}/invocations"


def _registry_for_nodes(nodes: Iterable[str]) -> Step:
    """Tell each node what it reaches localhost:5000 by: the NodePort of the registry.

    Source: containerd, docs/hosts.md; kind, "Local Registry".
    """
    hosts = f'[host."http://{names.CLUSTER}-control-plane:{REGISTRY_PORT}"]\n'
    script = f"mkdir -p {_HOSTS_FOLDER} && cat > {_HOSTS_FOLDER}/hosts.toml"
    return Step(
        title="Registry's address on each node",
        actions=tuple(
            Command(argv=("docker", "exec", "--interactive", node, "sh", "-c", script), stdin=hosts)
            for node in nodes
        ),
    )


def _secrets(found: Found, secret: Credentials) -> list[Step]:
    changed = {
        name: values for name, values in secret.secrets.items() if found.secrets.get(name) != values
    }
    if not changed:
        return []
    commands = (
        components.apply("-f", "-", stdin=credentials.manifest(name, values))
        for name, values in changed.items()
    )
    return [Step(title="Secrets", actions=tuple(commands), result="made")]


def _restart_for_login(found: Found, secret: Credentials) -> list[Step]:
    """A Secret that changed reaches a pod's environment when the pod starts."""
    known = found.secrets.get(credentials.BROKER)
    if known is None or known == secret.secrets[credentials.BROKER]:
        return []
    return restart(each for each in found.workloads if each.namespace == names.LAMBDA)


def _registry(manifests: Manifests) -> Step:
    step = components.REGISTRY.install()
    answers = HttpCall(url=f"{manifests.url(REGISTRY_PORT)}/v2/", limit_s=_RETRY_S)
    return Step(title=step.title, actions=(*step.actions, answers), result=step.result)


def _smoke_call(manifests: Manifests) -> Step:
    call = HttpCall(url=manifests.url(SERVER_PORT) + path(ECHO), payload=EVENT, limit_s=_SMOKE_S)
    return Step(title=f"A call of {ECHO}", actions=(call,), result="answered")
