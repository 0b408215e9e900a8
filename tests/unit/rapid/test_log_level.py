from __future__ import annotations

import pytest

from rapid.logs.level import is_kept, level_in
from rapid.logs.lines import LogMessage


@pytest.mark.parametrize(
    ("line", "level"),
    [
        (b'{"level": "debug"}\n', "DEBUG"),
        (b'{"level": "WARNING"}', "WARN"),
        (b'{"level": "Critical"}', "FATAL"),
        (b'{"level": "loud"}', None),
        (b'{"level": 30}', None),
        (b'{"msg": "x"}', None),
        (b'["level"]', None),
        (b"{broken", None),
        (b"{" * 100_000, None),
        (b'{"level":"\xff"}', None),
        (b"[ERROR] text", None),
        (b"", None),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_a_level_is_what_a_json_object_states(line: bytes, level: str | None) -> None:
    assert level_in(line) == level


@pytest.mark.parametrize(
    ("message", "kept_at"),
    [
        (LogMessage(b"plain\n"), ["TRACE", "DEBUG", "INFO"]),
        (LogMessage(b'{"level":"error"}'), ["TRACE", "DEBUG", "INFO", "WARN", "ERROR"]),
        (LogMessage(b"framed", is_framed=True, level="DEBUG"), ["TRACE", "DEBUG"]),
        (LogMessage(b'{"level":"error"}', is_framed=True, level="TRACE"), ["TRACE"]),
    ],
    ids=["none", "stated", "framed", "the frame's goes first"],
)
def test_a_json_log_keeps_its_level_and_above(message: LogMessage, kept_at: list[str]) -> None:
    levels = ["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"]

    assert [level for level in levels if is_kept(message, level)] == kept_at


def test_a_text_log_keeps_everything() -> None:
    assert is_kept(LogMessage(b"trace", is_framed=True, level="TRACE"), None)
