"""The names sandbox and sandbox.localdomain, in a mount namespace with an /etc/hosts of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.conformance.base_image import why_no_namespace
from tests.acceptance.conformance.listener import Listener
from tests.extensions import RecorderExtension
from tests.support import MISBEHAVE, Rapid

conformance = pytest.mark.conformance

#: Puts $1 in the place of /etc/hosts, read-only when $2 says so, and runs the rest.
_ENTER = """
set -e
mount --bind "$1" /etc/hosts
if [ "$2" = ro ]; then mount -o remount,bind,ro /etc/hosts; fi
shift 2
exec "$@"
"""


class NamespacedRapid(Rapid):
    """A rapid with an /etc/hosts of its own."""

    def __init__(self, hosts: Path, mode: str, **environ: str) -> None:
        """``mode`` is rw or ro."""
        super().__init__(MISBEHAVE, flags=(), ready=True, **environ)
        own = ["unshare", "--mount", "sh", "-c", _ENTER, "sh", str(hosts), mode]
        self._command = own + self._command


@pytest.fixture
def hosts(tmp_path: Path) -> Path:
    """Give a hosts file without the names."""
    reason = why_no_namespace()
    if reason is not None:
        pytest.skip(reason)
    file = tmp_path / "hosts"
    file.write_text("127.0.0.1 localhost\n")
    return file


@pytest.fixture
def listener() -> Iterator[Listener]:
    with Listener() as listener:
        yield listener


@pytest.fixture
def environ(extension: RecorderExtension, listener: Listener) -> dict[str, str]:
    """Give the settings for the recorder extension, subscribed to the listener by name."""
    subscription = {
        "schemaVersion": "2022-12-13",
        "types": ["platform"],
        "destination": {"protocol": "HTTP", "URI": f"http://sandbox.localdomain:{listener.port}"},
    }
    return {"RECORDER_SUBSCRIBE": json.dumps(subscription), **extension.environ}


@conformance(117)
def test_the_sandboxs_names_are_added_for_extensions(
    hosts: Path, environ: dict[str, str], extension: RecorderExtension, listener: Listener
) -> None:
    with NamespacedRapid(hosts, "rw", **environ):
        listener.wait_for("platform.initReport")
        (variables,) = extension.written("environ")

    assert hosts.read_text() == "127.0.0.1 localhost\n127.0.0.1 sandbox.localdomain sandbox\n"
    assert "AWS_SAM_LOCAL" not in variables


@conformance(117)
def test_with_a_read_only_root_records_are_delivered_all_the_same(
    hosts: Path, environ: dict[str, str], extension: RecorderExtension, listener: Listener
) -> None:
    with NamespacedRapid(hosts, "ro", **environ) as rapid:
        listener.wait_for("platform.initReport")
        (variables,) = extension.written("environ")
        function = rapid.do(do="env").json()["environ"]

    assert hosts.read_text() == "127.0.0.1 localhost\n"
    assert variables["AWS_SAM_LOCAL"] == "true"  # AWS's samples then listen on every address
    assert "AWS_SAM_LOCAL" not in function


def test_without_extensions_the_hosts_file_is_left_alone(hosts: Path) -> None:
    with NamespacedRapid(hosts, "rw"):
        pass

    assert hosts.read_text() == "127.0.0.1 localhost\n"
