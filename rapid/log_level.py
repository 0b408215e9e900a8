"""Which of the function's records a JSON log keeps: those of its application log level and above.

Source: Lambda developer guide, "Log-level filtering".
"""

from __future__ import annotations

import json

from rapid.config import Config
from rapid.log_lines import LEVELS, LogMessage

#: Names that loggers have for AWS's levels.
_SYNONYMS = {"WARNING": "WARN", "CRITICAL": "FATAL"}


def passes(message: LogMessage, config: Config) -> bool:
    """Whether a record is kept. In a text log every one is; without a level it counts as INFO."""
    if not config.logs_json:
        return True
    level = message.level or level_in(message.text) or "INFO"
    return LEVELS.index(level) >= LEVELS.index(config.application_log_level)


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
