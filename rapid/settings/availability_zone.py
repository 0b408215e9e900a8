"""The Availability Zone of a function that was given only a region."""

from __future__ import annotations

from typing import Final

#: The parts of a region's name whose abbreviation is more than their first letter.
_ABBREVIATIONS: Final = {
    "northeast": "ne",
    "northwest": "nw",
    "southeast": "se",
    "southwest": "sw",
}


def first_zone_id(region: str) -> str:
    """Return the id of a region's first Availability Zone: ``use1-az1`` for ``us-east-1``.

    Source: AWS Regions and Availability Zones, "Availability Zone IDs".
    """
    area, *middle = region.split("-")
    code = "".join(_ABBREVIATIONS.get(part, part[:1]) for part in middle)
    return f"{area}{code}-az1"
