"""Handlers for awslambdaric: ``rapid python -m awslambdaric handlers.echo``."""

from __future__ import annotations

import logging
import os
from typing import Any

_calls = 0


def echo(event: Any, context: Any) -> Any:
    """Return the event."""
    return event


def fail(event: Any, context: Any) -> Any:
    """Raise what AWS's runtime turns into an error payload."""
    raise ValueError("on purpose")


def fail_at_length(event: Any, context: Any) -> Any:
    """Raise an error whose message has ``n`` letters."""
    raise ValueError("x" * event["n"])


def ctx(event: Any, context: Any) -> Any:
    """Return what the context and the environment tell the handler."""
    client = context.client_context
    return {
        "request_id": context.aws_request_id,
        "arn": context.invoked_function_arn,
        "name": context.function_name,
        "version": context.function_version,
        "memory_mb": context.memory_limit_in_mb,
        "remaining_ms": context.get_remaining_time_in_millis(),
        "client_context": None if client is None else client.custom,
        "trace_id": os.environ.get("_X_AMZN_TRACE_ID"),
        "log_stream": context.log_stream_name,
        "event": event,
    }


def log(event: Any, context: Any) -> Any:
    """Print and log a line each."""
    print("printed")
    logging.getLogger().warning("logged")
    return event


def log_lines(event: Any, context: Any) -> Any:
    """Print a line, and log a message that may have several."""
    print("printed", flush=True)
    logging.getLogger().warning(event["message"])
    return event


def count(event: Any, context: Any) -> int:
    """Return how many events this process has had."""
    global _calls
    _calls += 1
    return _calls


def leave(event: Any, context: Any) -> Any:
    """Exit without an answer."""
    os._exit(event.get("code", 1))


def size(event: Any, context: Any) -> Any:
    """Return a string whose JSON has ``n`` bytes."""
    return "x" * (event["n"] - 2)
