"""Fixtures: a cluster as ``scripts/cluster up`` makes it, on a real node.

They work in the namespaces that ``make node-check`` makes; elsewhere they skip.
"""

from __future__ import annotations

import os
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

import pytest

from devtools.ports import LOOPBACK
from devtools.processes import BackgroundProcess
from devtools.progress import Step, wait_until
from tests.acceptance.containers.engine import Images
from tests.acceptance.node import machine
from tests.acceptance.node.functions import Function, MakeFunction, Recorder
from tests.acceptance.node.images import mirrored, mirrored_images, storage
from tests.acceptance.node.kind import Kind
from tests.acceptance.node.node import Node
from tests.acceptance.node.programs import Programs, known_programs
from tests.acceptance.node.workplace import Workplace

_MIRROR: Final = f"{LOOPBACK}:5001"
_MIRROR_CONFIG: Final = """\
version: 0.1
log: {{level: error}}
storage: {{filesystem: {{rootdirectory: {folder}}}}}
http: {{addr: "{address}"}}
"""
_STAND_INS: Final = Path(__file__).with_name("stand_ins")


@pytest.fixture(scope="session")
def workplace() -> Iterator[Workplace]:
    """Give tools and images, and no cluster yet; stop what was started, whatever it is."""
    if "NODE_FOLDER" not in os.environ:
        pytest.skip("a node needs namespaces of its own: make node-check")
    folder, programs = Path(os.environ["NODE_FOLDER"]), known_programs()
    has_keda = bool(os.environ["NODE_HAS_KEDA"])
    machine.cover(folder)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    tools = folder / "tools"
    tools.mkdir()
    for tool in (*_STAND_INS.iterdir(), programs["kubectl"]):
        (tools / tool.name).symlink_to(tool)
    node = Node(folder / "node", programs, cgroup=os.environ["NODE_CGROUP"], mirror=_MIRROR)
    environ = {
        **os.environ,
        "PATH": f"{tools}:{os.environ['PATH']}",
        "KUBECONFIG": str(folder / "kubeconfig"),
        "NODE_SOCKET": str(folder / "kind.sock"),
        "NODE_STORAGE": str(storage()),
    }
    with ExitStack() as running:
        running.callback(_start_mirror(folder, programs, has_keda=has_keda).stop, 10.0)
        kind = Kind(node, folder / "kind.sock", folder / "kubeconfig")
        running.callback(kind.stop)
        yield Workplace(node=node, environ=environ, folder=folder, has_keda=has_keda)


@pytest.fixture(scope="session")
def up(workplace: Workplace) -> str:
    """Bring the cluster up, once, and give what that printed."""
    with Step("scripts/cluster up --scaling max-concurrency"):
        return workplace.cluster("up", "--scaling", "max-concurrency")


@pytest.fixture(scope="session")
def cluster(workplace: Workplace, up: str) -> Workplace:
    """Give the cluster."""
    return workplace


@pytest.fixture(scope="session")
def recorder(cluster: Workplace) -> Iterator[Recorder]:
    """Give what counts the runs of functions, while there is a cluster."""
    with Recorder() as recorder:
        yield recorder


@pytest.fixture
def make_function(cluster: Workplace, recorder: Recorder) -> Iterator[MakeFunction]:
    """Give a way to make functions, which are removed after the test."""
    made: list[Function] = []

    def make(name: str, *, pods: int = 1) -> Function:
        function = Function(cluster, name, recorder)
        function.spec["replicas"] = pods
        made.append(function)
        return function

    yield make
    for function in made:
        function.delete()


def _start_mirror(folder: Path, programs: Programs, *, has_keda: bool) -> BackgroundProcess:
    """Start the registry that stands for the internet's, and bring up to date what it has."""
    kept = storage() / "mirror"
    config = folder / "mirror.yml"
    config.write_text(_MIRROR_CONFIG.format(folder=kept, address=_MIRROR))
    process = BackgroundProcess.spawn(
        [programs["registry"], "serve", config],
        env={"OTEL_TRACES_EXPORTER": "none"},
        cwd=folder,
        log=folder / "mirror.log",
    )

    def answers() -> bool:
        with suppress(OSError), urllib.request.urlopen(f"http://{_MIRROR}/v2/"):
            return True
        return False

    assert wait_until(answers, 20.0), (folder / "mirror.log").read_text()
    images = Images(storage())
    for image in mirrored_images(has_keda=has_keda):
        name = mirrored(image)
        stamp, wanted = kept / name.replace("/", "-").replace(":", "-"), images.id(name)
        if not (stamp.exists() and stamp.read_text() == wanted):
            with Step(f"image {name}, pushed") as step:
                images.push(name, _MIRROR, step.tick)
            stamp.write_text(wanted)
    return process
