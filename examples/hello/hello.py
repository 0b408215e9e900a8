"""A function that logs a line, answers, and fails when it is not told whom to greet."""

from __future__ import annotations

from typing import Any


def handler(event: dict[str, Any], context: object) -> dict[str, str]:
    """Return a greeting for ``event["name"]``; without one the runtime reports a KeyError."""
    name = event["name"]
    print(f"greeting {name}")
    return {"greeting": f"Hello, {name}"}
