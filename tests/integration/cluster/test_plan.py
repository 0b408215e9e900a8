"""The plan: what would be run, for what was asked for and what is there."""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections.abc import Iterable
from typing import Any

import pytest

from devtools.kind_cluster.credentials import BROKER, RABBITMQ, Credentials
from devtools.kind_cluster.found import Autoscaler, Found, Workload
from devtools.kind_cluster.manifests import Manifests
from devtools.kind_cluster.names import Dashboard, Scaling
from devtools.kind_cluster.plan import Wish, plan
from devtools.kind_cluster.steps import Command, Step
from devtools.kind_cluster.switch import Refused

SECRET = Credentials(username="u", password="p", erlang_cookie="c")
NODES = ("lambda-control-plane", "lambda-worker")
FUNCTIONS = ("echo-lambda", "image-greyscale-lambda")
KEDAS = [scaling for scaling in Scaling if scaling.uses_keda]
OTHERS_OBJECT = Autoscaler(kind="ScaledJob", namespace="shop", name="nightly", triggers=("cron",))


def deployment(namespace: str, name: str, wanted: int = 1, volume: bool = False) -> Workload:
    return Workload(
        kind="deployment",
        namespace=namespace,
        name=name,
        wanted=wanted,
        ready=wanted,
        has_image_volume=volume,
    )


def scaled_object(name: str, trigger: str = "rabbitmq") -> tuple[Autoscaler, Autoscaler]:
    """Return a ScaledObject and the HPA that KEDA makes of it."""
    target = f"Deployment/{name}"
    mine = Autoscaler(
        kind="ScaledObject", namespace="lambda", name=name, target=target, triggers=(trigger,)
    )
    return mine, dataclasses.replace(hpa(f"keda-hpa-{name}", name), owner=name)


def hpa(name: str, target: str) -> Autoscaler:
    return Autoscaler(
        kind="HorizontalPodAutoscaler",
        namespace="lambda",
        name=name,
        target=f"Deployment/{target}",
    )


def whole(scaling: Scaling, wanted: int = 1) -> Found:
    """Return a cluster as ``up --scaling`` leaves it."""
    is_volume = scaling is Scaling.IMAGE_VOLUME
    workloads = [deployment("lambda", name, wanted, is_volume) for name in FUNCTIONS]
    workloads += [
        deployment("lambda", "lambda-server", 2),
        deployment("kubernetes-dashboard", "kubernetes-dashboard"),
        Workload(kind="statefulset", namespace="messaging", name="rabbitmq", ready=1),
    ]
    autoscalers: list[Autoscaler] = []
    if scaling.uses_keda:
        workloads.append(deployment("keda", "keda-operator"))
        trigger = "prometheus" if scaling is Scaling.KEDA_PROMETHEUS else "rabbitmq"
        autoscalers += [each for name in FUNCTIONS for each in scaled_object(name, trigger)]
    if scaling.uses_adapter:
        workloads.append(deployment("monitoring", "prometheus-adapter"))
        autoscalers += [hpa(name, name) for name in FUNCTIONS]
    return Found(
        nodes=NODES,
        workloads=tuple(workloads),
        autoscalers=tuple(autoscalers),
        secrets=SECRET.secrets,
    )


def lines(steps: Iterable[Step]) -> list[str]:
    actions = [action for step in steps for action in step.actions]
    return [
        shlex.join(action.argv).replace("kubectl --context kind-lambda ", "")
        if isinstance(action, Command)
        else str(action)
        for action in actions
    ]


def applied(steps: Iterable[Step]) -> list[str]:
    return [
        line.rpartition("-k k8s/")[2] for line in lines(steps) if "apply" in line and "-k" in line
    ]


def removals(steps: Iterable[Step]) -> list[str]:
    """Return what takes something away or waits until it is gone."""
    words = ("delete", "wait --for=delete", "scale deployment")
    return [line.partition(" --ignore")[0].partition(" --timeout")[0] for line in lines(steps)
            if any(word in line for word in words)]  # fmt: skip


# --- what is installed


@pytest.mark.parametrize(
    ("scaling", "scalers"),
    [
        (Scaling.KEDA, ["keda"]),
        (Scaling.KEDA_PROMETHEUS, ["keda"]),
        (Scaling.IMAGE_VOLUME, ["keda"]),
        (Scaling.HPA, ["prometheus-adapter"]),
        (Scaling.MAX_CONCURRENCY, []),
    ],
)
def test_each_alternative_has_what_it_scales_with(
    manifests: Manifests, scaling: Scaling, scalers: list[str]
) -> None:
    steps = plan(Wish(scaling=scaling), Found(), SECRET, manifests)

    assert applied(steps) == [
        "namespaces",
        "registry",
        "rabbitmq",
        "metrics-server",
        "prometheus",
        *scalers,
        "dashboard",
        "lambda-server",
        f"overlays/{scaling}",
    ]
    assert removals(steps) == []


