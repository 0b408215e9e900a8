"""The behaviours of the matrix for awslambdaric, with a handler of each style that it takes."""

from __future__ import annotations

import os
import time
from typing import Any

if os.environ.get("FAIL_INIT"):
    raise RuntimeError("init on purpose")

_calls = 0


def handler(event: Any, context: Any) -> Any:
    """Do what ``event["do"]`` asks for; any other event is answered with itself."""
    global _calls
    _calls += 1
    match event.get("do") if isinstance(event, dict) else None:
        case "fail":
            fail()
        case "context":
            return describe(context)
        case "count":
            return {"n": event["n"], "count": _calls}
        case "sleep":
            time.sleep(event["seconds"])
        case "size":
            return {"bytes": len(event["data"])}
        case "big":
            return "x" * (event["bytes"] - len('""'))
    return event


class CallableHandler:
    """A handler that is an object."""

    def __call__(self, event: Any, context: Any) -> Any:
        """Do as the function does."""
        return handler(event, context)


callable_handler = CallableHandler()


def fail() -> None:
    """Raise, so that the stack has a frame of this name."""
    raise ValueError("on purpose")


def describe(context: Any) -> dict[str, Any]:
    """Return what the context tells the handler."""
    client = context.client_context
    return {
        "request_id": context.aws_request_id,
        "arn": context.invoked_function_arn,
        "name": context.function_name,
        "version": context.function_version,
        "memory_mb": int(context.memory_limit_in_mb),
        "remaining_ms": context.get_remaining_time_in_millis(),
        "trace_id": os.environ.get("_X_AMZN_TRACE_ID"),
        "client_context": None if client is None else client.custom,
    }
