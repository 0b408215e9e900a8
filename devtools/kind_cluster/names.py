"""What things are called: the cluster, its namespaces, and what a user may choose."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Final

CHECKOUT: Final = Path(__file__).resolve().parent.parent.parent

CLUSTER: Final = "lambda"
CONTEXT: Final = f"kind-{CLUSTER}"  #: what kind calls it in the kubeconfig
FIELD_MANAGER: Final = "scripts-cluster"  #: whose the fields are that we apply

FUNCTIONS: Final = ("echo-lambda", "image-greyscale-lambda")
SERVER: Final = "lambda-server"
IMAGES: Final = (*FUNCTIONS, "lambda-runtime-api-daemon", SERVER)

LAMBDA: Final = "lambda"
MESSAGING: Final = "messaging"
MONITORING: Final = "monitoring"
REGISTRY: Final = "registry"
KEDA: Final = "keda"
DASHBOARD: Final = "kubernetes-dashboard"
SYSTEM: Final = "kube-system"

NAMESPACES: Final = (LAMBDA, MESSAGING, MONITORING, REGISTRY, KEDA, DASHBOARD)


class Scaling(StrEnum):
    """What decides how many pods a function has; each is a directory of ``k8s/overlays``."""

    KEDA = "keda"
    HPA = "hpa"
    KEDA_PROMETHEUS = "keda-prometheus"
    MAX_CONCURRENCY = "max-concurrency"
    IMAGE_VOLUME = "image-volume"

    @property
    def uses_keda(self) -> bool:
        """Whether KEDA scales."""
        return self in (Scaling.KEDA, Scaling.KEDA_PROMETHEUS, Scaling.IMAGE_VOLUME)

    @property
    def uses_adapter(self) -> bool:
        """Whether Kubernetes' own autoscaler scales, with metrics of prometheus-adapter."""
        return self is Scaling.HPA


class Dashboard(StrEnum):
    """What port 30000 shows."""

    KUBERNETES = "kubernetes"
    HEADLAMP = "headlamp"
    NONE = "none"


def kubectl(*arguments: str, namespace: str | None = None) -> tuple[str, ...]:
    """Return a kubectl command that speaks to our cluster, whatever the current context is."""
    where = ("--namespace", namespace) if namespace else ()
    return ("kubectl", "--context", CONTEXT, *where, *arguments)


def kind(*arguments: str) -> tuple[str, ...]:
    """Return a kind command about our cluster."""
    return ("kind", *arguments, "--name", CLUSTER)
