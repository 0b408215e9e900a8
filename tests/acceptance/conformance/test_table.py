from __future__ import annotations

import pytest

from tests.acceptance.conformance.items import BY_NUMBER, ITEMS, Item


def test_the_items_are_1_to_127_in_order() -> None:
    assert [item.number for item in ITEMS] == list(range(1, 128))
    assert len(BY_NUMBER) == len(ITEMS)


@pytest.mark.parametrize("item", ITEMS, ids=lambda item: str(item.number))
def test_a_claim_is_one_sentence_and_a_cell(item: Item) -> None:
    assert item.claim.endswith(".")
    assert "|" not in item.claim
    assert item.later is None or item.later.strip()
