from __future__ import annotations

import threading

import pytest

from lambda_protocol import byte_budget
from lambda_protocol.byte_budget import LEAST_BYTES, ByteBudget, Share, default_bytes


class _Cgroup:
    def __init__(self, limit_bytes: int | None) -> None:
        self.limit_bytes = limit_bytes


@pytest.mark.parametrize(
    ("limit", "budget"),
    [(None, 256 << 20), (512 << 20, 128 << 20), (16 << 20, LEAST_BYTES)],
    ids=["none", "512 MiB", "very small"],
)
def test_the_default_is_a_quarter_of_the_memory_limit(
    monkeypatch: pytest.MonkeyPatch, limit: int | None, budget: int
) -> None:
    monkeypatch.setattr(byte_budget, "find_memory_cgroup", lambda: _Cgroup(limit))

    assert default_bytes() == budget


def test_what_is_given_back_can_be_taken_again() -> None:
    budget = ByteBudget(10)
    one, other = Share(budget), Share(budget)
    assert one.take(4)
    assert one.take(4)
    assert not other.take(3)

    one.give()
    one.give()

    assert other.take(10)
    assert budget.left == 0


def test_a_share_is_given_back_once_by_whoever_comes_first(switching: None) -> None:
    budget = ByteBudget(1000)
    for _ in range(200):
        share = Share(budget)
        assert share.take(10)
        threads = [threading.Thread(target=share.give) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert budget.left == 1000
