"""Fixtures: the images of this project, and images of functions that know nothing of it."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from bench.tools import build_echo
from devtools.ports import LOOPBACK, free_ports
from devtools.static.stages import CHECKOUT
from tests.acceptance.conformance.base_image import ENTRYPOINT
from tests.acceptance.containers.engine import Container, Images, NotHere
from tests.support import Client

EMULATOR: Final = "/usr/local/bin/aws-lambda-rie"
_IMAGES: Final = Path(__file__).with_name("images")
_BOOTSTRAP: Final = """\
#!/bin/sh
exec python3 /var/runtime/client.py "$_HANDLER"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Function:
    """An image of a function, and what its container is told to start."""

    image: str
    command: tuple[str, ...]
    has_shell: bool = True


FUNCTIONS: Final = (
    Function(image="go", command=(EMULATOR,), has_shell=False),
    Function(image="aws-layout", command=("/lambda-entrypoint.sh", "echo.handler")),
    Function(image="busybox", command=(EMULATOR, "/var/task/bootstrap")),
)


@pytest.fixture(scope="session")
def images() -> Iterator[Images]:
    """Give the store; in CI it says loudly why there is none, elsewhere it is a reason to skip."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lambda-containers"
    try:
        store = Images(cache)
    except NotHere as reason:
        if os.environ.get("CI") == "true":
            print(f"\n\n{'!' * 78}\nNO CONTAINER WAS RUN: {reason}\n{'!' * 78}\n", file=sys.stderr)
        pytest.skip(f"no containers here: {reason}")
    yield store
    store.close()


@pytest.fixture(scope="session")
def daemon_image(images: Images) -> str:
    images.build(
        "lambda-runtime-api-daemon",
        CHECKOUT / "docker" / "Dockerfile-daemon",
        CHECKOUT,
        PGO=os.environ.get("PGO", "0"),
    )
    return "lambda-runtime-api-daemon"


@pytest.fixture(scope="session")
def server_image(images: Images) -> str:
    images.build("lambda-server", CHECKOUT / "docker" / "Dockerfile-server", CHECKOUT)
    return "lambda-server"


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder that other users may enter."""
    folder = tmp_path_factory.mktemp("containers")
    for each in (folder, folder.parent, folder.parent.parent):
        each.chmod(0o755)
    return folder


@pytest.fixture(scope="session")
def shared(images: Images, daemon_image: str, folder: Path) -> Path:
    """Give a volume, which the init container has filled."""
    shared = folder / "volume"
    shared.mkdir()
    shared.chmod(0o777)
    container = Container(
        folder,
        images.root(daemon_image),
        images.settings(daemon_image)["Entrypoint"],
        {"KUBERNETES_INIT_CONTAINER": ""},
        mounts={"/tmp": shared},
    )
    with contextlib.closing(container):
        container.start()
        code = container.wait_exit()
    assert code == 0, container.log
    return shared


@pytest.fixture(scope="session", params=FUNCTIONS, ids=lambda function: function.image)
def function(request: pytest.FixtureRequest, images: Images, folder: Path) -> Function:
    """Give a function whose image is built."""
    function: Function = request.param
    context = folder / function.image
    shutil.copytree(_IMAGES / function.image, context)
    if function.image == "go":
        echo = build_echo()
        if echo.path.suffix == ".py":
            pytest.skip(echo.origin)
        shutil.copy(echo.path, context / "bootstrap")
    elif function.image == "aws-layout":
        echo_lambda = CHECKOUT / "examples" / "echo-lambda"
        shutil.copy(echo_lambda / "echo.py", context)
        shutil.copy(echo_lambda / "bootstrap", context / "client.py")
        for name, text in (
            ("lambda-entrypoint.sh", ENTRYPOINT.replace("@ROOT@", "")),
            ("bootstrap", _BOOTSTRAP),
        ):
            (context / name).write_text(text)
            (context / name).chmod(0o755)
    images.build(f"test-{function.image}", context / "Dockerfile", context)
    return function


StartFunction = Callable[..., Container]


@pytest.fixture
def start(
    images: Images, folder: Path, shared: Path, function: Function
) -> Iterator[StartFunction]:
    """Give a way to run the function with settings, rapid in the emulator's place, for one test."""
    root = images.root(f"test-{function.image}")
    settings = images.settings(f"test-{function.image}")
    rapid = shared / "lambda-runtime-api-daemon"
    with contextlib.ExitStack() as running:

        def run(**environ: str) -> Container:
            port, runtime_api_port = free_ports(2)
            variables = {
                **dict(line.split("=", 1) for line in settings.get("Env") or []),
                "RAPID_INVOKE_API_HOST": LOOPBACK,
                "RAPID_PORT": str(port),
                "RAPID_RUNTIME_API_PORT": str(runtime_api_port),
                **environ,
            }
            return running.enter_context(
                Container(
                    folder,
                    root,
                    function.command,
                    variables,
                    port=port,
                    cwd=settings.get("WorkingDir") or "/",
                    mounts={EMULATOR: rapid, "/tmp": None},
                )
            )

        yield run


@pytest.fixture(scope="session")
def server(images: Images, folder: Path, server_image: str, broker: str) -> Iterator[Container]:
    """Give a container of the Lambda Server, over the broker."""
    (port,) = free_ports(1)
    settings = images.settings(server_image)
    container = Container(
        folder,
        images.root(server_image),
        settings["Entrypoint"],
        {
            **dict(line.split("=", 1) for line in settings["Env"]),
            "AMQP_URI": broker,
            "INVOKE_API_HOST": LOOPBACK,
            "PORT": str(port),
        },
        port=port,
        user=65534,
        cwd=settings["WorkingDir"],
        mounts={"/dev/shm": None},
    )
    with container:
        yield container
        assert container.stop() == 0


def invoke(port: int, payload: bytes, name: str = "function") -> bytes:
    """Return the function's answer by an Invoke API."""
    with Client(port) as client:
        answer = client.post(f"/2015-03-31/functions/{name}/invocations", payload)
    assert answer.status == 200, answer.body
    assert "X-Amz-Function-Error" not in answer.headers
    return answer.body
