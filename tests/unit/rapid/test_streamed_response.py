"""A response that is passed on while it comes: what goes to the sink, and the rate."""

from __future__ import annotations

import time

import pytest

from rapid.call import Call, Failure
from rapid.environment import streamed_response
from rapid.environment.phases import PostedId
from rapid.environment.streamed_response import StreamedResponse
from tests.support import make_invocation

MIB = 1_048_576


class Sink:
    """Keeps what it is given."""

    patience_s: float | None = None

    def __init__(self) -> None:
        self.parts: list[bytes] = []

    def begin(self, content_type: str) -> None:
        """Do nothing."""

    def write(self, data: bytes) -> None:
        """Keep a part."""
        self.parts.append(data)

    def flush(self) -> None:
        """Do nothing."""


class Clock:
    """Time that passes only by sleeping, or when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept = 0.0

    def monotonic(self) -> float:
        """Return the time."""
        return self.now

    def sleep(self, duration_s: float) -> None:
        """Let time pass."""
        self.now += duration_s
        self.slept += duration_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(streamed_response, "time", clock)
    return clock


@pytest.fixture
def ends() -> list[tuple[Failure | None, bytes]]:
    return []


@pytest.fixture
def sink() -> Sink:
    return Sink()


def respond(
    sink: Sink,
    ends: list[tuple[Failure | None, bytes]],
    *,
    rate: float = 0,
    is_over: bool = False,
) -> StreamedResponse:
    call = Call(make_invocation(), lambda outcome: None, sink=sink)
    return StreamedResponse(
        call,
        PostedId("id", None),
        sink,
        rate=rate,
        is_over=lambda: is_over,
        end=lambda _response, failure, rest: ends.append((failure, rest)),
    )


def test_what_has_come_is_one_part(sink: Sink, ends: list[tuple[Failure | None, bytes]]) -> None:
    response = respond(sink, ends)
    response.take(b"a")
    response.take(b"b")
    response.on_wait()
    response.on_wait()
    response.take(b"c")

    response.end(None)

    assert (sink.parts, ends) == ([b"ab"], [(None, b"c")])
    assert response.call.streamed_bytes == 3
    assert response.call.first_byte_at <= time.monotonic()


def test_what_has_come_before_a_failure_is_written(
    sink: Sink, ends: list[tuple[Failure | None, bytes]]
) -> None:
    response, failure = respond(sink, ends), Failure("Function.Broke")
    response.take(b"a")

    response.end(failure)

    assert (sink.parts, ends) == ([b"a"], [(failure, b"")])


def test_the_rate_counts_from_the_first_6_mib_on(
    sink: Sink, ends: list[tuple[Failure | None, bytes]], clock: Clock
) -> None:
    response = respond(sink, ends, rate=2 * MIB)
    for _ in range(6):
        response.take(bytes(MIB))
        response.on_wait()
    assert clock.slept == 0

    for _ in range(4):
        response.take(bytes(MIB))
        response.on_wait()

    assert clock.slept == pytest.approx(2.0)


def test_a_pause_of_the_function_saves_nothing_up(
    sink: Sink, ends: list[tuple[Failure | None, bytes]], clock: Clock
) -> None:
    response = respond(sink, ends, rate=2 * MIB)
    response.take(bytes(6 * MIB))
    response.on_wait()
    clock.now += 100

    response.take(bytes(4 * MIB))
    response.on_wait()

    assert clock.slept == pytest.approx(2.0)


def test_the_wait_for_the_rate_ends_with_the_call(
    sink: Sink, ends: list[tuple[Failure | None, bytes]], clock: Clock
) -> None:
    response = respond(sink, ends, rate=1, is_over=True)
    response.take(bytes(7 * MIB))

    response.on_wait()

    assert clock.slept == 0
