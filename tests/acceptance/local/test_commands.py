from __future__ import annotations

import sys

import pytest

from devtools.commands import CommandError, run


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


def test_a_command_reads_what_it_is_given() -> None:
    code = "import sys; sys.exit(sys.stdin.read() != 'a secret')"

    run([sys.executable, "-c", code], 10, stdin="a secret")


def test_a_command_that_reads_nothing_is_no_failure() -> None:
    run(["true"], 10, stdin="never read" * 1_000)


def test_a_failure_does_not_show_what_was_read() -> None:
    with pytest.raises(CommandError) as raised:
        run([sys.executable, "-c", "raise SystemExit(1)"], 10, stdin="a secret")

    assert "a secret" not in str(raised.value)
