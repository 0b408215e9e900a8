"""The extensions of examples/extensions, as their README runs them."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.conformance.base_image import BaseImage
from tests.acceptance.conformance.listener import COLD_CALL, platform_types, types_of
from tests.conftest import StartRapid
from tests.support import AWSLAMBDARIC, MISBEHAVE, ROOT, wait_for, wait_until

EXAMPLES = ROOT / "examples" / "extensions"
WRAPPER = EXAMPLES / "timing" / "wrapper"


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """Give the settings for the external extensions, with files of this test."""
    return {
        "RAPID_EXTENSIONS_DIR": str(EXAMPLES / "external"),
        "TELEMETRY_FILE": str(tmp_path / "telemetry"),
        "GOODBYE_FILE": str(tmp_path / "goodbye"),
    }


@pytest.fixture(autouse=True)
def _needs_curl() -> None:
    if shutil.which("curl") is None:
        pytest.skip("no curl on this machine; scripts/test-setup installs it")


def records_in(file: Path) -> list[Any]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def test_telemetry_to_file_keeps_every_record(
    start_rapid: StartRapid, environ: dict[str, str], tmp_path: Path
) -> None:
    rapid = start_rapid(MISBEHAVE, **environ)

    answer = rapid.do(do="print", text="hello\n")
    rapid.stop()

    records = records_in(tmp_path / "telemetry")
    told = [kind for kind in platform_types(records) if kind != "platform.extension"]
    assert told == [kind for kind in COLD_CALL if kind != "platform.extension"]
    start = types_of(records).index("platform.start")
    assert types_of(records)[start + 1] == "function"
    assert records[-1]["record"]["requestId"] == answer.headers["x-amzn-RequestId"]


@pytest.mark.parametrize(
    ("end", "reason"),
    [("stop", "SPINDOWN"), ('{"do":"exit"}', "FAILURE"), ('{"do":"sleep","s":60}', "TIMEOUT")],
    ids=["stop", "crash", "timeout"],
)
def test_goodbye_tells_why_it_ended(
    start_rapid: StartRapid, environ: dict[str, str], tmp_path: Path, end: str, reason: str
) -> None:
    rapid = start_rapid(MISBEHAVE, AWS_LAMBDA_FUNCTION_TIMEOUT="1", **environ)
    file = tmp_path / "goodbye"

    if end == "stop":
        rapid.stop()
    else:
        rapid.invoke(end)

    wait_until(lambda: file.exists() and file.read_text().endswith("\n"), "the line")
    assert file.read_text() == f"{reason}\n"


def test_timing_runs_inside_the_runtime_by_its_command(start_rapid: StartRapid) -> None:
    rapid = start_rapid(str(WRAPPER), *AWSLAMBDARIC, "handlers.echo")

    answer = rapid.invoke(b'{"n": 1}')

    assert answer.json() == {"n": 1}
    request_id = answer.headers["x-amzn-RequestId"]

    def told() -> re.Match[str] | None:
        return re.search(rf"timing: {request_id} may take (\d+) ms\n", rapid.stdout.decode())

    assert 290_000 < int(wait_for(told, "the line of the call")[1]) <= 300_000


def test_timing_runs_inside_the_runtime_of_a_base_image(tmp_path: Path) -> None:
    image = BaseImage(tmp_path / "root")
    environ = {"AWS_LAMBDA_EXEC_WRAPPER": str(WRAPPER), "AWS_LAMBDA_FUNCTION_NAME": "echo"}

    with image.program("/lambda-entrypoint.sh", "handlers.echo", **environ) as rapid:
        calls = [rapid.invoke(b'{"n": 1}') for _ in range(2)]

        def lines() -> list[str] | None:
            found = [line for line in rapid.log if line.startswith("timing: ")]
            return found if len(found) == 2 else None

        ids = [line.split()[1] for line in wait_for(lines, "a line of each call")]

    assert ids == [call.headers["x-amzn-RequestId"] for call in calls]
