"""One execution environment: a runtime, its extensions and its logs, from start to gone."""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final, TypeVar

from lambda_protocol.address import Address
from lambda_protocol.errors import ErrorType
from lambda_protocol.invocation import Outcome, new_request_id
from rapid.call import Call, Failure, timed_out
from rapid.environment.control_groups import EnvironmentGroup
from rapid.environment.diagnosis import failed_init
from rapid.environment.extensions import Extensions, answer_event, discover, invoke_event
from rapid.environment.failure_log import log_failed_calls, log_failed_environment, memory_facts
from rapid.environment.invocation_log import InvocationLog
from rapid.environment.launch import Launch, LaunchError
from rapid.environment.owner import EnvironmentOwner
from rapid.environment.phases import (
    FAILED_STATES,
    MOVES,
    Phase,
    PostedId,
    RuntimeProgress,
    RuntimeState,
    invoke_timeout,
)
from rapid.environment.sandbox import RUNTIME, Sandbox
from rapid.environment.shutdown import shut_down
from rapid.environment.telemetry_emitter import TelemetryEmitter
from rapid.http_service import Exchange
from rapid.logs.level import is_kept
from rapid.logs.output import Outputs
from rapid.logs.platform_lines import PlatformLines
from rapid.processes import ExitStatus, Reaper
from rapid.settings.config import Config
from rapid.telemetry.hub import Telemetry
from rapid.telemetry.records import Ending
from rapid.telemetry.subscription import Subscription

logger = logging.getLogger(__name__)

#: A runtime that reported its own failed init may print and exit by itself for this long, seconds.
INIT_ERROR_LINGER_S: Final = 0.5
#: How long a killed process may take to be reaped before we go on without it, seconds.
KILL_LIMIT_S: Final = 5.0
#: The same of what left its process group.
ORPHAN_LIMIT_S: Final = 2.0
#: How long what a gone environment had to tell is still delivered for, seconds.
TELEMETRY_STOP_S: Final = 0.2
#: The longest text of an unexpected error that its caller gets, characters.
_ERROR_TEXT: Final = 300
#: A wait for the end of the environment that ends without it goes on, seconds.
_LONGEST_WAIT_S: Final = 3600.0

T = TypeVar("T")