@pytest.mark.parametrize(
    ("wish", "has", "lacks"),
    [
        (Wish(dashboard=Dashboard.NONE), set(), {"dashboard", "headlamp"}),
        (Wish(dashboard=Dashboard.HEADLAMP), {"headlamp"}, {"dashboard"}),
        (Wish(has_rabbitmq_cluster=True), {"rabbitmq-cluster"}, {"rabbitmq"}),
    ],
)
def test_dashboard_and_broker_can_be_chosen(
    manifests: Manifests, wish: Wish, has: set[str], lacks: set[str]
) -> None:
    found = set(applied(plan(wish, Found(), SECRET, manifests)))

    assert has <= found
    assert not lacks & found


def test_the_node_image_is_that_of_the_table(manifests: Manifests) -> None:
    create = lines(plan(Wish(), Found(), SECRET, manifests))[0]

    assert re.search(r"--image kindest/node:v1\.\S+@sha256:", create)


def test_every_command_ends_by_itself(manifests: Manifests) -> None:
    for step in plan(Wish(), Found(), SECRET, manifests):
        for action in step.actions:
            assert 0 < action.limit_s <= 1_900
            if isinstance(action, Command) and ("rollout" in action.argv or "wait" in action.argv):
                (own,) = (word for word in action.argv if word.startswith("--timeout="))
                assert int(own.removeprefix("--timeout=").removesuffix("s")) < action.limit_s


def test_nobody_waits_for_a_number_of_pods(manifests: Manifests) -> None:
    """A function may be scaled to zero, and then it is as it should be."""
    steps = plan(Wish(), Found(), SECRET, manifests)

    waits = [line for line in lines(steps) if "deployment/echo-lambda" in line]
    assert waits == ["--namespace lambda rollout status deployment/echo-lambda --timeout=300s"]


# --- once more


@pytest.mark.parametrize("scaling", Scaling)
def test_without_a_wish_all_stays_as_it_is(manifests: Manifests, scaling: Scaling) -> None:
    steps = plan(Wish(), whole(scaling), SECRET, manifests)

    assert applied(steps)[-1] == f"overlays/{scaling}"
    assert removals(steps) == []
    assert not any("create cluster" in line or "-f -" in line for line in lines(steps))


def test_what_is_there_goes_on(manifests: Manifests) -> None:
    """A run that was broken off is not max-concurrency: KEDA is there and scales nothing yet."""
    rabbitmq = Workload(kind="statefulset", namespace="messaging", name="rabbitmq", wanted=3)
    three_nodes = dataclasses.replace(whole(Scaling.KEDA), workloads=(rabbitmq,))
    broken_off = dataclasses.replace(whole(Scaling.KEDA), autoscalers=())
    keda_of_others = dataclasses.replace(whole(Scaling.KEDA), autoscalers=(OTHERS_OBJECT,))

    assert "rabbitmq-cluster" in applied(plan(Wish(), three_nodes, SECRET, manifests))
    for found, overlay in ((broken_off, "keda"), (keda_of_others, "max-concurrency")):
        assert applied(plan(Wish(), found, SECRET, manifests))[-1] == f"overlays/{overlay}"


# --- from one alternative to another


@pytest.mark.parametrize("before", KEDAS)
def test_keda_goes_before_hpas_come(manifests: Manifests, before: Scaling) -> None:
    steps = plan(Wish(scaling=Scaling.HPA), whole(before, wanted=0), SECRET, manifests)

    assert removals(steps) == [
        "--namespace lambda delete scaledobjects.keda.sh echo-lambda image-greyscale-lambda",
        "--namespace lambda wait --for=delete hpa/keda-hpa-echo-lambda",
        "--namespace lambda wait --for=delete hpa/keda-hpa-image-greyscale-lambda",
        "--namespace lambda scale deployment/echo-lambda --replicas=1",
        "--namespace lambda scale deployment/image-greyscale-lambda --replicas=1",
        "--namespace lambda delete triggerauthentications.keda.sh --all",
        "delete -k k8s/keda",
    ]
    assert index(steps, "delete -k k8s/keda") < index(steps, "-k k8s/prometheus-adapter")


def test_a_busy_function_keeps_its_pods(manifests: Manifests) -> None:
    steps = plan(Wish(scaling=Scaling.HPA), whole(Scaling.KEDA, wanted=7), SECRET, manifests)

    assert "--namespace lambda scale deployment/echo-lambda --replicas=7" in lines(steps)


def test_hpas_and_adapter_go_before_keda_comes(manifests: Manifests) -> None:
    steps = plan(Wish(scaling=Scaling.KEDA), whole(Scaling.HPA), SECRET, manifests)

    assert removals(steps) == [
        "--namespace lambda delete hpa echo-lambda image-greyscale-lambda",
        "delete -k k8s/prometheus-adapter",
    ]
    assert index(steps, "delete -k k8s/prometheus-adapter") < index(steps, "-k k8s/keda")


@pytest.mark.parametrize("before", [each for each in Scaling if each != Scaling.MAX_CONCURRENCY])
def test_max_concurrency_leaves_no_autoscaler(manifests: Manifests, before: Scaling) -> None:
    steps = plan(Wish(scaling=Scaling.MAX_CONCURRENCY), whole(before), SECRET, manifests)

    gone = " ".join(removals(steps))
    for autoscaler in whole(before).autoscalers:
        assert autoscaler.name in gone
    assert ("delete -k k8s/keda" in gone) == before.uses_keda
    assert ("delete -k k8s/prometheus-adapter" in gone) == before.uses_adapter


