"""The thread ``env-N``: starts an environment's processes, waits for its end, and ends them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from lambda_protocol.address import Address
from rapid.environment.context import EnvironmentContext
from rapid.environment.core import Core
from rapid.environment.launch import LaunchError
from rapid.environment.outcomes import Outcomes
from rapid.environment.phases import Phase
from rapid.environment.process_life import EnvironmentProcesses
from rapid.environment.requests import EnvironmentRequests
from rapid.environment.state import EnvironmentState

#: A wait for the end of the environment that ends without it goes on, seconds.
_LONGEST_WAIT_S: Final = 3600.0


class EnvironmentThread:
    """The thread and its work, which it alone does but for what says otherwise.

    It exists from the start of the environment to its end: so an end needs no new thread.
    """

    def __init__(
        self,
        core: Core,
        context: EnvironmentContext,
        state: EnvironmentState,
        *,
        processes: EnvironmentProcesses,
        outcomes: Outcomes,
        requests: EnvironmentRequests,
        listen: Callable[[EnvironmentRequests], Address],
    ) -> None:
        """Start nothing; ``listen`` opens the Runtime API and returns its address."""
        self._core = core
        self._context = context
        self._state = state
        self._processes = processes
        self._outcomes = outcomes
        self._requests = requests
        self._listen = listen
        self._is_ending = threading.Event()
        self._end_reason = ("", 0.0)  # the reason for extensions, and the runtime's time, seconds
        self.is_missing = False  #: whether the clock has to do :meth:`end_processes`

    def start(self) -> None:
        """Start the thread. Without one the environment ends. Any thread; never raises."""
        name = f"env-{self._context.index}"
        thread = threading.Thread(target=self._run, name=name, daemon=True)
        try:
            thread.start()
        except (RuntimeError, MemoryError) as error:
            self._core.fail_unexpectedly(error)
            with self._context.lock:
                self.is_missing = True
                self._context.owner.note_deadline_locked(0.0)

    def end(self, reason: str, linger_s: float) -> None:
        """Begin the end. Any thread.

        ``reason`` is the ``shutdownReason`` for extensions. ``linger_s`` is how long the runtime
        may go on.
        """
        self._end_reason = (reason, linger_s)
        self._is_ending.set()

    def end_processes(self) -> None:
        """End every process, extensions last, and say when nothing is left."""
        reason, linger_s = self._end_reason
        try:
            with self._outcomes.errors_logged():
                self._processes.shut_down(
                    self._state.extensions,
                    self._context.lock,
                    self._outcomes.telemetry,
                    reason=reason,
                    linger_s=linger_s,
                )
            with self._outcomes.errors_logged():
                self._processes.end(self._outcomes.telemetry)
        finally:
            with self._context.lock:
                self._core.on_gone_locked()
        self._context.owner.dispatch()

    # --- inside

    def _run(self) -> None:
        with self._core.ends_on_error():
            self._start_processes()
        while not self._is_ending.wait(_LONGEST_WAIT_S):
            pass
        self.end_processes()

    def _start_processes(self) -> None:
        address = self._listen(self._requests)
        self._requests.runtime_api_port = address.port
        self._outcomes.open(self._processes.open(address))
        try:
            self._processes.start_extensions(self._on_extension_start, self._core.on_extension_exit)
            if self._wait_for_registrations():
                self._processes.start_runtime(self._core.on_runtime_exit)
        except LaunchError as error:
            self._core.fail(error.failure, "FAILURE")
        finally:
            self._processes.close_writers()

    def _wait_for_registrations(self) -> bool:
        """Wait until every extension has registered; False when that came to nothing."""
        state = self._state
        with self._context.lock:
            state.registered.wait_for(
                lambda: state.extensions.all_registered or state.phase is not Phase.INIT,
                max(0.0, state.init_deadline - self._context.clock()),
            )  # when the init deadline comes first, it is the clock's business
            return state.extensions.all_registered and state.phase is Phase.INIT

    def _on_extension_start(self, name: str) -> None:
        with self._context.lock:
            self._state.extensions.add_external(name)
