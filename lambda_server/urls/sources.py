"""How a server knows the function URLs: by announcements of rapids, or by asking each rapid."""

from __future__ import annotations

import http.client
import json
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple, Protocol
from urllib.parse import quote

from lambda_protocol.address import Address
from lambda_protocol.environ import WrongValue
from lambda_protocol.errors import ResourceNotReadyException, ServiceUnavailable
from lambda_protocol.function_url import (
    ANNOUNCEMENT_BYTES,
    ASKS_FOR_SETTINGS,
    PATH_PREFIX,
    Announcement,
    UrlSettings,
)
from lambda_protocol.http_client import BoundedConnection
from lambda_protocol.queues import ANNOUNCE_EVERY_S

logger = logging.getLogger(__name__)

#: How long a function's settings stay known without news: functions scale to zero, seconds.
KEPT_S: Final = 86_400.0
#: Of how many functions settings are known. Of more the ones without news for longest are
#: forgotten.
MOST_FUNCTIONS: Final = 10_000
#: How long after its start a server waits for the announcement of a function that it does not
#: know, seconds: each rapid has announced its function by then.
LEARNING_S: Final = ANNOUNCE_EVERY_S + 2.0
#: How many requests may wait for announcements at a time: each has a thread.
MOST_WAITING: Final = 64
#: How long the answer of a rapid counts, and how long it may take, seconds.
ASKED_EVERY_S: Final = 5.0
ANSWER_LIMIT_S: Final = 2.0


class UrlSource(Protocol):
    """Knows functions and their URLs. Thread-safe."""

    def start(self) -> None:
        """Begin to learn of function URLs. Idempotent."""

    def settings(self, name: str) -> UrlSettings | None:
        """Return the settings of a function's URL; None: it has none.

        Raises ``LambdaApiError`` if that cannot be known now.
        """

    def name_in_host(self, label: str) -> str | None:
        """Return the function that a label of a host names, which has no case; None: no one."""


class _Known(NamedTuple):
    settings: UrlSettings | None  # None: the function said that it has no URL
    heard_at: float  # monotonic seconds


