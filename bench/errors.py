"""What ends a benchmark; each message is one for the person at the terminal."""

from __future__ import annotations


class BenchError(Exception):
    """The benchmark cannot go on."""


class ToolMissing(BenchError):
    """Something the benchmark needs is not here; the message says what, and why."""


class ProgramFailed(BenchError):
    """A program did not get ready; the message holds the end of its output."""


class LoadFailed(BenchError):
    """A load got no answer at all."""


class CallFailed(BenchError):
    """An invocation was not answered with HTTP 200."""
