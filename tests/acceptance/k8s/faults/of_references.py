"""Faults of one object that names another: services, accounts, configuration, policies."""

from __future__ import annotations

import copy

from tests.acceptance.k8s.checks import accounts, network, references, services
from tests.acceptance.k8s.faults.table import (
    config,
    echo_container,
    echo_pod,
    fault,
    remove,
    server_pod,
    spec,
)
from tests.acceptance.k8s.manifests import Cluster, Resource


@fault(services.services_select_one_workload)
def service_that_selects_nothing(cluster: Cluster) -> None:
    selector = spec(cluster, "Service", "rabbitmq", "messaging")["selector"]
    selector["app.kubernetes.io/instance"] = "rabbit"


@fault(services.services_select_one_workload)
def service_of_two_workloads(cluster: Cluster) -> None:
    spec(cluster, "Service", "lambda-server")["selector"] = {"app.kubernetes.io/part-of": "lambda"}


@fault(services.target_ports_are_there)
def wrong_port_name(cluster: Cluster) -> None:
    spec(cluster, "Service", "lambda-server")["ports"][0]["targetPort"] = "http"


@fault(services.target_ports_are_there)
def wrong_port_number(cluster: Cluster) -> None:
    spec(cluster, "Service", "rabbitmq", "messaging")["ports"][0]["targetPort"] = 5671


@fault(services.node_ports_are_those_of_this_machine)
def node_port_that_is_there_twice(cluster: Cluster) -> None:
    spec(cluster, "Service", "registry", "registry")["ports"][0]["nodePort"] = 30080


@fault(services.node_ports_are_those_of_this_machine)
def node_port_that_kind_does_not_map(cluster: Cluster) -> None:
    spec(cluster, "Service", "lambda-server-external")["ports"][0]["nodePort"] = 30081


@fault(services.node_ports_are_those_of_this_machine)
def two_ports_of_this_machine_exchanged(cluster: Cluster) -> None:
    first, second, *_ = services.port_mappings(cluster)
    first["containerPort"], second["containerPort"] = (
        second["containerPort"],
        first["containerPort"],
    )


@fault(services.node_ports_are_those_of_this_machine)
def port_of_this_machine_without_a_service(cluster: Cluster) -> None:
    remove(cluster, "Service", "lambda-server-external", "lambda")


@fault(services.kind_listens_on_the_loopback_address_only)
def host_port_that_everybody_reaches(cluster: Cluster) -> None:
    services.port_mappings(cluster)[0]["listenAddress"] = "0.0.0.0"


@fault(services.addresses_lead_to_services)
def address_of_a_service_that_is_not_there(cluster: Cluster) -> None:
    config(cluster, "AMQP_URI")["AMQP_URI"] = "amqp://rabbit.messaging:5672"


@fault(services.addresses_lead_to_services)
def address_with_a_port_that_is_not_there(cluster: Cluster) -> None:
    config(cluster, "MANAGEMENT_URI")["MANAGEMENT_URI"] = "http://rabbitmq.messaging"


@fault(services.stateful_sets_have_a_headless_service)
def nodes_without_names(cluster: Cluster) -> None:
    spec(cluster, "StatefulSet", "rabbitmq", "messaging")["serviceName"] = "rabbitmq"


@fault(references.configuration_is_there)
def wrong_secret_key(cluster: Cluster) -> None:
    for each in echo_container(cluster)["env"]:
        if each["name"] == "RAPID_AMQP_PASSWORD":
            each["valueFrom"]["secretKeyRef"]["key"] = "pass"


@fault(references.configuration_is_there)
def secret_of_another_namespace(cluster: Cluster) -> None:
    for each in server_pod(cluster)["containers"][0]["env"]:
        if each["name"] == "AMQP_USERNAME":
            each["valueFrom"]["secretKeyRef"]["name"] = "rabbitmq"


@fault(references.configuration_is_there)
def file_that_is_not_in_the_config_map(cluster: Cluster) -> None:
    del config(cluster, "enabled_plugins")["enabled_plugins"]


