from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from rapid.telemetry import subscriber
from rapid.telemetry.hub import Telemetry
from rapid.telemetry.records import TelemetryRecord
from rapid.telemetry.schema import Schema
from rapid.telemetry.subscriber import RecordBuffer
from rapid.telemetry.subscription import Endpoint, Subscription
from tests.acceptance.conformance.listener import Listener, TcpListener
from tests.endless import EndlessPeer
from tests.support import LIMIT_S, wait_until

AT = 1_769_860_800.0


@pytest.fixture
def listener() -> Iterator[Listener]:
    with Listener() as listener:
        yield listener


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    telemetry = Telemetry(logs_json=False, on_error=lambda error: pytest.fail(str(error)))
    yield telemetry
    telemetry.stop(1.0)


def line(number: int, size: int = 10) -> TelemetryRecord:
    return TelemetryRecord("function", f"{number:0{size}}\n", AT)


def a_subscription(port: int, *, path: str | None = "/", **changes: Any) -> Subscription:
    return Subscription(
        **{
            "schema": Schema.TELEMETRY_2022_12,
            "types": ("platform", "function"),
            "endpoint": Endpoint(port=port, path=path, host="sandbox"),
            "max_items": 1000,
            "max_bytes": 262_144,
            "timeout_s": 0.025,
            **changes,
        }
    )


def numbers(records: list[Any]) -> list[int]:
    return [int(record["record"]) for record in records if record["type"] == "function"]


# --- the buffer


def test_the_oldest_give_way_and_are_counted() -> None:
    buffer = RecordBuffer(3, 1_000_000)
    for number in range(5):
        buffer.add(line(number))

    batch = buffer.take()

    assert batch[0].type == "platform.logsDropped"
    assert batch[0].body["droppedRecords"] == 2  # type: ignore[index]  # a record
    assert batch[1:] == [line(2), line(3), line(4)]
    assert buffer.take() == []


def test_a_buffer_holds_twice_its_bytes_and_at_least_one_event() -> None:
    buffer = RecordBuffer(10_000, 1000)
    for number in range(100):
        buffer.add(line(number, 100))
    held = buffer.take()[1:]
    buffer.add(line(0, 10_000))

    assert sum(event.weight for event in held) <= 2000
    assert buffer.take() == [line(0, 10_000)]


@pytest.mark.parametrize(("items", "size"), [(2, 1_000_000), (1000, 100)])
def test_a_buffer_is_full_by_items_or_bytes(items: int, size: int) -> None:
    buffer = RecordBuffer(items, size)
    buffer.add(line(1))
    was_full = buffer.is_full
    buffer.add(line(2))

    assert (was_full, buffer.is_full) == (False, True)


# --- delivery


def test_early_events_are_replayed_to_each_that_wants_them(
    telemetry: Telemetry, listener: Listener
) -> None:
    telemetry.publish(line(1))
    telemetry.publish(TelemetryRecord("extension", "not wanted\n", AT))

    with Listener() as second:
        for identifier, port in (("a", listener.port), ("b", second.port)):
            telemetry.subscribe(identifier, identifier, a_subscription(port))
        telemetry.publish(line(2))

        for each in (listener, second):
            assert numbers(each.wait_for("function", 2)) == [1, 2]
            assert each.of_type("extension") == []


def test_after_the_close_nobody_subscribes_and_nothing_is_kept(telemetry: Telemetry) -> None:
    telemetry.publish(line(1))

    assert not telemetry.close_subscription()
    assert not telemetry.subscribe("a", "a", a_subscription(1))
    assert telemetry.streams == frozenset()
    assert not telemetry.has_subscribers


def test_a_full_batch_goes_before_its_time(telemetry: Telemetry, listener: Listener) -> None:
    telemetry.subscribe("a", "a", a_subscription(listener.port, timeout_s=600.0))

    for number in range(1000):
        telemetry.publish(line(number))

    assert numbers(listener.wait_for("function", 1000)) == list(range(1000))


def test_a_flush_does_not_wait_for_one_that_refuses(
    telemetry: Telemetry, listener: Listener
) -> None:
    listener.status = 500
    telemetry.subscribe("a", "a", a_subscription(listener.port))
    telemetry.publish(line(1))

    telemetry.flush(3600.0)


