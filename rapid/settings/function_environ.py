"""The environment of the function and its extensions, made from rapid's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from lambda_protocol.function_name import FunctionRef

#: Kept from the function: what describes rapid's own process, and what Lambda sets for each one.
_HIDDEN: Final = frozenset(
    {
        *("PWD", "OLDPWD", "TERM", "SHLVL", "_"),
        *("_X_AMZN_TRACE_ID", "_LAMBDA_TELEMETRY_LOG_FD"),
    }
)
#: Kept from extensions, besides every name that starts with an underscore.
#: Source: aws-lambda-rie, env.
_HIDDEN_FROM_EXTENSIONS: Final = frozenset(
    {
        "AWS_EXECUTION_ENV",
        "AWS_LAMBDA_LOG_GROUP_NAME",
        "AWS_LAMBDA_LOG_STREAM_NAME",
        "AWS_XRAY_CONTEXT_MISSING",
        "AWS_XRAY_DAEMON_ADDRESS",
        "LAMBDA_RUNTIME_DIR",
        "LAMBDA_TASK_ROOT",
    }
)


def function_environ(
    variables: Mapping[str, str],
    handler: str,
    function: FunctionRef,
    version: str,
    memory_mb: int,
    region: str,
    log_stream: str,
    *,
    task_root: str,
    dummy_credentials: bool,
    logs_json: bool,
) -> dict[str, str]:
    """Return ``variables`` but for the hidden, with what Lambda reserves, and presets if absent.

    ``variables`` are those that rapid leaves to the function.
    """
    presets = {
        "PATH": "/var/lang/bin:/usr/local/bin:/usr/bin/:/bin:/opt/bin",
        "TZ": ":UTC",
        "AWS_XRAY_CONTEXT_MISSING": "LOG_ERROR",
        "LAMBDA_TASK_ROOT": task_root,
        "LAMBDA_RUNTIME_DIR": "/var/runtime",
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
    }
    if dummy_credentials:
        presets |= {"AWS_ACCESS_KEY_ID": "dummy", "AWS_SECRET_ACCESS_KEY": "dummy"}
    if logs_json:
        presets["AWS_LAMBDA_LOG_LEVEL"] = "INFO"
    passed = {name: value for name, value in variables.items() if name not in _HIDDEN}
    reserved = {
        "AWS_REGION": region,
        "AWS_DEFAULT_REGION": region,
        "AWS_LAMBDA_FUNCTION_NAME": function.name,
        "AWS_LAMBDA_FUNCTION_VERSION": version,
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(memory_mb),
        "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{function.name}",
        "AWS_LAMBDA_LOG_STREAM_NAME": log_stream,
    }
    if handler:
        reserved["_HANDLER"] = handler
    return presets | passed | reserved


def extension_environ(runtime_environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of an extension: the runtime's, less what is not for it."""
    return {
        name: value
        for name, value in runtime_environ.items()
        if name not in _HIDDEN_FROM_EXTENSIONS and not name.startswith("_")
    }
