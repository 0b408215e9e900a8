"""The scheduler over fake environments and a fake clock: every step is the test's own."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any, cast

import pytest

from lambda_protocol.errors import (
    LambdaApiError,
    ServiceException,
    TooManyRequestsException,
)
from lambda_protocol.invocation import InvocationType, Outcome
from rapid.call import CONFIRM_LIMIT_S, Call, Failure
from rapid.environment.environment import ExecutionEnvironment
from rapid.environment.state import ParkedNext
from rapid.metrics import Metrics
from rapid.scheduling.coming_slots import PATIENCE_S
from rapid.scheduling.scheduler import MAX_WAITING, Scheduler
from tests.support import make_invocation, wait_until

FAILED_INIT = Failure("Runtime.ExitError", "Runtime exited with error: exit status 1")
TIMEOUT_S = 3.0
QUEUE_TIMEOUT_S = 30.0


class FakeEnvironment:
    """An execution environment whose runtime is the test."""

    def __init__(self, world: World, scheduler: Scheduler, index: int, limit_s: float | None):
        self.index = index
        self.init_limit_s = limit_s
        self.is_started = False
        self.is_retired = False
        self.is_outdated = False
        self.tenant: str | None = None
        self.taken: list[Call] = []  # every call ever delivered
        self._world = world
        self._scheduler = scheduler
        self._state = "init"
        self._running: list[Call] = []
        self._answered_at = 0.0

    # what the test does and sees

    @property
    def names(self) -> list[str]:
        """Of the calls that were ever delivered."""
        return [call.invocation.payload.decode() for call in self.taken]

    def init_done(self) -> FakeEnvironment:
        with self._scheduler.lock:
            self._scheduler.on_init_done_locked(cast(ExecutionEnvironment, self), 0.1)
        self.next()
        return self

    def init_failed(self) -> None:
        with self._scheduler.lock:
            self._state = "gone"
            ended = self._scheduler.on_init_failed_locked(self._world.now)
        for call in ended:
            outcome = FAILED_INIT.outcome(call.invocation.request_id, "$LATEST")
            self._scheduler.finish(call, outcome, "failure")
        self.gone()

    def next(self) -> None:
        """The runtime asks for its next event."""
        self.available()
        self._scheduler.dispatch()

    def available(self) -> None:
        """As ``next``, caught between the note and the hand-out."""
        with self._scheduler.lock:
            self._state = "idle"
            self._scheduler.on_available_locked(cast(ExecutionEnvironment, self))

    def answer(self) -> None:
        """The runtime answers; it has not asked for the next event yet."""
        with self._scheduler.lock:
            call = self._running.pop()
            self._answered_at = self._world.now
            self._state = "between"
        self._scheduler.finish(call, Outcome(payload=call.invocation.payload), "success")

    def serve(self) -> FakeEnvironment:
        """The runtime answers, and asks for its next event."""
        self.answer()
        self.next()
        return self

    def undelivered(self) -> None:
        """The call could not be sent: its runtime is gone."""
        with self._scheduler.lock:
            self._scheduler.requeue_locked(self._running.pop())
            self._state = "gone"
        self.gone()

    def gone(self) -> None:
        with self._scheduler.lock:
            self._scheduler.on_gone_locked(cast(ExecutionEnvironment, self))
        self._scheduler.dispatch()

    # what the scheduler asks

    def start(self) -> None:
        self.is_started = True

    @property
    def can_take_locked(self) -> bool:
        return self._state == "idle"

    def coming_slots_locked(self, now: float, patience_s: float) -> int:
        if self._state == "between":
            return int(now - self._answered_at < patience_s)
        return int(self._state in ("init", "replaced"))

    def assign_locked(self, call: Call, now: float) -> ParkedNext:
        assert self._state == "idle"
        self._state = "busy"
        self.tenant = call.tenant
        self._running.append(call)
        call.started_at = now
        call.deadline = now + TIMEOUT_S
        return cast(ParkedNext, None)

    def deliver(self, call: Call, parked: ParkedNext) -> None:
        self.taken.append(call)

    def due_locked(self, now: float) -> Callable[[], None] | None:
        return self._world.due.pop(self.index, None)

    def next_deadline_locked(self) -> float:
        return self._world.now + 100

    def running_locked(self) -> list[Call]:
        return list(self._running)

    def replace_locked(self) -> bool:
        if self._state != "idle":
            return False
        self._state, self.tenant = "replaced", None
        return True

    def outdate_locked(self) -> None:
        self.is_outdated = True

    def retire(self) -> None:
        self.is_retired = True
        if not self._world.has_slow_ends:
            self.gone()


class World:
    """A scheduler, its environments and the time."""

    def __init__(self, max_concurrency: int = 1, queue_timeout_s: float = QUEUE_TIMEOUT_S) -> None:
        self.now = 1000.0
        self.has_slow_ends = False  # a retired environment is gone when the test says so
        self.environments: list[FakeEnvironment] = []  # in the order they were made
        self.due: dict[int, Callable[[], None]] = {}
        self.metrics = Metrics("f")
        self.asked: list[Call] = []
        self.scheduler = Scheduler(
            max_concurrency=max_concurrency,
            queue_timeout_s=queue_timeout_s,
            timeout_s=TIMEOUT_S,
            make_environment=self._make,
            metrics=self.metrics,
            clock=lambda: self.now,
        )

    def _make(
        self, scheduler: Scheduler, index: int, *, init_limit_s: float | None
    ) -> ExecutionEnvironment:
        environment = FakeEnvironment(self, scheduler, index, init_limit_s)
        self.environments.append(environment)
        return cast(ExecutionEnvironment, environment)

    def submit(self, name: str = "call", **changes: Any) -> Waiter:
        waiter = Waiter(name)
        invocation = make_invocation(payload=name.encode(), **changes)
        self.scheduler.submit(Call(invocation, waiter.on_outcome, waiter.on_started))
        return waiter

    def submit_doubtful(self, name: str, known_ago_s: float = 2.0) -> tuple[Call, Waiter]:
        """Submit a call whose caller was known to wait so long ago; asked about: :attr:`asked`."""
        waiter = Waiter(name)
        call = Call(make_invocation(payload=name.encode()), waiter.on_outcome)
        call.wanted_at = self.now - known_ago_s
        call.ask_caller = lambda: self.asked.append(call)
        self.scheduler.submit(call)
        return call, waiter

    def advance(self, seconds: float) -> None:
        """Let the time pass, and the clock look at it once."""
        self.now += seconds
        with self.scheduler.lock:
            self.scheduler._on_tick_locked(self.now)

    def ready(self, count: int = 1) -> list[FakeEnvironment]:
        """Start ``count`` environments and leave them idle, the first one idle last."""
        waiters = [self.submit(f"warm-up {number}") for number in range(count)]
        for environment in list(self.environments):
            environment.init_done()
        assert len(self.environments) == count
        for environment in reversed(self.environments):
            environment.serve()
            environment.taken.clear()
        assert all(waiter.outcome for waiter in waiters)
        return self.environments

    def taken(self) -> list[str]:
        return [name for environment in self.environments for name in environment.names]

    def count(self, outcome: str) -> float:
        """Return how many calls are counted with this outcome."""
        text = self.metrics.render()[1].decode()
        line = next(each for each in text.splitlines() if f'outcome="{outcome}"}}' in each)
        return float(line.rpartition(" ")[2])


class Waiter:
    """A caller."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.outcomes: list[Outcome | LambdaApiError] = []
        self.started: list[tuple[float, bool]] = []  # answered by, and whether it runs

    def on_outcome(self, outcome: Outcome | LambdaApiError) -> None:
        self.outcomes.append(outcome)

    def on_started(self, answered_by: float, is_running: bool) -> None:
        self.started.append((answered_by, is_running))

    @property
    def outcome(self) -> Outcome | LambdaApiError | None:
        assert len(self.outcomes) <= 1, f"{self.name} was answered twice"
        return self.outcomes[0] if self.outcomes else None


