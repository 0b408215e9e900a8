"""No request of any API makes the poller wait, which would hold up every other connection."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from devtools.ports import free_ports
from tests.conftest import StartRapid
from tests.integration.rapid.strict_rapid import COMPLAINT
from tests.support import IS_ONE_FILE, MISBEHAVE, RECORDER_EXTENSION, wait_until

PROGRAM = [sys.executable, str(Path(__file__).with_name("strict_rapid.py"))]

pytestmark = pytest.mark.skipif(IS_ONE_FILE, reason="the one file runs no test's code")


def test_calls_of_every_kind_never_make_the_poller_wait(
    start_rapid: StartRapid, tmp_path: Path
) -> None:
    (port,) = free_ports(1)
    extensions = tmp_path / "extensions"
    extensions.mkdir()
    (extensions / "recorder").symlink_to(RECORDER_EXTENSION)
    subscription = {
        "schemaVersion": "2022-12-13",
        "types": ["platform", "function", "extension"],
        "destination": {"protocol": "HTTP", "URI": f"http://sandbox.localdomain:{port}"},
    }
    rapid = start_rapid(
        MISBEHAVE,
        program=PROGRAM,
        RAPID_EXTENSIONS_DIR=str(extensions),
        RAPID_PRINT_REPORTS="TRUE",
        RECORDER_FILE=str(tmp_path / "record"),
        RECORDER_SUBSCRIBE=json.dumps(subscription),
        AWS_LAMBDA_FUNCTION_TIMEOUT="2",
    )

    for event in (
        {"do": "print", "text": "line\n" * 100},
        {"do": "chunked", "trailers": {}},
        {"do": "raise", "type": "Function.Oops", "body": "{}"},
        {"do": "size", "n": 100_000},
        {"do": "wrong_id"},
        {"do": "exit", "code": 1},
        {"do": "sleep", "s": 60},
        {"do": "truncate", "n": 10},
        {"do": "echo"},
    ):
        assert rapid.invoke(json.dumps(event), X_Amz_Log_Type="Tail").status == 200
    assert rapid.invoke(b"no json").status == 400
    assert rapid.invoke(b"{}", X_Amz_Invocation_Type="DryRun").status == 204
    assert rapid.invoke(b"{}", X_Amz_Invocation_Type="Event").status == 202
    for path in ("/healthz", "/readyz", "/metrics", "/unknown"):
        rapid.get(path)
    with rapid.raw() as leaver:
        leaver.send(
            b"POST /2015-03-31/functions/function/invocations HTTP/1.1\r\nHost: x\r\n"
            b'Content-Length: 20\r\n\r\n{"do":"sleep","s":1}'
        )
    wait_until(lambda: (tmp_path / "record").exists(), "the extension")

    assert rapid.stop() == 0

    assert COMPLAINT not in rapid.stderr.decode()


def test_a_wait_of_the_poller_would_be_noticed(start_rapid: StartRapid) -> None:
    faulty = str(Path(__file__).with_name("strict_rapid.py"))
    code = (
        "import runpy, sys, time; from rapid.apis import invoke_api;"
        "invoke_api.InvokeApi._handle_other = lambda *_: time.sleep(0);"
        f"sys.argv[0] = {faulty!r}; runpy.run_path({faulty!r}, run_name='__main__')"
    )
    rapid = start_rapid(MISBEHAVE, program=[sys.executable, "-c", code], ready=False)
    rapid.wait_for_log("serving")

    assert rapid.get("/healthz").status == 500
    assert COMPLAINT in rapid.stderr.decode()
