from __future__ import annotations

import tracemalloc

import pytest

from lambda_protocol.body_buffer import BodyBuffer


def fill(body: BodyBuffer, data: bytes) -> None:
    """Write ``data`` as a socket would."""
    with body.room(len(data)) as room:
        room[:] = data


@pytest.mark.parametrize("most", [0, 10, 1_000_000], ids=["none", "less", "more"])
@pytest.mark.parametrize(
    "parts",
    [
        pytest.param([], id="none"),
        pytest.param([b"abc"], id="one"),
        pytest.param([b"a" * 40_000, b"b" * 40_000, b"", b"c" * 40_000], id="some"),
        pytest.param([bytes([number]) for number in range(256)] * 300, id="bytes"),
    ],
)
def test_a_body_is_its_parts_however_they_came(parts: list[bytes], most: int) -> None:
    added, filled, mixed = BodyBuffer(most), BodyBuffer(most), BodyBuffer(most)
    for number, part in enumerate(parts):
        added.add(part)
        fill(filled, part)
        (fill if number % 2 else BodyBuffer.add)(mixed, part)

    assert [body.take() for body in (added, filled, mixed)] == [b"".join(parts)] * 3


def test_a_part_that_is_the_whole_body_is_not_copied() -> None:
    whole = b"a" * 100_000
    body = BodyBuffer(1_000_000)
    body.add(whole)

    assert body.take() is whole


def test_a_body_of_known_size_is_held_once() -> None:
    size = 1_000_000
    tracemalloc.start()

    body = BodyBuffer(size)
    with body.room(size) as room:
        room[:3] = b"abc"
    taken = body.take()

    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert taken.startswith(b"abc\0")
    assert peak < size * 1.01


def test_a_body_of_unknown_size_gets_no_room_beyond_the_most_it_may_have() -> None:
    most, part = 1_000_000, b"a" * 10_000
    tracemalloc.start()

    body = BodyBuffer(most)
    for _ in range(most // len(part)):
        fill(body, part)
    held, _ = tracemalloc.get_traced_memory()

    tracemalloc.stop()
    assert body.size == most
    assert held < most * 1.2
