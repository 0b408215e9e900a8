"""The shutdown phase: the runtime first, then the extensions, each with its share of time.

Source: Lambda developer guide, "Shutdown phase" and "Using the Lambda Extensions API".
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable
from typing import Final

from rapid.environment.extensions import Extensions, answer_event, shutdown_event
from rapid.environment.sandbox import RUNTIME, Sandbox

logger = logging.getLogger(__name__)

#: With an extension in a process of its own: for all of it, and the runtime's share, seconds.
EXTERNAL_BUDGET_S: Final = 2.0
RUNTIME_SHARE_S: Final = 0.3
#: With extensions inside the runtime only: all of it is the runtime's, seconds.
INTERNAL_BUDGET_S: Final = 0.5
#: What telemetry may take of it before extensions are told, seconds: they exit on hearing it.
FLUSH_SHARE_S: Final = 1.0


def shut_down(
    sandbox: Sandbox,
    extensions: Extensions,
    lock: threading.Lock,
    *,
    reason: str,
    linger_s: float,
    flush: Callable[[float], None] | None = None,
) -> None:
    """End the processes of ``sandbox``; with no extension they are killed at once.

    ``reason`` is SPINDOWN, TIMEOUT or FAILURE; ``linger_s`` is how long a runtime that is about
    to exit by itself is let be. ``lock`` guards ``extensions``. ``flush`` delivers the telemetry
    that is left, within so many seconds.
    """
    if linger_s:
        sandbox.wait_for_exit(linger_s, RUNTIME)
    with lock:
        has_external = extensions.has_external
        has_any = not extensions.is_empty
    deadline = time.monotonic() + EXTERNAL_BUDGET_S
    if has_any:
        sandbox.signal(RUNTIME, signal.SIGTERM)
        sandbox.wait_for_exit(RUNTIME_SHARE_S if has_external else INTERNAL_BUDGET_S, RUNTIME)
    if flush is not None and not has_external:
        flush(INTERNAL_BUDGET_S)  # to the runtime's own process, while it lives
    sandbox.signal(RUNTIME, signal.SIGKILL)
    if has_external:
        if flush is not None:
            flush(min(FLUSH_SHARE_S, max(0.0, deadline - time.monotonic())))
        _end_extensions(sandbox, extensions, lock, reason, deadline)


def _end_extensions(
    sandbox: Sandbox, extensions: Extensions, lock: threading.Lock, reason: str, deadline: float
) -> None:
    left_s = max(0.0, deadline - time.monotonic())
    event = shutdown_event(reason, int((time.time() + left_s) * 1000))
    with lock:
        deliveries = extensions.broadcast("SHUTDOWN", event)
        hears_shutdown = {
            extension.name: "SHUTDOWN" in extension.events
            for extension in extensions
            if extension.is_external
        }
    for exchange, body in deliveries:
        answer_event(exchange, body)
    for name, hears in hears_shutdown.items():
        if not hears:
            sandbox.signal(name, signal.SIGKILL)
    if not sandbox.wait_for_exit(left_s):
        logger.warning("extensions killed", extra={"after_s": EXTERNAL_BUDGET_S, "reason": reason})
    for name in hears_shutdown:
        sandbox.signal(name, signal.SIGKILL)
