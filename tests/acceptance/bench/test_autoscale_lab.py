"""The parts of the autoscaling lab that reckon and rewrite; the rest needs Kubernetes and time."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.autoscale.lab import admission, keda, programs
from bench.autoscale.lab.figures import render_cell, render_table
from bench.autoscale.lab.kube import Object
from bench.autoscale.lab.load import Calls
from bench.autoscale.lab.manifests import EVENTS, FUNCTION, Settings, Trigger, function_documents
from bench.autoscale.lab.pods import PodLog, Seen, look_up_field
from bench.errors import ToolMissing

CHECKOUT = Path(__file__).parents[3]
LAB = CHECKOUT / "bench" / "autoscale" / "lab"


def make_documents() -> list[Object]:
    def trigger(protocol: str, queue: str) -> Object:
        return {
            "type": "rabbitmq",
            "metadata": {"protocol": protocol, "queueName": queue, "value": "4"},
        }

    container = {
        "name": "function",
        "env": [
            {"name": "RAPID_MAX_CONCURRENCY", "value": "4"},
            {"name": "AWS_LAMBDA_FUNCTION_TIMEOUT", "value": "30"},
        ],
    }
    pod = {"terminationGracePeriodSeconds": 40, "containers": [container]}
    triggers = [
        trigger("amqp", FUNCTION),
        trigger("http", FUNCTION),
        trigger("http", f"{FUNCTION}.events"),
    ]
    return [
        {"kind": "Deployment", "metadata": {"name": "another"}},
        {"kind": "ConfigMap", "metadata": {"name": "broker"}, "data": {}},
        {
            "kind": "Deployment",
            "metadata": {"name": FUNCTION},
            "spec": {"template": {"spec": pod}},
        },
        {
            "kind": "ScaledObject",
            "metadata": {"name": FUNCTION},
            "spec": {"cooldownPeriod": 45, "triggers": triggers},
        },
    ]


def rewrite(settings: Settings) -> dict[str, Object]:
    documents = function_documents(
        make_documents(), amqp_port=5672, management_port=15672, settings=settings
    )
    return {document["kind"]: document for document in documents}


def queues(scaled_object: Object) -> list[tuple[str, str]]:
    found = [trigger["metadata"] for trigger in scaled_object["spec"]["triggers"]]
    return [(metadata["protocol"], metadata["queueName"]) for metadata in found]


def test_only_the_measured_function_is_deployed() -> None:
    documents = function_documents(
        make_documents(), amqp_port=1, management_port=2, settings=Settings()
    )

    names = [d["metadata"]["name"] for d in documents if d["kind"] == "Deployment"]
    assert names == [FUNCTION]


def test_the_broker_is_the_one_of_this_machine() -> None:
    assert rewrite(Settings())["ConfigMap"]["data"] == {
        "AMQP_URI": "amqp://127.0.0.1:5672",
        "MANAGEMENT_URI": "http://127.0.0.1:15672",
    }


def test_without_settings_scaling_is_as_the_overlay_says() -> None:
    assert rewrite(Settings())["ScaledObject"] == make_documents()[3]


def test_concurrency_is_the_pods_and_each_triggers() -> None:
    found = rewrite(Settings(max_concurrency=1))

    values = [t["metadata"]["value"] for t in found["ScaledObject"]["spec"]["triggers"]]
    (container,) = found["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert values == ["1", "1", "1"]
    assert {"name": "RAPID_MAX_CONCURRENCY", "value": "1"} in container["env"]


def test_the_grace_period_follows_the_timeout() -> None:
    pod = rewrite(Settings(timeout_s=90))["Deployment"]["spec"]["template"]["spec"]

    assert pod["terminationGracePeriodSeconds"] == 100
    assert {"name": "AWS_LAMBDA_FUNCTION_TIMEOUT", "value": "90"} in pod["containers"][0]["env"]


def test_triggers_are_those_that_are_asked_for() -> None:
    triggers = [Trigger("amqp", EVENTS), Trigger("http", FUNCTION)]

    found = rewrite(Settings(triggers=triggers))["ScaledObject"]

    assert queues(found) == triggers


def test_keda_is_reached_on_this_machine_and_its_pods_are_left_out() -> None:
    documents: list[Object] = [
        {"kind": "Deployment", "metadata": {"name": "keda-operator"}},
        {"kind": "Service", "metadata": {"name": "keda-metrics-apiserver"}, "spec": {}},
        {"kind": "APIService", "metadata": {"name": "v1beta1"}, "spec": {"service": {}}},
        {
            "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": "keda-admission"},
            "webhooks": [{"clientConfig": {"service": {"path": "/validate"}}}],
        },
    ]

    service, api, hooks = keda.on_this_machine(documents, ca=b"pem", adapter=1, webhooks=2)

    assert service["spec"] == {"type": "ExternalName", "externalName": "localhost"}
    assert api["spec"] == {"service": {"port": 1}, "caBundle": "cGVt"}
    config = {"url": "https://127.0.0.1:2/validate", "caBundle": "cGVt"}
    assert hooks["webhooks"] == [{"clientConfig": config}]


def test_the_lab_runs_the_versions_of_the_cluster() -> None:
    kind = (CHECKOUT / "k8s" / "kind.yaml").read_text() + (
        CHECKOUT / "k8s" / "versions" / "kustomization.yaml"
    ).read_text()
    kubernetes = (LAB / "kubernetes" / "go.mod").read_text()
    from_keda = (LAB / "keda" / "go.mod").read_text()

    version = programs.required_version(kubernetes, "k8s.io/kubernetes")
    keda_version = programs.required_version(from_keda, "github.com/kedacore/keda/v2")

    assert f"kindest/node:{version}@" in kind or version in kind
    assert keda_version.removeprefix("v") in kind


def test_programs_of_different_modules_are_cached_apart(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    found = programs.known_programs()
    folders = {found[name].parent for name in ("kubelet", "keda-operator", "registry")}

    assert len(folders) == 3
    assert found["etcd"].parent == found["kubelet"].parent
    assert found.missing(["etcd", "pause"]) == ["etcd", "pause"]


def test_without_go_the_missing_program_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(ToolMissing, match="go is not installed, and kubelet is built with it"):
        programs.build_programs(["kubelet"])


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("metadata.name", "echo-1"),
        ("metadata.labels['app.kubernetes.io/name']", "echo"),
        ("metadata.labels['other']", None),
        ("status.podIP", None),
    ],
)
def test_a_field_reference_is_looked_up_in_the_pod(path: str, value: str | None) -> None:
    pod = {"metadata": {"name": "echo-1", "labels": {"app.kubernetes.io/name": "echo"}}}

    assert look_up_field(pod, path) == value


def test_a_pod_that_is_asked_to_end_does_not_run_but_is_there() -> None:
    one, two = Seen(pod="1", at=0.0), Seen(pod="2", at=0.0)
    log = PodLog(scheduled=[one, two], ready=[one, two], terminating=[one])

    assert (log.running(), log.present()) == (1, 2)


def test_an_answer_counts_once_and_only_with_its_own_payload() -> None:
    calls = Calls(sent={"a": b"1", "b": b"2"})

    calls.take("a", b"1")
    calls.take("a", b"1")
    calls.take("b", b"1")

    assert calls.open == 0
    assert [entry[0] for entry in calls.wrong] == ["a", "b"]


def test_cells_show_median_and_range() -> None:
    assert render_cell("ready_s", [1.0, 3.0, 2.0]) == "2.0 s (1.0-3.0)"
    assert render_cell("wrong", [0, 0]) == "0"
    assert render_cell("ready_s", [None, 2.0]) == "2.0 s, never in 1"
    assert render_cell("ready_s", [None]) == "never"


def test_a_table_has_a_row_for_each_variant() -> None:
    table = render_table({"one": [{"ready_s": 1.0}], "two": [{"ready_s": 2.0}]})

    assert table.splitlines()[0] == "|  | samples | a pod ready |"
    assert [line.split("|")[1].strip() for line in table.splitlines()[2:]] == ["one", "two"]


def test_every_directory_that_can_be_applied_is_found() -> None:
    found = admission.kustomizations(CHECKOUT)

    assert {"k8s/namespaces", "k8s/rabbitmq", "k8s/overlays/keda"} <= set(found)
    assert not [folder for folder in found if folder.startswith("k8s/components")]


def test_what_was_refused_is_a_table_under_how_much_was_tried() -> None:
    refusal = admission.Refusal(folder="k8s/a", what="Pod b", message="no")

    text = admission.render_admission(admission.Admission(folders=2, pods=3, refusals=[refusal]))

    assert text.startswith("2 directories applied, 3 pods made.\n")
    assert text.endswith("| k8s/a | Pod b | no |")