# --- who gets what


def test_calls_are_handed_out_in_the_order_they_came() -> None:
    world = World()
    for name in ("a", "b", "c"):
        world.submit(name)
    (environment,) = world.environments

    environment.init_done().serve().serve()

    assert world.taken() == ["a", "b", "c"]


def test_the_environment_that_became_idle_last_is_used_first() -> None:
    """So that the others stay idle, and surplus ones retire."""
    world = World(max_concurrency=5)
    first, *others = world.ready(3)

    for count in range(5):
        world.submit(str(count))
        first.serve()

    assert len(first.taken) == 5
    assert world.environments == [first, *others]
    assert not any(environment.taken for environment in others)


@pytest.mark.parametrize(("calls", "allowed", "started"), [(1, 5, 1), (3, 5, 3), (10, 2, 2)])
def test_an_environment_is_started_for_each_call_that_would_wait(
    calls: int, allowed: int, started: int
) -> None:
    world = World(max_concurrency=allowed)

    for number in range(calls):
        world.submit(str(number))
    world.scheduler.dispatch()
    world.advance(1)

    assert [environment.index for environment in world.environments] == [*range(started)]
    assert all(environment.is_started for environment in world.environments)


@pytest.mark.parametrize("comes_back", [True, False])
def test_an_environment_between_two_calls_is_trusted_to_come_back_soon(comes_back: bool) -> None:
    world = World(max_concurrency=2)
    (environment,) = world.ready(1)
    world.submit("a")
    environment.answer()
    world.submit("b")
    assert world.environments == [environment]

    if comes_back:
        environment.next()
    world.advance(PATIENCE_S + 0.001)

    assert world.taken() == (["a", "b"] if comes_back else ["a"])
    assert len(world.environments) == (1 if comes_back else 2)


