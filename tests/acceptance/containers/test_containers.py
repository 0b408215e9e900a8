"""The images of this project in real containers, as strict as Kubernetes makes them."""

from __future__ import annotations

import contextlib
import json
import re
import stat
from pathlib import Path

import psutil
import pytest

from tests.acceptance.containers.conftest import Function, StartFunction, invoke
from tests.acceptance.containers.engine import Container, Images
from tests.support import child_states, unique_name, wait_for, wait_until

EVENT = {"key": "value", "list": [1, 2.5, None], "text": "é"}
PAYLOAD = json.dumps(EVENT).encode()


# --- the images


def test_the_daemons_image_holds_one_file(images: Images, daemon_image: str) -> None:
    root = images.root(daemon_image)

    files = [str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir()]

    assert files == ["usr/local/bin/rapid"]


@pytest.mark.parametrize("image_fixture", ["daemon_image", "server_image"])
def test_an_image_says_what_it_is_and_is_not_root(
    images: Images, request: pytest.FixtureRequest, image_fixture: str
) -> None:
    settings = images.settings(request.getfixturevalue(image_fixture))

    assert settings["User"] == "65534:65534"
    assert "8080/tcp" in settings["ExposedPorts"]
    for label in ("title", "description", "licenses", "version", "revision"):
        assert settings["Labels"][f"org.opencontainers.image.{label}"]
    assert not [name for name in settings["Env"] if re.search("(?i)password|secret|key", name)]


# --- the init container


def test_the_init_container_fills_the_shared_folder(
    images: Images, daemon_image: str, shared: Path
) -> None:
    original = images.root(daemon_image) / "usr/local/bin/rapid"

    assert sorted(path.name for path in shared.iterdir()) == ["lambda-runtime-api-daemon", "rapid"]
    for copy in shared.iterdir():
        assert copy.read_bytes() == original.read_bytes()
        assert stat.S_IMODE(copy.stat().st_mode) == 0o755


def test_an_init_container_without_a_volume_says_so(
    images: Images, daemon_image: str, folder: Path
) -> None:
    entrypoint = images.settings(daemon_image)["Entrypoint"]
    container = Container(
        folder, images.root(daemon_image), entrypoint, {"KUBERNETES_INIT_CONTAINER": ""}
    )
    with contextlib.closing(container):
        container.start()

        assert container.wait_exit() == 1
        (line,) = container.log
        assert line.startswith("rapid: cannot copy /usr/local/bin/rapid to /tmp: ")


# --- rapid in images that know nothing of it


def test_a_function_answers_directly(start: StartFunction) -> None:
    container = start()

    assert json.loads(invoke(container.port, PAYLOAD)) == EVENT
    assert json.loads(invoke(container.port, PAYLOAD)) == EVENT


@pytest.mark.broker
def test_a_function_answers_through_server_and_broker(
    start: StartFunction, server: Container, broker: str
) -> None:
    name = unique_name()
    start(RAPID_AMQP_URI=broker, AWS_LAMBDA_FUNCTION_NAME=name)

    assert json.loads(invoke(server.port, PAYLOAD, name)) == EVENT


def test_rapid_is_the_first_process_and_may_do_nothing(
    start: StartFunction, function: Function
) -> None:
    container = start()

    status = Path(f"/proc/{container.init}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    mounts = Path(f"/proc/{container.init}/mountinfo").read_text().splitlines()
    (root,) = [line.split()[5] for line in mounts if line.split()[4] == "/"]

    assert fields["NSpid"].split()[-1] == "1"
    assert fields["Uid"].split() == ["1000"] * 4
    assert {int(fields[name], 16) for name in ("CapEff", "CapPrm", "CapBnd", "CapAmb")} == {0}
    assert fields["NoNewPrivs"] == "1"
    assert fields["Name"] == "aws-lambda-rie"
    assert root.split(",")[0] == "ro"


def test_sigterm_is_a_clean_exit(start: StartFunction) -> None:
    container = start()
    invoke(container.port, PAYLOAD)

    assert container.stop() == 0
    assert container.descendants() == []


def test_kill_1_is_a_clean_exit(start: StartFunction, function: Function) -> None:
    if not function.has_shell:
        pytest.skip("the image has nothing that could send a signal")
    container = start()
    invoke(container.port, PAYLOAD)

    killed = container.execute("/bin/sh", "-c", "kill 1")

    assert killed.returncode == 0, killed.stderr
    assert container.wait_exit() == 0
    assert container.descendants() == []


def test_an_orphan_is_reaped(start: StartFunction, function: Function) -> None:
    if not function.has_shell:
        pytest.skip("the image has nothing that could leave an orphan")
    container = start()
    before = child_states(container.init)

    container.execute("/bin/sh", "-c", "sleep 1 > /dev/null 2>&1 &")
    orphan = wait_for(
        lambda: next(iter(child_states(container.init).keys() - before.keys()), None),
        "the orphan to come to rapid",
    )
    wait_until(lambda: orphan not in child_states(container.init), "the orphan to be reaped")

    assert psutil.STATUS_ZOMBIE not in child_states(container.init).values()


# --- the server


@pytest.mark.broker
def test_the_server_is_healthy_by_its_images_own_check(
    images: Images, server_image: str, server: Container
) -> None:
    kind, *check = images.settings(server_image)["Healthcheck"]["Test"]

    done = server.execute(*check)

    assert kind == "CMD"
    assert (done.returncode, done.stderr) == (0, "")