class AnnouncedUrls:
    """What rapids have announced, in the memory of this process."""

    def __init__(
        self,
        listen: Callable[[AnnouncedUrls], None] | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``listen`` has announcements come to :meth:`take`, and calls :meth:`on_listening`."""
        self._listen = listen
        self._clock = clock
        self._news = threading.Condition()
        self._known: dict[str, _Known] = {}  # guarded by _news; the one heard of last is the last
        self._names: dict[str, set[str]] = {}  # guarded by _news; by lower-case name
        # These three are guarded by _news:
        self._listening_since: float | None = None
        self._is_deaf = False  # RabbitMQ refuses, or cannot be reached
        self._waiting = 0  # requests that wait for an announcement

    def start(self) -> None:
        """Listen for announcements."""
        if self._listen is not None:
            self._listen(self)

    def on_listening(self) -> None:
        """Note that each announcement comes from now on."""
        with self._news:
            self._is_deaf = False
            if self._listening_since is None:
                self._listening_since = self._clock()

    def on_deaf(self) -> None:
        """Note that no announcement comes; what is known stays known."""
        with self._news:
            self._is_deaf = True
            self._news.notify_all()

    def take(self, announcement: Announcement) -> None:
        """Remember what a rapid says."""
        name, url = announcement
        with self._news:
            self._forget_locked(name)
            self._known[name] = _Known(url, self._clock())
            self._names.setdefault(name.lower(), set()).add(name)
            if len(self._known) > MOST_FUNCTIONS:
                self._forget_locked(next(iter(self._known)))
            self._news.notify_all()

    def settings(self, name: str) -> UrlSettings | None:
        """Return what is known. A server that has just started waits for the announcement."""
        with self._news:
            self._wait_locked(lambda: name in self._known)
            known = self._known.get(name)
            if known is not None and self._clock() - known.heard_at > KEPT_S:
                self._forget_locked(name)
                return None
            return None if known is None else known.settings

    def name_in_host(self, label: str) -> str | None:
        """Return the one function whose name differs from ``label`` by case at most."""
        label = label.lower()
        with self._news:
            self._wait_locked(lambda: label in self._names)
            known = self._names.get(label, ())
            names = [name for name in known if self._known[name].settings is not None]
            return names[0] if len(names) == 1 else None

    def _wait_locked(self, is_known: Callable[[], bool]) -> None:
        """Wait for an announcement that a server of this age may not have heard yet.

        Raises ``ServiceUnavailable`` if announcements do not come, or too many requests wait.
        """
        if self._listen is None:
            return
        asked_at = self._clock()
        while not is_known():
            since = asked_at if self._listening_since is None else self._listening_since
            left_s = since + LEARNING_S - self._clock()
            if self._is_deaf or (left_s > 0 and self._waiting >= MOST_WAITING):
                raise ServiceUnavailable("The server does not know function URLs now; try again.")
            if left_s <= 0:
                return
            self._waiting += 1
            self._news.wait(left_s)
            self._waiting -= 1

    def _forget_locked(self, name: str) -> None:
        if self._known.pop(name, None) is not None:
            names = self._names[name.lower()]
            names.discard(name)
            if not names:
                del self._names[name.lower()]


class _Answer(NamedTuple):
    settings: UrlSettings | None
    until: float  # monotonic seconds


class AskedUrls:
    """What the rapids of direct mode answer, remembered for some seconds."""

    def __init__(
        self, endpoints: Mapping[str, Address], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``endpoints`` maps a function's name to its rapid."""
        self._endpoints = endpoints
        self._clock = clock
        self._by_label = _by_label(endpoints)
        self._answers: dict[str, _Answer] = {}  # one item is set or read at a time, by any thread

    def start(self) -> None:
        """Do nothing: a rapid is asked when its URL is called."""

    def settings(self, name: str) -> UrlSettings | None:
        """Return what the rapid answers; raises ``ResourceNotReadyException`` if it does not.

        If it has answered before, that counts for as long as it does not answer.
        """
        address = self._endpoints.get(name)
        if address is None:
            return None
        answer, now = self._answers.get(name), self._clock()
        if answer is not None:
            if now < answer.until:
                return answer.settings
            # Others use the old answer meanwhile.
            self._answers[name] = answer._replace(until=now + ASKED_EVERY_S)
        try:
            settings = _ask(name, address)
        except (OSError, http.client.HTTPException, WrongValue) as error:
            if answer is not None:
                return answer.settings
            logger.warning(
                "the function's URL is not known", extra={"function": name, "error": repr(error)}
            )
            raise ResourceNotReadyException(
                f"No instance of the function {name} is running at {address.url}."
            ) from error
        self._answers[name] = _Answer(settings, self._clock() + ASKED_EVERY_S)
        return settings

    def name_in_host(self, label: str) -> str | None:
        """Return the one function whose name differs from ``label`` by case at most."""
        return self._by_label.get(label.lower())


def _by_label(names: Iterable[str]) -> dict[str, str]:
    """Return names by their lower-case form, but for those that share it."""
    found: dict[str, str | None] = {}
    for name in names:
        label = name.lower()
        found[label] = None if label in found else name
    return {label: name for label, name in found.items() if name is not None}


def _ask(name: str, address: Address) -> UrlSettings | None:
    connection = BoundedConnection(address)
    connection.begin(ANSWER_LIMIT_S)
    try:
        connection.request("GET", PATH_PREFIX + quote(name), headers={ASKS_FOR_SETTINGS: "1"})
        response, body = connection.read_answer(ANNOUNCEMENT_BYTES)
    finally:
        connection.close()
    if response.status in (403, 404):  # the first: of a rapid for another function
        return None
    try:
        return UrlSettings.parse(json.loads(body))
    except (ValueError, RecursionError) as error:
        raise WrongValue(f"is HTTP {response.status}", "the settings of a URL") from error