def test_a_number_that_became_free_is_given_again() -> None:
    world = World(max_concurrency=2)
    first, second = world.ready(2)
    first.gone()

    world.submit("a")
    world.submit("b")

    assert second.names == ["a"]
    assert [environment.index for environment in world.environments] == [0, 1, 0]


def test_a_call_that_was_never_delivered_is_first_in_line_again() -> None:
    world = World()
    (environment,) = world.ready(1)
    waiter = world.submit("a")
    world.submit("b")

    environment.undelivered()
    world.environments[-1].init_done()

    assert world.environments[-1].names == ["a"]
    assert waiter.outcome is None


def test_a_withdrawn_call_is_not_run_and_not_answered() -> None:
    world = World()
    (environment,) = world.ready(1)
    world.submit("running")
    waiter = world.submit("wanted")
    world.submit("other")

    taken = world.scheduler.withdraw(lambda call: call.invocation.payload != b"other")
    environment.serve()

    assert [call.invocation.payload for call in taken] == [b"wanted"]  # one runs already
    assert world.taken() == ["running", "other"]
    assert waiter.outcome is None


# --- callers that may be gone


@pytest.mark.parametrize(("known_ago_s", "asked"), [(0.9, 0), (1.1, 1)])
def test_a_caller_not_heard_of_for_a_second_is_asked_before_its_call_starts(
    known_ago_s: float, asked: int
) -> None:
    world = World()
    world.ready(1)

    call, _ = world.submit_doubtful("a", known_ago_s)

    assert world.asked == [call] * asked
    assert world.taken() == ["a"] * (1 - asked)
    world.scheduler.confirm(call)
    assert world.taken() == ["a"]


def test_a_call_that_waited_here_for_a_second_is_confirmed_too() -> None:
    world = World()
    call, _ = world.submit_doubtful("a", 0.0)
    world.advance(5)  # the init takes long

    world.environments[0].init_done()

    assert (world.asked, world.taken()) == ([call], [])


def test_a_caller_that_says_nothing_is_taken_for_one_that_waits() -> None:
    world = World()
    world.ready(1)
    call, _ = world.submit_doubtful("a")

    world.advance(CONFIRM_LIMIT_S / 2)
    assert world.taken() == []
    world.advance(CONFIRM_LIMIT_S)

    assert world.taken() == ["a"]
    assert world.asked == [call]
    assert world.scheduler.abandon(call) is False  # a late no


