"""The images of this project in real containers, as strict as Kubernetes makes them."""

from __future__ import annotations

import json
import re
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


# --- rapid in images that know nothing of it


@pytest.mark.broker
def test_a_function_answers_directly_and_through_server_and_broker(
    start: StartFunction, server: Container, broker: str
) -> None:
    name = unique_name()
    container = start(RAPID_AMQP_URI=broker, AWS_LAMBDA_FUNCTION_NAME=name)

    assert json.loads(invoke(container.port, PAYLOAD, name)) == EVENT
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


@pytest.mark.parametrize("how", ["SIGTERM", "kill 1"])
def test_a_stop_is_a_clean_exit(start: StartFunction, function: Function, how: str) -> None:
    if how == "kill 1" and not function.has_shell:
        pytest.skip("the image has nothing that could send a signal")
    container = start()
    invoke(container.port, PAYLOAD)

    if how == "kill 1":
        assert container.execute("/bin/sh", "-c", "kill 1").returncode == 0
        assert container.wait_exit() == 0
    else:
        assert container.stop() == 0
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
