"""Deadlines: they are over in time, and a wait notices that they were brought nearer."""

from __future__ import annotations

import threading

from rapid.deadline import Deadline, StopDeadlines
from tests.support import LIMIT_S

LONG_S = 3600.0


def test_a_wait_ends_with_its_step() -> None:
    steps = iter((False, False, True))

    assert Deadline(LONG_S).wait(lambda _limit_s: next(steps))


def test_a_wait_tries_at_least_once() -> None:
    assert Deadline(0.0).wait(lambda _limit_s: True)


def test_a_wait_ends_with_its_deadline_or_its_own_limit() -> None:
    never = threading.Event()

    assert not Deadline(0.0).wait(never.wait)
    assert not Deadline(LONG_S).wait(never.wait, at_most_s=0.0)


def test_a_wait_notices_that_its_deadline_was_brought_nearer() -> None:
    deadlines = StopDeadlines(LONG_S, end_s=LONG_S, hurried_end_s=0.0)
    never, results = threading.Event(), []
    threads = [
        threading.Thread(target=lambda deadline=deadline: results.append(deadline.wait(never.wait)))
        for deadline in (deadlines.drain, deadlines.end)
    ]
    for thread in threads:
        thread.start()

    deadlines.shorten()

    for thread in threads:
        thread.join(LIMIT_S)
    assert results == [False, False]


def test_the_end_comes_soon_after_nothing_is_in_hand() -> None:
    deadlines = StopDeadlines(LONG_S, end_s=8.0, hurried_end_s=3.0)

    deadlines.end_drain()

    assert deadlines.drain.left_s <= 0
    assert deadlines.end.left_s <= 8.0


def test_a_deadline_never_gets_later() -> None:
    deadline = Deadline(1.0)

    deadline.shorten(LONG_S)

    assert deadline.left_s <= 1.0
