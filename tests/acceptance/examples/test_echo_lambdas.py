"""Each echo-lambda under a real rapid: by its command, and by the entrypoint of its image."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from tests.acceptance.conformance.base_image import BaseImage, why_no_namespace
from tests.acceptance.conformance.doors import assert_function_error
from tests.acceptance.runtimes.builds import built
from tests.acceptance.runtimes.recipes import ECHO_GO
from tests.acceptance.runtimes.recipes import NODE as NODE_RECIPE
from tests.conftest import StartRapid
from tests.support import ROOT, Rapid, wait_until

EXAMPLES: Final = ROOT / "examples"
PYTHON: Final = EXAMPLES / "echo-lambda"
GO: Final = EXAMPLES / "echo-lambda-go"
NODE: Final = EXAMPLES / "echo-lambda-node"
BASH: Final = EXAMPLES / "echo-lambda-bash"
BOOTSTRAP: Final = str(BASH / "bootstrap")

#: JSON that a runtime which reads and writes it anew would change, or that a shell could spoil.
same_bytes = pytest.mark.parametrize(
    "payload",
    [
        pytest.param(b'{"hello": "world"}', id="plain"),
        pytest.param(b'\n {\t"b" : 1.0,\r\n  "a": [ ] }\n\n', id="white space"),
        pytest.param('{"grüße": "日本 😀", "<&>": "\\u2028\\/"}'.encode(), id="letters"),
        pytest.param(b'{"text": "$HOME `id` %s %d \\\\ \\" * ~ @file"}', id="signs"),
        pytest.param(bytes(range(256)), id="no text"),
        pytest.param(b'{"size": "' + b"x" * 5_000_000 + b'"}', id="5 MB"),
    ],
)


@pytest.fixture(autouse=True)
def _temporary_files_of_the_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let runtimes that are killed leave their files where pytest removes them."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))


def command_in(folder: Path, *command: str) -> tuple[str, ...]:
    """Return a command line that runs ``command`` in ``folder``; rapid itself runs elsewhere."""
    return ("env", "-C", str(folder), *command)


# --- Python


@pytest.fixture
def start_bootstrap(start_rapid: StartRapid, tmp_path: Path) -> Callable[..., Rapid]:
    """Give a way to start the bootstrap that `make up` uses, with a handler of the test's own."""
    (tmp_path / "mine.py").write_text(
        "import os\n"
        "def handler(event, context):\n"
        "    if event == 'raise': raise ValueError('boom')\n"
        "    if event == 'unserialisable': return object()\n"
        "    left = context.get_remaining_time_in_millis() > 0\n"
        "    return [event, len(context.aws_request_id), left, os.environ['_X_AMZN_TRACE_ID']]\n"
    )

    def start(handler: str, **options: Any) -> Rapid:
        command = command_in(tmp_path, sys.executable, str(PYTHON / "bootstrap"), handler)
        return start_rapid(*command, LAMBDA_TASK_ROOT=str(tmp_path), **options)

    return start


def test_the_bootstrap_passes_event_and_context_and_survives_errors(
    start_bootstrap: Callable[..., Rapid],
) -> None:
    rapid = start_bootstrap("mine.handler", RAPID_CHECK_PAYLOAD="FALSE")

    for payload, error_type in (
        (b'"raise"', "ValueError"),
        (b'"unserialisable"', "TypeError"),
        (b"{", "JSONDecodeError"),
    ):
        error = assert_function_error(rapid.invoke(payload))
        assert sorted(error) == ["errorMessage", "errorType", "stackTrace"]
        assert error["errorType"] == error_type
        answer = rapid.invoke(b'{"a": 1}', X_Amzn_Trace_Id="Root=1").json()
        assert answer == [{"a": 1}, 36, True, "Root=1"]


def test_a_handler_that_the_bootstrap_cannot_load_is_an_init_error(
    start_bootstrap: Callable[..., Rapid],
) -> None:
    rapid = start_bootstrap("missing.handler", ready=False)

    assert assert_function_error(rapid.invoke())["errorType"] == "ModuleNotFoundError"


# --- Go


