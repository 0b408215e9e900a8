"""One warning for each failure that rapid finds: what ended the invocation, and after how long.

An exception of a handler is no such failure: the function's own log has it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from rapid.call import Call, Failure

logger = logging.getLogger(__name__)


def log_failed_calls(
    calls: Iterable[Call],
    failure: Failure,
    *,
    function: str,
    now: float,
    peak_memory_bytes: int,
    is_init: bool = False,
) -> None:
    """Warn of each of ``calls``; ``now`` is monotonic seconds.

    ``is_init`` tells that they never began, because the environment's init failed.
    """
    cause = failure.cause or failure.message or failure.error_type
    facts = {
        "cause": f"init failure: {cause}" if is_init else cause,
        **memory_facts(failure, peak_memory_bytes),
    }
    for call in calls:
        after_ms = round((now - call.started_at) * 1000, 1)
        logger.warning(
            "invocation failed",
            extra={
                "function": function,
                "request_id": call.invocation.request_id,
                "after_ms": after_ms,
                **facts,
            },
        )


def log_failed_environment(failure: Failure, *, function: str, peak_memory_bytes: int) -> None:
    """Warn of an environment that failed while it ran no invocation."""
    logger.warning(
        "execution environment failed",
        extra={
            "function": function,
            "cause": failure.cause or failure.message or failure.error_type,
            **memory_facts(failure, peak_memory_bytes),
        },
    )


def memory_facts(failure: Failure, peak_memory_bytes: int) -> dict[str, int]:
    """Return what the log says of memory: the limit that was reached, and the peak, if known."""
    facts = {}
    if failure.memory_limit_bytes is not None:
        facts["memory_limit_mb"] = failure.memory_limit_bytes >> 20
    if peak_memory_bytes:
        facts["peak_memory_mb"] = -(-peak_memory_bytes // (1 << 20))
    return facts
