"""Direct mode's endpoints: which of them answer, and how that is found."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from devtools.ports import LOOPBACK, free_ports
from lambda_protocol.address import Address
from lambda_server import endpoints
from lambda_server.endpoints import Endpoints, shortened
from tests.conftest import StartServer
from tests.fakes import FakeInstance, http_answer
from tests.support import LIMIT_S, wait_until


def nobody() -> Address:
    """Return an address where nothing listens."""
    return Address(LOOPBACK, free_ports(1)[0])


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no answer be remembered."""
    monkeypatch.setattr(endpoints, "REMEMBERED_S", 0.0)


@pytest.mark.parametrize(
    ("reply", "is_silent"),
    [
        pytest.param(lambda request: http_answer(b"ok"), False, id="ok"),
        pytest.param(lambda request: http_answer(b"", status="404 N"), False, id="not-found"),
        pytest.param(lambda request: http_answer(b"", status="503 S"), False, id="not-ready"),
        pytest.param(lambda request: None, True, id="hangs-up"),
        pytest.param(lambda request: b"SSH-2.0\r\n", True, id="no-http"),
    ],
)
def test_any_answer_over_http_counts(
    instance: FakeInstance, reply: Callable[[Any], bytes | None], is_silent: bool
) -> None:
    instance.reply = reply
    instance.hangs_up_after_answer = True

    assert Endpoints({"a": instance.address}).silent() == (("a",) if is_silent else ())


def test_an_endpoint_that_hangs_is_silent_and_hides_no_other(instance: FakeInstance) -> None:
    instance.hold()
    with FakeInstance() as other:
        names = Endpoints({"held": instance.address, "live": other.address, "gone": nobody()})

        assert names.silent() == ("held", "gone")


def test_endpoints_are_asked_side_by_side(
    instance: FakeInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoints, "ANSWER_LIMIT_S", LIMIT_S)
    with FakeInstance() as other:

        def answer_after_both(_request: Any) -> bytes:
            both = (instance, other)
            wait_until(lambda: all(each.health_checks for each in both), "the other's request")
            return http_answer(b"")

        instance.reply = other.reply = answer_after_both

        assert Endpoints({"a": instance.address, "b": other.address}).silent() == ()


def test_a_hanging_endpoint_is_asked_once_at_a_time(
    instance: FakeInstance, forgetful: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Endpoints({"a": instance.address})
    begun: list[Address] = []
    may_end = threading.Event()

    def hang(address: Address) -> bool:
        begun.append(address)
        return may_end.wait(LIMIT_S)

    monkeypatch.setattr(endpoints, "ANSWER_LIMIT_S", 0.01)
    monkeypatch.setattr(endpoints, "_answers", hang)

    for _ in range(5):
        assert asked.silent() == ("a",)
    may_end.set()

    assert begun == [instance.address]


def test_an_answer_is_remembered_for_a_second(instance: FakeInstance) -> None:
    asked = Endpoints({"a": instance.address})

    for _ in range(20):
        asked.silent()

    assert len(instance.health_checks) <= 2  # 2: a machine that stood still for a second


def test_a_change_is_logged_once_and_names_the_functions(
    instance: FakeInstance, forgetful: None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    kept = instance.reply
    asked = Endpoints({"a": instance.address})
    for reply in (kept, lambda request: None, kept):
        instance.reply = reply
        for _ in range(3):
            asked.silent()

    told = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert told == [("WARNING", "endpoints do not answer"), ("INFO", "every endpoint answers")]
    assert vars(caplog.records[0])["functions"] == "a"


def test_many_names_are_cut() -> None:
    names = tuple(f"f{number}" for number in range(25))

    assert shortened(names[:10]) == "f0, f1, f2, f3, f4, f5, f6, f7, f8, f9"
    assert shortened(names).endswith("f9 and 15 more")


def test_a_server_is_ready_while_one_endpoint_answers(start_server: StartServer) -> None:
    with FakeInstance() as one, FakeInstance() as two:
        server = start_server(LAMBDA_ENDPOINTS=f"one={one.url},two={two.url}")

        one.close()
        wait_until(lambda: "not_answering" in server.get("/readyz").json(), "one to be missed")
        answer = server.get("/readyz")
        assert (answer.status, answer.json()) == (
            200,
            {"status": "ready", "not_answering": ["one"]},
        )

        two.close()
        wait_until(lambda: server.get("/readyz").status == 503, "two to be missed")
        said = server.get("/readyz").json()["status"]
        assert said == "no endpoint of LAMBDA_ENDPOINTS answers: one, two"
