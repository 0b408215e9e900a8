from __future__ import annotations

import sys
import threading

import pytest

from lambda_protocol.places import Places


def test_there_are_so_many_places_and_no_more() -> None:
    places = Places(2)

    assert [places.take() for _ in range(3)] == [True, True, False]

    places.give_back()
    assert places.take()


def test_a_place_that_was_not_taken_is_not_given_back() -> None:
    with pytest.raises(AssertionError):
        Places(1).give_back()


def test_no_place_is_lost_or_made_between_threads() -> None:
    places = Places(3)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def take_and_give_back() -> None:
        for _ in range(2000):
            if places.take():
                assert places.taken <= 3
                places.give_back()

    try:
        threads = [threading.Thread(target=take_and_give_back) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)

    assert places.taken == 0
