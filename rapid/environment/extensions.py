"""The extensions of one execution environment: who registered, and what each is to hear next."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

from lambda_protocol.errors import ErrorType
from lambda_protocol.invocation import new_request_id
from rapid.call import Failure
from rapid.environment.api_error import ApiError
from rapid.exchange import JSON, Exchange

logger = logging.getLogger(__name__)

#: Extensions of one environment, internal ones included. Source: Lambda Extensions API.
MAX_EXTENSIONS: Final = 10
#: A file of this name in /opt switches extensions off. Source: aws-lambda-rie, extensions.
DISABLE_FILE: Final = "disable-extensions-jwigqn8j"
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


class ExtensionState(StrEnum):
    """Where an extension stands; the names show in error messages."""

    STARTED = "Started"
    REGISTERED = "Registered"
    READY = "Ready"
    RUNNING = "Running"
    INIT_ERROR = "InitError"
    EXIT_ERROR = "ExitError"
    EXITED = "Exited"


class ExtensionsApiError(ApiError):
    """A request that the Extensions API refuses; always HTTP 403."""

    def __init__(self, error_type: str, message: str) -> None:
        """``error_type`` and ``message`` are AWS's."""
        super().__init__(403, error_type, message)


@dataclass(slots=True, kw_only=True)
class Extension:
    """One extension, external (a process of its own) or internal (in the runtime's)."""

    name: str
    id: str = field(default_factory=new_request_id)
    is_external: bool
    state: ExtensionState = ExtensionState.STARTED
    events: frozenset[str] = frozenset()
    parked: Exchange | None = None  #: its ``next``, waiting
    pending: bytes | None = None  #: an event that arrived while it was not waiting

    def take_event(self, event: bytes) -> tuple[Exchange, bytes] | None:
        """Hand ``event`` over: return the exchange to answer, or keep it for the next ``next``."""
        self.state = ExtensionState.RUNNING
        exchange, self.parked = self.parked, None
        if exchange is None:
            self.pending = event
            return None
        return exchange, event


class Extensions:
    """The registry of one environment. Guarded by the scheduler's lock."""

    def __init__(self, *, hear_invoke: bool = True) -> None:
        """Begin without extensions; registration is open.

        ``hear_invoke``: whether extensions may subscribe to INVOKE. If the runtime takes several
        invocations at once, they may not.
        """
        self.is_open = True
        self._hear_invoke = hear_invoke
        self._by_name: dict[str, Extension] = {}

    def __iter__(self) -> Iterator[Extension]:
        """Yield every extension, started or registered."""
        return iter(self._by_name.values())

    @property
    def is_empty(self) -> bool:
        """Whether there are none."""
        return not self._by_name

    def add_external(self, name: str) -> None:
        """Note a process that is about to start and has yet to register."""
        self._by_name[name] = Extension(name=name, is_external=True)

    def on_exit(self, name: str) -> None:
        """Note that an external extension's process has ended."""
        self._by_name[name].state = ExtensionState.EXITED

    @property
    def has_external(self) -> bool:
        """Whether any has a process of its own."""
        return any(extension.is_external for extension in self)

    @property
    def all_registered(self) -> bool:
        """Whether no started process has yet to register."""
        return all(extension.state is not ExtensionState.STARTED for extension in self)

    @property
    def all_ready(self) -> bool:
        """Whether each waits in ``next`` (init is done, or an invocation is behind it)."""
        known = self._by_name.values()
        return all([extension.state is ExtensionState.READY for extension in known])

    def register(self, name: str, events: object) -> Extension:
        """Register ``name`` for ``events``; raises ``ExtensionsApiError``."""
        if not name:
            raise ExtensionsApiError("Extension.InvalidExtensionName", "Empty extension name")
        known = self._by_name.get(name)
        wanted = _events(events, is_external=known is not None and known.is_external)
        if "INVOKE" in wanted and not self._hear_invoke:
            raise ExtensionsApiError("Extension.InvalidEventType", "INVOKE: ErrorInvalidEventType")
        if known is not None and known.state is not ExtensionState.STARTED:
            raise ExtensionsApiError(
                "Extension.InvalidExtensionState", "Extension with this name already registered"
            )
        if not self.is_open:
            raise ExtensionsApiError(
                "Extension.RegistrationClosed", "Extension registration closed already"
            )
        if known is None:
            if len(self._by_name) >= MAX_EXTENSIONS:
                raise ExtensionsApiError(
                    "Extension.TooManyExtensions", f"Extension limit ({MAX_EXTENSIONS}) reached"
                )
            known = self._by_name[name] = Extension(name=name, is_external=False)
        known.events = wanted
        known.state = ExtensionState.REGISTERED
        return known

    def park(self, identifier: str | None, exchange: Exchange) -> bytes | None:
        """Take an extension's ``next``; return the event that waits for it, if one does.

        Raises ``ExtensionsApiError``.
        """
        extension = self.find(identifier)
        self._require_state(
            extension,
            (ExtensionState.REGISTERED, ExtensionState.READY, ExtensionState.RUNNING),
            ExtensionState.READY,
        )
        event, extension.pending = extension.pending, None
        if event is None:
            extension.state = ExtensionState.READY
            extension.parked = exchange
        return event

    def unpark(self, exchange: Exchange) -> None:
        """Forget a ``next`` whose connection is gone; an event now waits for the one after it."""
        for extension in self:
            if extension.parked is exchange:
                extension.parked = None

    def report_error(
        self, identifier: str | None, error_type: str | None, *, is_init: bool
    ) -> Failure | None:
        """Take an init/error or exit/error; return the failure, None when it is known already.

        Raises ``ExtensionsApiError``.
        """
        to = ExtensionState.INIT_ERROR if is_init else ExtensionState.EXIT_ERROR
        extension = self.find(identifier, unknown="Unknown Lambda-Extension-Identifier")
        if error_type is None:
            raise ExtensionsApiError(
                "Extension.MissingHeader", "Lambda-Extension-Function-Error-Type not found"
            )
        allowed = [ExtensionState.REGISTERED, to]
        if not is_init:
            allowed += [ExtensionState.READY, ExtensionState.RUNNING]
        self._require_state(extension, allowed, to)
        if extension.state is to:
            return None
        extension.state = to
        return Failure(
            ErrorType.EXTENSION_INIT_ERROR if is_init else ErrorType.EXTENSION_EXIT_ERROR,
            error_type,
        )

    def broadcast(self, kind: str, event: bytes) -> list[tuple[Exchange, bytes]]:
        """Give ``event`` to each that asked for ``kind``; return the exchanges to answer."""
        deliveries = []
        for extension in self:
            if kind in extension.events and extension.state is not ExtensionState.EXITED:
                delivery = extension.take_event(event)
                if delivery is not None:
                    deliveries.append(delivery)
        return deliveries

    def find(self, identifier: str | None, *, unknown: str = "Unknown extension {}") -> Extension:
        """Return the extension with this id; raises ``ExtensionsApiError``.

        ``unknown`` is the message when there is none.
        """
        if identifier is None:
            raise ExtensionsApiError(
                "Extension.MissingExtensionIdentifier", "Missing Lambda-Extension-Identifier header"
            )
        if not _UUID.fullmatch(identifier):
            raise ExtensionsApiError(
                "Extension.InvalidExtensionIdentifier", "Invalid Lambda-Extension-Identifier"
            )
        for extension in self:
            if extension.id == identifier.lower():
                return extension
        raise ExtensionsApiError("Extension.UnknownExtensionIdentifier", unknown.format(identifier))

    @staticmethod
    def _require_state(
        extension: Extension, allowed: Sequence[ExtensionState], to: ExtensionState
    ) -> None:
        """Raise ``ExtensionsApiError`` unless ``extension`` may move to ``to``."""
        if extension.state not in allowed:
            raise ExtensionsApiError(
                "Extension.InvalidExtensionState",
                f"State transition from {extension.state} to {to} failed for extension "
                f"{extension.id}. Error: State transition is not allowed",
            )


