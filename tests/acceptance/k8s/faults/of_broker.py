"""Faults of RabbitMQ: its configuration, its account, its data."""

from __future__ import annotations

from tests.acceptance.k8s.checks import broker
from tests.acceptance.k8s.faults.table import config, fault, set_variable, spec
from tests.acceptance.k8s.manifests import Cluster


@fault(broker.settings_are_known, "max-concurrency")
def setting_that_rabbitmq_refuses(cluster: Cluster) -> None:
    config(cluster, "cluster.conf")["cluster.conf"] += "queue_master_locator = min-masters\n"


@fault(broker.settings_are_known)
def account_guest_open_to_everybody(cluster: Cluster) -> None:
    config(cluster, "rabbitmq.conf")["rabbitmq.conf"] += "loopback_users.guest = false\n"


@fault(broker.settings_are_known)
def misspelt_setting(cluster: Cluster) -> None:
    config(cluster, "rabbitmq.conf")["rabbitmq.conf"] += "disk_free_limit.absolut = 1GB\n"


@fault(broker.memory_has_a_limit)
def memory_without_a_limit(cluster: Cluster) -> None:
    config(cluster, "rabbitmq.conf")["rabbitmq.conf"] = "heartbeat = 60\n"


@fault(broker.plugins_are_known)
def plugin_that_is_missing(cluster: Cluster) -> None:
    config(cluster, "enabled_plugins")["enabled_plugins"] = "[rabbitmq_management].\n"


@fault(broker.the_account_is_of_the_secret)
def account_with_a_known_password(cluster: Cluster) -> None:
    pod = spec(cluster, "StatefulSet", "rabbitmq", "messaging")["template"]["spec"]
    set_variable(pod["containers"][0], "RABBITMQ_DEFAULT_PASS", "guest")


@fault(broker.data_outlives_a_pod)
def data_in_the_pod(cluster: Cluster) -> None:
    fields = spec(cluster, "StatefulSet", "rabbitmq", "messaging")
    del fields["volumeClaimTemplates"]
    fields["template"]["spec"]["volumes"].append({"name": "data", "emptyDir": {}})
