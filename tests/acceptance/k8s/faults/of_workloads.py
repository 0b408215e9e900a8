"""Faults of pods and what makes them."""

from __future__ import annotations

from tests.acceptance.k8s.checks import images, labels, security, workloads
from tests.acceptance.k8s.faults.table import (
    echo,
    echo_container,
    echo_pod,
    fault,
    remove,
    server_pod,
    set_variable,
    spec,
)
from tests.acceptance.k8s.manifests import Cluster, Resource


@fault(workloads.selectors_select_their_own_pods_only)
def wrong_selector(cluster: Cluster) -> None:
    echo(cluster)["spec"]["selector"]["matchLabels"]["app.kubernetes.io/name"] = "echo"


@fault(workloads.selectors_select_their_own_pods_only)
def selector_that_takes_others_pods(cluster: Cluster) -> None:
    echo(cluster)["spec"]["selector"]["matchLabels"] = {"app.kubernetes.io/part-of": "lambda"}


@fault(workloads.selectors_are_name_and_instance)
def version_in_a_selector(cluster: Cluster) -> None:
    echo(cluster)["spec"]["selector"]["matchLabels"]["app.kubernetes.io/version"] = "0.1.0"


@fault(workloads.pods_spread_away_from_their_own_kind)
def spread_over_another_workload(cluster: Cluster) -> None:
    selector = server_pod(cluster)["topologySpreadConstraints"][0]["labelSelector"]
    selector["matchLabels"]["app.kubernetes.io/name"] = "rabbitmq"


@fault(workloads.volumes_and_mounts_agree)
def mount_without_a_volume(cluster: Cluster) -> None:
    echo_container(cluster)["volumeMounts"].append({"name": "code", "mountPath": "/code"})


@fault(workloads.volumes_and_mounts_agree)
def volume_that_nobody_mounts(cluster: Cluster) -> None:
    echo_pod(cluster)["volumes"].append({"name": "code", "emptyDir": {"sizeLimit": "1Mi"}})


@fault(workloads.containers_say_what_they_need_and_may_take)
def no_memory_limit(cluster: Cluster) -> None:
    del echo_container(cluster)["resources"]["limits"]["memory"]


@fault(workloads.containers_say_what_they_need_and_may_take)
def no_requests_of_an_init_container(cluster: Cluster) -> None:
    del echo_pod(cluster)["initContainers"][0]["resources"]["requests"]


@fault(workloads.probes_ask_ports_that_are_there)
def probe_of_a_port_that_is_not_there(cluster: Cluster) -> None:
    echo_container(cluster)["livenessProbe"]["httpGet"]["port"] = "http"


@fault(workloads.writable_folders_have_a_limit)
def emptydir_without_a_limit(cluster: Cluster) -> None:
    echo_pod(cluster)["volumes"][0]["emptyDir"] = {}


@fault(workloads.what_alerts_are_about_is_scraped)
def broker_that_nobody_measures(cluster: Cluster) -> None:
    template = spec(cluster, "StatefulSet", "rabbitmq", "messaging")["template"]
    del template["metadata"]["annotations"]


@fault(workloads.budgets_let_a_pod_go)
def budget_that_keeps_every_pod(cluster: Cluster) -> None:
    spec(cluster, "PodDisruptionBudget", "lambda-server")["minAvailable"] = 2


@fault(workloads.what_alerts_are_about_is_scraped)
def scraped_on_the_wrong_port(cluster: Cluster) -> None:
    annotations = echo(cluster)["spec"]["template"]["metadata"]["annotations"]
    annotations["prometheus.io/port"] = "9090"


@fault(images.images_are_pinned)
def latest_tag(cluster: Cluster) -> None:
    echo_container(cluster)["image"] = "localhost:5000/echo-lambda:latest"


@fault(images.images_are_pinned)
def no_tag_beside_a_port(cluster: Cluster) -> None:
    echo_container(cluster)["image"] = "localhost:5000/echo-lambda"


@fault(images.images_are_those_of_the_table)
def another_version_than_the_table(cluster: Cluster) -> None:
    server_pod(cluster)["containers"][0]["image"] = "localhost:5000/lambda-server:0.0.9"


@fault(images.images_are_those_of_the_table, "image-volume")
def image_volume_of_another_version(cluster: Cluster) -> None:
    for volume in echo_pod(cluster)["volumes"]:
        if "image" in volume:
            volume["image"]["reference"] = "localhost:5000/lambda-runtime-api-daemon:0.0.9"


@fault(images.versions_are_those_of_the_images)
def version_label_of_another_version(cluster: Cluster) -> None:
    rabbitmq = cluster.get("StatefulSet", "rabbitmq", "messaging").data
    rabbitmq["metadata"]["labels"]["app.kubernetes.io/version"] = "4.2.9"


@fault(labels.everything_has_the_recommended_labels)
def missing_label(cluster: Cluster) -> None:
    service = cluster.get("Service", "lambda-server", "lambda").data
    del service["metadata"]["labels"]["app.kubernetes.io/managed-by"]


@fault(labels.pods_have_the_labels_of_their_workload)
def pods_labelled_otherwise(cluster: Cluster) -> None:
    echo(cluster)["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/component"] = "x"


@fault(labels.everything_is_part_of_lambda)
def part_of_something_else(cluster: Cluster) -> None:
    echo(cluster)["metadata"]["labels"]["app.kubernetes.io/part-of"] = "functions"


@fault(labels.everything_is_part_of_lambda)
def managed_by_something_else(cluster: Cluster) -> None:
    service = cluster.get("Service", "lambda-server", "lambda").data
    service["metadata"]["labels"]["app.kubernetes.io/managed-by"] = "Helm"


@fault(security.our_namespaces_are_there)
def namespace_that_is_missing(cluster: Cluster) -> None:
    remove(cluster, "Namespace", "registry")


@fault(security.our_namespaces_are_restricted)
def namespace_that_is_open(cluster: Cluster) -> None:
    labels_of = cluster.get("Namespace", "lambda").data["metadata"]["labels"]
    labels_of["pod-security.kubernetes.io/enforce"] = "baseline"


@fault(security.our_namespaces_are_restricted)
def namespace_whose_rules_change_with_the_cluster(cluster: Cluster) -> None:
    labels_of = cluster.get("Namespace", "lambda").data["metadata"]["labels"]
    labels_of["pod-security.kubernetes.io/enforce-version"] = "latest"


@fault(security.pods_have_a_user_and_a_group)
def group_of_the_image(cluster: Cluster) -> None:
    del echo_pod(cluster)["securityContext"]["runAsGroup"]


@fault(security.no_secret_is_written_down)
def password_in_a_manifest(cluster: Cluster) -> None:
    set_variable(echo_container(cluster), "RAPID_AMQP_PASSWORD", "guest")


@fault(security.no_secret_is_written_down)
def secret_in_a_manifest(cluster: Cluster) -> None:
    data = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "broker"}}
    cluster.resources.append(Resource("broker", {**data, "stringData": {"password": "guest"}}))