def test_a_call_whose_caller_is_gone_never_starts_and_is_counted() -> None:
    world = World()
    world.ready(1)
    call, waiter = world.submit_doubtful("a")

    assert world.scheduler.abandon(call) is True
    world.scheduler.confirm(call)
    world.advance(1)

    assert (world.taken(), waiter.outcome) == ([], None)
    assert world.count("abandoned") == 1


def test_while_a_caller_is_asked_calls_start_and_events_and_environments_do_not() -> None:
    world = World(max_concurrency=2)
    (environment,) = world.ready(1)
    doubtful, _ = world.submit_doubtful("doubtful")

    world.submit("event", type=InvocationType.EVENT)
    assert (world.taken(), len(world.environments)) == ([], 1)
    world.submit("call")
    environment.serve()
    assert world.taken() == ["call"]
    world.scheduler.confirm(doubtful)

    assert world.taken()[:2] == ["call", "doubtful"]


# --- tenants


def test_tenants_never_share_an_environment() -> None:
    world = World(max_concurrency=3)
    for tenant in ("a", "b", None):
        world.submit(f"first {tenant}", tenant_id=tenant)
        world.environments[-1].init_done()
    for environment in world.environments:
        environment.serve()

    for tenant in (None, "b", "a"):
        world.submit(f"second {tenant}", tenant_id=tenant)

    assert [environment.names for environment in world.environments] == [
        [f"first {tenant}", f"second {tenant}"] for tenant in ("a", "b", None)
    ]


@pytest.mark.parametrize(("allowed", "retired"), [(2, [False, True]), (3, [False, False])])
def test_the_longest_idle_of_another_tenant_is_replaced_where_none_may_be_started(
    allowed: int, retired: list[bool]
) -> None:
    world = World(max_concurrency=allowed)
    environments = list(world.ready(2))

    world.submit("a", tenant_id="a")

    assert [environment.is_retired for environment in environments] == retired
    world.environments[-1].init_done()
    assert world.environments[-1].names == ["a"]


@pytest.mark.parametrize("tenants", [("a", "b"), ("a", None), (None, "a")])
def test_an_environment_that_runs_a_call_is_not_replaced(tenants: tuple[str, str]) -> None:
    world = World()
    first = world.submit("first", tenant_id=tenants[0])
    (environment,) = world.environments
    environment.init_done()

    second = world.submit("second", tenant_id=tenants[1])
    world.advance(1)
    was_retired = environment.is_retired
    environment.serve()

    assert (was_retired, environment.is_retired) == (False, True)
    assert first.outcome
    world.environments[-1].init_done().answer()
    assert second.outcome


def test_tenants_have_their_turn_in_the_order_of_their_calls() -> None:
    world = World()
    for name, tenant in (("1", "a"), ("2", "b"), ("3", "a")):
        world.submit(name, tenant_id=tenant)

    for number in range(3):
        world.environments[number].init_done().serve()

    assert world.taken() == ["1", "2", "3"]


def test_a_call_that_has_an_environment_coming_holds_up_no_other_tenant() -> None:
    world = World(max_concurrency=2)
    of_b, of_a = world.ready(2)
    of_a.tenant, of_b.tenant = "a", "b"
    world.submit("b1", tenant_id="b")
    of_b.answer()

    world.submit("b2", tenant_id="b")
    world.submit("a1", tenant_id="a")

    assert of_a.names == ["a1"]


def test_another_tenants_environment_is_replaced_when_the_own_does_not_come_back() -> None:
    world = World(max_concurrency=2)
    of_b, of_a = world.ready(2)
    of_a.tenant, of_b.tenant = "a", "b"
    world.submit("b1", tenant_id="b")
    of_b.answer()

    world.submit("b2", tenant_id="b")
    was_retired = of_a.is_retired
    world.advance(PATIENCE_S + 0.001)

    assert (was_retired, of_a.is_retired) == (False, True)