@pytest.mark.parametrize("before", KEDAS)
@pytest.mark.parametrize("after", KEDAS)
def test_between_alternatives_of_keda_objects_are_changed_in_place(
    manifests: Manifests, before: Scaling, after: Scaling
) -> None:
    assert removals(plan(Wish(scaling=after), whole(before), SECRET, manifests)) == []


def test_another_dashboard_takes_the_place_of_the_first(manifests: Manifests) -> None:
    wish = Wish(dashboard=Dashboard.HEADLAMP)

    steps = plan(wish, whole(Scaling.KEDA), SECRET, manifests)

    assert index(steps, "delete -k k8s/dashboard") < index(steps, "-k k8s/headlamp")


def index(steps: Iterable[Step], text: str) -> int:
    """Return where the only line with ``text`` is."""
    (found,) = (number for number, line in enumerate(lines(steps)) if text in line)
    return found


# --- what is not ours


@pytest.mark.parametrize("scaling", Scaling)
@pytest.mark.parametrize("target", [*FUNCTIONS, "lambda-server"])
@pytest.mark.parametrize("kind", ["HorizontalPodAutoscaler", "ScaledObject"])
def test_a_second_autoscaler_of_our_deployment_is_refused(
    manifests: Manifests, scaling: Scaling, target: str, kind: str
) -> None:
    other = dataclasses.replace(hpa("mine", target), kind=kind)
    found = dataclasses.replace(whole(scaling), autoscalers=(other,))

    with pytest.raises(Refused, match=f"^{kind} lambda/mine scales Deployment/{target}, which"):
        plan(Wish(), found, SECRET, manifests)


@pytest.mark.parametrize("changes", [{"namespace": "shop"}, {"target": "Deployment/cart"}])
def test_an_autoscaler_of_something_else_is_left_alone(
    manifests: Manifests, changes: dict[str, Any]
) -> None:
    other = dataclasses.replace(hpa("echo-lambda", "echo-lambda"), **changes)
    found = whole(Scaling.KEDA)
    found = dataclasses.replace(found, autoscalers=(*found.autoscalers, other))

    assert removals(plan(Wish(), found, SECRET, manifests)) == []


def test_keda_stays_where_others_need_it(manifests: Manifests) -> None:
    found = whole(Scaling.KEDA)
    found = dataclasses.replace(found, autoscalers=(*found.autoscalers, OTHERS_OBJECT))

    with pytest.raises(Refused, match="ScaledJob shop/nightly needs KEDA, which --scaling hpa"):
        plan(Wish(scaling=Scaling.HPA), found, SECRET, manifests)
    steps = plan(Wish(scaling=Scaling.MAX_CONCURRENCY), found, SECRET, manifests)
    assert "delete -k k8s/keda" not in removals(steps)


# --- secrets


@pytest.mark.parametrize("lost", [RABBITMQ, BROKER])
def test_a_lost_secret_is_made_from_the_other(manifests: Manifests, lost: tuple[str, str]) -> None:
    there = {name: values for name, values in SECRET.secrets.items() if name != lost}
    found = dataclasses.replace(whole(Scaling.KEDA), secrets=there)

    secret = Credentials.complete(there)

    assert (secret.username, secret.password) == ("u", "p")
    assert (
        len([line for line in lines(plan(Wish(), found, secret, manifests)) if "-f -" in line]) == 1
    )


def test_secrets_that_differ_agree_again_and_clients_start_anew(manifests: Manifests) -> None:
    """RabbitMQ's own is right: RabbitMQ was made with it."""
    there = {**SECRET.secrets, BROKER: {"username": "u", "password": "stale"}}
    found = dataclasses.replace(whole(Scaling.KEDA), secrets=there)
    secret = Credentials.complete(there)

    steps = plan(Wish(), found, secret, manifests)

    assert secret == SECRET
    restarted = [line for line in lines(steps) if "rollout restart" in line]
    assert [line.rpartition("/")[2] for line in restarted] == [*FUNCTIONS, "lambda-server"]


def test_a_password_that_nobody_knows_any_more_is_told(manifests: Manifests) -> None:
    found = dataclasses.replace(whole(Scaling.KEDA), secrets={})

    with pytest.raises(Refused, match="both Secrets with its password are gone"):
        plan(Wish(), found, Credentials.complete({}), manifests)


def test_two_clusters_have_two_passwords() -> None:
    made = [Credentials.complete({}) for _ in range(2)]

    assert len({value for each in made for value in (each.password, each.erlang_cookie)}) == 4


def test_credentials_are_not_printed(manifests: Manifests) -> None:
    secret = Credentials(username="u", password="a-password", erlang_cookie="a-cookie")

    shown = f"{secret!r} {Found(secrets=secret.secrets)!r}"
    shown += repr(plan(Wish(), Found(), secret, manifests))

    assert not re.search("a-password|a-cookie|stdin", shown)