@pytest.fixture(scope="module")
def go_bootstrap() -> str:
    return str(built(ECHO_GO) / "bootstrap")


@same_bytes
def test_go_echoes_byte_for_byte(
    start_rapid: StartRapid, go_bootstrap: str, payload: bytes
) -> None:
    rapid = start_rapid(go_bootstrap, RAPID_CHECK_PAYLOAD="FALSE")

    assert rapid.invoke(payload).body == payload


# --- Node.js


def node_client() -> str:
    """Return the start script of a built aws-lambda-ric, which the runtime matrix has too."""
    return str(built(NODE_RECIPE) / "node_modules" / "aws-lambda-ric" / "bin" / "index.mjs")


def test_node_echoes(start_rapid: StartRapid) -> None:
    rapid = start_rapid(*command_in(NODE, "node", node_client(), "index.handler"))

    assert rapid.invoke(b'{"hello": "world"}').json() == {"hello": "world"}


# --- bash


def write_function(folder: Path, body: str) -> Path:
    """Make ``folder`` a function's, whose handler does what ``body`` says."""
    (folder / "function.sh").write_text(f"handler() {{\n{body}\n}}\n")
    return folder


@same_bytes
def test_bash_echoes_byte_for_byte(start_rapid: StartRapid, payload: bytes) -> None:
    rapid = start_rapid(
        BOOTSTRAP, "function.handler", LAMBDA_TASK_ROOT=str(BASH), RAPID_CHECK_PAYLOAD="FALSE"
    )

    assert rapid.invoke(payload).body == payload


@pytest.mark.parametrize("words", [(), ("other.handler",)], ids=["no handler", "another handler"])
def test_bash_takes_the_handler_from_the_environment(
    start_rapid: StartRapid, tmp_path: Path, words: tuple[str, ...]
) -> None:
    (tmp_path / "mine.sh").write_text("greet() { printf '\"hello\"'; }\n")

    rapid = start_rapid(
        BOOTSTRAP, *words, LAMBDA_TASK_ROOT=str(tmp_path), AWS_LAMBDA_FUNCTION_HANDLER="mine.greet"
    )

    assert rapid.invoke().json() == "hello"


def test_bash_passes_the_trace_id_on(start_rapid: StartRapid, tmp_path: Path) -> None:
    function = write_function(tmp_path, 'printf \'"%s"\' "$_X_AMZN_TRACE_ID"')
    rapid = start_rapid(BOOTSTRAP, "function.handler", LAMBDA_TASK_ROOT=str(function))
    trace_id = "Root=1-6746f0a1-0123456789abcdef01234567;Parent=0123456789abcdef;Sampled=0"

    assert rapid.invoke(X_Amzn_Trace_Id=trace_id).json() == trace_id


@pytest.mark.parametrize(
    "body",
    [
        pytest.param("printf partial; return 3", id="returns"),
        pytest.param("printf partial; exit 3", id="exits"),
        pytest.param("printf partial; (exit 3); printf more", id="a command fails"),
    ],
)
def test_a_bash_handler_that_fails_is_a_function_error_and_the_next_call_is_served(
    start_rapid: StartRapid, tmp_path: Path, body: str
) -> None:
    function = write_function(
        tmp_path, f"echo seen >&2; if grep -q fail; then {body}; fi; printf true"
    )
    rapid = start_rapid(BOOTSTRAP, "function.handler", LAMBDA_TASK_ROOT=str(function))

    assert assert_function_error(rapid.invoke(b'"fail"')) == {
        "errorType": "Runtime.HandlerFailed",
        "errorMessage": "function.handler ended with status 3",
        "stackTrace": [],
    }
    assert rapid.invoke(b'"go"').json() is True
    rapid.wait_for_log("seen")  # on standard error, which is the log
    starts = [line for line in rapid.log if "exec '" in line]
    assert len(starts) == 1


