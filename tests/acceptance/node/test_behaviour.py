"""What becomes of calls when a kubelet restarts, scales down, kills, drains and limits pods."""

from __future__ import annotations

import json
import threading
from typing import Any

from devtools.progress import wait_until
from tests.acceptance.node.functions import Load, MakeFunction, Recorder, invoke
from tests.acceptance.node.node import NAME
from tests.support import Answer


class Calling:
    """A call in a thread of its own."""

    def __init__(self, name: str, payload: dict[str, Any]) -> None:
        self._answers: list[Answer] = []
        self._thread = threading.Thread(
            target=lambda: self._answers.append(invoke(name, payload)), daemon=True
        )
        self._thread.start()

    def answer(self) -> Answer:
        self._thread.join()
        (answer,) = self._answers
        return answer


def started(recorder: Recorder, *keys: str) -> None:
    """Wait until these calls run."""
    assert wait_until(lambda: recorder.runs.keys() >= set(keys), 60.0), recorder.runs.keys()


def test_rolling_restarts_and_scaling_down_lose_and_double_no_call(
    make_function: MakeFunction, recorder: Recorder
) -> None:
    function = make_function("restarted", pods=2)
    function.apply()

    with Load.on("restarted", callers=4, sleep_s=0.05) as load:
        for _ in range(2):
            function.kubectl("rollout", "restart", "deployment/restarted")
            function.rolled_out()
        function.scale(4)
        function.scale(1)

    print(f"\n  {len(load.answers)} calls across two restarts and a scale-down")
    assert load.wrong() == {}
    assert {key: recorder.runs[key] for key in load.answers} == dict.fromkeys(load.answers, 1)


def test_calls_of_a_pod_that_is_deleted_by_force_are_answered_500_and_no_others(
    make_function: MakeFunction, recorder: Recorder
) -> None:
    function = make_function("forced", pods=2)
    function.apply()
    keys = [f"forced-{number}" for number in range(6)]

    calls = [Calling("forced", {"id": key, "sleep": 6}) for key in keys]
    started(recorder, *keys)
    function.kubectl("delete", "pod", min(function.pods()), "--grace-period=0", "--force")
    statuses = sorted(call.answer().status for call in calls)

    assert set(statuses) == {200, 500}
    assert [recorder.runs[key] for key in keys] == [1] * 6


def test_a_drained_node_answers_what_runs_and_keeps_what_waits(
    make_function: MakeFunction, recorder: Recorder
) -> None:
    function = make_function("drained")
    function.set_environ(RAPID_MAX_CONCURRENCY="1")
    function.apply()

    runs = Calling("drained", {"id": "drained-runs", "sleep": 4})
    started(recorder, "drained-runs")
    waits = Calling("drained", {"id": "drained-waits"})
    try:
        selector = "--pod-selector=app.kubernetes.io/name=drained"
        function.kubectl("drain", NAME, selector, "--delete-emptydir-data", "--timeout=60s")
    finally:
        function.kubectl("uncordon", NAME)

    assert (runs.answer().status, waits.answer().status) == (200, 200)
    assert [recorder.runs[key] for key in ("drained-runs", "drained-waits")] == [1, 1]


def test_out_of_memory_ends_the_function_and_not_the_pod(make_function: MakeFunction) -> None:
    function = make_function("hungry")
    function.container["resources"]["limits"]["memory"] = "192Mi"
    function.apply()

    answer = invoke("hungry", {"mebibytes": 400})
    again = invoke("hungry", {"mebibytes": 1})

    assert (answer.status, answer.headers.get("X-Amz-Function-Error")) == (200, "Unhandled")
    assert json.loads(answer.body)["errorType"] == "Runtime.ExitError"
    assert "X-Amz-Function-Error" not in again.headers
    assert [status["restartCount"] for status in function.statuses()] == [0]


def test_a_long_init_restarts_nothing(make_function: MakeFunction) -> None:
    function = make_function("slow")
    function.set_environ(INIT_S="40", RAPID_INIT_TIMEOUT="60")  # longer than the startup probe
    function.apply()

    assert [status["restartCount"] for status in function.statuses()] == [0]
    assert invoke("slow", {"key": "value"}).status == 200


def test_any_user_id_will_do(make_function: MakeFunction) -> None:
    function = make_function("anybody")
    ids = {"runAsUser": 1000730000, "runAsGroup": 0, "fsGroup": 1000730000}
    function.pod["securityContext"] |= ids
    function.apply()

    assert invoke("anybody", {"key": "value"}).body == b'{"key": "value"}'


def test_a_pod_that_breaks_the_restricted_profile_is_refused(make_function: MakeFunction) -> None:
    function = make_function("lax")
    del function.pod["securityContext"]["seccompProfile"]
    function.apply(is_ready=False)

    def refusal() -> bool:
        events = function.kubectl("get", "events", "-o", "jsonpath={.items[*].message}")
        return 'violates PodSecurity "restricted:v1.34"' in events

    assert wait_until(refusal, 30.0)
    assert function.pods() == {}


def test_a_volume_in_memory_holds_one_copy_of_rapid(make_function: MakeFunction) -> None:
    """If it holds none, rapid says so in one line: tests/unit/rapid/test_self_copy.py."""
    function = make_function("memory")
    (volume,) = [each for each in function.pod["volumes"] if each["name"] == "rapid"]
    volume["emptyDir"] = {"medium": "Memory", "sizeLimit": "20Mi"}
    function.apply()

    assert invoke(function.name, {"key": "value"}).status == 200


def test_fifty_pods_of_one_function_are_ready_and_answer(make_function: MakeFunction) -> None:
    function = make_function("many", pods=1)
    function.set_environ(RAPID_MAX_CONCURRENCY="1")
    function.apply()

    function.scale(50)
    with Load.on("many", callers=8) as load:
        assert wait_until(lambda: len(load.answers) > 400, 200.0)

    assert load.wrong() == {}
    assert [status["restartCount"] for status in function.statuses()] == [0] * 50
