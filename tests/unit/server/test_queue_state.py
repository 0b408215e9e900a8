"""One thread asks for a queue's state, whoever wants to know it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from lambda_server.queue_state import FRESH_S, UNKNOWN, QueueState, QueueStates
from tests.support import LIMIT_S, wait_until

STATE = QueueState(consumers=3)


class Broker:
    """Counts how often it is asked, and answers when it is let."""

    def __init__(self) -> None:
        self.asked = 0
        self.gate = threading.Event()
        self.gate.set()

    def ask(self) -> QueueState:
        self.asked += 1
        assert self.gate.wait(LIMIT_S)
        return STATE


def test_a_state_is_asked_for_once_a_second_and_queue() -> None:
    now = 1000.0
    states, broker = QueueStates(clock=lambda: now), Broker()

    known = [states.fresh("a", broker.ask) for _ in range(5)]
    states.fresh("b", broker.ask)
    assert (known, broker.asked) == ([STATE] * 5, 2)
    now += FRESH_S
    states.fresh("a", broker.ask)

    assert broker.asked == 3


def test_threads_that_want_to_know_at_once_wait_for_one_answer() -> None:
    states, broker = QueueStates(), Broker()
    broker.gate.clear()
    with ThreadPoolExecutor(10) as pool:
        asking = pool.submit(states.fresh, "a", broker.ask)
        wait_until(lambda: broker.asked, "the question")
        others = [pool.submit(states.fresh, "a", broker.ask, wait_s=LIMIT_S) for _ in range(9)]
        hasty = states.fresh("a", broker.ask, wait_s=0.0)
        broker.gate.set()

        assert [future.result() for future in (asking, *others)] == [STATE] * 10
    assert hasty == UNKNOWN
    assert broker.asked == 1


def test_a_question_that_failed_is_asked_again() -> None:
    states, broker = QueueStates(), Broker()

    def fail() -> QueueState:
        raise OSError("lost")

    with pytest.raises(OSError, match="lost"):
        states.fresh("a", fail)

    assert states.fresh("a", broker.ask) == STATE


def test_names_that_callers_make_up_do_not_pile_up() -> None:
    states, broker = QueueStates(), Broker()

    for number in range(3000):
        states.fresh(str(number), broker.ask)

    assert len(states._known) <= 1024
