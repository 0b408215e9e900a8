from __future__ import annotations

from tests.acceptance.conformance.items import ITEMS


def test_the_items_are_1_to_127_in_order_and_each_claim_is_a_sentence_and_a_cell() -> None:
    assert [item.number for item in ITEMS] == list(range(1, 128))
    for item in ITEMS:
        assert item.claim.endswith(".")
        assert "|" not in item.claim