@pytest.mark.parametrize(
    "handler",
    [
        pytest.param("missing.handler", id="no file"),
        pytest.param("function.missing", id="no function"),
        pytest.param("broken.handler", id="a syntax error"),
        pytest.param('function."\\', id="signs of JSON"),
    ],
)
def test_a_bash_handler_that_cannot_be_loaded_is_an_init_error(
    start_rapid: StartRapid, tmp_path: Path, handler: str
) -> None:
    write_function(tmp_path, "cat")
    (tmp_path / "broken.sh").write_text("handler() { if\n")

    rapid = start_rapid(BOOTSTRAP, handler, LAMBDA_TASK_ROOT=str(tmp_path), ready=False)

    assert assert_function_error(rapid.invoke()) == {
        "errorType": "Runtime.NoSuchHandler",
        "errorMessage": f"no handler {handler} in {tmp_path}",
        "stackTrace": [],
    }


def test_a_bash_runtime_that_ends_leaves_no_file_behind(
    start_rapid: StartRapid, tmp_path: Path
) -> None:
    rapid = start_rapid(BOOTSTRAP, "missing.handler", ready=False, LAMBDA_TASK_ROOT=str(BASH))

    assert_function_error(rapid.invoke())

    wait_until(lambda: not list(tmp_path.iterdir()), "the end of the runtime's files")


# --- the images' entrypoints, with rapid where they look for an emulator


@pytest.fixture
def image(tmp_path: Path) -> BaseImage:
    """Give a root of its own with rapid at /usr/local/bin/aws-lambda-rie, and no function yet."""
    reason = why_no_namespace()
    if reason is not None:
        pytest.skip(reason)
    return BaseImage(tmp_path / "root", in_namespace=True)


@pytest.fixture(params=["python", "bash", "node"])
def image_and_handler(request: pytest.FixtureRequest, image: BaseImage) -> tuple[BaseImage, str]:
    """Give the image of each example that has an entry script, and its handler."""
    if request.param == "python":
        add_files(image, PYTHON, {"echo.py": "var/task"})
        image.add("opt/venv/bin/python", '#!/bin/sh\nexec @PYTHON@ "$@"\n')
        folder, handler = PYTHON, "echo.handler"
    elif request.param == "bash":
        add_files(image, BASH, {"bootstrap": "var/task", "function.sh": "var/task"})
        folder, handler = BASH, "function.handler"
    else:
        add_files(image, NODE, {"index.mjs": "var/task", "package.json": "var/task"})
        script = f'#!/bin/sh\nexec node {node_client()} "$@"\n'
        image.add("var/task/node_modules/.bin/aws-lambda-ric", script)
        folder, handler = NODE, "index.handler"
    add_files(image, folder, {"entry_script.sh": ""})
    return image, handler


def add_files(image: BaseImage, folder: Path, places: dict[str, str]) -> None:
    """Copy files of an example into folders of the image."""
    for name, place in places.items():
        image.add(f"{place}/{name}".lstrip("/"), (folder / name).read_text())


@pytest.mark.parametrize("emulator", [(), ("/usr/local/bin/aws-lambda-rie",)], ids=["", "under"])
def test_an_entry_script_starts_the_emulator_or_the_function_under_it(
    image_and_handler: tuple[BaseImage, str], emulator: tuple[str, ...]
) -> None:
    image, handler = image_and_handler

    with image.program(*emulator, "/entry_script.sh", handler) as rapid:
        assert rapid.invoke(b'{"hello": "world"}').json() == {"hello": "world"}


def test_bash_runs_in_an_image_laid_out_as_aws_does(image: BaseImage) -> None:
    add_files(image, BASH, {"bootstrap": "var/runtime", "function.sh": "var/task"})

    with image.program("/lambda-entrypoint.sh", "function.handler") as rapid:
        assert rapid.invoke(b'{"hello": "world"}').body == b'{"hello": "world"}'


def test_go_is_found_in_an_image_of_its_own_by_rapid_alone(
    image: BaseImage, go_bootstrap: str
) -> None:
    bootstrap = image.folder / "var/task/bootstrap"
    bootstrap.write_bytes(Path(go_bootstrap).read_bytes())
    bootstrap.chmod(0o755)

    with image.program("/usr/local/bin/aws-lambda-rie") as rapid:
        assert rapid.invoke(b'{"hello": "world"}').body == b'{"hello": "world"}'
