"""Running a plan's steps: what is tried again, and what counts as an answer."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from devtools.commands import CommandError
from devtools.kind_cluster import runner
from devtools.kind_cluster.runner import run_steps
from devtools.kind_cluster.steps import Action, Command, HttpCall, Step


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "_PAUSE_S", 0.0)


def run(action: Action) -> None:
    run_steps([Step(title="a step", actions=(action,))])


@contextmanager
def answering(*answers: tuple[int, dict[str, str]]) -> Iterator[str]:
    """Serve these answers, the last one for ever; give the address."""
    left = list(answers)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers = left.pop(0) if len(left) > 1 else left[0]
            self.send_response(status)
            for name, value in {"Content-Length": "2", **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, format: str, *arguments: object) -> None:
            """Keep quiet."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


FAILED = (200, {"X-Amz-Function-Error": "Unhandled"})


def test_a_call_is_made_until_it_is_answered() -> None:
    with answering((503, {}), FAILED, (200, {})) as url:
        run(HttpCall(url=url, limit_s=10))


@pytest.mark.parametrize("answer", [(503, {}), FAILED])
def test_a_call_that_only_fails_is_a_failure(answer: tuple[int, dict[str, str]]) -> None:
    with answering(answer) as url, pytest.raises(CommandError, match=f"answered {answer[0]}: {{}}"):
        run(HttpCall(url=url, limit_s=0.2))
    with pytest.raises(CommandError, match="does not answer: ConnectionRefusedError"):
        run(HttpCall(url=url, limit_s=0.2))


@pytest.fixture
def third_time(tmp_path: Path) -> tuple[str, ...]:
    """Give a command that succeeds when it is run for the third time."""
    return ("sh", "-c", f'echo >> "{tmp_path}/n"; [ $(wc -l < "{tmp_path}/n") -ge 3 ]')


def test_only_a_command_that_may_fail_at_first_is_run_again(third_time: tuple[str, ...]) -> None:
    with pytest.raises(CommandError, match="failed with status 1"):
        run(Command(argv=third_time))

    run(Command(argv=third_time, retry_s=10))


def test_after_a_failure_nothing_is_run(tmp_path: Path) -> None:
    steps = [
        Step(title="fails", actions=(Command(argv=("false",)),)),
        Step(title="next", actions=(Command(argv=("touch", f"{tmp_path}/run")),)),
    ]

    with pytest.raises(CommandError):
        run_steps(steps)

    assert not (tmp_path / "run").exists()
