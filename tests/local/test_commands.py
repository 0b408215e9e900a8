from __future__ import annotations

import sys

import pytest

from scripts.commands import CommandError, run


def test_a_command_that_works_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    run([sys.executable, "-c", "print('chatter')"], 10)

    assert capfd.readouterr() == ("", "")


def test_a_command_that_fails_shows_the_end_of_its_output() -> None:
    code = "print(*range(100), sep='\\n'); raise SystemExit(7)"

    with pytest.raises(CommandError, match=r"failed with status 7\n85\n") as raised:
        run([sys.executable, "-c", code], 10)

    assert str(raised.value).endswith("\n98\n99")


def test_a_command_that_takes_too_long_is_killed() -> None:
    with pytest.raises(CommandError, match="sleep 600: took too long"):
        run(["sleep", "600"], 0.2)