class ExecutionEnvironment:
    """One sandbox. Thread-safe; its state is guarded by the lock it shares with the scheduler.

    It never waits under that lock: state changes under it, processes, sockets and callbacks
    come after. Its thread, ``env-N``, starts it, waits until it is to end, and ends it: so an end
    needs no new thread. An unexpected exception in any thread that serves it ends it.
    """

    def __init__(
        self,
        *,
        index: int,
        config: Config,
        lock: threading.Lock,
        owner: EnvironmentOwner,
        reaper: Reaper,
        listen: Callable[[ExecutionEnvironment], Address],
        reporter: PlatformLines,
        outputs: Outputs,
        open_group: Callable[[], EnvironmentGroup],
        init_limit_s: float,
        init_phase: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``listen`` opens the Runtime API for this environment and returns its address.

        ``init_phase`` is ``init``, or ``invoke`` when a failed init is done again for a call.
        """
        self.index = index
        self.metadata_token = new_request_id()  #: what its processes show the metadata endpoint
        self._config = config
        self._lock = lock
        self._owner = owner
        self._reaper = reaper
        self._listen = listen
        self._reporter = reporter
        self._outputs = outputs
        self._open_group = open_group
        self._init_limit_s = init_limit_s
        self._init_phase = init_phase
        self._clock = clock
        self._registered = threading.Condition(lock)  # an extension has, or the init has failed
        # guarded by _lock, all of the following:
        self.phase = Phase.INIT
        self.extensions = Extensions(hear_invoke=not config.is_multi_concurrency)
        self._runtime = RuntimeProgress()
        self._parked: list[Exchange] = []
        self._running: dict[str, Call] = {}
        self._created_at = clock()
        self._init_deadline = self._created_at + init_limit_s
        self._invoke_deadline: float | None = None
        self._idle_since = 0.0
        self._answered_at = 0.0
        self._init_s: float | None = None
        self._has_no_thread = False  # the clock does what the thread would have done
        self._end_reason = ("", 0.0)  # what extensions are told, and the time for the runtime
        self.tenant: str | None = None  #: of every call it serves; None: it has served none
        self._is_replaced = False
        self._journal: TelemetryEmitter | None = None  # None once nobody can listen
        # set once, before anyone can ask:
        self._sandbox: Sandbox | None = None
        self._log: InvocationLog | None = None
        self._telemetry = Telemetry(logs_json=config.logs_json, on_error=self.fail_unexpectedly)
        self._address = Address("", 0)
        self._is_ending = threading.Event()

    def __repr__(self) -> str:
        """Show what a test wants to know."""
        return (
            f"<Environment {self.index} {self.phase} runtime={self._runtime.state} "
            f"parked={len(self._parked)} running={len(self._running)}>"
        )

    # --- for the scheduler

    def start(self) -> None:
        """Start extensions and runtime from the environment's own thread; never raises."""
        thread = threading.Thread(target=self._run, name=f"env-{self.index}", daemon=True)
        try:
            thread.start()
        except (RuntimeError, MemoryError) as error:
            self.fail_unexpectedly(error)
            with self._lock:
                self._has_no_thread = True
                self._owner.note_deadline_locked(0.0)

    @property
    def can_take_locked(self) -> bool:
        """Whether a call of its tenant could be handed over now."""
        if not self._parked or self._is_replaced:
            return False
        if self.phase is Phase.IDLE:
            return True
        return self.phase is Phase.INVOKE and self._config.is_multi_concurrency

    def coming_slots_locked(self, now: float, patience_s: float) -> int:
        """How many calls will be taken soon, without anyone doing anything, by it or its successor.

        It is in its init, between two calls, or being replaced.
        """
        if self.phase is Phase.INIT or (self._is_replaced and not self._running):
            return self._config.runtime_concurrency
        if self.phase is Phase.INVOKE and not self._running:
            return 1 if now - self._answered_at < patience_s else 0
        return 0

    def assign_locked(self, call: Call, now: float) -> Exchange:
        """Take ``call``; return the parked ``next`` that :meth:`deliver` is to answer."""
        exchange = self._parked.pop()  # the newest: an older one may be of a lost connection
        self._running[call.invocation.request_id] = call
        call.begin(now, self._config.timeout_s)
        call.is_cold = self.tenant is None
        self.tenant = call.tenant
        self._runtime.state = RuntimeState.RUNNING
        if self.phase is Phase.IDLE:
            self._move_locked(Phase.INVOKE)
        if not self._config.is_multi_concurrency:
            self._invoke_deadline = call.deadline
        self._owner.note_deadline_locked(call.deadline)
        return exchange

    def deliver(self, call: Call, exchange: Exchange) -> None:
        """Send the event to the runtime; a call that cannot be sent goes back to the queue."""
        try:
            if self._journal is not None:
                self._journal.begin(call, self._init_s)
            if self._log is not None and self._log.is_wanted(call):
                self._log.begin(call)
            if len(self.extensions) and not self._config.is_multi_concurrency:
                self._tell_extensions(call)
            if not exchange.answer(200, call.next_headers(), call.invocation.payload):
                self._on_undelivered(call)
        except Exception as error:
            self.fail_unexpectedly(error)

    def due_locked(self, now: float) -> Callable[[], None] | None:
        """Return what to do, without the lock, about a deadline that has passed; None if none."""
        act = self._act_due_locked(now)
        return None if act is None else functools.partial(self._act, act)

    def _act_due_locked(self, now: float) -> Callable[[], None] | None:
        if self._has_no_thread:
            return self._end
        if self._is_due_to_go_locked:
            return self.retire
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
        if self._has_no_thread or self._is_due_to_go_locked:
            return 0.0
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

    def replace_locked(self) -> bool:
        """Take no more calls, for :meth:`retire` follows; False while it runs one."""
        if self.phase is not Phase.IDLE:
            return False
        self._is_replaced = True
        self.tenant = None  # its place is for anyone
        return True

    @property
    def _is_due_to_go_locked(self) -> bool:
        """Whether it is being replaced, and no invocation or its aftermath is under way."""
        if self.phase is Phase.INVOKE:
            return self._is_replaced and self._config.is_multi_concurrency and not self._running
        return self._is_replaced and self.phase in (Phase.INIT, Phase.IDLE)

    def outdate_locked(self) -> None:
        """Take no more calls; the clock retires it when none runs."""
        self._is_replaced = True
        self.tenant = None
        self._owner.note_deadline_locked(self.next_deadline_locked())

    def retire(self) -> None:
        """Shut down an environment that is no longer wanted; ends what still runs."""
        self._fail(_RETIRED, "SPINDOWN", is_failure=False)

    def fail_unexpectedly(self, error: Exception) -> None:
        """End an environment in which something went wrong that nobody foresaw; log it."""
        logger.error("environment failed", extra={"env": self.index}, exc_info=error)
        text = f"{type(error).__name__}: {error}"[:_ERROR_TEXT]
        failure = Failure(ErrorType.UNKNOWN, f"rapid failed: {text}", is_logged=True)
        self._fail(failure, "FAILURE")

    # --- for the Runtime API

    def park(self, exchange: Exchange) -> None:
        """Take a ``next``: answered when there is an event for it."""
        journal = self._journal
        self._end_lines()
        peak_memory_bytes = 0 if journal is None else journal.measure()
        exchange.on_disconnect = lambda: self._unpark(exchange)
        with self._lock:
            if self.phase in (Phase.SHUTDOWN, Phase.GONE):
                return  # it stays open until its process is gone
            state = self._runtime.state
            if state in FAILED_STATES:
                raise self._runtime.invalid_transition(RuntimeState.READY)
            again = None
            if state is RuntimeState.RUNNING and not self._config.is_multi_concurrency:
                again = next(iter(self._running.values()))
            else:
                self._parked.append(exchange)
                self._runtime.on_next()
                self.extensions.is_open = False
                if journal is not None:
                    journal.end_runtime_locked(peak_memory_bytes)
                self._settle_phase_locked()
        if again is not None:
            exchange.answer(200, again.next_headers(), again.invocation.payload)
        else:
            self._owner.settle()
        if journal is not None:
            journal.print_init()

    def respond(self, posted: PostedId, payload: bytes, began_at: float) -> None:
        """Take the runtime's answer; raises ``RuntimeApiError`` when it is not due one.

        ``began_at`` is when the answer began to arrive, monotonic seconds.
        """
        to = RuntimeState.INVOCATION_RESPONSE
        call = self._take_answered(posted, to, began_at, len(payload), _SUCCESS)
        outcome = Outcome(payload=payload, executed_version=self._config.version)
        self._complete(call, outcome, "success")

    def respond_error(self, posted: PostedId, failure: Failure, began_at: float) -> None:
        """Take the error of a handler, or of an answer that is none; raises ``RuntimeApiError``."""
        to = RuntimeState.INVOCATION_ERROR_RESPONSE
        ending = Ending(status="error", error_type=failure.error_type)
        call = self._take_answered(posted, to, began_at, len(failure.payload or b""), ending)
        outcome = failure.outcome(posted.request_id, self._config.version)
        self._complete(call, outcome, "error", failure.error_type)
        if failure.cause:
            self._log_failed_calls([call], failure)

    def fail_init(self, failure: Failure) -> None:
        """Take the runtime's own report that its init failed; raises ``RuntimeApiError``."""
        with self._lock:
            self._runtime.on_init_error()
        self._fail(failure, "FAILURE", linger_s=INIT_ERROR_LINGER_S)

    def restore(self) -> None:
        """Take ``restore/next``: a restore is done at once; raises ``RuntimeApiError``."""
        with self._lock:
            self._runtime.on_restore()

    # --- for the Extensions API

    def change_extensions(self, change: Callable[[Extensions], T]) -> T:
        """Run ``change`` on the registry under the lock, then go on if that made it possible."""
        with self._lock:
            journal = self._journal
            result = change(self.extensions)
            self._registered.notify_all()
            self._settle_phase_locked()
        self._owner.settle()
        if journal is not None:
            journal.print_init()
        return result

    def park_extension(self, identifier: str | None, exchange: Exchange) -> bytes | None:
        """Take an extension's ``next``; return the lifecycle event that waits for it, or None.

        Raises ``ExtensionsApiError``. A half line that it has printed ends here.
        """
        with self._lock:
            name = self.extensions.find(identifier).name
        if self._sandbox is not None:
            self._sandbox.capture.flush(ends_lines=True, extension=name)
        exchange.on_disconnect = lambda: self._unpark(exchange)
        return self.change_extensions(lambda known: known.park(identifier, exchange))

    def fail_extension(self, failure: Failure) -> None:
        """Take an extension's own report that it failed; it may exit by itself."""
        self._fail(failure, "FAILURE", linger_s=INIT_ERROR_LINGER_S)

    @property
    def runtime_api_port(self) -> int:
        """The port of the APIs that its processes call."""
        return self._address.port

    def subscription_of(self, identifier: str | None) -> Subscription | None:
        """Return an extension's telemetry; raises ``ExtensionsApiError`` if it is none."""
        with self._lock:
            extension = self.extensions.find(identifier)
        return self._telemetry.subscription_of(extension.id)

    def subscribe(self, identifier: str | None, subscription: Subscription) -> bool:
        """Begin an extension's telemetry; False when it is too late for that.

        Raises ``ExtensionsApiError`` for an identifier of no extension.
        """
        with self._lock:
            extension = self.extensions.find(identifier)
            journal = self._journal
        if journal is None or not journal.subscribe(extension, subscription):
            return False
        journal.print_init()
        return True

    # --- start

    def _run(self) -> None:
        with self._ends_on_error():
            self._start()
        while not self._is_ending.wait(_LONGEST_WAIT_S):
            pass
        self._end()

    def _start(self) -> None:
        self._address = self._listen(self)
        paths = discover(self._config.extensions_dir)
        sandbox = self._sandbox = Sandbox(
            f"env-{self.index}",
            self._reaper,
            self._outputs,
            self._open_group(),
            runtime_api=str(self._address),
            extensions=[path.name for path in paths],
            keeps=functools.partial(is_kept, least=self._config.least_level_kept),
            on_error=self.fail_unexpectedly,
        )
        self._log = InvocationLog(
            self._config, sandbox, self._reporter, self._outputs.stdout, self._clock
        )
        journal = self._journal = TelemetryEmitter(
            config=self._config,
            telemetry=self._telemetry,
            sandbox=sandbox,
            log=self._log,
            init_phase=self._init_phase,
            clock=self._clock,
        )
        journal.begin_init()
        launch = Launch(
            self._config,
            sandbox,
            index=self.index,
            runtime_api=str(self._address),
            metadata_token=self.metadata_token,
        )
        try:
            self._start_extensions(launch, paths)
            if self._wait_for_registrations():
                launch.start_runtime(self._on_runtime_exit)
        except LaunchError as error:
            self._fail(error.failure, "FAILURE")
        finally:
            sandbox.capture.close_writers()

    def _start_extensions(self, launch: Launch, paths: list[Path]) -> None:
        environ = launch.prepare_extensions(paths)
        for path in paths:
            with self._lock:
                self.extensions.add_external(path.name)
            on_exit = functools.partial(self._on_extension_exit, path.name)
            launch.start_extension(path, environ, on_exit)

    def _wait_for_registrations(self) -> bool:
        """Wait until every extension has registered; False when that came to nothing."""
        with self._lock:
            self._registered.wait_for(
                lambda: self.extensions.all_registered or self.phase is not Phase.INIT,
                max(0.0, self._init_deadline - self._clock()),
            )  # when the init deadline comes first, it is the clock's business
            return self.extensions.all_registered and self.phase is Phase.INIT

    # --- what happens to it

    def _settle_phase_locked(self) -> None:
        """Move on if the runtime and every extension wait for what comes next."""
        if self._parked and self.extensions.all_ready:
            now = self._clock()
            if self.phase is Phase.INIT:
                self._init_s = now - self._created_at
                self._owner.on_init_done_locked(self, self._init_s)
            if self._journal is not None:
                self._tell_phase_end_locked(self._journal)
            if self.phase is Phase.INIT or (self.phase is Phase.INVOKE and not self._running):
                self._move_locked(Phase.IDLE)
                self._idle_since = now
                self._invoke_deadline = None
        if self._is_due_to_go_locked:
            self._owner.note_deadline_locked(0.0)
        if self.can_take_locked:
            self._owner.on_available_locked(self)

    def _tell_phase_end_locked(self, journal: TelemetryEmitter) -> None:
        """Tell who listens that init or an invocation is over; without any, never tell again."""
        if self.phase is Phase.INIT:
            assert self._init_s is not None
            if not journal.end_init_locked(self.extensions, self._init_s):
                self._journal = None
        elif self.phase is Phase.INVOKE and not self._running:
            journal.end_phase_locked()

    def _take_answered(
        self, posted: PostedId, to: RuntimeState, began_at: float, size: int, ending: Ending
    ) -> Call:
        with self._lock:
            call = self._running.get(posted.request_id)
            if call is None:
                raise self._runtime.refusal(posted, to)
            if posted.is_stale(call.invocation_id):
                raise invoke_timeout()
            try:
                del self._running[posted.request_id]
                self._answered_at = self._clock()
                if self._journal is not None:
                    self._journal.note_answer_locked(call, began_at, size, ending)
                self._runtime.answered = PostedId(posted.request_id, call.invocation_id)
                if not self._config.is_multi_concurrency:
                    self._runtime.state = to
                else:
                    self._settle_phase_locked()
            except Exception:
                self._running[posted.request_id] = call  # so that the environment's end answers it
                raise
            return call

    def _unpark(self, exchange: Exchange) -> None:
        """Forget a ``next`` whose connection is gone."""
        with self._lock:
            if exchange in self._parked:
                self._parked.remove(exchange)
            self.extensions.unpark(exchange)

    def _on_undelivered(self, call: Call) -> None:
        with self._lock:
            if self._running.pop(call.invocation.request_id, None) is None:
                return
            if self._journal is not None:
                self._journal.forget_locked(call)
            self._owner.requeue_locked(call)
        self._fail(Failure(ErrorType.EXIT_ERROR, "Runtime is gone"), "FAILURE")

    def _on_runtime_exit(self, status: ExitStatus) -> None:
        with self._ends_on_error():
            self._fail(self._with_cause(_runtime_exit(status), status), "FAILURE")

    def _on_extension_exit(self, name: str, status: ExitStatus) -> None:
        message = "exit code 0" if status.code == 0 else str(status)
        with self._ends_on_error():
            with self._lock:
                self.extensions.on_exit(name)
            failure = self._with_cause(Failure(ErrorType.EXTENSION_CRASH, message), status)
            self._fail(replace(failure, cause=f"extension {name}: {failure.cause}"), "FAILURE")

    def _with_cause(self, failure: Failure, status: ExitStatus) -> Failure:
        assert self._sandbox is not None
        watch = self._sandbox.control_group.watch
        if not watch.is_out_of_memory(status):
            return replace(failure, cause=str(status))
        return replace(failure, cause="out of memory", memory_limit_bytes=watch.limit_bytes)

    def _on_init_timeout(self) -> None:
        if self._init_phase == "init":
            failure = Failure(
                ErrorType.EXIT_ERROR,
                f"Init timed out after {self._init_limit_s:g} s",
                cause="timeout",
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
                self._runtime.on_timeout(request_id)
            self._settle_phase_locked()
        failure = timed_out(self._config.timeout_s)
        self._fail_calls(late, failure)
        self._log_failed_calls(late, failure)
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
            self._end_reason = (reason, linger_s)
            self._registered.notify_all()
            victims = list(self._running.values())
            self._running.clear()
            self._parked.clear()
            if was_init and is_failure:
                victims += self._owner.on_init_failed_locked(self._created_at)
            init_s = self._clock() - self._created_at
        try:
            if was_init and is_failure:
                with self._logs_errors():
                    self._report_failed_init(failure, init_s, init_status)
            self._fail_calls(victims, failure)
            with self._logs_errors():
                self._log_failure(victims, failure, was_init=was_init, is_failure=is_failure)
            with self._logs_errors():
                self._tell_failure(
                    victims,
                    failure,
                    init_s=init_s if was_init else None,
                    init_status=init_status,
                    is_failure=is_failure,
                )
        finally:
            self._is_ending.set()

    def _tell_failure(
        self,
        victims: list[Call],
        failure: Failure,
        *,
        init_s: float | None,
        init_status: str,
        is_failure: bool,
    ) -> None:
        """Tell telemetry of the end; ``init_s`` is given when the init was not done."""
        journal = self._journal
        if journal is None:
            return
        if init_s is not None and is_failure:
            journal.fail_init(self.extensions, failure, init_s=init_s, status=init_status)
        journal.fail(victims, failure, _status_of(failure), is_failure=is_failure)

    def _log_failure(
        self, victims: list[Call], failure: Failure, *, was_init: bool, is_failure: bool
    ) -> None:
        if failure.is_logged:
            return
        if victims:
            self._log_failed_calls(victims, failure, is_init=was_init)
        elif is_failure and not was_init:
            log_failed_environment(
                failure,
                function=self._config.function.name,
                peak_memory_bytes=self._peak_memory_bytes(),
            )

    def _log_failed_calls(
        self, calls: list[Call], failure: Failure, *, is_init: bool = False
    ) -> None:
        log_failed_calls(
            calls,
            failure,
            function=self._config.function.name,
            now=self._clock(),
            peak_memory_bytes=self._peak_memory_bytes(),
            is_init=is_init,
        )

    def _peak_memory_bytes(self) -> int:
        return 0 if self._sandbox is None else self._sandbox.peak_memory_bytes(RUNTIME)

    def _fail_calls(self, calls: list[Call], failure: Failure) -> None:
        for call in calls:
            with self._logs_errors():
                outcome = failure.outcome(call.invocation.request_id, self._config.version)
                self._complete(call, outcome, _status_of(failure), failure.error_type)

    def _complete(
        self, call: Call, outcome: Outcome, status: str, error_type: str | None = None
    ) -> None:
        """Log the end of the invocation and hand its outcome over."""
        try:
            if self._log is not None and self._log.is_wanted(call):
                init_s = self._init_s if call.is_cold else None
                outcome = self._log.end(call, outcome, status, error_type, init_s=init_s)
        finally:
            self._owner.finish(call, outcome, status)
        if self._config.is_multi_concurrency:
            self._end_lines()
        if self._journal is not None and self._config.is_multi_concurrency:
            self._journal.end_one_of_many(call, Ending(status=status, error_type=error_type))

    def _report_failed_init(self, failure: Failure, init_s: float, status: str) -> None:
        output = b""
        if self._sandbox is not None:
            self._sandbox.capture.flush(ends_lines=True)
            output = self._sandbox.capture.tail_since(0)
        if not failure.is_logged:
            said = failed_init(failure, self._config.command, self._config.handler, output)
            about = {
                "env": self.index,
                "function": self._config.function.name,
                "after_ms": round(init_s * 1000, 1),
                **memory_facts(failure, self._peak_memory_bytes()),
            }
            if failure.cause:
                about["cause"] = failure.cause
            logger.error("init failed", extra={**about, **said})
        if self._log is not None:
            self._log.init_failed(failure, init_s=init_s, phase=self._init_phase, status=status)

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

    def _end_lines(self) -> None:
        """Pass on half lines of the runtime, unless it has other invocations that go on."""
        if self._sandbox is not None and not self._running:
            self._sandbox.capture.flush(ends_lines=True)

    # --- end

    def _end(self) -> None:
        """End every process, extensions last, and say when nothing is left."""
        sandbox = self._sandbox
        try:
            if sandbox is not None:
                with self._logs_errors():
                    self._shut_down(sandbox)
                with self._logs_errors():
                    self._end_processes(sandbox)
        finally:
            with self._lock:
                self._move_locked(Phase.GONE)
                self._owner.on_gone_locked(self)
        self._owner.settle()

    def _shut_down(self, sandbox: Sandbox) -> None:
        reason, linger_s = self._end_reason
        try:
            shut_down(
                sandbox,
                self.extensions,
                self._lock,
                reason=reason,
                linger_s=linger_s,
                flush=self._telemetry.flush if self._telemetry.has_subscribers else None,
            )
        except Exception:
            sandbox.kill()
            raise

    def _end_processes(self, sandbox: Sandbox) -> None:
        """See to it that no process, pipe or subscriber is left."""
        if not sandbox.wait_for_exit(KILL_LIMIT_S):
            logger.error("processes not reaped", extra={"env": self.index})
        try:
            sandbox.kill_orphans(ORPHAN_LIMIT_S)
        finally:
            sandbox.close()
            self._telemetry.stop(TELEMETRY_STOP_S)

    # --- unexpected errors

    def _act(self, act: Callable[[], None]) -> None:
        with self._ends_on_error():
            act()

    @contextlib.contextmanager
    def _ends_on_error(self) -> Iterator[None]:
        """End the environment if the block raises."""
        try:
            yield
        except Exception as error:
            self.fail_unexpectedly(error)

    @contextlib.contextmanager
    def _logs_errors(self) -> Iterator[None]:
        """Log what the block raises, in an environment that is ending already."""
        try:
            yield
        except Exception:
            logger.exception("environment failed", extra={"env": self.index})

    def _move_locked(self, to: Phase) -> None:
        if to not in MOVES[self.phase]:
            raise AssertionError(f"environment {self.index}: {self.phase} to {to}")
        self.phase = to


_SUCCESS: Final = Ending()
_RETIRED: Final = Failure(
    ErrorType.EXIT_ERROR, "The function's instance was shut down", cause="shut down"
)


def _status_of(failure: Failure) -> str:
    return "timeout" if failure.error_type == ErrorType.TIMED_OUT else "failure"


def _runtime_exit(status: ExitStatus) -> Failure:
    if status.code == 0:
        message = "Runtime exited without providing a reason"
    else:
        message = f"Runtime exited with error: {status}"
    return Failure(ErrorType.EXIT_ERROR, message)
