from __future__ import annotations

import pytest

from rapid.broker import slots as amqp_load
from rapid.broker.slots import HAND_BACK_AFTER_S, Slots


class Clock:
    """The time of the load."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(amqp_load, "time", clock)
    return clock


def test_an_idle_instance_asks_for_as_many_as_it_has_slots(clock: Clock) -> None:
    load = Slots(3)

    assert (load.call_prefetch(), load.async_prefetch()) == (3, 3)


def test_an_event_takes_a_slot_from_calls_only_when_it_is_not_short(clock: Clock) -> None:
    load = Slots(3)
    load.on_async_taken(1)
    assert load.call_prefetch() == 3
    assert load.poll_limit_s == HAND_BACK_AFTER_S

    clock.now += 2 * HAND_BACK_AFTER_S

    assert load.call_prefetch() == 2
    assert load.poll_limit_s > 60


def test_an_event_of_a_slow_function_takes_its_slot_at_once(clock: Clock) -> None:
    load = Slots(1)
    load.on_taken()
    load.on_done(1, duration_s=10.0)

    load.on_async_taken(1)

    assert load.call_prefetch() == 0


def test_a_slot_is_offered_again_and_that_is_told(clock: Clock) -> None:
    load = Slots(1)
    load.on_async_taken(1)
    assert load.on_async_done(1, duration_s=None) is False
    load.on_async_taken(2)
    clock.now += 2 * HAND_BACK_AFTER_S

    assert load.on_async_done(2) is True
    assert load.call_prefetch() == 1


def test_an_event_is_counted_out_once(clock: Clock) -> None:
    load = Slots(1)
    load.on_taken()
    load.on_async_taken(1)
    assert load.is_over

    load.on_async_done(1)
    load.on_async_done(1)

    load.on_taken()
    assert load.is_over


def test_no_event_is_asked_for_until_a_slot_is_free(clock: Clock) -> None:
    load = Slots(1)
    load.on_taken()
    load.on_handed_back(asynchronous=True)
    assert load.async_prefetch() == 0
    assert load.is_closed_to_asynchronous

    load.on_done()

    assert load.async_prefetch() == 1


def test_a_fast_function_is_read_ahead_for_and_a_slow_one_is_not(clock: Clock) -> None:
    load = Slots(2)
    load.on_taken()
    assert load.on_done(1, duration_s=0.0001) is True
    assert (load.call_prefetch(), load.async_prefetch()) == (34, 34)

    clock.now += 1
    load.on_taken()
    assert load.on_done(1, duration_s=1.0) is True

    assert load.call_prefetch() == 2
