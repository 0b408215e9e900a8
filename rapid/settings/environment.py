"""The settings of an execution environment and of the APIs of its processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lambda_protocol.function_name import FunctionRef
from rapid.settings.command import Command
from rapid.settings.function_environ import extension_environ


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentSettings:
    """The settings of every environment of one rapid."""

    command: Command
    handler: str
    function: FunctionRef  #: unqualified
    version: str
    memory_mb: int
    timeout_s: float
    idle_timeout_s: float
    stream_rate: int  #: of a streamed response beyond 6 MB, bytes a second; 0: unlimited
    runtime_concurrency: int  #: calls one runtime takes at a time (AWS_LAMBDA_MAX_CONCURRENCY)
    is_multi_concurrency: bool  #: whether AWS_LAMBDA_MAX_CONCURRENCY was given
    prints_reports: bool
    logs_json: bool  #: the function's log format
    application_log_level: str  #: of the function's own records, in a JSON log
    is_snap_start: bool
    availability_zone_id: str  #: what the metadata endpoint answers
    extensions_dir: Path
    log_stream: str
    environ: Mapping[str, str]  #: what the function gets, but for what differs by instance

    @property
    def least_level_kept(self) -> str | None:
        """The lowest level of the function's own records that a JSON log keeps; None: all."""
        return self.application_log_level if self.logs_json else None

    @property
    def initialization_type(self) -> str:
        """The value of ``AWS_LAMBDA_INITIALIZATION_TYPE``."""
        return self.environ["AWS_LAMBDA_INITIALIZATION_TYPE"]

    @property
    def about(self) -> dict[str, str]:
        """What extensions may know of the function."""
        return {
            "functionName": self.function.name,
            "functionVersion": self.version,
            "handler": self.handler,
            "accountId": self.function.account_id,
        }

    def runtime_environ(self, instance: int, runtime_api: str) -> dict[str, str]:
        """Return the environment of the runtime of environment number ``instance``.

        ``_INSTANCE`` lets runtimes side by side stay out of each other's way. ``INSTANCE`` is the
        same, where the function has no variable of that name.
        """
        return {
            "INSTANCE": str(instance),
            **self.environ,
            "AWS_LAMBDA_RUNTIME_API": runtime_api,
            "_INSTANCE": str(instance),
        }

    def extension_environ(self, instance: int, runtime_api: str) -> dict[str, str]:
        """Return the environment of an extension of environment number ``instance``."""
        return extension_environ(self.runtime_environ(instance, runtime_api))
