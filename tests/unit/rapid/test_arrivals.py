"""How long a call was on its way, told by the differences of clocks that are never compared."""

from __future__ import annotations

import time

import pytest

from lambda_protocol.invoke_amqp import IncomingCall
from rapid.broker.arrivals import QUIET_S, Arrivals
from tests.support import make_invocation

#: What the caller's clock is off by, seconds: any number.
SKEW_S = -123_456.0
#: What the machine that runs the tests may take between two lines, seconds.
SLACK_S = 5.0


def sent(ago_s: float, reply_to: str = "a") -> IncomingCall:
    """Return a call that its caller has sent so long ago, by its own clock."""
    return IncomingCall(
        invocation=make_invocation(),
        reply_to=reply_to,
        correlation_id="1",
        understands_frames=True,
        sent_s=time.monotonic() - ago_s + SKEW_S,
    )


def plain() -> IncomingCall:
    """Return the call of a client that does not say when it sent it."""
    return IncomingCall(
        invocation=make_invocation(),
        reply_to="a",
        correlation_id="1",
        understands_frames=False,
        sent_s=None,
    )


def waited_s(arrivals: Arrivals, call: IncomingCall, quiet_s: float = 0.0) -> float:
    """Return for how long the call may have been on its way."""
    return time.monotonic() - arrivals.sent_at(call, quiet_s)


def test_the_first_call_of_an_address_may_have_waited_for_ever() -> None:
    arrivals = Arrivals()

    assert waited_s(arrivals, sent(0), quiet_s=60) == float("inf")


@pytest.mark.parametrize("has_answered", [True, False])
def test_a_later_call_has_waited_for_as_long_as_it_took_more_than_the_fastest(
    has_answered: bool,
) -> None:
    arrivals = Arrivals()
    arrivals.learn(sent(0), time.monotonic() + SKEW_S if has_answered else None)

    assert waited_s(arrivals, sent(0)) < SLACK_S
    assert 99 < waited_s(arrivals, sent(100)) < 100 + SLACK_S
    assert waited_s(arrivals, sent(100, "b")) == float("inf")  # another address


def test_a_call_faster_than_the_fastest_is_the_new_measure() -> None:
    arrivals = Arrivals()
    late = sent(50)
    arrivals.learn(late, None)  # it has waited for 50 s, and nobody knows

    assert waited_s(arrivals, sent(0)) < SLACK_S
    assert 49 < waited_s(arrivals, late) < 50 + SLACK_S


def test_an_answer_tells_again_what_no_wait_is() -> None:
    arrivals = Arrivals()
    arrivals.learn(sent(0), time.monotonic() + SKEW_S)
    arrivals.learn(sent(0), time.monotonic() + SKEW_S - 1000)  # its machine has slept

    assert waited_s(arrivals, sent(1000)) < SLACK_S


def test_a_plain_call_came_after_the_queue_was_last_seen_empty() -> None:
    arrivals = Arrivals()

    assert waited_s(arrivals, plain()) == float("inf")
    assert waited_s(arrivals, plain(), quiet_s=QUIET_S) < SLACK_S
    assert waited_s(arrivals, plain()) < SLACK_S
