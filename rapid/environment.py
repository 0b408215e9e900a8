"""One execution environment: a runtime, its extensions and its logs, from start to gone."""

from __future__ import annotations

import dataclasses
import functools
import json
import logging
import signal
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Final, Protocol

from lambda_protocol.errors import ErrorType, LambdaApiError
from lambda_protocol.invocation import Outcome
from lambda_protocol.invoke_http import decode_client_context
from lambda_protocol.limits import LOG_TAIL_BYTES
from rapid.call import Call, Failure, timed_out
from rapid.config import Config
from rapid.extensions import (
    Extension,
    Extensions,
    ExtensionsApiError,
    ExtensionState,
    answer_event,
    discover,
    invoke_event,
    shutdown_event,
)
from rapid.http_service import Exchange
from rapid.log_capture import write_all
from rapid.processes import ExitStatus, Reaper
from rapid.report import Report, Reporter
from rapid.sandbox import Sandbox

logger = logging.getLogger(__name__)

#: Shutdown budgets, seconds. Source: Lambda developer guide, "Shutdown phase".
EXTERNAL_EXTENSIONS_BUDGET_S: Final = 2.0
INTERNAL_EXTENSIONS_BUDGET_S: Final = 0.5
RUNTIME_SHARE_S: Final = 0.3
#: A runtime that reported its own failed init may print and exit by itself for this long, seconds.
INIT_ERROR_LINGER_S: Final = 0.5
#: How long a killed process may take to be reaped before we go on without it, seconds.
KILL_LIMIT_S: Final = 5.0
#: Late answers remembered, to tell them from wrong ones.
MAX_TIMED_OUT: Final = 1024


#: The runtime's name among the processes; no file in /opt/extensions has it.
RUNTIME: Final = "\0runtime"


class Phase(StrEnum):
    """The life of an environment."""

    INIT = "init"
    IDLE = "idle"
    INVOKE = "invoke"
    SHUTDOWN = "shutdown"
    GONE = "gone"


_MOVES: Final = {
    Phase.INIT: {Phase.IDLE, Phase.SHUTDOWN},
    Phase.IDLE: {Phase.INVOKE, Phase.SHUTDOWN},
    Phase.INVOKE: {Phase.IDLE, Phase.SHUTDOWN},
    Phase.SHUTDOWN: {Phase.GONE},
    Phase.GONE: set[Phase](),
}


class RuntimeState(StrEnum):
    """Where the runtime stands in its API; the names show in error messages.

    Source: aws-lambda-rie, core/states.
    """

    STARTED = "Started"
    INIT_ERROR = "InitError"
    RESTORING = "Restoring"
    RESTORE_ERROR = "RestoreError"
    READY = "Ready"
    RUNNING = "Running"
    INVOCATION_RESPONSE = "InvocationResponse"
    INVOCATION_ERROR_RESPONSE = "InvocationErrorResponse"


class RuntimeApiError(Exception):
    """A request the Runtime API refuses."""

    def __init__(self, status: int, error_type: str, message: str) -> None:
        """All three are AWS's."""
        super().__init__(message)
        self.status = status
        self.error_type = error_type


class EnvironmentOwner(Protocol):
    """What an environment tells its scheduler; ``_locked`` ones hold the lock both share."""

    def on_available_locked(self, environment: ExecutionEnvironment) -> None:
        """The environment can take a call."""

    def on_init_done_locked(self, environment: ExecutionEnvironment, init_s: float) -> None:
        """The init phase has succeeded."""

    def on_init_failed_locked(self, failure: Failure) -> list[tuple[Call, Outcome]]:
        """The init phase has failed; return the calls that this ends."""

    def on_gone_locked(self, environment: ExecutionEnvironment) -> None:
        """Nothing is left of the environment."""

    def requeue_locked(self, call: Call) -> None:
        """The call was never delivered: it is first in line again."""

    def note_deadline_locked(self, when: float) -> None:
        """Something falls due then, monotonic seconds."""

    def finish(self, call: Call, outcome: Outcome | LambdaApiError, status: str) -> None:
        """The call is done."""

    def settle(self) -> None:
        """Something changed: hand out what waits. Called without the lock."""


