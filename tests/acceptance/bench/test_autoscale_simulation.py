"""The queue and its pods, and whole runs: what must hold whatever the settings."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from bench.autoscale.alternatives import Alternative, Keda, Options, alternatives, our_behavior
from bench.autoscale.hpa import Behavior, Policy, PolicyType, ScalingRules
from bench.autoscale.metrics import Source
from bench.autoscale.pods import Queue
from bench.autoscale.simulation import Arrivals, History, Moment, Phases, Simulation

OPTIONS = Options()
ALTERNATIVES = {each.name: each for each in alternatives(OPTIONS)}
COMPONENTS = Path(__file__).resolve().parents[3] / "k8s" / "components"


def run(
    alternative: Alternative | str,
    arrivals: Arrivals | int,
    options: Options = OPTIONS,
    phases: Phases | None = None,
) -> History:
    if isinstance(alternative, str):
        alternative = {each.name: each for each in alternatives(options)}[alternative]
    if isinstance(arrivals, int):
        arrivals = [(0.0, arrivals)]
    return Simulation(alternative, options, arrivals, phases).run()


def some_load(source: random.Random) -> list[tuple[float, int]]:
    times = sorted(source.uniform(0, 200) for _ in range(30))
    return [(time, source.randint(1, 300)) for time in times]


def test_the_oldest_are_taken_first_and_are_unacknowledged_until_they_are_done() -> None:
    queue = Queue()
    queue.put(1.0, 3)
    queue.put(2.0, 3)

    assert [queue.take(2), queue.take(2), queue.take(4)] == [
        [(1.0, 2)],
        [(1.0, 1), (2.0, 1)],
        [(2.0, 2)],
    ]
    queue.acknowledge(2)
    assert (queue.metrics.ready, queue.metrics.unacknowledged) == (0, 4)


# --- what holds for every run


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", ALTERNATIVES)
def test_every_invocation_is_served_exactly_once_within_the_limits(name: str, seed: int) -> None:
    source = random.Random(seed)
    arrivals = some_load(source)
    call_s = source.choice([0.02, 1.0, 40.0])
    options = Options(call_s=call_s, startup_s=source.uniform(0.1, 20), max_pods=7)

    history = run(name, arrivals, options, Phases.drawn(source))

    expected = sum(number for _, number in arrivals)
    assert history.served == sum(number for _, number in history.waits) == expected
    assert all(wait >= 0 for wait, _ in history.waits)
    at_once = next(each for each in alternatives(options) if each.name == name).max_concurrency
    for moment in history.moments:
        assert moment.wanted <= (1 if name == "max-concurrency" else 7)
        assert moment.running <= moment.pods * at_once
    last = history.moments[-1]
    assert history.at_rest_s is not None
    assert (last.ready, last.running, last.wanted) == (0, 0, ALTERNATIVES[name].min_replicas)


def test_a_number_that_is_old_still_orders_pods_for_work_that_is_done() -> None:
    """All is over after 5 s; the HPA looks after 7.5 s at what was counted before."""
    history = run("hpa", 50, Options(call_s=0.4))

    assert history.last_end_s < 7.5
    assert max(moment.wanted for moment in history.moments) > 1
    assert history.at_rest_s is not None
    assert history.at_rest_s > 30.0


# --- scaling


def test_a_pod_serves_nothing_before_it_has_started() -> None:
    slow = run("keda", [(0.0, 5), (5.0, 5)], Options(startup_s=9.0))

    assert slow.first_start_s == pytest.approx(1.0 + 9.0)  # the next poll, half a period away


def test_a_call_wakes_by_amqp_before_the_statistics_tell_of_it() -> None:
    keda = ALTERNATIVES["keda"]
    late = Phases(statistics=0.9, poll=0.1)

    by_both = run(keda, 10, phases=late)
    by_http = run(replace(keda, sources=(Source.MANAGEMENT,)), 10, phases=late)

    assert by_both.first_start_s == pytest.approx(0.2 + 3.0)
    assert by_http.first_start_s > 4.5 + 3.0


def at(history: History, time: float) -> Moment:
    return [each for each in history.moments if each.time <= time][-1]


def test_pods_that_stop_end_what_they_have_and_take_nothing_more() -> None:
    """Thirteen of fourteen busy pods stop; when they are done, forty invocations wait."""
    no_window = ScalingRules(policies=(Policy(type=PolicyType.PERCENT, value=100),), window_s=0.0)
    hasty = replace(
        ALTERNATIVES["keda"],
        sources=(Source.AMQP,),
        behavior=replace(our_behavior(Options()), scale_down=no_window),
    )

    history = run(hasty, [(0.0, 60), (100.0, 40)], Options(call_s=100.0))

    stopping, stopped = at(history, 105.0), at(history, 112.0)
    assert (stopping.wanted, stopping.pods, stopping.running) == (1, 14, 56)
    assert (stopped.wanted, stopped.pods, stopped.running) == (1, 1, 4)
    assert history.served == 100


def test_what_runs_keeps_its_pods_where_it_is_counted() -> None:
    """A call longer than cooldown and window: the amqp trigger alone sees an idle function."""
    keda, options = ALTERNATIVES["keda"], Options(call_s=300.0)

    counted = run(keda, 40, options)
    uncounted = run(replace(keda, sources=(Source.AMQP,)), 40, options)

    assert at(counted, 200.0).wanted == 10
    assert at(uncounted, 200.0).wanted == 1  # for the four that wait
    assert counted.served == uncounted.served == 40


def test_with_our_settings_ten_pods_are_there_in_twenty_seconds_and_gone_in_sixty() -> None:
    source = random.Random(7)
    for _ in range(50):
        history = run("keda", 950, phases=Phases.drawn(source))

        ten = history.pods_reached_s(10)
        assert ten is not None
        assert history.at_rest_s is not None
        assert ten <= 20.0
        assert history.at_rest_s - history.last_end_s <= 60.0


# --- figures


def test_waiting_times_are_weighed_by_how_many_waited() -> None:
    history = History(waits=[(9.0, 1), (1.0, 98), (5.0, 1)], served=100)

    assert (history.wait_s(0.5), history.wait_s(0.99), history.wait_s(1.0)) == (1.0, 5.0, 9.0)
    assert history.share_over(4.0) == 0.02


def test_pods_are_paid_from_their_creation_to_their_end() -> None:
    alone = run("max-concurrency", 10, Options(call_s=10.0, lone_concurrency=5))
    woken = run("keda", 4)

    assert alone.pod_seconds == pytest.approx(20.0)
    assert woken.at_rest_s is not None
    assert woken.pod_seconds == pytest.approx(woken.at_rest_s - 1.0)  # the first poll


# --- the settings are those of the manifests


def manifest(component: str) -> dict[str, object]:
    text = (COMPONENTS / component / "echo-lambda.yaml").read_text()
    document = next(each for each in yaml.safe_load_all(text) if "scaleTargetRef" in each["spec"])
    spec: dict[str, object] = document["spec"]
    return spec


def behavior_of(written: object) -> Behavior:
    assert isinstance(written, dict)

    def rules(name: str) -> ScalingRules:
        return ScalingRules(
            policies=tuple(
                Policy(type=PolicyType(each["type"]), value=each["value"],
                       period_s=each["periodSeconds"])
                for each in written[name]["policies"]
            ),
            window_s=written[name]["stabilizationWindowSeconds"],
        )  # fmt: skip

    return Behavior(scale_up=rules("scaleUp"), scale_down=rules("scaleDown"))


@pytest.mark.parametrize("component", ["keda", "keda-prometheus"])
def test_keda_is_simulated_with_the_settings_of_its_manifest(component: str) -> None:
    spec, alternative = manifest(component), ALTERNATIVES[component]
    triggers, advanced = spec["triggers"], spec["advanced"]
    assert isinstance(triggers, list)
    assert isinstance(advanced, dict)

    assert alternative.keda == Keda(
        polling_s=float(str(spec["pollingInterval"])), cooldown_s=float(str(spec["cooldownPeriod"]))
    )
    assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (
        alternative.min_replicas,
        alternative.max_replicas,
    )
    assert alternative.behavior == behavior_of(
        advanced["horizontalPodAutoscalerConfig"]["behavior"]
    )
    calls = [each for each in triggers if ".events" not in str(each["metadata"])]
    assert [each["metadata"].get("protocol", each["type"]) for each in calls] == list(
        alternative.sources
    )
    for each in triggers:
        target = each["metadata"].get("value") or each["metadata"].get("threshold")
        assert float(target) == alternative.target


def test_the_hpa_is_simulated_with_the_settings_of_its_manifest() -> None:
    spec, alternative = manifest("hpa"), ALTERNATIVES["hpa"]
    metrics = spec["metrics"]
    assert isinstance(metrics, list)

    assert (spec["minReplicas"], spec["maxReplicas"]) == (1, alternative.max_replicas)
    assert alternative.behavior == behavior_of(spec["behavior"])
    for metric in metrics:
        assert float(metric["external"]["target"]["averageValue"]) == alternative.target
