"""Deliberate faults: a value that is changed in one object, and the check that has to notice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from tests.acceptance.k8s.checks import broker, functions, names, network, pods, scaling
from tests.acceptance.k8s.checks.table import Check
from tests.acceptance.k8s.manifests import Cluster, Resource

_APP: Final = "app.kubernetes.io"
_POD: Final = "spec template spec"
_BOX: Final = f"{_POD} containers 0"


@dataclass(frozen=True)
class Fault:
    """One way to break a cluster: the object's path gets the value; None removes it."""

    check: Check  #: that has to notice
    target: str  #: KIND NAME, the first of which there is
    path: str  #: words; in a list a number, or the name or mountPath of what is meant
    value: Any
    cluster: str = "keda"  #: of ``CLUSTERS``

    def put_into(self, cluster: Cluster) -> None:
        """Break the cluster."""
        kind, _, name = self.target.partition(" ")
        if self.path == "":
            self._replace(cluster, kind, name)
            return
        found = next(each for each in cluster.of(kind) if each.name.startswith(name))
        place: Any = found.data
        *steps, last = self.path.split()
        for step in steps:
            place = place[_key(place, step)]
        key = _key(place, last)
        if self.value is None:
            del place[key]
        elif isinstance(place, list) and key == len(place):
            place.append(self.value)
        else:
            place[key] = self.value

    def _replace(self, cluster: Cluster, kind: str, name: str) -> None:
        """Without a path the whole object: it goes, or another one comes."""
        if self.value is None:
            cluster.resources.remove(next(each for each in cluster.of(kind) if each.name == name))
        else:
            metadata = {"name": name, "namespace": "lambda"}
            data = {"kind": kind, "metadata": metadata, **self.value}
            cluster.resources.append(Resource("test", data))

    def __str__(self) -> str:
        """Return what a test calls it."""
        return f"{self.check.__name__}: {self.target} {self.path}"


def _key(place: Any, step: str) -> Any:
    if not isinstance(place, list):
        return step
    if step.isdigit():
        return int(step)
    called = [each.get("name", each.get("mountPath")) for each in place]
    return called.index(step) if step in called else len(place)


_ECHO: Final = "Deployment echo-lambda"
_SERVER: Final = "Deployment lambda-server"
_RABBITMQ: Final = "StatefulSet rabbitmq"
_SCALED: Final = "ScaledObject echo-lambda"
_HPA: Final = "HorizontalPodAutoscaler echo-lambda"
_POLICY: Final = "NetworkPolicy functions"
_TARGET: Final = {"spec": {"scaleTargetRef": {"kind": "Deployment", "name": "echo-lambda"}}}
_OPEN: Final = {"cidr": "0.0.0.0/0", "except": ["10.244.0.0/16"]}
_GUEST: Final = {"name": "RAPID_AMQP_PASSWORD", "value": "guest"}
_ROUTE: Final = {"rules": [{"backendRefs": [{"name": "lambda-server", "port": 80}]}]}
_MONITOR: Final = {
    "selector": {"matchLabels": {f"{_APP}/component": "function"}},
    "podMetricsEndpoints": [{"port": "metrics"}],
}

