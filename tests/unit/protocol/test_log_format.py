from __future__ import annotations

import io
import json
import logging
import re
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from lambda_protocol.log_format import (
    LEVEL_NAMES,
    JsonFormatter,
    PlainFormatter,
    configure_logging,
)


@pytest.fixture(autouse=True)
def _root_logger_is_put_back() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def record(message: str, *arguments: object, **extra: Any) -> logging.LogRecord:
    return logging.getLogger("test").makeRecord(
        "test", logging.INFO, "file.py", 1, message, arguments, None, extra=extra
    )


def test_a_plain_line_looks_as_aws_lambda_ries() -> None:
    entry = record("environment %s", "ready", env=0, init_ms=81.2)
    entry.created, entry.msecs = 1_795_330_800.123, 123.0

    line = PlainFormatter("rapid").format(entry)

    assert line == ("22 Nov 2026 07:00:00,123 [INFO] (rapid) environment ready env=0 init_ms=81.2")


def test_a_json_line_has_message_and_extras_as_members() -> None:
    entry = record("environment %s", "ready", env=0)
    entry.created, entry.msecs = 1_795_330_800.007, 7.0

    line = JsonFormatter("rapid").format(entry)

    assert json.loads(line) == {
        "time": "2026-11-22T07:00:00.007Z",
        "level": "INFO",
        "program": "rapid",
        "message": "environment ready",
        "env": 0,
    }


def test_a_plain_line_has_no_control_characters() -> None:
    line = PlainFormatter("rapid").format(record("a\x1b[2J", name_of="b\x9b\u061c\u202e\ud800\x7f"))

    assert line.endswith(r"a\x1b[2J name_of=b\x9b\u061c\u202e\ud800\x7f")


def test_a_json_line_is_one_line_whatever_is_in_it() -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError:
        entry = record("a\nb", extra_thing=object(), bytes_thing=b"\xff")
        entry.exc_info = sys.exc_info()

    line = JsonFormatter("rapid").format(entry)

    assert "\n" not in line
    assert "ValueError: two\nlines" in json.loads(line)["exception"]


def test_a_traceback_follows_the_plain_line() -> None:
    stream = io.StringIO()
    configure_logging("INFO", structured=False, program="rapid", stream=stream)

    try:
        raise ValueError("oops")
    except ValueError:
        logging.getLogger("x").exception("failed", extra={"env": 1})

    first, *rest = stream.getvalue().splitlines()
    assert re.search(r"\[ERROR\] \(rapid\) failed env=1$", first)
    assert rest[-1] == "ValueError: oops"


@pytest.mark.parametrize("level", LEVEL_NAMES)
def test_each_level_name_is_known_in_any_case(level: str) -> None:
    configure_logging(level.lower(), structured=False, program="x", stream=io.StringIO())

    assert logging.getLogger().level in range(10, 51, 10)


def test_a_line_under_the_level_is_dropped() -> None:
    stream = io.StringIO()
    configure_logging("WARN", structured=True, program="x", stream=stream)

    logging.getLogger("x").info("quiet")
    logging.getLogger("x").warning("loud")

    assert [json.loads(line)["message"] for line in stream.getvalue().splitlines()] == ["loud"]


def test_what_pika_logs_is_dropped() -> None:
    stream = io.StringIO()
    configure_logging("DEBUG", structured=False, program="x", stream=stream)

    logging.getLogger("pika.connection").error("a state machine moved")

    assert stream.getvalue() == ""


def test_a_second_configuration_replaces_the_first() -> None:
    first, second = io.StringIO(), io.StringIO()
    configure_logging("INFO", structured=False, program="x", stream=first)
    configure_logging("INFO", structured=False, program="x", stream=second)

    logging.getLogger("x").info("once")

    assert (first.getvalue(), second.getvalue().count("once")) == ("", 1)
