"""The error of a request that an environment refuses to one of its processes."""

from __future__ import annotations


class ApiError(Exception):
    """A refusal, as the Runtime, Extensions and Telemetry APIs answer it."""

    def __init__(self, status: int, error_type: str, message: str) -> None:
        """All three are AWS's."""
        super().__init__(message)
        self.status = status
        self.error_type = error_type
