"""Matches waiting calls to environments: which call goes where, and which environment starts."""

from __future__ import annotations

import logging
from collections.abc import Callable

from rapid.call import CONFIRM_LIMIT_S, Call
from rapid.environment.environment import ExecutionEnvironment
from rapid.environment.state import ParkedNext
from rapid.metrics import Metrics
from rapid.scheduling.call_queue import CallQueue
from rapid.scheduling.coming_slots import PATIENCE_S, ComingSlots

logger = logging.getLogger(__name__)


#: A match: this call goes to that environment, by its parked ``next``.
Delivery = tuple[Call, ExecutionEnvironment, ParkedNext]


class Actions:
    """What a match asks for, to be done without the lock."""

    __slots__ = ("ask", "deliver", "replace", "start")

    def __init__(self) -> None:
        """Ask for nothing yet."""
        self.deliver: list[Delivery] = []
        self.start: list[ExecutionEnvironment] = []
        #: Idle environments, whose places calls of other tenants need.
        self.replace: list[ExecutionEnvironment] = []
        self.ask: list[Call] = []  #: whose callers are asked whether they still wait

    def carry_out(self) -> None:
        """Do it."""
        for environment in self.start:
            environment.start()
        for environment in self.replace:
            logger.info("replaced for another tenant", extra={"env": environment.index})
            environment.retire()
        for call, environment, parked in self.deliver:
            environment.deliver(call, parked)
        for call in self.ask:
            assert call.ask_caller is not None
            call.ask_caller()


class Matching:
    """The environments of one function, and the match. Guarded by the scheduler's lock."""

    def __init__(
        self,
        waiting: CallQueue,
        *,
        max_concurrency: int,
        make: Callable[[int], ExecutionEnvironment],
        note_deadline: Callable[[float], None],
        metrics: Metrics,
    ) -> None:
        """Begin without environments; ``make`` makes the one with a number."""
        self.environments: dict[int, ExecutionEnvironment] = {}  #: by number
        self.running = 0  #: invocations
        self.idle: list[ExecutionEnvironment] = []  #: last in, first out: surplus ones idle out
        self._waiting = waiting
        self._max_concurrency = max_concurrency
        self._make = make
        self._note_deadline = note_deadline
        self._metrics = metrics

    def match(self, now: float) -> Actions:
        """Match waiting calls to environments, each of which serves one tenant.

        1. A call goes to the environment of its tenant that became idle last, or to a fresh one.
           An asynchronous invocation does so when no call waits. If its caller may be gone, a call
           waits until the caller has been asked.
        2. For each call that is left an environment is started, unless a slot is coming for it.
        3. If no more can be started, an idle environment of another tenant is replaced.
        4. The other calls wait. The clock ends their wait.
        """
        actions = Actions()
        left: list[Call] = []
        coming: ComingSlots | None = None
        while not self._waiting.is_empty and (self.idle or self._has_room):
            call = self._waiting.popleft()
            environment = self._idle_for(call.tenant)
            if environment is not None and call.may_start(now):
                if call.is_asynchronous and any(waiting.asked_at for waiting in left):
                    left.append(call)
                    break
                actions.deliver.append(self._assign(call, environment, now))
                continue
            left.append(call)
            if environment is not None:
                self._ask(call, actions, now)
                continue
            if coming is None:
                coming = ComingSlots(self.environments.values(), now)
            if coming.take(call.tenant):
                continue
            environment = self._make_room(actions)
            if environment is None:
                break
            coming.add(environment)
            coming.take(call.tenant)
        for call in reversed(left):
            self._waiting.appendleft(call)
        if not self._waiting.is_empty and (self.idle or self._has_room):
            self._note_deadline(now + PATIENCE_S)
        return actions

    def start(self) -> ExecutionEnvironment:
        """Take the lowest free number; return its environment, which is to be started."""
        index = next(n for n in range(self._max_concurrency) if n not in self.environments)
        environment = self.environments[index] = self._make(index)
        self._note_deadline(environment.next_deadline_locked())
        return environment

    def is_coming(self, call: Call, now: float) -> bool:
        """Whether ``call``, which waits, gets a slot soon without anyone doing anything."""
        coming = ComingSlots(self.environments.values(), now)
        return any(coming.take(other.tenant) and other is call for other in self._waiting)

    def remove(self, environment: ExecutionEnvironment) -> None:
        """Forget ``environment``; its number is free again."""
        del self.environments[environment.index]
        if environment in self.idle:
            self.idle.remove(environment)

    @property
    def _has_room(self) -> bool:
        return len(self.environments) < self._max_concurrency

    def _idle_for(self, tenant: str) -> ExecutionEnvironment | None:
        """Return the idle environment for a call of ``tenant``: its own before a fresh one."""
        for wanted in (tenant, None):
            for position in range(len(self.idle) - 1, -1, -1):
                environment = self.idle[position]
                if not environment.can_take_locked:
                    del self.idle[position]
                elif environment.tenant == wanted:
                    return environment
        return None

    def _assign(self, call: Call, environment: ExecutionEnvironment, now: float) -> Delivery:
        parked = environment.assign_locked(call, now)
        if not environment.can_take_locked:
            self.idle.remove(environment)
        self.running += 1
        if call.is_announced:
            self._note_deadline(now)  # its caller is told that it runs
        self._metrics.on_started(now - call.received_at, is_cold=call.is_cold)
        return call, environment, parked

    def _ask(self, call: Call, actions: Actions, now: float) -> None:
        """Have a call's caller asked whether it still waits, unless that is under way."""
        if not call.asked_at:
            call.asked_at = now
            actions.ask.append(call)
            self._note_deadline(now + CONFIRM_LIMIT_S)

    def _make_room(self, actions: Actions) -> ExecutionEnvironment | None:
        """Start an environment, or replace the environment that is idle longest."""
        if self._has_room:
            environment = self.start()
            actions.start.append(environment)
            return environment
        for environment in self.idle:
            if environment.replace_locked():
                self.idle.remove(environment)
                actions.replace.append(environment)
                return environment
        return None
