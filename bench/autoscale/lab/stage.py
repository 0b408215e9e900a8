"""Everything a measurement needs, started: control plane, KEDA, broker, Lambda Server, nodes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from bench import launches
from bench.autoscale.lab.control_plane import ControlPlane
from bench.autoscale.lab.keda import start_keda
from bench.autoscale.lab.kube import Kube, KubeError
from bench.autoscale.lab.load import Management
from bench.autoscale.lab.manifests import FUNCTION, Settings, function_documents, render
from bench.autoscale.lab.nodes import Nodes
from bench.autoscale.lab.programs import Programs
from bench.errors import BenchError
from devtools.ports import LOOPBACK, free_ports
from devtools.rabbitmq_node import RabbitmqNode

_DEPLOYMENT = f"/apis/apps/v1/namespaces/lambda/deployments/{FUNCTION}"
_SCALED_OBJECT = f"/apis/keda.sh/v1alpha1/namespaces/lambda/scaledobjects/{FUNCTION}"
_POLL_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What runs, and how a measurement looks at it."""

    plane: ControlPlane
    kube: Kube
    nodes: Nodes
    broker: RabbitmqNode
    management: Management
    server_port: int

    def deploy(self, settings: Settings) -> None:
        """Apply k8s/overlays/keda with these settings, after removing what was there."""
        with suppress(KubeError):
            self.kube.delete(_SCALED_OBJECT)
        with suppress(KubeError):
            self.kube.delete(_DEPLOYMENT)
        self.wait_for(lambda: self.nodes.log.present() == 0, 120, "the old pods to end")
        documents = function_documents(
            render(self.plane, "k8s/overlays/keda"),
            amqp_port=self.broker.port,
            management_port=self.management.port,
            settings=settings,
        )
        self.kube.apply(documents)

    def replicas(self) -> int:
        """Return how many pods the Deployment asks for."""
        spec = self.kube.get(_DEPLOYMENT)["spec"]
        return int(spec["replicas"])

    def wait_for_zero(self, limit_s: float = 240) -> None:
        """Wait until no pod is wanted, and none is there."""
        self.wait_for(
            lambda: self.replicas() == 0 and self.nodes.log.present() == 0,
            limit_s,
            "0 pods",
        )

    def wait_for_queues(self) -> None:
        """Wait until a rapid has declared the function's queues."""
        names = (FUNCTION, f"{FUNCTION}.events")
        self.wait_for(
            lambda: all(self.management.queue(name) is not None for name in names), 120, "queues"
        )

    def wait_for(self, condition: Callable[[], bool], limit_s: float, what: str) -> float:
        """Return when ``condition`` came to hold; raises BenchError after ``limit_s``."""
        until = time.monotonic() + limit_s
        while not condition():
            if time.monotonic() > until:
                raise BenchError(f"waited {limit_s:.0f} s in vain for {what}")
            time.sleep(_POLL_S)
        return time.monotonic()


@contextmanager
def stage(
    programs: Programs,
    folder: Path,
    *,
    container_start_s: float = 1.5,
    statistics_ms: int = 5000,
    hpa_sync_s: int = 15,
) -> Iterator[Stage]:
    """Start everything; stop it in reverse order in the end.

    ``statistics_ms`` is RabbitMQ's collect_statistics_interval, ``hpa_sync_s`` the period of
    Kubernetes' HPA controller: unless they are given, what both are without a setting.
    """
    with ExitStack() as running:
        (management_port,) = free_ports(1)
        broker = running.enter_context(
            RabbitmqNode(
                folder / "rabbitmq",
                plugins=["rabbitmq_management"],
                settings=[
                    f"management.tcp.ip = {LOOPBACK}",
                    f"management.tcp.port = {management_port}",
                    f"collect_statistics_interval = {statistics_ms}",
                ],
            )
        )
        plane = running.enter_context(
            ControlPlane(programs, folder / "kubernetes", hpa_sync_s=hpa_sync_s)
        )
        admin = plane.user("admin")
        admin.apply(render(plane, "k8s/namespaces"))
        start_keda(plane)
        logs = folder / "pods"
        logs.mkdir()
        nodes = Nodes(admin, logs, FUNCTION, container_start_s=container_start_s)
        nodes.start()
        running.callback(nodes.stop)
        server = launches.server(broker.uri)
        running.enter_context(server.running(folder))
        yield Stage(
            plane=plane,
            kube=admin,
            nodes=nodes,
            broker=broker,
            management=Management(port=management_port),
            server_port=server.port,
        )
