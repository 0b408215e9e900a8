"""Faults of functions and what scales them."""

from __future__ import annotations

import copy

from tests.acceptance.k8s.checks import functions, scaling
from tests.acceptance.k8s.faults.table import (
    drop_variable,
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

HPA = ("HorizontalPodAutoscaler", "echo-lambda")
SCALED_OBJECT = ("ScaledObject", "echo-lambda")


@fault(functions.both_examples_are_there)
def function_that_is_no_function(cluster: Cluster) -> None:
    echo(cluster)["metadata"]["labels"]["app.kubernetes.io/component"] = "lambda"


@fault(functions.a_function_has_one_name)
def queue_of_another_name(cluster: Cluster) -> None:
    set_variable(echo_container(cluster), "AWS_LAMBDA_FUNCTION_NAME", "echo")


@fault(functions.a_function_has_one_name)
def image_of_another_function(cluster: Cluster) -> None:
    echo_container(cluster)["image"] = "localhost:5000/image-greyscale-lambda:0.1.0"


@fault(functions.a_pod_has_longer_to_stop_than_a_call_may_take)
def calls_longer_than_the_grace_period(cluster: Cluster) -> None:
    set_variable(echo_container(cluster), "AWS_LAMBDA_FUNCTION_TIMEOUT", "60")


@fault(functions.the_server_has_longer_to_stop_than_a_call_may_take)
def server_that_is_ended_before_its_calls(cluster: Cluster) -> None:
    spec(cluster, "Deployment", "lambda-server")["template"]["spec"][
        "terminationGracePeriodSeconds"
    ] = 930


@fault(functions.the_server_has_longer_to_stop_than_a_call_may_take)
def calls_longer_than_the_server_lets_them_end(cluster: Cluster) -> None:
    set_variable(echo_container(cluster), "AWS_LAMBDA_FUNCTION_TIMEOUT", "3600")
    echo_pod(cluster)["terminationGracePeriodSeconds"] = 3700


@fault(functions.the_broker_is_known_by_reference)
def address_of_the_broker_in_the_manifest(cluster: Cluster) -> None:
    set_variable(server_pod(cluster)["containers"][0], "AMQP_URI", "amqp://rabbitmq.messaging")


@fault(functions.a_queue_outlives_scaling_to_zero)
def queue_that_expires_over_night(cluster: Cluster) -> None:
    drop_variable(echo_container(cluster), "RAPID_AMQP_QUEUE_EXPIRES")


@fault(functions.rapid_comes_by_an_init_container)
def init_container_that_may_write(cluster: Cluster) -> None:
    del echo_pod(cluster)["initContainers"][0]["securityContext"]["readOnlyRootFilesystem"]


@fault(functions.rapid_comes_by_an_init_container)
def init_container_that_is_not_told(cluster: Cluster) -> None:
    echo_pod(cluster)["initContainers"][0]["env"] = []


@fault(functions.rapid_comes_by_an_init_container)
def another_file_in_the_emulators_place(cluster: Cluster) -> None:
    for mount in echo_container(cluster)["volumeMounts"]:
        if "subPath" in mount:
            mount["subPath"] = "rapid"


@fault(functions.rapid_comes_by_an_init_container)
def emulator_looked_for_elsewhere(cluster: Cluster) -> None:
    for mount in echo_container(cluster)["volumeMounts"]:
        if "subPath" in mount:
            mount["mountPath"] = "/usr/bin/aws-lambda-rie"


@fault(functions.rapid_comes_as_a_folder_of_an_image_volume, "image-volume")
def file_of_an_image_volume(cluster: Cluster) -> None:
    for mount in echo_container(cluster)["volumeMounts"]:
        if mount["name"] == "rapid":
            mount |= {"mountPath": functions.EMULATOR, "subPath": "usr/local/bin/rapid"}


@fault(functions.rapid_comes_as_a_folder_of_an_image_volume, "image-volume")
def image_volume_that_nobody_starts(cluster: Cluster) -> None:
    echo_container(cluster)["command"] = ["/entry_script.sh"]


@fault(functions.a_function_may_write_to_tmp_only)
def function_that_may_change_rapid(cluster: Cluster) -> None:
    for mount in echo_container(cluster)["volumeMounts"]:
        mount.pop("readOnly", None)


@fault(scaling.scale_targets_are_there, "hpa")
def autoscaler_of_nobody(cluster: Cluster) -> None:
    spec(cluster, *HPA)["scaleTargetRef"]["name"] = "echo"


@fault(scaling.nothing_has_two_autoscalers)
def two_autoscalers(cluster: Cluster) -> None:
    fields = {"scaleTargetRef": {"kind": "Deployment", "name": "echo-lambda"}}
    data = {"kind": HPA[0], "metadata": {"name": "second", "namespace": "lambda"}, "spec": fields}
    cluster.resources.append(Resource("overlays/hpa", data))


@fault(scaling.nothing_has_two_autoscalers, "hpa")
def replicas_beside_an_autoscaler(cluster: Cluster) -> None:
    echo(cluster)["spec"]["replicas"] = 3


@fault(scaling.every_function_is_scaled_the_same_way)
def function_without_an_autoscaler(cluster: Cluster) -> None:
    remove(cluster, *SCALED_OBJECT, "lambda")


@fault(scaling.scalers_watch_both_queues_of_their_function)
def wrong_queue_name(cluster: Cluster) -> None:
    spec(cluster, *SCALED_OBJECT)["triggers"][0]["metadata"]["queueName"] = "echo"


@fault(scaling.scalers_watch_both_queues_of_their_function)
def events_that_nobody_watches(cluster: Cluster) -> None:
    triggers = spec(cluster, *SCALED_OBJECT)["triggers"]
    triggers[:] = [one for one in triggers if not one["metadata"]["queueName"].endswith("events")]


@fault(scaling.scalers_watch_both_queues_of_their_function, "hpa")
def wrong_selector_of_a_metric(cluster: Cluster) -> None:
    metric = spec(cluster, *HPA)["metrics"][0]["external"]["metric"]
    metric["selector"]["matchLabels"]["queue"] = "image-greyscale-lambda"


@fault(scaling.scalers_watch_both_queues_of_their_function, "keda-prometheus")
def wrong_query(cluster: Cluster) -> None:
    metadata = spec(cluster, *SCALED_OBJECT)["triggers"][0]["metadata"]
    metadata["query"] = 'sum(rabbitmq_queue_messages{queue=~"echo.*"})'


@fault(scaling.a_pod_is_wanted_for_as_much_as_it_runs_at_once)
def value_that_is_not_the_concurrency(cluster: Cluster) -> None:
    set_variable(echo_container(cluster), "RAPID_MAX_CONCURRENCY", "8")


@fault(scaling.scaling_goes_from_nothing_to_fifty_pods, "hpa")
def scaling_to_zero_where_it_is_off(cluster: Cluster) -> None:
    spec(cluster, *HPA)["minReplicas"] = 0


@fault(scaling.work_in_hand_counts)
def pods_at_work_are_scaled_away(cluster: Cluster) -> None:
    for trigger in spec(cluster, *SCALED_OBJECT)["triggers"]:
        trigger["metadata"]["excludeUnacknowledged"] = "true"


@fault(scaling.authentications_are_there)
def two_protocols_exchanged(cluster: Cluster) -> None:
    spec(cluster, *SCALED_OBJECT)["triggers"][0]["authenticationRef"]["name"] = "broker-http"


@fault(scaling.metrics_of_autoscalers_are_served, "hpa")
def metric_that_nobody_serves(cluster: Cluster) -> None:
    metric = spec(cluster, *HPA)["metrics"][0]["external"]["metric"]
    metric["name"] = "rabbitmq_queue_messages_ready"


@fault(scaling.metrics_of_autoscalers_are_served, "hpa")
def rule_of_another_name(cluster: Cluster) -> None:
    for each in cluster.of("ConfigMap"):
        for name, text in each.data["data"].items():
            if "externalRules" in text:
                each.data["data"][name] = text.replace("rabbitmq_queue_messages", "rabbitmq_queue")


@fault(scaling.one_server_has_the_external_metrics, "hpa")
def two_servers_of_external_metrics(cluster: Cluster) -> None:
    cluster.resources.append(copy.deepcopy(cluster.of("APIService")[0]))
    cluster.resources[-1].data["metadata"]["name"] = "v1beta1.external.metrics.k8s.io"


@fault(scaling.one_server_has_the_external_metrics, "max-concurrency")
def server_of_metrics_that_nobody_asks(cluster: Cluster) -> None:
    metadata = {"name": "v1beta1.external.metrics.k8s.io"}
    cluster.resources.append(Resource("keda", {"kind": "APIService", "metadata": metadata}))


@fault(functions.probes_ask_what_rapid_answers)
def broker_that_restarts_everything(cluster: Cluster) -> None:
    echo_container(cluster)["livenessProbe"]["httpGet"]["path"] = "/readyz"


@fault(functions.nothing_else_is_started_in_a_function)
def command_in_the_functions_container(cluster: Cluster) -> None:
    echo_container(cluster)["lifecycle"] = {"preStop": {"exec": {"command": ["sleep", "5"]}}}


@fault(functions.pods_are_spread_over_nodes)
def pods_on_one_node(cluster: Cluster) -> None:
    del server_pod(cluster)["topologySpreadConstraints"]


@fault(functions.the_server_is_there_twice)
def one_server(cluster: Cluster) -> None:
    spec(cluster, "Deployment", "lambda-server")["replicas"] = 1


@fault(scaling.scaling_is_quick)
def five_minutes_to_sleep(cluster: Cluster) -> None:
    del spec(cluster, *SCALED_OBJECT)["cooldownPeriod"]


@fault(scaling.scaling_is_quick, "hpa")
def five_minutes_to_scale_down(cluster: Cluster) -> None:
    del spec(cluster, *HPA)["behavior"]["scaleDown"]


@fault(scaling.scaling_is_quick)
def lost_queue_that_nobody_makes_again(cluster: Cluster) -> None:
    del spec(cluster, *SCALED_OBJECT)["fallback"]


@fault(scaling.calls_and_events_wake_a_function_at_once)
def events_that_are_counted_late(cluster: Cluster) -> None:
    triggers = spec(cluster, *SCALED_OBJECT)["triggers"]
    over_amqp = [one for one in triggers if one["metadata"]["protocol"] == "amqp"]
    triggers.remove(over_amqp[-1])


@fault(scaling.scalers_watch_both_queues_of_their_function, "hpa")
def average_of_another_kind(cluster: Cluster) -> None:
    spec(cluster, *HPA)["metrics"][0]["external"]["target"]["type"] = "Value"