@fault(references.configuration_is_there)
def wrong_key_in_a_trigger_authentication(cluster: Cluster) -> None:
    reference = spec(cluster, "TriggerAuthentication", "broker-http")["configMapTargetRef"][0]
    reference["key"] = "HTTP_URI"


@fault(references.service_accounts_are_there)
def account_that_is_not_there(cluster: Cluster) -> None:
    echo_pod(cluster)["serviceAccountName"] = "functions"


@fault(references.claims_are_there)
def claim_that_is_not_there(cluster: Cluster) -> None:
    claim = {"claimName": "images"}
    spec(cluster, "Deployment", "registry", "registry")["template"]["spec"]["volumes"].append(
        {"name": "more", "persistentVolumeClaim": claim}
    )


@fault(references.services_named_by_the_api_are_there)
def api_service_with_the_wrong_port(cluster: Cluster) -> None:
    spec(cluster, "APIService", "v1beta1.external.metrics.k8s.io", "")["service"]["port"] = 6443


@fault(references.services_named_by_the_api_are_there, "hpa")
def api_service_without_its_service(cluster: Cluster) -> None:
    remove(cluster, "Service", "prometheus-adapter", "monitoring")


@fault(references.routes_lead_to_services)
def route_to_nowhere(cluster: Cluster) -> None:
    rules = [{"backendRefs": [{"name": "lambda-server", "port": 80}]}]
    metadata = {"name": "one", "namespace": "lambda"}
    data = {"kind": "HTTPRoute", "metadata": metadata, "spec": {"rules": rules}}
    cluster.resources.append(Resource("components/httproute", data))


@fault(references.selectors_select_something)
def budget_of_nobody(cluster: Cluster) -> None:
    selector = spec(cluster, "PodDisruptionBudget", "lambda-server")["selector"]
    selector["matchLabels"]["app.kubernetes.io/name"] = "server"


@fault(references.monitored_ports_are_there)
def monitor_of_a_port_that_is_not_there(cluster: Cluster) -> None:
    selector = {"matchLabels": {"app.kubernetes.io/component": "function"}}
    fields = {"selector": selector, "podMetricsEndpoints": [{"port": "metrics"}]}
    metadata = {"name": "one", "namespace": "lambda"}
    data = {"kind": "PodMonitor", "metadata": metadata, "spec": fields}
    cluster.resources.append(Resource("components/pod-monitor", data))


@fault(references.namespaces_are_there)
def forgotten_namespace(cluster: Cluster) -> None:
    del cluster.get("Service", "lambda-server", "lambda").data["metadata"]["namespace"]


@fault(references.namespaces_are_there)
def namespace_of_something_cluster_wide(cluster: Cluster) -> None:
    cluster.of("ClusterRole")[0].data["metadata"]["namespace"] = "monitoring"


@fault(references.nothing_is_there_twice)
def two_that_undo_each_other(cluster: Cluster) -> None:
    another = copy.deepcopy(cluster.get("NetworkPolicy", "default-deny", "lambda").data)
    another["spec"]["policyTypes"] = ["Ingress", "Egress"]
    cluster.resources.append(Resource("base", another))


@fault(accounts.bindings_name_roles_that_are_there)
def binding_of_a_role_that_is_not_there(cluster: Cluster) -> None:
    cluster.of("ClusterRoleBinding")[0].data["roleRef"]["name"] = "wonder"


@fault(accounts.bindings_name_roles_that_are_there)
def binding_of_everything(cluster: Cluster) -> None:
    binding = cluster.of("ClusterRoleBinding")[0].data
    binding["roleRef"] = {"kind": "ClusterRole", "name": "cluster-admin"}


@fault(accounts.bindings_are_of_this_api)
def binding_of_nobody(cluster: Cluster) -> None:
    cluster.of("RoleBinding")[0].data["subjects"] = []


