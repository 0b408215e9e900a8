from __future__ import annotations

import io
import time

import pytest

from devtools import progress
from devtools.progress import Step, wait_until


class Terminal(io.StringIO):
    """Text that says it is a terminal."""

    def isatty(self) -> bool:
        return True


class Clock:
    """Stands in for the module's ``time``; sleeping is what moves it."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def test_wait_until_ends_with_the_condition(clock: Clock) -> None:
    assert wait_until(lambda: clock.now > 103, 10)

    assert clock.now == pytest.approx(103, abs=0.1)


def test_wait_until_gives_up_at_its_limit_and_told_the_seconds(clock: Clock) -> None:
    told: list[float] = []

    assert not wait_until(lambda: False, 10, told.append)

    assert clock.now == pytest.approx(110, abs=0.1)
    assert told[0] == 0
    assert told[-1] == pytest.approx(10, abs=0.1)


def test_a_short_step_is_one_line() -> None:
    out = io.StringIO()

    with Step("Broker", out) as step:
        step.tick()
        step.result("found")

    assert out.getvalue() == "  Broker: found\n"


def test_a_long_step_shows_a_line_now_and_then_where_there_is_no_terminal(clock: Clock) -> None:
    out = io.StringIO()

    with Step("pip", out) as step:
        wait_until(lambda: clock.now > 125, 60, step.tick)

    shown = out.getvalue().splitlines()
    assert shown == ["  pip ... 2 s", "  pip ... 12 s", "  pip ... 22 s", "  pip: done (25.0 s)"]


def test_a_long_step_counts_the_seconds_in_place_on_a_terminal(clock: Clock) -> None:
    out = Terminal()

    with Step("pip", out) as step:
        wait_until(lambda: clock.now > 104.5, 60, step.tick)

    assert out.getvalue() == (
        "  pip ...\r  pip ... 2 s\r  pip ... 3 s\r  pip ... 4 s\r\033[K  pip: done (4.5 s)\n"
    )


def test_a_step_that_raises_says_that_it_failed() -> None:
    out = io.StringIO()

    with pytest.raises(ZeroDivisionError), Step("RabbitMQ starts", out):
        _ = 1 / 0

    assert out.getvalue() == "  RabbitMQ starts: failed\n"


def test_wait_until_really_waits() -> None:
    deadline = time.monotonic() + 0.12

    assert wait_until(lambda: time.monotonic() >= deadline, 5)
