from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.conformance.conftest import OpenDoor
from tests.acceptance.conformance.doors import Door, Gate, boto3_client
from tests.acceptance.system.proxy import Proxy
from tests.support import AWS_CLI, LIMIT_S, MISBEHAVE, Answer, run_command

conformance = pytest.mark.conformance

#: A payload that any re-serialisation would change.
ODD_JSON = '{ "a" :1.0, "b":[1,  2],\n"c":"\\u00e9é" }'.encode()
REPORT_LINE = re.compile(r"REPORT RequestId: [0-9a-f-]{36}\tDuration: .*")


def log_of(answer: Answer) -> bytes:
    return base64.b64decode(answer.headers["X-Amz-Log-Result"], validate=True)


def assert_ends_with_report(log: bytes, answer: Answer) -> None:
    assert len(log) <= 4096
    last = log.decode().splitlines()[-1]
    assert REPORT_LINE.fullmatch(last), last
    assert answer.headers["x-amzn-RequestId"] in last


@conformance(1)
def test_payload_and_the_runtimes_bytes_pass_unchanged(door: Door) -> None:
    answers = {
        ODD_JSON: door.invoke(ODD_JSON, Content_Type="application/json"),
        b'\x00\xff\n{"': door.do(do="bytes", hex="00ff0a7b22"),
    }

    for expected, answer in answers.items():
        assert (answer.status, answer.body) == (200, expected)
        assert answer.headers["Content-Type"] == "application/json"


@conformance(2)
def test_the_request_id_is_the_runtimes(door: Door) -> None:
    seen, answer = door.runtime_headers()

    assert answer.headers["x-amzn-RequestId"] == seen["Lambda-Runtime-Aws-Request-Id"]
    assert re.fullmatch(
        r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", seen["Lambda-Runtime-Aws-Request-Id"]
    )


@conformance(3)
def test_success_names_the_version_and_no_function_error(door: Door) -> None:
    answer = door.invoke()

    assert answer.headers["X-Amz-Executed-Version"] == "$LATEST"
    assert "X-Amz-Function-Error" not in answer.headers


@conformance(3)
def test_the_executed_version_is_the_functions(open_door: OpenDoor) -> None:
    door = open_door(MISBEHAVE, AWS_LAMBDA_FUNCTION_VERSION="7")

    assert door.invoke().headers["X-Amz-Executed-Version"] == "7"


@conformance(4, 8)
def test_an_event_is_accepted_before_its_handler_ends(door: Door, gate: Gate) -> None:
    answer = door.invoke(gate.event, X_Amz_Invocation_Type="Event", X_Amz_Log_Type="Tail")

    gate.wait_reached()  # it runs, and could not end before the answer
    gate.open()
    assert (answer.status, answer.body) == (202, b"")
    assert answer.headers["x-amzn-RequestId"]
    assert "X-Amz-Executed-Version" not in answer.headers
    assert "X-Amz-Log-Result" not in answer.headers


@conformance(5)
def test_a_dry_run_does_not_run_the_handler(door: Door) -> None:
    before = door.result(do="counter")

    answer = door.invoke(b'{"do":"counter"}', X_Amz_Invocation_Type="DryRun")

    assert (answer.status, answer.body) == (204, b"")
    assert answer.headers["x-amzn-RequestId"]
    assert "X-Amz-Executed-Version" not in answer.headers
    assert door.result(do="counter") == before + 1


@conformance(6)
@pytest.mark.parametrize(
    "headers", [{}, {"X_Amz_Invocation_Type": "RequestResponse"}], ids=["absent", "given"]
)
def test_a_call_is_synchronous_by_default(door: Door, headers: dict[str, str]) -> None:
    answer = door.invoke(b'{"do":"pid"}', **headers)

    assert answer.status == 200
    assert answer.json() > 1


@conformance(7)
def test_tail_is_the_whole_log_when_it_is_short(door: Door) -> None:
    answer = door.invoke(b'{"do":"print","text":"seen\\n"}', X_Amz_Log_Type="Tail")

    log = log_of(answer)
    assert log.startswith(b"START RequestId: " + answer.headers["x-amzn-RequestId"].encode())
    assert b"\nseen\n" in log
    assert_ends_with_report(log, answer)


@conformance(7)
def test_tail_is_the_last_4096_bytes_when_the_log_is_long(door: Door) -> None:
    answer = door.invoke(
        json.dumps({"do": "print", "text": "0123456789abcde\n", "times": 1000}),
        X_Amz_Log_Type="Tail",
    )

    log = log_of(answer)
    assert len(log) == 4096
    assert b"0123456789abcde\n" * 200 in log
    assert_ends_with_report(log, answer)


@conformance(8)
@pytest.mark.parametrize("headers", [{}, {"X_Amz_Log_Type": "None"}], ids=["absent", "None"])
def test_without_tail_there_is_no_log_result(door: Door, headers: dict[str, str]) -> None:
    assert "X-Amz-Log-Result" not in door.invoke(**headers).headers


@conformance(9)
@pytest.mark.parametrize("event", ['{"do":"raise"}', '{"do":"exit"}'], ids=["raise", "exit"])
def test_tail_works_when_the_function_fails(door: Door, event: str) -> None:
    answer = door.invoke(event, X_Amz_Log_Type="Tail")

    assert answer.headers["X-Amz-Function-Error"] == "Unhandled"
    assert_ends_with_report(log_of(answer), answer)


@conformance(10)
def test_an_empty_body_reaches_the_handler_as_an_empty_object(door: Door) -> None:
    assert door.invoke(b"").body == b"{}"