@fault(accounts.bindings_name_accounts_that_are_there)
def binding_of_an_account_that_is_not_there(cluster: Cluster) -> None:
    remove(cluster, "ServiceAccount", "prometheus", "monitoring")


@fault(accounts.tokens_are_for_pods_with_a_role)
def token_without_a_role(cluster: Cluster) -> None:
    echo_pod(cluster)["automountServiceAccountToken"] = True


@fault(accounts.tokens_are_for_pods_with_a_role)
def role_without_a_token(cluster: Cluster) -> None:
    pod = spec(cluster, "Deployment", "prometheus", "monitoring")["template"]["spec"]
    pod["automountServiceAccountToken"] = False


@fault(accounts.our_roles_name_what_they_need)
def role_that_may_enter_nodes(cluster: Cluster) -> None:
    role = next(each for each in cluster.of("ClusterRole") if not each.is_foreign)
    role.data["rules"].append({"apiGroups": [""], "resources": ["nodes/proxy"], "verbs": ["get"]})


@fault(network.namespaces_with_pods_are_closed)
def namespace_open_to_everybody(cluster: Cluster) -> None:
    remove(cluster, "NetworkPolicy", "default-deny", "messaging")


@fault(network.what_belongs_together_may_talk)
def keda_does_not_reach_the_broker(cluster: Cluster) -> None:
    remove(cluster, "NetworkPolicy", "rabbitmq-external", "messaging")
    rules = spec(cluster, "NetworkPolicy", "rabbitmq", "messaging")["ingress"]
    rules[1]["ports"] = [{"port": "amqp"}]


@fault(network.what_belongs_together_may_talk)
def functions_reach_nobody(cluster: Cluster) -> None:
    spec(cluster, "NetworkPolicy", "functions")["egress"] = []


@fault(network.nobody_else_may)
def functions_that_anybody_calls(cluster: Cluster) -> None:
    spec(cluster, "NetworkPolicy", "functions")["ingress"] = [{}]


@fault(network.functions_do_not_reach_the_clouds_credentials)
def functions_that_may_ask_for_credentials(cluster: Cluster) -> None:
    for rule in spec(cluster, "NetworkPolicy", "functions")["egress"]:
        for each in rule["to"]:
            each.get("ipBlock", {}).pop("except", None)


@fault(network.functions_do_not_reach_the_clouds_credentials)
def functions_that_may_ask_azure(cluster: Cluster) -> None:
    for rule in spec(cluster, "NetworkPolicy", "functions")["egress"]:
        for each in rule["to"]:
            excepted = each.get("ipBlock", {}).get("except", [])
            excepted[:] = [block for block in excepted if block != "168.63.129.16/32"]


@fault(network.functions_do_not_reach_node_ports)
def functions_that_reach_the_nodes_ports(cluster: Cluster) -> None:
    for rule in spec(cluster, "NetworkPolicy", "functions")["egress"]:
        rule.pop("ports", None)


@fault(network.nobody_else_may)
def management_of_the_broker_that_pods_reach(cluster: Cluster) -> None:
    spec(cluster, "NetworkPolicy", "rabbitmq-external", "messaging")["ingress"][0].pop("from")
    for rule in spec(cluster, "NetworkPolicy", "functions")["egress"]:
        rule.pop("ports", None)


@fault(network.prometheus_may_read_what_says_so)
def metrics_that_nobody_reads(cluster: Cluster) -> None:
    rule = spec(cluster, "NetworkPolicy", "functions")["ingress"][0]["from"][0]
    rule["podSelector"]["matchLabels"] = {"app": "prometheus"}


@fault(network.node_ports_are_open)
def node_port_that_is_closed(cluster: Cluster) -> None:
    remove(cluster, "NetworkPolicy", "registry", "registry")


@fault(network.what_the_api_asks_is_open)
def webhook_that_is_closed(cluster: Cluster) -> None:
    rules = spec(cluster, "NetworkPolicy", "keda", "keda")["ingress"]
    rules[0]["ports"] = [{"port": 6443}]
