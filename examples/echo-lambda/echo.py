"""The function: it answers with the event that it was given."""

from __future__ import annotations


def handler(event: object, context: object) -> object:
    """Return the event."""
    return event
