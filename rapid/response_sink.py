"""Where a response goes while its function still writes it."""

from __future__ import annotations

from typing import Protocol


class ResponseSink(Protocol):
    """The way to the caller of one call. The call's outcome, which any thread gives, ends it.

    One thread calls these methods. What comes after the outcome, or for a caller that is gone, is
    dropped.
    """

    @property
    def patience_s(self) -> float | None:
        """How long what :meth:`write` has kept waits for more, seconds; None: nothing is kept."""

    def begin(self, content_type: str) -> None:
        """Note that the response begins; ``content_type`` is what the runtime says of it."""

    def write(self, data: bytes) -> None:
        """Pass on a part. Blocks while the caller is slow, but never on the first part."""

    def flush(self) -> None:
        """Send what :meth:`write` has kept."""
