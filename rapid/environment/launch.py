"""Starting the processes of one environment: with which variables, and why one could not be."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from lambda_protocol.errors import ErrorType
from rapid.call import Failure
from rapid.environment.diagnosis import launch_failure
from rapid.environment.extensions import MAX_EXTENSIONS
from rapid.environment.sandbox import RUNTIME, Sandbox
from rapid.environment.sandbox_hosts import add_sandbox_names
from rapid.processes import ExitStatus
from rapid.settings.environment import EnvironmentSettings

logger = logging.getLogger(__name__)

OnExit = Callable[[ExitStatus], None]


class LaunchError(Exception):
    """A process cannot be started; the environment fails with ``failure``."""

    def __init__(self, failure: Failure) -> None:
        """Keep what the invoker is told."""
        super().__init__(failure.message)
        self.failure = failure


class Launch:
    """One environment's start. One thread: the environment's."""

    def __init__(
        self,
        settings: EnvironmentSettings,
        sandbox: Sandbox,
        *,
        index: int,
        runtime_api: str,
        metadata_token: str,
    ) -> None:
        """Start processes in ``sandbox``, of environment number ``index``."""
        self._settings = settings
        self._sandbox = sandbox
        self._index = index
        self._runtime_api = runtime_api
        self._metadata = {
            "AWS_LAMBDA_METADATA_API": runtime_api,
            "AWS_LAMBDA_METADATA_TOKEN": metadata_token,
        }

    def prepare_extensions(self, paths: list[Path]) -> dict[str, str]:
        """Return the variables of external extensions, whose names are known from now on.

        Raises ``LaunchError`` when there are too many.
        """
        if len(paths) > MAX_EXTENSIONS:
            message = f"{len(paths)} extensions; the limit is {MAX_EXTENSIONS}"
            raise LaunchError(Failure(ErrorType.TOO_MANY_EXTENSIONS, message))
        environ = self._settings.extension_environ(self._index, self._runtime_api) | self._metadata
        if paths and not add_sandbox_names():
            environ["AWS_SAM_LOCAL"] = "true"  # makes AWS's samples listen on every address
        return environ

    def start_extension(self, path: Path, environ: dict[str, str], on_exit: OnExit) -> None:
        """Start an external extension; raises ``LaunchError``."""
        try:
            self._sandbox.start(path.name, (str(path),), environ=environ, cwd=None, on_exit=on_exit)
        except OSError as error:
            kind = ErrorType.EXTENSION_LAUNCH_ERROR
            raise LaunchError(launch_failure(kind, str(path), None, error)) from error

    def start_runtime(self, on_exit: OnExit) -> None:
        """Start the runtime, with the log descriptor if there is one; raises ``LaunchError``."""
        command = self._settings.command
        if not command.argv:
            searched = " ".join(command.searched)
            message = f"Couldn't find valid bootstrap(s): [{searched}]"
            raise LaunchError(Failure(ErrorType.INVALID_ENTRYPOINT, message))
        logger.info(
            "exec '%s' (cwd=%s, handler=%s)",
            command.argv[0],
            command.cwd,
            self._settings.handler,
            extra={"env": self._index},
        )
        environ = self._settings.runtime_environ(self._index, self._runtime_api) | self._metadata
        descriptor = self._sandbox.capture.log_descriptor
        if descriptor is not None:
            environ["_LAMBDA_TELEMETRY_LOG_FD"] = str(descriptor)
        try:
            self._sandbox.start(
                RUNTIME, command.argv, environ=environ, cwd=command.cwd, on_exit=on_exit
            )
        except OSError as error:
            kind = ErrorType.INVALID_ENTRYPOINT
            failure = launch_failure(kind, command.argv[0], command.cwd, error)
            raise LaunchError(failure) from error