def test_as_many_environments_are_replaced_as_calls_wait() -> None:
    world = World(max_concurrency=3)
    world.ready(3)
    world.has_slow_ends = True

    for number in range(2):
        world.submit(str(number), tenant_id="a")
    world.advance(0.01)

    assert [each.is_retired for each in world.environments] == [False, True, True]
    for environment in world.environments[1:3]:
        environment.gone()
    assert len(world.environments) == 5


def test_a_tenants_own_environment_is_used_before_a_fresh_one() -> None:
    world = World(max_concurrency=2)
    own, fresh = world.ready(2)
    fresh.tenant = None
    world.submit("a")
    fresh.next()  # idle last

    own.serve()
    fresh.next()
    world.submit("b")

    assert own.names == ["a", "b"]


def test_without_waiting_a_call_is_refused_only_if_no_environment_can_be_replaced() -> None:
    world = World(queue_timeout_s=0)
    world.submit("a1", tenant_id="a")
    (environment,) = world.environments
    environment.init_done()
    with pytest.raises(TooManyRequestsException):
        world.submit("b1", tenant_id="b")
    environment.serve()

    second = world.submit("b2", tenant_id="b")
    world.environments[-1].init_done().answer()

    assert environment.is_retired
    assert isinstance(second.outcome, Outcome)


# --- who waits too long


def test_a_call_that_waited_too_long_is_throttled_and_not_run_later() -> None:
    world = World()
    (environment,) = world.ready(1)
    world.submit("running")
    waiter = world.submit("waiting")
    event = world.submit("event", type=InvocationType.EVENT)

    world.advance(QUEUE_TIMEOUT_S - 0.001)
    before = waiter.outcome
    world.advance(0.001)
    environment.serve()

    assert before is None
    assert isinstance(waiter.outcome, TooManyRequestsException)
    assert waiter.outcome.reason == "ConcurrentInvocationLimitExceeded"
    assert world.taken() == ["running", "event"]  # the retry policy bounds how long that waits
    assert event.outcome is None


def test_a_call_whose_environment_is_still_starting_has_the_functions_timeout_too() -> None:
    world = World()
    first, second = world.submit("first"), world.submit("second")

    world.advance(QUEUE_TIMEOUT_S)
    assert isinstance(second.outcome, TooManyRequestsException)  # nothing starts for that one
    world.advance(TIMEOUT_S - 0.001)
    before = first.outcome
    world.advance(0.001)

    assert before is None
    assert isinstance(first.outcome, TooManyRequestsException)


def test_without_a_queue_a_call_waits_for_the_init_started_for_it_and_no_other() -> None:
    world = World(queue_timeout_s=0)
    waiter = world.submit("cold")

    world.advance(0.5)
    world.environments[0].init_done()
    with pytest.raises(TooManyRequestsException):
        world.submit("second")

    assert waiter.outcome is None
    assert world.taken() == ["cold"]


def test_a_call_that_may_not_wait_goes_before_an_event_that_does() -> None:
    """An event waits, its environment is just noted as free, and a call arrives in between."""
    world = World(queue_timeout_s=0)
    world.submit("event 1", type=InvocationType.EVENT)
    environment = world.environments[0].init_done()
    world.submit("event 2", type=InvocationType.EVENT)
    environment.answer()
    environment.available()

    world.submit("call")

    assert world.taken() == ["event 1", "call"]


def test_an_event_never_takes_a_slot_from_a_call_that_waits() -> None:
    world = World()
    (environment,) = world.ready(1)
    world.submit("running")
    world.submit("event", type=InvocationType.EVENT)
    world.submit("call 1")
    world.submit("call 2")

    environment.serve().serve().serve()

    assert world.taken() == ["running", "call 1", "call 2", "event"]


def test_a_full_queue_refuses_at_once() -> None:
    world = World()
    world.ready(1)
    world.submit("running")
    for _ in range(MAX_WAITING):
        world.submit("waiting")

    with pytest.raises(TooManyRequestsException):
        world.submit("one too many")


# --- who hears that it takes long


