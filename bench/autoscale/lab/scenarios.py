"""What is measured; each scenario leaves the function at 0 pods."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.autoscale.lab.load import AmqpCaller, invoke
from bench.autoscale.lab.manifests import FUNCTION
from bench.autoscale.lab.stage import Stage

_WAKE_LIMIT_S = 90.0
_BURST_LIMIT_S = 600.0
_SETTLE_S = 240.0
_UPSTREAM_PODS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Wake:
    """One call or event that found no pod; seconds after it was sent."""

    scaled_s: float  #: the Deployment asks for a pod
    ready_s: float  #: the pod is ready
    done_s: float  #: the call is answered, the event was run


@dataclass(frozen=True, slots=True, kw_only=True)
class Burst:
    """Many calls at once; seconds after they were sent, and then after the last answer."""

    calls: int
    ten_wanted_s: float | None  #: the Deployment asks for 10 pods; None: it never did
    ten_ready_s: float | None  #: 10 pods are ready
    most_pods: int
    answered_s: float
    one_wanted_s: float  #: after the last answer: the Deployment asks for one pod at most
    zero_wanted_s: float  #: for none
    wrong: int  #: calls not answered with their own payload
    killed: int  #: pods that were still busy when their grace was over
    crashed: int  #: pods that ended by themselves


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """A queue deleted while there was no pod; seconds after that."""

    scaled_s: float
    declared_s: float
    zero_s: float  #: no pod is asked for again


def wake(stage: Stage, *, event: bool) -> Wake:
    """Send one call, or one event, to the function at 0 pods."""
    stage.wait_for_zero()
    time.sleep(random.uniform(2.5, 4.5))  # noqa: S311 - at any moment of KEDA's polling
    ready_before = len(stage.nodes.log.ready)
    with TemporaryDirectory(prefix="lab-wake-") as folder:
        mark = Path(folder) / "done"
        sent = time.monotonic()
        caller = threading.Thread(
            target=invoke,
            args=(stage.server_port, FUNCTION, {"touch": str(mark)}),
            kwargs={"event": event},
        )
        caller.start()
        scaled = stage.wait_for(lambda: stage.replicas() > 0, _WAKE_LIMIT_S, "a pod to be wanted")
        done = stage.wait_for(mark.exists, _WAKE_LIMIT_S, "the function to run")
        caller.join()
    stage.wait_for(
        lambda: len(stage.nodes.log.ready) > ready_before, _WAKE_LIMIT_S, "a pod to be ready"
    )
    ready = stage.nodes.log.ready[ready_before].at
    return Wake(scaled_s=scaled - sent, ready_s=ready - sent, done_s=done - sent)


def burst(
    stage: Stage, *, calls: int, sleep_ms: int, from_one: bool, long_calls_ms: tuple[int, ...] = ()
) -> Burst:
    """Send many calls at once; ``from_one``: to one pod that has just done its first call."""
    stage.wait_for_zero()
    if from_one:
        invoke(stage.server_port, FUNCTION, {})
        stage.wait_for(lambda: stage.nodes.log.running() == 1, _WAKE_LIMIT_S, "one pod")
        time.sleep(random.uniform(0, 15))  # noqa: S311 - at any moment of the autoscaler's period
    log = stage.nodes.log
    killed_before, crashed_before = len(log.killed), len(log.crashed)
    payloads: list[dict[str, object]] = [{"sleep_ms": ms} for ms in long_calls_ms]
    payloads += [{"sleep_ms": sleep_ms} for _ in range(calls)]
    caller = AmqpCaller(stage.broker.uri, FUNCTION, payloads)
    caller.start()
    stage.wait_for(lambda: caller.calls.started_at > 0, 30, "the first call to be sent")
    started = caller.calls.started_at
    ten_wanted: float | None = None
    ten_ready: float | None = None
    most = 0
    while caller.calls.open:
        now = time.monotonic()
        if now - started > _BURST_LIMIT_S:
            break
        most = max(most, stage.nodes.log.running())
        if ten_wanted is None and stage.replicas() >= _UPSTREAM_PODS:
            ten_wanted = now - started
        if ten_ready is None and stage.nodes.log.running() >= _UPSTREAM_PODS:
            ten_ready = now - started
        time.sleep(0.1)
    answered = caller.calls.last_at
    one = stage.wait_for(lambda: stage.replicas() <= 1, _SETTLE_S, "one pod at most")
    zero = stage.wait_for(lambda: stage.replicas() == 0, _SETTLE_S, "no pod to be wanted")
    return Burst(
        calls=len(payloads),
        ten_wanted_s=ten_wanted,
        ten_ready_s=ten_ready,
        most_pods=most,
        answered_s=answered - started,
        one_wanted_s=one - answered,
        zero_wanted_s=zero - answered,
        wrong=caller.calls.open + len(caller.calls.wrong),
        killed=len(log.killed) - killed_before,
        crashed=len(log.crashed) - crashed_before,
    )


def lose_queue(stage: Stage) -> Lost:
    """Delete the function's queue while it has no pod."""
    stage.wait_for_zero()
    stage.management.delete(FUNCTION)
    deleted = time.monotonic()
    scaled = stage.wait_for(lambda: stage.replicas() > 0, _WAKE_LIMIT_S, "a pod to be wanted")
    declared = stage.wait_for(
        lambda: stage.management.queue(FUNCTION) is not None, _WAKE_LIMIT_S, "the queue"
    )
    zero = stage.wait_for(lambda: stage.replicas() == 0, _SETTLE_S, "no pod to be wanted")
    return Lost(scaled_s=scaled - deleted, declared_s=declared - deleted, zero_s=zero - deleted)
