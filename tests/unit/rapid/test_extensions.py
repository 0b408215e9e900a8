from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from rapid.call import Failure
from rapid.environment.extensions import (
    DISABLE_FILE,
    Extensions,
    ExtensionsApiError,
    ExtensionState,
    discover,
)
from rapid.exchange import Exchange


def refusal(act: Callable[[], object]) -> tuple[str, str]:
    with pytest.raises(ExtensionsApiError) as caught:
        act()
    return caught.value.error_type, str(caught.value)


def an_exchange() -> Exchange:
    """Return a parked ``next``; the registry only keeps it."""
    return cast(Exchange, object())


# --- registration


REFUSALS = [
    pytest.param("", [], "Extension.InvalidExtensionName", "Empty extension name", id="no-name"),
    pytest.param(
        "new", ["FOO"], "Extension.InvalidEventType", "FOO: ErrorInvalidEventType", id="event"
    ),
    pytest.param(
        "new",
        ["SHUTDOWN"],
        "Extension.InvalidEventType",
        "SHUTDOWN: ShutdownEventNotSupportedForInternalExtension",
        id="internal-shutdown",
    ),
    pytest.param(
        "known",
        ["INVOKE"],
        "Extension.InvalidExtensionState",
        "Extension with this name already registered",
        id="twice",
    ),
    pytest.param("new", "INVOKE", "InvalidRequestFormat", "", id="events-are-text"),
    pytest.param("new", [1], "InvalidRequestFormat", "", id="events-are-numbers"),
]


@pytest.mark.parametrize(("name", "events", "error_type", "message"), REFUSALS)
def test_a_wrong_registration_is_refused_with_awss_words(
    name: str, events: object, error_type: str, message: str
) -> None:
    registry = Extensions()
    registry.register("known", [])

    found_type, found_message = refusal(lambda: registry.register(name, events))

    assert found_type == error_type
    assert message in found_message


def test_a_refused_registration_leaves_nothing_behind() -> None:
    registry = Extensions()
    refusal(lambda: registry.register("a", ["FOO"]))

    assert registry.is_empty
    assert registry.register("a", ["INVOKE"]).events == {"INVOKE"}


# --- identification


WRONG_IDENTIFIERS = [
    pytest.param(None, "Extension.MissingExtensionIdentifier", id="missing"),
    pytest.param("", "Extension.InvalidExtensionIdentifier", id="empty"),
    pytest.param("nonsense", "Extension.InvalidExtensionIdentifier", id="malformed"),
    pytest.param(str(uuid.uuid4()), "Extension.UnknownExtensionIdentifier", id="unknown"),
]


@pytest.mark.parametrize(("identifier", "error_type"), WRONG_IDENTIFIERS)
def test_a_next_with_a_wrong_identifier_is_refused(identifier: str | None, error_type: str) -> None:
    registry = Extensions()
    registry.register("a", [])

    assert refusal(lambda: registry.park(identifier, an_exchange()))[0] == error_type


def test_an_identifier_is_found_in_any_case() -> None:
    registry = Extensions()
    extension = registry.register("a", [])

    registry.park(extension.id.upper(), an_exchange())

    assert extension.state is ExtensionState.READY


# --- reported errors


@pytest.mark.parametrize(
    ("is_init", "error_type", "state"),
    [
        (True, "Extension.InitError", ExtensionState.INIT_ERROR),
        (False, "Extension.ExitError", ExtensionState.EXIT_ERROR),
    ],
    ids=["init", "exit"],
)
def test_a_reported_error_is_a_failure_once(
    is_init: bool, error_type: str, state: ExtensionState
) -> None:
    registry = Extensions()
    extension = registry.register("a", [])

    first = registry.report_error(extension.id, "My.Reason", is_init=is_init)
    second = registry.report_error(extension.id, "My.Reason", is_init=is_init)

    assert first == Failure(error_type, "My.Reason")
    assert second is None
    assert extension.state is state


def test_an_init_error_after_the_init_names_both_states() -> None:
    registry = Extensions()
    extension = registry.register("a", [])
    registry.park(extension.id, an_exchange())

    error_type, message = refusal(lambda: registry.report_error(extension.id, "X.Y", is_init=True))

    assert error_type == "Extension.InvalidExtensionState"
    assert message == (
        f"State transition from Ready to InitError failed for extension {extension.id}. "
        "Error: State transition is not allowed"
    )


def test_a_failed_extension_gets_no_next() -> None:
    registry = Extensions()
    extension = registry.register("a", [])
    registry.report_error(extension.id, "X.Y", is_init=False)

    error_type, _ = refusal(lambda: registry.park(extension.id, an_exchange()))

    assert error_type == "Extension.InvalidExtensionState"


# --- init


def test_registration_is_complete_when_every_started_one_has_registered() -> None:
    registry = Extensions()
    assert registry.all_registered
    registry.add_external("a")
    registry.add_external("b")
    registry.register("a", [])
    before = registry.all_registered

    registry.register("b", [])

    assert (before, registry.all_registered) == (False, True)


# --- events


def test_an_event_goes_to_those_who_asked_for_its_kind() -> None:
    registry = Extensions()
    invoked = registry.register("invoked", ["INVOKE"])
    other = registry.register("other", [])
    exchange = an_exchange()
    registry.park(invoked.id, exchange)
    registry.park(other.id, an_exchange())

    deliveries = registry.broadcast("INVOKE", b"event")

    assert deliveries == [(exchange, b"event")]
    assert invoked.state is ExtensionState.RUNNING
    assert other.state is ExtensionState.READY


def test_an_event_for_one_that_does_not_wait_is_kept_for_its_next() -> None:
    registry = Extensions()
    extension = registry.register("a", ["INVOKE"])

    deliveries = registry.broadcast("INVOKE", b"event")

    assert deliveries == []
    assert registry.park(extension.id, an_exchange()) == b"event"
    assert registry.park(extension.id, an_exchange()) is None


def test_an_event_is_handed_over_once() -> None:
    registry = Extensions()
    registry.park(registry.register("a", ["INVOKE"]).id, an_exchange())
    registry.broadcast("INVOKE", b"first")

    assert registry.broadcast("INVOKE", b"second") == []


def test_one_that_has_exited_gets_no_event() -> None:
    registry = Extensions()
    registry.add_external("a")
    extension = registry.register("a", ["INVOKE"])
    registry.park(extension.id, an_exchange())
    registry.on_exit("a")

    assert registry.broadcast("INVOKE", b"event") == []


# --- discovery


def test_every_file_in_the_folder_is_an_extension(tmp_path: Path) -> None:
    folder = tmp_path / "extensions"
    (folder / "sub").mkdir(parents=True)
    for name in ("b", "a", ".hidden"):
        (folder / name).touch()

    assert [path.name for path in discover(folder)] == [".hidden", "a", "b"]


def test_without_the_folder_there_are_no_extensions(tmp_path: Path) -> None:
    assert discover(tmp_path / "extensions") == []


def test_a_file_beside_the_folder_switches_extensions_off(tmp_path: Path) -> None:
    folder = tmp_path / "extensions"
    folder.mkdir()
    (folder / "a").touch()
    (tmp_path / DISABLE_FILE).touch()

    assert discover(folder) == []