class ExecutionEnvironment:
    """One sandbox. Thread-safe; its state is guarded by the lock it shares with the scheduler.

    It never waits under that lock: state changes under it, processes, sockets and callbacks
    come after.
    """

    def __init__(
        self,
        *,
        index: int,
        config: Config,
        lock: threading.Lock,
        owner: EnvironmentOwner,
        reaper: Reaper,
        listen: Callable[[ExecutionEnvironment], str],
        reporter: Reporter,
        init_limit_s: float,
        init_phase: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``listen`` opens the Runtime API for this environment and returns its ``host:port``.

        ``init_phase`` is ``init``, or ``invoke`` when a failed init is done again for a call.
        """
        self.index = index
        self._config = config
        self._lock = lock
        self._owner = owner
        self._reaper = reaper
        self._listen = listen
        self._reporter = reporter
        self._init_limit_s = init_limit_s
        self._init_phase = init_phase
        self._clock = clock
        self._registered = threading.Condition(lock)  # an extension has, or the init has failed
        # guarded by _lock, all of the following:
        self.phase = Phase.INIT
        self.runtime_state = RuntimeState.STARTED
        self.extensions = Extensions()
        self._parked: deque[Exchange] = deque()
        self._running: dict[str, Call] = {}
        self._answered_id: str | None = None
        self._timed_out: OrderedDict[str, None] = OrderedDict()
        self._created_at = clock()
        self._init_deadline = self._created_at + init_limit_s
        self._invoke_deadline: float | None = None
        self._idle_since = 0.0
        self._answered_at = 0.0
        self._init_s: float | None = None
        self._has_served = False
        # set once, before anyone can ask:
        self._sandbox: Sandbox | None = None
        self._address = ""

    def __repr__(self) -> str:
        """Show what a test wants to know."""
        return (
            f"<Environment {self.index} {self.phase} runtime={self.runtime_state} "
            f"parked={len(self._parked)} running={len(self._running)}>"
        )

    # --- for the scheduler

    def start(self) -> None:
        """Start extensions and runtime, from a thread of its own."""
        threading.Thread(target=self._start, name=f"env-{self.index}-start", daemon=True).start()

    @property
    def can_take_locked(self) -> bool:
        """Whether a call could be handed over now."""
        if not self._parked:
            return False
        if self.phase is Phase.IDLE:
            return True
        return self.phase is Phase.INVOKE and self._config.is_multi_concurrency

    def coming_slots_locked(self, now: float, patience_s: float) -> int:
        """How many calls it will take soon without anyone doing anything: init, or between two."""
        if self.phase is Phase.INIT:
            return self._config.runtime_concurrency
        if self.phase is Phase.INVOKE and not self._running:
            return 1 if now - self._answered_at < patience_s else 0
        return 0

    def assign_locked(self, call: Call, now: float) -> Exchange:
        """Take ``call``; return the parked ``next`` that :meth:`deliver` is to answer."""
        exchange = self._parked.popleft()
        self._running[call.invocation.request_id] = call
        call.started_at = now
        call.deadline = now + self._config.timeout_s
        call.deadline_ms = int((time.time() + self._config.timeout_s) * 1000)
        call.is_cold = not self._has_served
        self._has_served = True
        self.runtime_state = RuntimeState.RUNNING
        if self.phase is Phase.IDLE:
            self._move_locked(Phase.INVOKE)
        if not self._config.is_multi_concurrency:
            self._invoke_deadline = call.deadline
        self._owner.note_deadline_locked(call.deadline)
        return exchange

    def deliver(self, call: Call, exchange: Exchange) -> None:
        """Send the event to the runtime; a call that cannot be sent goes back to the queue."""
        if self._wants_lines(call):
            assert self._sandbox is not None
            call.log_mark = self._sandbox.capture.total_bytes
            if self._config.prints_reports:
                write_all(1, self._reporter.start(call.invocation.request_id))
        if len(self.extensions) and not self._config.is_multi_concurrency:
            self._tell_extensions(call)
        if not exchange.answer(200, _event_headers(call), call.invocation.payload):
            self._on_undelivered(call)

    def due_locked(self, now: float) -> Callable[[], None] | None:
        """Return what to do, without the lock, about a deadline that has passed; None if none."""
        if self.phase is Phase.INIT and now >= self._init_deadline:
            return self._on_init_timeout
        if self.phase is Phase.INVOKE:
            if self._invoke_deadline is not None and now >= self._invoke_deadline:
                return self._on_timeout
            if self._config.is_multi_concurrency and any(
                call.deadline <= now for call in self._running.values()
            ):
                return self._on_calls_timeout
        if self.phase is Phase.IDLE and now >= self._idle_since + self._config.idle_timeout_s:
            return self._on_idle_timeout
        return None

    def next_deadline_locked(self) -> float:
        """Return when :meth:`due_locked` may next have something, monotonic seconds."""
        if self.phase is Phase.INIT:
            return self._init_deadline
        if self.phase is Phase.IDLE:
            return self._idle_since + self._config.idle_timeout_s
        if self.phase is Phase.INVOKE:
            if self._invoke_deadline is not None:
                return self._invoke_deadline
            return min((call.deadline for call in self._running.values()), default=float("inf"))
        return float("inf")

    def running_locked(self) -> list[Call]:
        """Return the calls the runtime works on."""
        return list(self._running.values())

    def retire(self) -> None:
        """Shut down an environment that is no longer wanted; ends what still runs."""
        self._fail(_RETIRED, "SPINDOWN", is_failure=False)

    # --- for the Runtime API

    def park(self, exchange: Exchange) -> None:
        """Take a ``next``: answered when there is an event for it."""
        with self._lock:
            if self.phase in (Phase.SHUTDOWN, Phase.GONE):
                return  # it stays open until its process is gone
            if self.runtime_state in (RuntimeState.INIT_ERROR, RuntimeState.RESTORE_ERROR):
                raise self._invalid_transition_locked(RuntimeState.READY)
            again = None
            if self.runtime_state is RuntimeState.RUNNING and not self._config.is_multi_concurrency:
                again = next(iter(self._running.values()))
            else:
                exchange.on_disconnect = lambda: self._unpark(exchange)
                self._parked.append(exchange)
                self.runtime_state = RuntimeState.READY
                self._answered_id = None
                self.extensions.is_open = False
                self._settle_phase_locked()
        if again is not None:
            exchange.answer(200, _event_headers(again), again.invocation.payload)
        else:
            self._owner.settle()

    def respond(self, request_id: str, payload: bytes) -> None:
        """Take the runtime's answer; raises ``RuntimeApiError`` when it is not due one."""
        call = self._take_answered(request_id, RuntimeState.INVOCATION_RESPONSE)
        outcome = Outcome(payload=payload, executed_version=self._config.version)
        self._complete(call, outcome, "success")

    def respond_error(self, request_id: str, failure: Failure) -> None:
        """Take the error of a handler, or of an answer that is none; raises ``RuntimeApiError``."""
        call = self._take_answered(request_id, RuntimeState.INVOCATION_ERROR_RESPONSE)
        outcome = failure.outcome(request_id, self._config.version)
        self._complete(call, outcome, "error", failure.error_type)

    def require_running(self, request_id: str) -> None:
        """Raise ``RuntimeApiError`` unless the runtime owes an answer to ``request_id``."""
        with self._lock:
            if request_id not in self._running:
                raise self._refusal_locked(request_id, RuntimeState.INVOCATION_RESPONSE)

    def fail_init(self, failure: Failure) -> None:
        """Take the runtime's own report that its init failed; raises ``RuntimeApiError``."""
        with self._lock:
            if self.runtime_state is RuntimeState.RESTORING:
                to = RuntimeState.RESTORE_ERROR
            else:
                to = RuntimeState.INIT_ERROR
            if self.runtime_state not in (RuntimeState.STARTED, RuntimeState.RESTORING):
                raise self._invalid_transition_locked(to)
            self.runtime_state = to
        self._fail(failure, "FAILURE", linger_s=INIT_ERROR_LINGER_S)

    def restore(self) -> None:
        """Take ``restore/next``: a restore is done at once; raises ``RuntimeApiError``."""
        with self._lock:
            if self.runtime_state is not RuntimeState.STARTED:
                raise self._invalid_transition_locked(RuntimeState.RESTORING)
            self.runtime_state = RuntimeState.RESTORING

    # --- for the Extensions API

    def register_extension(self, name: str, events: object) -> Extension:
        """Register an extension; raises ``ExtensionsApiError``."""
        with self._lock:
            extension = self.extensions.register(name, events)
            self._registered.notify_all()
            return extension

    def park_extension(self, identifier: str | None, exchange: Exchange) -> None:
        """Take an extension's ``next``; raises ``ExtensionsApiError``."""
        with self._lock:
            extension = self.extensions.find(identifier, unknown="Unknown extension {}")
            self.extensions.require_state(
                extension,
                (ExtensionState.REGISTERED, ExtensionState.READY, ExtensionState.RUNNING),
                ExtensionState.READY,
            )
            event, extension.pending = extension.pending, None
            if event is None:
                extension.state = ExtensionState.READY
                extension.parked = exchange
                self._settle_phase_locked()
        if event is not None:
            answer_event(exchange, event)
        else:
            self._owner.settle()

    def describe_function(self, *, with_account_id: bool) -> dict[str, str]:
        """Return what a registering extension is told."""
        about = {
            "functionName": self._config.function.name,
            "functionVersion": self._config.version,
            "handler": self._config.handler,
        }
        if with_account_id:
            about["accountId"] = self._config.function.account_id
        return about

    def fail_extension(
        self, identifier: str | None, error_type: str | None, *, is_init: bool
    ) -> None:
        """Take an extension's init/error or exit/error; raises ``ExtensionsApiError``."""
        to = ExtensionState.INIT_ERROR if is_init else ExtensionState.EXIT_ERROR
        allowed = (
            (ExtensionState.REGISTERED, to)
            if is_init
            else (ExtensionState.REGISTERED, ExtensionState.READY, ExtensionState.RUNNING, to)
        )
        with self._lock:
            extension = self.extensions.find(
                identifier, unknown="Unknown Lambda-Extension-Identifier"
            )
            if error_type is None:
                raise ExtensionsApiError(
                    "Extension.MissingHeader", "Lambda-Extension-Function-Error-Type not found"
                )
            self.extensions.require_state(extension, allowed, to)
            if extension.state is to:
                return
            extension.state = to
        failed = ErrorType.EXTENSION_INIT_ERROR if is_init else ErrorType.EXTENSION_EXIT_ERROR
        self._fail(Failure(failed, error_type), "FAILURE", linger_s=INIT_ERROR_LINGER_S)

    # --- start

    def _start(self) -> None:
        try:
            self._address = self._listen(self)
            self._sandbox = Sandbox(f"env-{self.index}", self._reaper)
        except OSError as error:
            logger.exception("environment not started", extra={"env": self.index})
            self._fail(Failure(ErrorType.UNKNOWN, str(error)), "FAILURE")
            return
        if self._start_extensions():
            self._start_runtime()
        self._sandbox.capture.close_writers()

    def _start_extensions(self) -> bool:
        """Start each and wait until all have registered; False when that came to nothing."""
        for path in discover(self._config.extensions_dir):
            name = path.name
            with self._lock:
                self.extensions.add_external(name)
            if not self._launch(
                name,
                (str(path),),
                environ=self._config.extension_environ(self.index, self._address),
                cwd=None,
                on_exit=functools.partial(self._on_extension_exit, name),
            ):
                return False
        with self._lock:
            self._registered.wait_for(
                lambda: self.extensions.all_registered or self.phase is not Phase.INIT,
                max(0.0, self._init_deadline - self._clock()),
            )  # when the init deadline comes first, it is the clock's business
            return self.extensions.all_registered and self.phase is Phase.INIT

    def _start_runtime(self) -> None:
        command = self._config.command
        if not command.argv:
            searched = " ".join(command.searched)
            self._fail(
                Failure(
                    ErrorType.INVALID_ENTRYPOINT, f"Couldn't find valid bootstrap(s): [{searched}]"
                ),
                "FAILURE",
            )
            return
        logger.info(
            "exec '%s' (cwd=%s, handler=%s)",
            command.argv[0],
            command.cwd or Path.cwd(),
            self._config.handler,
            extra={"env": self.index},
        )
        self._launch(
            RUNTIME,
            command.argv,
            environ=self._config.runtime_environ(self.index, self._address),
            cwd=command.cwd,
            on_exit=self._on_runtime_exit,
        )

    def _launch(
        self,
        name: str,
        argv: tuple[str, ...],
        *,
        environ: dict[str, str],
        cwd: str | None,
        on_exit: Callable[[ExitStatus], None],
    ) -> bool:
        """Start a process; False when it could not be, and the environment fails for it."""
        assert self._sandbox is not None
        try:
            self._sandbox.start(name, argv, environ=environ, cwd=cwd, on_exit=on_exit)
        except OSError as error:
            self._fail(_launch_failure(name, argv[0], cwd, error), "FAILURE")
            return False
        return True

    # --- what happens to it

    def _settle_phase_locked(self) -> None:
        """Move on if the runtime and every extension wait for what comes next."""
        if self._parked and self.extensions.all_ready:
            now = self._clock()
            if self.phase is Phase.INIT:
                self._init_s = now - self._created_at
                self._owner.on_init_done_locked(self, self._init_s)
            if self.phase is Phase.INIT or (self.phase is Phase.INVOKE and not self._running):
                self._move_locked(Phase.IDLE)
                self._idle_since = now
                self._invoke_deadline = None
        if self.can_take_locked:
            self._owner.on_available_locked(self)

    def _take_answered(self, request_id: str, to: RuntimeState) -> Call:
        with self._lock:
            call = self._running.pop(request_id, None)
            if call is None:
                raise self._refusal_locked(request_id, to)
            self._answered_id = request_id
            self._answered_at = self._clock()
            if not self._config.is_multi_concurrency:
                self.runtime_state = to
            else:
                self._settle_phase_locked()
            return call

    def _refusal_locked(self, request_id: str, to: RuntimeState) -> RuntimeApiError:
        if request_id in self._timed_out:
            del self._timed_out[request_id]
            return RuntimeApiError(410, "InvokeTimeout", "Invoke timeout")
        if request_id == self._answered_id:
            return self._invalid_transition_locked(to)
        return RuntimeApiError(400, "InvalidRequestID", "Invalid request ID")

    def _invalid_transition_locked(self, to: RuntimeState) -> RuntimeApiError:
        return RuntimeApiError(
            403,
            "InvalidStateTransition",
            f"State transition from {self.runtime_state} to {to} failed for runtime. "
            "Error: State transition is not allowed",
        )

    def _unpark(self, exchange: Exchange) -> None:
        """Forget a ``next`` whose connection is gone."""
        with self._lock:
            if exchange in self._parked:
                self._parked.remove(exchange)

    def _on_undelivered(self, call: Call) -> None:
        with self._lock:
            if self._running.pop(call.invocation.request_id, None) is None:
                return
            self._owner.requeue_locked(call)
        self._fail(Failure(ErrorType.EXIT_ERROR, "Runtime is gone"), "FAILURE")

    def _on_runtime_exit(self, status: ExitStatus) -> None:
        if status.code == 0:
            message = "Runtime exited without providing a reason"
        else:
            message = f"Runtime exited with error: {status}"
        self._fail(Failure(ErrorType.EXIT_ERROR, message), "FAILURE")

    def _on_extension_exit(self, name: str, status: ExitStatus) -> None:
        with self._lock:
            self.extensions.on_exit(name)
        message = "exit code 0" if status.code == 0 else str(status)
        self._fail(Failure(ErrorType.EXTENSION_CRASH, message), "FAILURE")

    def _on_init_timeout(self) -> None:
        if self._init_phase == "init":
            failure = Failure(
                ErrorType.EXIT_ERROR, f"Init timed out after {self._init_limit_s:g} s"
            )
        else:
            failure = timed_out(self._init_limit_s)
        self._fail(failure, "TIMEOUT", init_status="timeout", only_if_due=True)

    def _on_timeout(self) -> None:
        self._fail(timed_out(self._config.timeout_s), "TIMEOUT", only_if_due=True)

    def _on_idle_timeout(self) -> None:
        self._fail(_RETIRED, "SPINDOWN", is_failure=False, only_if_due=True)

    def _on_calls_timeout(self) -> None:
        """End the calls that are over their time and leave the runtime, which has others."""
        with self._lock:
            now = self._clock()
            late = [call for call in self._running.values() if call.deadline <= now]
            for call in late:
                request_id = call.invocation.request_id
                del self._running[request_id]
                self._timed_out[request_id] = None
                if len(self._timed_out) > MAX_TIMED_OUT:
                    self._timed_out.popitem(last=False)
            self._settle_phase_locked()
        self._fail_calls(late, timed_out(self._config.timeout_s))
        self._owner.settle()

    def _fail(
        self,
        failure: Failure,
        reason: str,
        *,
        is_failure: bool = True,
        linger_s: float = 0.0,
        init_status: str = "error",
        only_if_due: bool = False,
    ) -> None:
        """Begin the shutdown and answer what was in hand; the first to fail an environment does.

        ``reason`` is what extensions are told; ``linger_s`` is how long the runtime may go on;
        ``only_if_due`` is for the clock, whose look at the deadline was under an earlier lock.
        """
        with self._lock:
            if self.phase in (Phase.SHUTDOWN, Phase.GONE):
                return
            if only_if_due and self.due_locked(self._clock()) is None:
                return
            was_init = self.phase is Phase.INIT
            self._move_locked(Phase.SHUTDOWN)
            self._registered.notify_all()
            victims = list(self._running.values())
            self._running.clear()
            self._parked.clear()
            ended = self._owner.on_init_failed_locked(failure) if was_init and is_failure else []
            init_s = self._clock() - self._created_at
        if was_init and is_failure:
            self._report_failed_init(failure, init_s, init_status)
        self._fail_calls(victims, failure)
        for call, outcome in ended:
            self._owner.finish(call, outcome, _status_of(failure))
        threading.Thread(
            target=self._stop, args=(reason, linger_s), name=f"env-{self.index}-stop", daemon=True
        ).start()

    def _fail_calls(self, calls: list[Call], failure: Failure) -> None:
        for call in calls:
            outcome = failure.outcome(call.invocation.request_id, self._config.version)
            self._complete(call, outcome, _status_of(failure), failure.error_type)

    def _complete(
        self, call: Call, outcome: Outcome, status: str, error_type: str | None = None
    ) -> None:
        """Add the log tail, print the report, and hand the outcome over."""
        if self._wants_lines(call):
            assert self._sandbox is not None
            capture = self._sandbox.capture
            capture.flush()
            end = self._reporter.end(
                Report(
                    request_id=call.invocation.request_id,
                    duration_ms=(self._clock() - call.started_at) * 1000,
                    init_ms=self._init_s * 1000 if call.is_cold and self._init_s else None,
                    memory_mb=self._config.memory_mb,
                    peak_memory_bytes=self._sandbox.peak_memory_bytes(RUNTIME),
                    status=status,
                    error_type=error_type,
                )
            )
            if self._config.prints_reports:
                write_all(1, end)
            if call.invocation.wants_log_tail:
                start = self._reporter.start(call.invocation.request_id)
                tail = start + capture.tail_since(call.log_mark) + end
                outcome = dataclasses.replace(outcome, log_tail=tail[-LOG_TAIL_BYTES:])
        self._owner.finish(call, outcome, status)

    def _report_failed_init(self, failure: Failure, init_s: float, status: str) -> None:
        logger.warning(
            "init failed",
            extra={"env": self.index, "error_type": failure.error_type, "error": failure.message},
        )
        if self._config.prints_reports:
            line = self._reporter.init_report(
                init_ms=init_s * 1000,
                phase=self._init_phase,
                status=status,
                error_type=None if status == "timeout" else failure.error_type,
            )
            write_all(1, line)

    def _tell_extensions(self, call: Call) -> None:
        invocation = call.invocation
        event = invoke_event(
            deadline_ms=call.deadline_ms,
            request_id=invocation.request_id,
            invoked_arn=invocation.function.invoked_arn,
            trace_id=invocation.trace_id,
        )
        with self._lock:
            deliveries = self.extensions.broadcast("INVOKE", event)
        for exchange, body in deliveries:
            answer_event(exchange, body)

    # --- stop

    def _stop(self, reason: str, linger_s: float) -> None:
        """End every process, extensions last, and say when nothing is left."""
        sandbox = self._sandbox
        if sandbox is not None:
            sandbox.close_door()
            self._stop_processes(sandbox, reason, linger_s)
            if not sandbox.wait_for_exit(KILL_LIMIT_S):
                logger.error("processes not reaped", extra={"env": self.index})
            sandbox.kill_orphans(self._address)
            sandbox.close()
        with self._lock:
            self._move_locked(Phase.GONE)
            self._owner.on_gone_locked(self)
        self._owner.settle()

    def _stop_processes(self, sandbox: Sandbox, reason: str, linger_s: float) -> None:
        """Go through the shutdown phase. Source: Lambda developer guide, "Shutdown phase"."""
        with self._lock:
            has_external = self.extensions.has_external
            budget_s = INTERNAL_EXTENSIONS_BUDGET_S if len(self.extensions) else 0.0
            if has_external:
                budget_s = EXTERNAL_EXTENSIONS_BUDGET_S
        deadline = self._clock() + budget_s
        if linger_s:
            sandbox.wait_for_exit(linger_s, RUNTIME)
        if budget_s:
            sandbox.signal(RUNTIME, signal.SIGTERM)
            share_s = RUNTIME_SHARE_S if has_external else INTERNAL_EXTENSIONS_BUDGET_S
            sandbox.wait_for_exit(share_s, RUNTIME)
        sandbox.signal(RUNTIME, signal.SIGKILL)
        if has_external:
            self._stop_extensions(sandbox, reason, deadline)

    def _stop_extensions(self, sandbox: Sandbox, reason: str, deadline: float) -> None:
        left_ms = int(max(0.0, deadline - self._clock()) * 1000)
        event = shutdown_event(reason, int(time.time() * 1000) + left_ms)
        with self._lock:
            deliveries = self.extensions.broadcast("SHUTDOWN", event)
            hears_shutdown = {
                extension.name: "SHUTDOWN" in extension.events
                for extension in self.extensions
                if extension.is_external
            }
        for exchange, body in deliveries:
            answer_event(exchange, body)
        for name, hears in hears_shutdown.items():
            if not hears:
                sandbox.signal(name, signal.SIGKILL)
        sandbox.wait_for_exit(max(0.0, deadline - self._clock()))
        for name in hears_shutdown:
            sandbox.signal(name, signal.SIGKILL)

    def _move_locked(self, to: Phase) -> None:
        if to not in _MOVES[self.phase]:
            raise AssertionError(f"environment {self.index}: {self.phase} to {to}")
        self.phase = to

    def _wants_lines(self, call: Call) -> bool:
        return self._config.prints_reports or call.invocation.wants_log_tail


_RETIRED: Final = Failure(ErrorType.EXIT_ERROR, "The function's instance was shut down")


def _event_headers(call: Call) -> list[tuple[str, str]]:
    """Return what ``next`` says of the event; optional headers are absent, never empty.

    Content-Type is always exactly ``application/json``: awslambdaric compares it.
    Source: Runtime API, "Next invocation".
    """
    invocation = call.invocation
    headers = [
        ("Content-Type", "application/json"),
        ("Lambda-Runtime-Aws-Request-Id", invocation.request_id),
        ("Lambda-Runtime-Deadline-Ms", str(call.deadline_ms)),
        ("Lambda-Runtime-Invoked-Function-Arn", invocation.function.invoked_arn),
        ("Lambda-Runtime-Trace-Id", invocation.trace_id),
    ]
    if invocation.client_context is not None:
        context = json.dumps(decode_client_context(invocation.client_context))
        headers.append(("Lambda-Runtime-Client-Context", context))
    if invocation.tenant_id is not None:
        headers.append(("Lambda-Runtime-Aws-Tenant-Id", invocation.tenant_id))
    return headers


def _launch_failure(name: str, program: str, cwd: str | None, error: OSError) -> Failure:
    reason = (error.strerror or str(error)).lower()
    if name != RUNTIME:
        return Failure(ErrorType.EXTENSION_LAUNCH_ERROR, f"fork/exec {program}: {reason}")
    if cwd is not None and not Path(cwd).is_dir():
        return Failure(ErrorType.INVALID_WORKING_DIR, f"chdir {cwd}: {reason}")
    return Failure(ErrorType.INVALID_ENTRYPOINT, f"fork/exec {program}: {reason}")


def _status_of(failure: Failure) -> str:
    return "timeout" if failure.error_type == ErrorType.TIMED_OUT else "failure"