FAULTS: Final = [
    # pods
    Fault(pods.selectors_are_name_and_instance, _ECHO, "spec selector matchLabels",
          {f"{_APP}/part-of": "lambda"}),
    Fault(pods.everything_has_the_recommended_labels, "Service lambda-server",
          f"metadata labels {_APP}/managed-by", None),
    Fault(pods.everything_has_the_recommended_labels, _RABBITMQ,
          f"metadata labels {_APP}/version", "4.2.9"),
    Fault(pods.images_are_those_of_the_table, _SERVER, f"{_BOX} image",
          "localhost:5000/lambda-server:latest"),
    Fault(pods.images_are_those_of_the_table, _ECHO, f"{_POD} volumes rapid image reference",
          "localhost:5000/lambda-runtime-api-daemon:0.0.9", "image-volume"),
    Fault(pods.our_namespaces_are_restricted, "Namespace lambda",
          "metadata labels pod-security.kubernetes.io/enforce", "baseline"),
    Fault(pods.pods_have_a_user_and_a_group, _ECHO, f"{_POD} securityContext runAsGroup", None),
    Fault(pods.no_secret_is_written_down, _ECHO, f"{_BOX} env RAPID_AMQP_PASSWORD", _GUEST),
    Fault(pods.no_secret_is_written_down, "Secret broker", "", {"stringData": {"password": "x"}}),
    Fault(pods.containers_say_what_they_need_and_may_take, _ECHO,
          f"{_POD} initContainers 0 resources requests", None),
    Fault(pods.writable_folders_have_a_limit, _ECHO, f"{_POD} volumes 0 emptyDir", {}),
    Fault(pods.pods_are_spread_over_nodes, _SERVER, f"{_POD} topologySpreadConstraints", None),
    Fault(pods.pods_are_spread_over_nodes, _SERVER,
          f"{_POD} topologySpreadConstraints 0 labelSelector matchLabels {_APP}/name", "rabbitmq"),
    Fault(pods.what_alerts_are_about_is_scraped, _RABBITMQ, "spec template metadata annotations",
          None),
    Fault(pods.what_alerts_are_about_is_scraped, _ECHO,
          "spec template metadata annotations prometheus.io/port", "9090"),
    Fault(pods.budgets_let_a_pod_go, "PodDisruptionBudget lambda-server", "spec minAvailable", 2),
    # names
    Fault(names.namespaces_are_there, "Service lambda-server", "metadata namespace", None),
    Fault(names.nothing_is_there_twice, "NetworkPolicy default-deny", "", {"spec": {}}),
    Fault(names.what_pods_name_is_there, _ECHO,
          f"{_BOX} env RAPID_AMQP_PASSWORD valueFrom secretKeyRef key", "pass"),
    Fault(names.what_pods_name_is_there, "ConfigMap rabbitmq", "data enabled_plugins", None),
    Fault(names.what_pods_name_is_there, _ECHO, f"{_POD} serviceAccountName", "functions"),
    Fault(names.what_pods_name_is_there, _ECHO, f"{_POD} volumes more",
          {"name": "more", "persistentVolumeClaim": {"claimName": "images"}}),
    Fault(names.bindings_name_what_is_there, "ClusterRoleBinding prometheus", "roleRef name", "x"),
    Fault(names.bindings_name_what_is_there, "ServiceAccount prometheus", "", None),
    Fault(names.tokens_are_for_pods_with_a_role, _ECHO,
          f"{_POD} automountServiceAccountToken", True),
    Fault(names.tokens_are_for_pods_with_a_role, "Deployment prometheus",
          f"{_POD} automountServiceAccountToken", False),
    Fault(names.our_roles_name_what_they_need, "ClusterRole prometheus-nodes", "rules 0 resources",
          ["nodes/proxy"]),
    Fault(names.selectors_select_something, "PodDisruptionBudget lambda-server",
          f"spec selector matchLabels {_APP}/name", "server"),
    Fault(names.services_select_one_workload, "Service rabbitmq",
          f"spec selector {_APP}/instance", "rabbit"),
    Fault(names.services_select_one_workload, "Service lambda-server", "spec selector",
          {f"{_APP}/part-of": "lambda"}),
    Fault(names.ports_are_there, "Service lambda-server", "spec ports 0 targetPort", "http"),
    Fault(names.ports_are_there, _ECHO, f"{_BOX} livenessProbe httpGet port", "http"),
    Fault(names.ports_are_there, "PodMonitor one", "", {"spec": _MONITOR}),
    Fault(names.ports_of_this_machine_lead_to_whom_users_expect, "Service registry",
          "spec ports 0 nodePort", 30080),
    Fault(names.ports_of_this_machine_lead_to_whom_users_expect, "Service lambda-server-external",
          "", None),
    Fault(names.ports_of_this_machine_lead_to_whom_users_expect, "Cluster",
          "nodes 0 extraPortMappings 0", None),
    Fault(names.addresses_lead_to_services, "ConfigMap broker", "data AMQP_URI",
          "amqp://rabbit.messaging:5672"),
    Fault(names.addresses_lead_to_services, "ConfigMap broker", "data MANAGEMENT_URI",
          "http://rabbitmq.messaging"),
    Fault(names.addresses_lead_to_services, "HTTPRoute one", "", {"spec": _ROUTE}),
    Fault(names.stateful_sets_have_a_headless_service, _RABBITMQ, "spec serviceName", "rabbitmq"),
    # network
    Fault(network.namespaces_with_pods_are_closed, "NetworkPolicy default-deny", "spec podSelector",
          {"matchLabels": {"app": "x"}}),
    Fault(network.what_belongs_together_may_talk, _POLICY, "spec egress", []),
    Fault(network.nobody_else_may, _POLICY, "spec ingress", [{}]),
    Fault(network.functions_do_not_reach_the_clouds_credentials, _POLICY, "spec egress",
          [{"to": [{"ipBlock": _OPEN}], "ports": [{"port": 80}]}]),
    Fault(network.functions_do_not_reach_node_ports, _POLICY, "spec egress",
          [{"to": [{"ipBlock": _OPEN}]}]),
    Fault(network.prometheus_may_read_what_says_so, _POLICY,
          "spec ingress 0 from 0 podSelector matchLabels", {"app": "prometheus"}),
    Fault(network.what_is_asked_from_outside_is_open, "NetworkPolicy registry", "", None),
    Fault(network.what_is_asked_from_outside_is_open, "NetworkPolicy keda",
          "spec ingress 0 ports", [{"port": 6443}]),
    Fault(network.what_is_asked_from_outside_is_open, "APIService v1beta1.external",
          "spec service port", 6443),
    # functions
    Fault(functions.both_examples_are_there, _ECHO, f"metadata labels {_APP}/component", "lambda"),
    Fault(functions.a_function_has_one_name, _ECHO, f"{_BOX} env AWS_LAMBDA_FUNCTION_NAME",
          {"name": "AWS_LAMBDA_FUNCTION_NAME", "value": "echo"}),
    Fault(functions.pods_have_longer_to_stop_than_a_call_may_take, _ECHO,
          f"{_POD} terminationGracePeriodSeconds", 3),
    Fault(functions.pods_have_longer_to_stop_than_a_call_may_take, _SERVER,
          f"{_POD} terminationGracePeriodSeconds", 930),
    Fault(functions.the_broker_is_known_by_reference, _SERVER, f"{_BOX} env AMQP_URI",
          {"name": "AMQP_URI", "value": "amqp://rabbitmq.messaging"}),
    Fault(functions.a_queue_outlives_scaling_to_zero, _ECHO,
          f"{_BOX} env RAPID_AMQP_QUEUE_EXPIRES", None),
    Fault(functions.rapid_comes_as_a_folder_of_an_image_volume, _ECHO,
          f"{_BOX} command", ["/entry_script.sh"], "image-volume"),
    Fault(functions.rapid_comes_as_a_folder_of_an_image_volume, _ECHO,
          f"{_BOX} volumeMounts rapid subPath", "usr/local/bin/rapid", "image-volume"),
    Fault(functions.a_function_may_write_to_tmp_only, _ECHO,
          f"{_BOX} volumeMounts rapid readOnly", None),
    Fault(functions.probes_ask_what_rapid_answers, _ECHO,
          f"{_BOX} livenessProbe httpGet path", "/readyz"),
    Fault(functions.probes_ask_what_rapid_answers, _ECHO, f"{_BOX} lifecycle",
          {"preStop": {"exec": {"command": ["sleep", "5"]}}}),
    Fault(functions.the_server_is_there_twice, _SERVER, "spec replicas", 1),
    # scaling
    Fault(scaling.every_function_is_scaled_by_one_and_the_same_kind, _HPA,
          "spec scaleTargetRef name", "echo", "hpa"),
    Fault(scaling.every_function_is_scaled_by_one_and_the_same_kind, _HPA, "", _TARGET),
    Fault(scaling.every_function_is_scaled_by_one_and_the_same_kind, _ECHO, "spec replicas", 3),
    Fault(scaling.every_function_is_scaled_by_one_and_the_same_kind, _SCALED, "", None),
    Fault(scaling.a_scaler_watches_both_queues_of_its_function, _ECHO,
          f"{_BOX} env RAPID_MAX_CONCURRENCY", {"name": "RAPID_MAX_CONCURRENCY", "value": "8"}),
    Fault(scaling.a_scaler_watches_both_queues_of_its_function, _HPA,
          "spec metrics 0 external metric selector matchLabels queue", "other", "hpa"),
    Fault(scaling.a_scaler_watches_both_queues_of_its_function, _HPA,
          "spec metrics 0 external target type", "Value", "hpa"),
    Fault(scaling.a_scaler_watches_both_queues_of_its_function, _SCALED, "spec triggers 0 metadata",
          {"query": 'sum(rabbitmq_queue_messages{queue=~"echo.*"})', "threshold": "4"},
          "keda-prometheus"),
    Fault(scaling.scaling_goes_from_nothing_to_fifty_pods, _HPA, "spec minReplicas", 0, "hpa"),
    Fault(scaling.scaling_is_quick, _SCALED, "spec fallback", None),
    Fault(scaling.scaling_is_quick, _HPA, "spec behavior scaleDown", None, "hpa"),
    Fault(scaling.keda_asks_rabbitmq_over_both_protocols, _SCALED,
          "spec triggers 0 metadata queueName", "echo"),
    Fault(scaling.keda_asks_rabbitmq_over_both_protocols, _SCALED, "spec triggers 1", None),
    Fault(scaling.keda_asks_rabbitmq_over_both_protocols, _SCALED,
          "spec triggers 3 metadata excludeUnacknowledged", "true"),
    Fault(scaling.keda_asks_rabbitmq_over_both_protocols, _SCALED,
          "spec triggers 0 authenticationRef name", "broker-http"),
    Fault(scaling.keda_asks_rabbitmq_over_both_protocols, "TriggerAuthentication broker-http",
          "spec secretTargetRef", None),
    Fault(scaling.metrics_of_autoscalers_are_served, _HPA,
          "spec metrics 0 external metric name", "rabbitmq_queue_messages_ready", "hpa"),
    Fault(scaling.one_server_has_the_external_metrics,
          "APIService v1beta1.external.metrics.k8s.io", "", {}),
    Fault(scaling.one_server_has_the_external_metrics,
          "APIService v1beta1.external.metrics.k8s.io", "", {}, "max-concurrency"),
    # broker
    Fault(broker.settings_are_known, "ConfigMap rabbitmq", "data rabbitmq.conf",
          "vm_memory_high_watermark.relative = 0.5\nloopback_users.guest = false\n"),
    Fault(broker.settings_are_known, "ConfigMap rabbitmq", "data rabbitmq.conf", "heartbeat = 60"),
    Fault(broker.settings_are_known, "ConfigMap rabbitmq", "data cluster.conf",
          "queue_master_locator = min-masters\n", "max-concurrency"),
    Fault(broker.plugins_are_known, "ConfigMap rabbitmq", "data enabled_plugins",
          "[rabbitmq_management].\n"),
    Fault(broker.data_outlives_a_pod, _RABBITMQ, "spec volumeClaimTemplates", []),
]  # fmt: skip