def test_a_flush_does_not_wait_for_one_that_hangs(
    telemetry: Telemetry, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rapid.telemetry.subscriber.STUCK_AFTER_S", 0.0)
    monkeypatch.setattr("rapid.telemetry.subscriber.ATTEMPT_LIMIT_S", 3600.0)
    listener.hang()
    telemetry.subscribe("a", "a", a_subscription(listener.port))
    telemetry.publish(line(1))
    wait_until(lambda: listener.connections == 1, "the delivery that hangs")

    telemetry.flush(3600.0)

    assert listener.deliveries == []
    listener.go_on()


def test_many_publishers_lose_nothing_and_keep_their_order(
    telemetry: Telemetry, listener: Listener, switching: None
) -> None:
    telemetry.subscribe("a", "a", a_subscription(listener.port, max_items=10_000))

    def publish(first: int) -> None:
        for number in range(first, first + 250):
            telemetry.publish(line(number))

    threads = [threading.Thread(target=publish, args=(n * 1000,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    received = numbers(listener.wait_for("function", 1000))
    for first in range(0, 4000, 1000):
        own = [number for number in received if first <= number < first + 1000]
        assert own == list(range(first, first + 250))


@pytest.mark.parametrize(("kind", "path"), [(Listener, "/"), (TcpListener, None)])
def test_batch_after_batch_goes_over_one_connection(
    telemetry: Telemetry, kind: type[Listener | TcpListener], path: str | None
) -> None:
    with kind() as listener:
        telemetry.subscribe("a", "a", a_subscription(listener.port, path=path))
        for number in range(5):
            telemetry.publish(line(number))
            listener.wait_for("function", number + 1)

    assert listener.connections == 1


@pytest.mark.parametrize("kind", ["body", "announced body", "chunks"])
def test_a_subscriber_whose_answers_do_not_end_gets_batch_after_batch(
    telemetry: Telemetry, kind: str
) -> None:
    with EndlessPeer(kind) as peer:
        telemetry.subscribe("a", "a", a_subscription(peer.address.port))
        for number in range(3):
            telemetry.publish(line(number))
            wait_until(lambda: len(peer.requests) > number, "a batch")  # noqa: B023 - waited for

    for number, request in enumerate(peer.requests):
        assert request.count(b"%010d" % number) == 1


def test_a_subscriber_that_answers_a_byte_now_and_then_has_one_time_for_all(
    telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rapid.telemetry.subscriber.ATTEMPT_LIMIT_S", 0.3)
    with EndlessPeer("head", is_slow=True) as peer:
        telemetry.subscribe("a", "a", a_subscription(peer.address.port))
        telemetry.publish(line(1))

        wait_until(lambda: len(peer.requests) >= 2, "another attempt")


def test_a_connection_that_the_subscriber_closed_is_made_again(
    telemetry: Telemetry, listener: Listener
) -> None:
    port = listener.port
    telemetry.subscribe("a", "a", a_subscription(port))
    telemetry.publish(line(1))
    listener.wait_for("function")
    listener.close()

    telemetry.publish(line(2))
    with Listener(port) as again:
        assert numbers(again.wait_for("function")) == [2]


def test_a_stop_ends_every_thread(listener: Listener) -> None:
    telemetry = Telemetry(logs_json=False, on_error=lambda error: pytest.fail(str(error)))
    telemetry.subscribe("a", "mine", a_subscription(listener.port))
    telemetry.subscribe("b", "mine too", a_subscription(1))
    telemetry.publish(line(1))

    telemetry.stop(5.0)

    def threads() -> list[str]:
        return [each.name for each in threading.enumerate() if each.name.startswith("telemetry-")]

    wait_until(lambda: threads() == [], "the end of the threads")
    assert numbers(listener.records) == [1]


def test_an_unexpected_error_of_a_delivery_is_told_to_the_environment(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors: queue.SimpleQueue[Exception] = queue.SimpleQueue()
    telemetry = Telemetry(logs_json=False, on_error=errors.put)
    monkeypatch.setattr(subscriber, "render", lambda *_args, **_options: 1 // 0)
    telemetry.subscribe("a", "a", a_subscription(listener.port))

    telemetry.publish(line(1))

    assert isinstance(errors.get(timeout=LIMIT_S), ZeroDivisionError)
    telemetry.flush(LIMIT_S)  # does not wait for what will never be delivered
    telemetry.stop(LIMIT_S)
