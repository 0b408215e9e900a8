"""The plan: what would be run, for what was asked for and what is there."""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import pytest

from devtools.kind_cluster.credentials import BROKER, RABBITMQ, Credentials
from devtools.kind_cluster.found import Autoscaler, Found, Workload
from devtools.kind_cluster.manifests import Manifests
from devtools.kind_cluster.names import Dashboard, Scaling
from devtools.kind_cluster.plan import Wish, plan
from devtools.kind_cluster.steps import Command, Step
from devtools.kind_cluster.switch import Refused
from tests.integration.cluster.things import hpa, scaled_object, workload

SECRET = Credentials(username="u", password="p", erlang_cookie="c")
NODES = ("lambda-control-plane", "lambda-worker")
FUNCTIONS = ("echo-lambda", "image-greyscale-lambda")
KEDAS = [scaling for scaling in Scaling if scaling.uses_keda]
OTHERS_JOB = {**scaled_object("nightly", "", namespace="shop", trigger="cron"), "kind": "ScaledJob"}
T = TypeVar("T", Workload, Autoscaler)


def whole(scaling: Scaling, wanted: int = 1, **others: Sequence[Any]) -> Found:
    """Return a cluster as ``up --scaling`` leaves it, in Kubernetes' own answers."""
    volumes = [{"name": "rapid", "image": {"reference": "any"}}]
    is_volume = scaling is Scaling.IMAGE_VOLUME
    workloads = [
        *(workload("lambda", name, wanted=wanted, volumes=volumes if is_volume else None)
          for name in FUNCTIONS),
        workload("lambda", "lambda-server", wanted=2),
        workload("kubernetes-dashboard", "kubernetes-dashboard"),
        workload("messaging", "rabbitmq", kind="StatefulSet"),
    ]  # fmt: skip
    autoscalers: list[Any] = []
    if scaling.uses_keda:
        workloads.append(workload("keda", "keda-operator"))
        trigger = "prometheus" if scaling is Scaling.KEDA_PROMETHEUS else "rabbitmq"
        for name in FUNCTIONS:
            autoscalers.append(scaled_object(name, name, trigger=trigger))
            autoscalers.append(hpa(f"keda-hpa-{name}", name, owner=name))
    if scaling.uses_adapter:
        workloads.append(workload("monitoring", "prometheus-adapter"))
        autoscalers += [hpa(name, name) for name in FUNCTIONS]
    return Found(
        nodes=NODES,
        workloads=read(Workload, others.get("workloads", workloads)),
        autoscalers=read(Autoscaler, [*others.get("autoscalers", autoscalers),
                                      *others.get("more", [])]),
        secrets=SECRET.secrets,
    )  # fmt: skip


def read(kind: type[T], items: Sequence[Any]) -> tuple[T, ...]:
    return tuple(kind.from_answer(each) for each in items)


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


def test_the_node_image_is_that_of_the_table_and_each_node_is_told_of_the_registry(
    manifests: Manifests,
) -> None:
    create, *rest = lines(plan(Wish(), Found(), SECRET, manifests))

    assert re.search(r"--image kindest/node:v1\.\S+@sha256:", create)
    told = [line.split()[3] for line in rest if line.startswith("docker exec")]
    assert told == list(manifests.nodes)


def test_every_command_names_the_cluster_and_ends_by_itself(manifests: Manifests) -> None:
    for step in plan(Wish(), Found(), SECRET, manifests):
        for action in step.actions:
            assert 0 < action.limit_s <= 1_900
            if not isinstance(action, Command):
                continue
            if action.argv[0] == "kubectl":
                assert action.argv[1:3] == ("--context", "kind-lambda")
            if action.argv[0] == "kind":
                assert action.argv[-2:] == ("--name", "lambda")
            if "rollout" in action.argv or "wait" in action.argv:
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
    rabbitmq = workload("messaging", "rabbitmq", kind="StatefulSet", wanted=3)
    three_nodes = whole(Scaling.KEDA, workloads=[rabbitmq])
    broken_off = whole(Scaling.KEDA, autoscalers=[])
    keda_of_others = whole(Scaling.KEDA, autoscalers=[OTHERS_JOB])

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
@pytest.mark.parametrize("make", [hpa, scaled_object])
def test_a_second_autoscaler_of_our_deployment_is_refused(
    manifests: Manifests, scaling: Scaling, target: str, make: Callable[..., Any]
) -> None:
    found = whole(scaling, autoscalers=[make("mine", target)])

    with pytest.raises(Refused, match=f" lambda/mine scales Deployment/{target}, which"):
        plan(Wish(), found, SECRET, manifests)


def test_an_autoscaler_of_something_else_is_left_alone(manifests: Manifests) -> None:
    others = [hpa("echo-lambda", "echo-lambda", namespace="shop"), hpa("echo-lambda", "cart")]

    steps = plan(Wish(), whole(Scaling.KEDA, more=others), SECRET, manifests)

    assert removals(steps) == []


def test_keda_stays_where_others_need_it(manifests: Manifests) -> None:
    found = whole(Scaling.KEDA, more=[OTHERS_JOB])

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

    steps = plan(Wish(), found, secret, manifests)

    assert (secret.username, secret.password) == ("u", "p")
    assert sum("-f -" in line for line in lines(steps)) == 1


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