def test_a_call_that_takes_long_is_announced_once_with_its_deadline() -> None:
    world = World()
    world.ready(1)
    waiter = world.submit("slow")
    deadline = world.now + TIMEOUT_S

    world.advance(0.999)
    before = list(waiter.started)
    world.advance(0.001)
    world.advance(0.5)

    assert before == []
    assert waiter.started == [(deadline, True)]


def test_a_waiting_call_is_announced_with_the_latest_time_and_again_when_it_runs() -> None:
    world = World()
    (environment,) = world.ready(1)
    world.submit("running")
    waiter = world.submit("waiting")
    latest = world.now + QUEUE_TIMEOUT_S + TIMEOUT_S

    world.advance(1)
    assert waiter.started == [(latest, False)]
    environment.serve()
    runs_until = world.now + TIMEOUT_S
    world.advance(0.1)
    world.advance(2)

    assert waiter.started == [(latest, False), (runs_until, True)]


def test_a_fast_call_is_not_announced() -> None:
    world = World()
    (environment,) = world.ready(1)
    waiter = world.submit("fast")
    environment.answer()

    world.advance(5)

    assert waiter.started == []


# --- what is due


def test_what_an_environment_has_due_is_done_without_the_lock() -> None:
    world = World()
    world.ready(1)
    was_locked: list[bool] = []
    world.due[0] = lambda: was_locked.append(world.scheduler.lock.locked())

    world.advance(1)

    assert was_locked == [False]