def are_disabled(directory: Path) -> bool:
    """Whether a file beside ``directory``, where extensions are found, switches them off."""
    return (directory.parent / DISABLE_FILE).exists()


def discover(directory: Path) -> list[Path]:
    """Return the extensions to start: every entry of ``directory`` that is no folder."""
    if are_disabled(directory):
        return []
    try:
        return sorted(path for path in directory.iterdir() if not path.is_dir())
    except OSError:
        return []


def invoke_event(*, deadline_ms: int, request_id: str, invoked_arn: str, trace_id: str) -> bytes:
    """Return the lifecycle event INVOKE."""
    return json.dumps(
        {
            "eventType": "INVOKE",
            "deadlineMs": deadline_ms,
            "requestId": request_id,
            "invokedFunctionArn": invoked_arn,
            "tracing": {"type": "X-Amzn-Trace-Id", "value": trace_id},
        }
    ).encode()


def shutdown_event(reason: str, deadline_ms: int) -> bytes:
    """Return the event that ends an extension; ``reason`` is SPINDOWN, TIMEOUT or FAILURE."""
    return json.dumps(
        {"eventType": "SHUTDOWN", "shutdownReason": reason, "deadlineMs": deadline_ms}
    ).encode()


def answer_event(exchange: Exchange, event: bytes) -> bool:
    """Answer an extension's ``next``."""
    headers = [*JSON, ("Lambda-Extension-Event-Identifier", new_request_id())]
    return exchange.answer(200, headers, event)


def _events(events: object, *, is_external: bool) -> frozenset[str]:
    if events is None:
        return frozenset()
    if not isinstance(events, list) or not all(isinstance(event, str) for event in events):
        raise ExtensionsApiError("InvalidRequestFormat", "events is not a list of strings")
    for event in events:
        if event not in ("INVOKE", "SHUTDOWN"):
            raise ExtensionsApiError(
                "Extension.InvalidEventType", f"{event}: ErrorInvalidEventType"
            )
        if event == "SHUTDOWN" and not is_external:
            raise ExtensionsApiError(
                "Extension.InvalidEventType",
                "SHUTDOWN: ShutdownEventNotSupportedForInternalExtension",
            )
    return frozenset(events)
