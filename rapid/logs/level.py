"""Which of the function's records a JSON log keeps: those of its application log level and above.

Source: Lambda developer guide, "Log-level filtering".
"""

from __future__ import annotations

import json

from rapid.logs.lines import LEVELS, LogMessage

#: Names that loggers have for AWS's levels.
_SYNONYMS = {"WARNING": "WARN", "CRITICAL": "FATAL"}


def is_kept(message: LogMessage, least: str | None) -> bool:
    """Whether a log keeps a record; one without a level counts as INFO.

    ``least`` is the lowest level that a JSON log keeps. It is None for a text log, which keeps all.
    """
    if least is None:
        return True
    level = message.level or level_in(message.text) or "INFO"
    return LEVELS.index(level) >= LEVELS.index(least)


def level_in(line: bytes) -> str | None:
    """Return the level that a JSON object states; None for anything else."""
    if not line.startswith(b"{"):
        return None
    try:
        members = json.loads(line)
    except (ValueError, RecursionError):
        return None
    name = members.get("level") if isinstance(members, dict) else None
    level = name.upper() if isinstance(name, str) else ""
    level = _SYNONYMS.get(level, level)
    return level if level in LEVELS else None
