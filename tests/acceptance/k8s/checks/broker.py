"""RabbitMQ's configuration: settings that it knows, and none that RabbitMQ 4.3 refuses."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from tests.acceptance.k8s.checks.table import check
from tests.acceptance.k8s.manifests import Cluster, everything_at

#: Settings that we use. Not among them are those of upstream and old guides: RabbitMQ 4.3 ignores
#: cluster_partition_handling and refuses queue_master_locator; loopback_users.guest opens guest to
#: everybody; management.load_definitions puts passwords into a ConfigMap.
_KNOWN: Final = {
    "cluster_formation.peer_discovery_backend",
    "disk_free_limit.absolute",
    "vm_memory_high_watermark.relative",
}


@check
def settings_are_known(cluster: Cluster) -> Iterator[str]:
    """Among them is where RabbitMQ holds publishers back, before Kubernetes kills it."""
    names = set()
    for where, line in _lines(cluster):
        name, _, value = (part.strip() for part in line.partition("="))
        names.add(name)
        if name not in _KNOWN or not value:
            yield f"{where}: {line!r} is not on the list of settings"
    if "vm_memory_high_watermark.relative" not in names:
        yield "nothing holds publishers back before the container's memory is full"


@check
def plugins_are_known(cluster: Cluster) -> Iterator[str]:
    for config in cluster.of("ConfigMap"):
        text = config.data.get("data", {}).get(
            "enabled_plugins", "[rabbitmq_management,rabbitmq_prometheus]."
        )
        plugins = set(re.findall(r"\w+", text))
        needed = {"rabbitmq_management", "rabbitmq_prometheus"}
        if not needed <= plugins <= {*needed, "rabbitmq_peer_discovery_k8s"}:
            yield f"{config}: plugins {text.strip()}"


@check
def data_outlives_a_pod(cluster: Cluster) -> Iterator[str]:
    broker = cluster.get("StatefulSet", "rabbitmq", "messaging")
    claims = {one["metadata"]["name"] for one in broker.spec.get("volumeClaimTemplates", [])}
    mounts = [one for some in everything_at(broker.data, "volumeMounts") for one in some]
    kept = {one["mountPath"] for one in mounts if one["name"] in claims}
    if kept != {"/var/lib/rabbitmq"}:
        yield f"{broker} keeps {sorted(kept)}"


def _lines(cluster: Cluster) -> Iterator[tuple[str, str]]:
    for config in cluster.of("ConfigMap"):
        for name, text in config.data.get("data", {}).items():
            if config.namespace == "messaging" and name.endswith(".conf"):
                for line in text.splitlines():
                    if line.strip() and not line.lstrip().startswith("#"):
                        yield f"{config}: {name}", line
