"""KEDA's operator, metrics adapter and webhooks on the lab's control plane, from k8s/keda."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Sequence
from pathlib import Path

from bench.autoscale.lab.control_plane import ControlPlane
from bench.autoscale.lab.kube import KubeError, Object
from bench.autoscale.lab.manifests import render
from devtools.ports import LOOPBACK, free_ports

_EXTERNAL_METRICS = "/apis/external.metrics.k8s.io/v1beta1"
_OPERATOR, _ADAPTER, _WEBHOOKS = (
    "keda-operator",
    "keda-metrics-apiserver",
    "keda-admission-webhooks",
)


def start_keda(plane: ControlPlane) -> None:
    """Apply k8s/keda, start KEDA's three programs on this machine and wait for its metrics."""
    admin = plane.user("admin")
    grpc, adapter, webhooks, *others = free_ports(8)
    ca = plane.authority.ca.read_bytes()
    documents = render(plane, "k8s/keda")
    admin.apply(on_this_machine(documents, ca=ca, adapter=adapter, webhooks=webhooks))

    certificates = _certificates(plane)
    config = str(plane.user("keda").kubeconfig)
    environ = {
        "KUBECONFIG": config,
        "POD_NAMESPACE": "keda",
        "KEDA_CLUSTER_OBJECT_NAMESPACE": "keda",
        "WATCH_NAMESPACE": "",
    }
    plane.spawn(
        "keda-operator",
        *("--zap-log-level=info", "--zap-encoder=console", f"--cert-dir={certificates}"),
        f"--metrics-bind-address={LOOPBACK}:{others[0]}",
        f"--health-probe-bind-address={LOOPBACK}:{others[1]}",
        f"--metrics-service-bind-address={LOOPBACK}:{grpc}",
        environ=environ,
    )
    plane.spawn(
        "keda-adapter",
        *(f"--bind-address={LOOPBACK}", f"--secure-port={adapter}", f"--port={others[2]}"),
        f"--metrics-service-address={LOOPBACK}:{grpc}",
        f"--client-ca-file={plane.authority.ca}",
        f"--tls-cert-file={certificates / 'tls.crt'}",
        f"--tls-private-key-file={certificates / 'tls.key'}",
        f"--cert-dir={certificates}",
        *(
            f"--{user}-kubeconfig={config}"
            for user in ("lister", "authentication", "authorization")
        ),
        environ=environ,
    )
    plane.spawn(
        "keda-webhooks",
        *(f"--port={webhooks}", f"--cert-dir={certificates}"),
        f"--metrics-bind-address={LOOPBACK}:{others[3]}",
        f"--health-probe-bind-address={LOOPBACK}:{others[4]}",
        environ=environ,
    )

    def serves_metrics() -> bool:
        try:
            admin.get(_EXTERNAL_METRICS)
        except (KubeError, OSError, ValueError):
            return False
        return True

    plane.wait("KEDA's metrics API", serves_metrics, log="keda-adapter")


def on_this_machine(
    documents: Sequence[Object], *, ca: bytes, adapter: int, webhooks: int
) -> list[Object]:
    """Return KEDA's manifests for programs that run beside the API server, not in pods.

    An EndpointSlice may not hold a loopback address, an ExternalName may be localhost.
    """
    authority = base64.b64encode(ca).decode()
    changed = []
    for document in documents:
        kind, name = document["kind"], document["metadata"]["name"]
        if kind in ("Deployment", "NetworkPolicy"):
            continue
        if kind == "Service" and name == _ADAPTER:
            document["spec"] = {"type": "ExternalName", "externalName": "localhost"}
        if kind == "APIService":
            document["spec"]["service"]["port"] = adapter
            document["spec"]["caBundle"] = authority
        if kind == "ValidatingWebhookConfiguration":
            for webhook in document["webhooks"]:
                path = webhook["clientConfig"]["service"]["path"]
                url = f"https://{LOOPBACK}:{webhooks}{path}"
                webhook["clientConfig"] = {"url": url, "caBundle": authority}
        changed.append(document)
    return changed


def _certificates(plane: ControlPlane) -> Path:
    """Return a folder as KEDA's certificate Secret is mounted."""
    names = [f"{service}.keda.svc" for service in (_OPERATOR, _ADAPTER, _WEBHOOKS)]
    names += [f"{name}.cluster.local" for name in names]
    pair = plane.authority.sign("keda", hosts=names)
    folder = plane.folder / "keda-certificates"
    folder.mkdir()
    shutil.copy(plane.authority.ca, folder / "ca.crt")
    shutil.copy(pair.certificate, folder / "tls.crt")
    shutil.copy(pair.key, folder / "tls.key")
    return folder