@conformance(11)
@pytest.mark.parametrize("payload", ["1", '"x"', "null", "true", "-1.5e3", "[]"])
def test_json_scalars_are_payloads(door: Door, payload: str) -> None:
    answer = door.invoke(payload)

    assert (answer.status, answer.body) == (200, payload.encode())


@conformance(12, 20)
def test_boto3_without_content_type_gets_everything_it_returns(door: Door) -> None:
    sent: list[Any] = []
    client = boto3_client(door.url)
    client.meta.events.register("before-send", lambda request, **_: sent.append(request.headers))

    result = client.invoke(FunctionName=door.function_name, Payload=ODD_JSON, LogType="Tail")

    assert "Content-Type" not in sent[0]
    assert (result["StatusCode"], result["ExecutedVersion"]) == (200, "$LATEST")
    assert "FunctionError" not in result
    assert result["Payload"].read() == ODD_JSON
    assert REPORT_LINE.search(base64.b64decode(result["LogResult"]).decode())


@conformance(13)
def test_curls_form_content_type_works(door: Door) -> None:
    if shutil.which("curl") is None:
        pytest.skip("no curl on this machine")

    run = subprocess.run(
        ["curl", "-sS", "-i", "-d", '{"x": 1}', door.url + door.path()],
        capture_output=True,
        timeout=LIMIT_S,
        check=True,
    )

    assert run.stdout.startswith(b"HTTP/1.1 200 ")
    assert run.stdout.endswith(b'\r\n\r\n{"x": 1}')


@conformance(14)
def test_a_chunked_request_body_is_read(door: Door) -> None:
    with door.raw() as connection:
        connection.send(
            f"POST {door.path()} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
            + b'2\r\n{"\r\n3;ext=1\r\nx":\r\n2\r\n1}\r\n0\r\n\r\n'
        )
        answer = connection.read_answer()

    assert (answer.status, answer.body) == (200, b'{"x":1}')


@conformance(15)
def test_a_hundred_boto3_calls_use_one_connection(door: Door) -> None:
    with Proxy(door.port) as proxy:
        client = boto3_client(f"http://127.0.0.1:{proxy.port}")

        for number in range(100):
            result = client.invoke(FunctionName=door.function_name, Payload=b"%d" % number)
            assert result["Payload"].read() == b"%d" % number
        client.close()

        assert proxy.accepted == 1


@conformance(16)
def test_the_client_context_arrives_decoded(door: Door) -> None:
    context = {"custom": {"who": "Zoë\n"}, "env": {}}
    encoded = base64.b64encode(json.dumps(context, ensure_ascii=False).encode()).decode()

    seen, _ = door.runtime_headers(X_Amz_Client_Context=encoded)

    assert json.loads(seen["Lambda-Runtime-Client-Context"]) == context


@conformance(17)
def test_the_trace_header_arrives_verbatim(door: Door) -> None:
    trace = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1;Lineage=a:1"

    seen, _ = door.runtime_headers(X_Amzn_Trace_Id=trace)

    assert seen["Lambda-Runtime-Trace-Id"] == trace


@conformance(17)
def test_a_trace_header_is_made_when_there_is_none(door: Door) -> None:
    first, _ = door.runtime_headers()
    second, _ = door.runtime_headers()

    form = r"Root=1-[0-9a-f]{8}-[0-9a-f]{24};Parent=[0-9a-f]{16};Sampled=[01]"
    assert re.fullmatch(form, first["Lambda-Runtime-Trace-Id"])
    assert first["Lambda-Runtime-Trace-Id"] != second["Lambda-Runtime-Trace-Id"]


@conformance(18)
def test_the_tenant_id_arrives(door: Door) -> None:
    seen, _ = door.runtime_headers(X_Amz_Tenant_Id="tenant a/b@c")

    assert seen["Lambda-Runtime-Aws-Tenant-Id"] == "tenant a/b@c"


@conformance(19)
def test_the_sdks_invocation_id_is_not_the_request_id(door: Door) -> None:
    sdk_id = "6f9d4f2e-0000-4000-8000-000000000000"

    first, _ = door.runtime_headers(amz_sdk_invocation_id=sdk_id)
    second, _ = door.runtime_headers(amz_sdk_invocation_id=sdk_id)

    ids = {seen["Lambda-Runtime-Aws-Request-Id"] for seen in (first, second)}
    assert len(ids | {sdk_id}) == 3


@conformance(20)
def test_boto3_returns_a_function_error_without_raising(door: Door) -> None:
    result = boto3_client(door.url).invoke(
        FunctionName=door.function_name, Payload=b'{"do":"raise"}'
    )

    assert (result["StatusCode"], result["FunctionError"]) == (200, "Unhandled")
    assert json.loads(result["Payload"].read())["errorType"] == "ValueError"


@conformance(21)
def test_the_aws_cli_invokes_with_a_log_tail(door: Door, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "AWS_ACCESS_KEY_ID": "dummy",
        "AWS_SECRET_ACCESS_KEY": "dummy",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    command = ["lambda", "invoke", "--function-name", door.function_name, "--log-type", "Tail"]
    payload = tmp_path / "payload.json"
    payload.write_text('{"x": 1}')  # on the command line version 2 wants base64
    command += ["--endpoint-url", door.url, "--payload", f"fileb://{payload}", str(out)]

    run = run_command(*AWS_CLI, *command, env=environ)

    assert run.returncode == 0, run.stderr
    told = json.loads(run.stdout)
    assert (told["StatusCode"], told["ExecutedVersion"]) == (200, "$LATEST")
    assert REPORT_LINE.search(base64.b64decode(told["LogResult"]).decode())
    assert out.read_bytes() == b'{"x": 1}'
