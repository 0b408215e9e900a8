"""How long a call may wait for its start, and after which time its caller hears that it waits."""

from __future__ import annotations

from collections.abc import Callable

from lambda_protocol.limits import STARTED_FRAME_AFTER_S
from rapid.call import CONFIRM_LIMIT_S, Call, OnStarted
from rapid.scheduling.call_queue import CallQueue
from rapid.scheduling.matching import Matching


class WaitLimits:
    """What is due for calls that have waited. Guarded by the scheduler's lock."""

    def __init__(
        self,
        waiting: CallQueue,
        matching: Matching,
        *,
        queue_timeout_s: float,
        timeout_s: float,
        note_deadline: Callable[[float], None],
    ) -> None:
        """A call waits for ``queue_timeout_s``, and runs for ``timeout_s``."""
        self._waiting = waiting
        self._matching = matching
        self._queue_timeout_s = queue_timeout_s
        self._timeout_s = timeout_s
        self._note_deadline = note_deadline

    def may_wait(self, call: Call, now: float) -> bool:
        """Return whether ``call``, which could not start at once, may wait until its deadline.

        If calls do not wait, it still waits for a slot that is coming for it.
        """
        if self._queue_timeout_s == 0 and not call.is_asynchronous and not call.asked_at:
            if not self._matching.is_coming(call, now):
                return False
            call.wait_deadline = now + self._timeout_s
        self._note_deadline(call.wait_deadline)
        return True

    def take_throttled(self, now: float) -> list[Call]:
        """Take the calls that have waited too long out of the queue, and return them.

        If an environment is starting for a call, the call may wait for it as long as the function
        may run.
        """
        throttled = []
        for call in [call for call in self._waiting.calls if call.wait_deadline <= now]:
            is_first = call.wait_deadline <= call.received_at + self._queue_timeout_s
            if is_first and self._matching.is_coming(call, now):
                call.wait_deadline += self._timeout_s
            else:
                self._waiting.remove(call)
                throttled.append(call)
        return throttled

    def take_announcements(self, now: float) -> list[tuple[OnStarted, float, bool]]:
        """Return the callers of long calls, the time of the answer, and whether the call runs.

        A caller hears once that its call waits, and once that the call runs.
        """
        announce = []
        environments = self._matching.environments.values()
        held = [call for environment in environments for call in environment.running_locked()]
        for call in (*held, *self._waiting.calls):
            is_running = call.started_at > 0.0
            if call.on_started is None or (call.is_announced and not is_running):
                continue
            due = call.received_at + STARTED_FRAME_AFTER_S
            if due > now:
                self._note_deadline(due)
                continue
            answered_by = call.deadline if is_running else call.wait_deadline + self._timeout_s
            announce.append((call.on_started, answered_by, is_running))
            call.is_announced = True
            if is_running:
                call.on_started = None
        return announce

    def note_deadlines(self, now: float) -> None:
        """Have the clock look when the next wait, or the wait for a caller's answer, is over."""
        for call in self._waiting.calls:
            self._note_deadline(call.wait_deadline)
            if call.asked_at + CONFIRM_LIMIT_S > now:
                self._note_deadline(call.asked_at + CONFIRM_LIMIT_S)
