"""The state of functions' queues, asked for once for all threads that want to know.

RabbitMQ returns a call as unroutable when its queue does not exist, and as well when the queue is
on a node of the cluster that is down. Only the answer to a passive declaration tells them apart.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from lambda_protocol.amqp_connection import ChannelClosedByBroker, is_missing
from lambda_protocol.errors import LambdaApiError, ServiceUnavailable
from lambda_protocol.function_name import FunctionRef, function_not_found
from lambda_server.link import Link

logger = logging.getLogger(__name__)

#: A caller that has waited for so long looks after its queue as often, seconds.
LOOK_AROUND_S: Final = 1.0
#: How old a known state may be, seconds: a queue is asked for at most so often.
FRESH_S: Final = 1.0
#: How long a thread waits for what another one asks, seconds.
_WAIT_S: Final = 2.0
#: Of so many queues the state is kept: callers make names up.
_KEPT: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueState:
    """What RabbitMQ says of a queue."""

    exists: bool = True
    fault: str | None = None  #: why it cannot be reached now, in RabbitMQ's words
    consumers: int | None = None


#: Another thread asks, and has no answer yet.
UNKNOWN: Final = QueueState()


def ask_queue_state(link: Link, queue: str) -> QueueState:
    """Ask RabbitMQ for ``queue``; raises one of ``BrokerLost``."""
    try:
        answer = link.declare_passive(queue)
    except ChannelClosedByBroker as error:
        if is_missing(error):
            return QueueState(exists=False)
        return QueueState(fault=error.reply_text)  # its node is down, or it is another's alone
    return QueueState(consumers=int(answer.method.consumer_count))


def refusal(function: FunctionRef, state: QueueState) -> LambdaApiError | None:
    """Return the API error for a queue in this state. None: the queue takes calls."""
    if not state.exists:
        return function_not_found(function)
    return None if state.fault is None else unreachable(function)


def unreachable(function: FunctionRef) -> ServiceUnavailable:
    """Return the error for a queue that is on a node that is down."""
    return ServiceUnavailable(
        f"The queue of the function {function.name} cannot be reached: try again later."
    )


class QueueStates:
    """What was last heard of queues. Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Know nothing yet."""
        self._clock = clock
        self._changed = threading.Condition()
        # guarded by _changed:
        self._known: OrderedDict[str, tuple[float, QueueState]] = OrderedDict()
        self._asked: set[str] = set()

    def fresh(
        self, queue: str, ask: Callable[[], QueueState], *, wait_s: float = _WAIT_S
    ) -> QueueState:
        """Return the state of ``queue``, at most ``FRESH_S`` old.

        One thread at a time asks; the others wait for its answer, for ``wait_s`` at most, and
        then take :data:`UNKNOWN`. Raises what ``ask`` raises.
        """
        with self._changed:
            self._changed.wait_for(lambda: queue not in self._asked, wait_s)
            if queue in self._asked:
                return UNKNOWN
            asked_at, state = self._known.get(queue, (float("-inf"), UNKNOWN))
            if self._clock() - asked_at < FRESH_S:
                return state
            self._asked.add(queue)
        try:
            state = ask()
            self._keep(queue, state)
            return state
        finally:
            with self._changed:
                self._asked.discard(queue)
                self._changed.notify_all()

    def _keep(self, queue: str, state: QueueState) -> None:
        with self._changed:
            self._known[queue] = (self._clock(), state)
            self._known.move_to_end(queue)
            if len(self._known) > _KEPT:
                self._known.popitem(last=False)


class Queues:
    """The queues of one link's broker. As thread-safe as the link."""

    def __init__(self, link: Link, states: QueueStates) -> None:
        """Ask by ``link``; links to one broker share ``states``."""
        self._link = link
        self._states = states

    def ask(self, queue: str) -> QueueState:
        """Return the state of a queue now; raises one of ``BrokerLost``."""
        state = ask_queue_state(self._link, queue)
        if state.fault is not None:
            logger.warning("queue not reached", extra={"queue": queue, "broker_says": state.fault})
        return state

    def state(self, queue: str) -> QueueState:
        """Return the state of a queue, at most a second old."""
        state = self._states.fresh(queue, lambda: self.ask(queue))
        return self.ask(queue) if state is UNKNOWN else state

    def is_unreachable(self, queue: str) -> bool:
        """Whether a queue is known to be on a node that is down. Does not wait for RabbitMQ."""
        try:
            state = self._states.fresh(queue, lambda: self.ask(queue), wait_s=0.0)
        except TimeoutError:
            return False
        return state.fault is not None