def test_a_due_action_that_fails_does_not_stop_the_clock() -> None:
    world = World()
    (environment,) = world.ready(1)
    world.due[0] = lambda: cast(None, 1 // 0)

    world.advance(1)
    waiter = world.submit("a")
    world.advance(0)
    environment.answer()

    assert waiter.outcome is not None


# --- failed inits


def test_the_first_failed_init_is_done_again_under_the_functions_timeout() -> None:
    world = World()
    waiter = world.submit("a")
    first = world.environments[0]

    first.init_failed()
    second = world.environments[1]

    assert waiter.outcome is None
    assert (first.init_limit_s, second.init_limit_s) == (None, TIMEOUT_S)
    second.init_done()
    assert second.names == ["a"]


def test_the_second_failed_init_in_a_row_is_charged_to_the_call() -> None:
    world = World()
    first = world.submit("a")
    world.environments[0].init_failed()
    world.environments[1].init_failed()
    started = len(world.environments)

    later = world.submit("b")
    world.environments[2].init_failed()

    assert started == 2
    for waiter in (first, later):
        assert isinstance(waiter.outcome, Outcome)
        assert waiter.outcome.function_error == "Unhandled"
        assert b"exit status 1" in waiter.outcome.payload


def test_an_init_that_succeeds_forgets_the_failed_ones_and_makes_ready() -> None:
    world = World()
    world.submit("a")
    world.environments[0].init_failed()
    was_ready = world.scheduler.is_ready
    environment = world.environments[1].init_done()
    environment.answer()
    environment.gone()

    waiter = world.submit("b")
    world.environments[2].init_failed()

    assert waiter.outcome is None
    assert (was_ready, world.scheduler.is_ready) == (False, True)


def test_a_broken_image_does_not_spin() -> None:
    world = World()
    with world.scheduler.lock:
        environment = world.scheduler._matching.start()
    cast(FakeEnvironment, environment).init_failed()

    world.advance(60)

    assert len(world.environments) == 1


# --- stop


def stop_in_background(world: World, drain_s: float) -> threading.Thread:
    thread = threading.Thread(target=stop, args=(world, drain_s))
    thread.start()
    wait_until(lambda: _refuses(world), "the stop to begin")
    return thread


def stop(world: World, drain_s: float) -> bool:
    world.scheduler.drain(drain_s)
    return world.scheduler.stop(5.0)


def _refuses(world: World) -> bool:
    with world.scheduler.lock:
        return world.scheduler._is_stopping


def test_a_stop_lets_what_is_in_hand_end_and_refuses_newcomers() -> None:
    world = World()
    (environment,) = world.ready(1)
    running, waiting = world.submit("running"), world.submit("waiting")

    thread = stop_in_background(world, 20)
    with pytest.raises(ServiceException):
        world.submit("late")
    environment.serve()
    still_there = not environment.is_retired
    environment.answer()
    thread.join(5)

    assert still_there
    assert isinstance(running.outcome, Outcome)
    assert isinstance(waiting.outcome, Outcome)
    assert environment.is_retired
    assert not thread.is_alive()


def test_a_stop_that_runs_out_of_time_refuses_what_has_not_started() -> None:
    world = World()
    (environment,) = world.ready(1)
    running, waiting = world.submit("running"), world.submit("waiting")

    stop(world, 0.01)

    assert environment.is_retired
    assert isinstance(waiting.outcome, ServiceException)
    assert running.outcome is None  # the environment's own shutdown answers it


def test_a_stop_does_not_wait_for_calls_that_are_throttled_meanwhile() -> None:
    world = World()
    waiter = world.submit("waits for an init that hangs")
    thread = stop_in_background(world, 20)

    world.advance(QUEUE_TIMEOUT_S)
    world.advance(TIMEOUT_S)
    thread.join(2)

    assert isinstance(waiter.outcome, TooManyRequestsException)
    assert not thread.is_alive()


def test_a_stop_with_nothing_in_hand_is_prompt() -> None:
    world = World(max_concurrency=3)
    environments = world.ready(3)

    assert stop(world, 20)

    assert all(environment.is_retired for environment in environments)


# --- the port


def test_the_real_clock_ends_a_wait() -> None:
    scheduler = Scheduler(
        max_concurrency=1,
        queue_timeout_s=0.05,
        timeout_s=TIMEOUT_S,
        make_environment=World()._make,
        metrics=Metrics("f"),
    )
    scheduler.start(eager=False)
    answers: queue.SimpleQueue[Outcome | LambdaApiError] = queue.SimpleQueue()

    scheduler.submit(Call(make_invocation(), answers.put))

    assert isinstance(answers.get(timeout=QUEUE_TIMEOUT_S), TooManyRequestsException)


# --- counts and races


def test_what_runs_and_what_became_of_calls_is_counted() -> None:
    world = World()
    (environment,) = world.ready(1)
    world.submit("a")
    world.submit("b")
    world.advance(QUEUE_TIMEOUT_S)
    while_it_ran = world.scheduler.running
    environment.answer()

    assert (while_it_ran, world.scheduler.running) == (1, 0)
    assert (world.count("success"), world.count("throttled")) == (2, 1)


@pytest.mark.usefixtures("switching")
def test_every_call_of_many_threads_is_answered_once() -> None:
    """Runtimes in threads of their own answer, or vanish undelivered now and then."""
    world = World(max_concurrency=4)
    waiters: list[Waiter] = []
    is_over = threading.Event()

    def be_the_runtimes(number: int) -> None:
        served = 0
        while not is_over.is_set():
            for environment in list(world.environments):
                if environment.index != number or not environment.is_started:
                    continue
                if environment._state == "init":
                    environment.init_done()
                elif environment._state == "busy" and environment.taken:
                    if environment.taken[-1:] != environment.running_locked():
                        continue  # assigned, not yet delivered
                    served += 1
                    if served % 7 == 0:
                        environment.undelivered()
                    else:
                        environment.serve()

    def be_a_caller(number: int) -> None:
        for count in range(50):
            waiters.append(world.submit(f"{number}.{count}"))

    runtimes = [threading.Thread(target=be_the_runtimes, args=(n,)) for n in range(4)]
    callers = [threading.Thread(target=be_a_caller, args=(n,)) for n in range(6)]
    for thread in (*runtimes, *callers):
        thread.start()
    for thread in callers:
        thread.join()
    wait_until(lambda: all(waiter.outcomes for waiter in waiters), "every outcome")
    is_over.set()
    for thread in runtimes:
        thread.join()

    assert len(waiters) == 300
    assert all(cast(Outcome, waiter.outcome).payload == waiter.name.encode() for waiter in waiters)
    assert world.scheduler.running == 0
