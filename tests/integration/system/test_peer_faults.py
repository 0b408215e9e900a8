"""What hurts users of the programs next to ours; each test is named for what holds here."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import botocore.config
import pika.spec
import pytest

from devtools.ports import LOOPBACK, free_ports
from tests.conftest import StartRapid, StartServer
from tests.integration.system.amqp import AmqpClient
from tests.integration.system.conftest import LEDGER, Ledger, through
from tests.integration.system.proxy import Proxy
from tests.support import (
    BASH_ECHO,
    ECHO,
    MISBEHAVE,
    RAPID,
    RECORDER_EXTENSION,
    Answer,
    Client,
    Program,
    Rapid,
    Server,
    is_alive,
    run_rapid,
    unique_name,
    wait_for,
    wait_until,
)

#: Well over what an answer takes, well under any timeout it could be waiting for, seconds.
AT_ONCE_S = 5.0


@pytest.fixture(params=["broker", "direct", "rapid"])
def invoke(
    request: pytest.FixtureRequest, start_rapid: StartRapid, start_server: StartServer
) -> Callable[..., Answer]:
    """Give a way to call ``misbehave``, through each door: broker, direct mode, rapid's own."""
    if request.param == "broker":
        rapid = start_rapid(MISBEHAVE, RAPID_AMQP_URI=request.getfixturevalue("broker"))
        server = request.getfixturevalue("server")
    elif request.param == "direct":
        rapid = start_rapid(MISBEHAVE)
        endpoint = f"{rapid.function_name}=http://{LOOPBACK}:{rapid.port}"
        server = start_server(LAMBDA_ENDPOINTS=endpoint)
    else:
        rapid = start_rapid(MISBEHAVE, RAPID_ANY_FUNCTION_NAME="FALSE")
        server = rapid

    def call(
        function: str | None = None, headers: dict[str, str] | None = None, **event: Any
    ) -> Answer:
        path = f"/2015-03-31/functions/{function or rapid.function_name}/invocations"
        with Client(server.port) as client:
            return client.request("POST", path, json.dumps(event).encode(), headers)

    return call


# --- 1: every answer is HTTP 200 without AWS headers; an unknown function too


def test_unknown_function_is_404_with_aws_headers(invoke: Callable[..., Answer]) -> None:
    answer = invoke(function="nobody-knows-me")

    assert answer.status == 404
    assert answer.headers["x-amzn-ErrorType"] == "ResourceNotFoundException"
    assert answer.headers["Content-Type"] == "application/json"
    assert re.fullmatch(r"[0-9a-f-]{36}", answer.headers["x-amzn-RequestId"])
    assert answer.json()["Type"] == "User"
    assert answer.json()["Message"].endswith(":function:nobody-knows-me:$LATEST")


def test_answers_carry_the_aws_headers(invoke: Callable[..., Answer]) -> None:
    answer = invoke(headers={"X-Amz-Log-Type": "Tail"}, do="print", text="printed\n")

    assert answer.status == 200
    assert answer.headers["X-Amz-Executed-Version"] == "$LATEST"
    assert answer.headers["X-Amz-Function-Error"] is None
    assert re.fullmatch(r"[0-9a-f-]{36}", answer.headers["x-amzn-RequestId"])
    assert answer.headers["X-Amzn-Trace-Id"].startswith("Root=1-")
    assert answer.headers["X-Amz-Log-Result"]


# --- 2: publishes before it records the waiter: a fast reply is lost


@pytest.mark.slow
def test_reply_faster_than_the_publisher_is_never_lost(
    server: Server, start_rapid: StartRapid, broker: str, pool: ThreadPoolExecutor
) -> None:
    rapid = start_rapid(ECHO, RAPID_AMQP_URI=broker, RAPID_MAX_CONCURRENCY="4")

    def call_many(caller: int) -> list[tuple[bytes, bytes]]:
        wrong = []
        with server.client() as client:
            for number in range(250):
                payload = b'"%d of %d"' % (number, caller)
                answer = client.post(rapid.path, payload)
                if answer.status != 200 or answer.body != payload:
                    wrong.append((payload, answer.body))
        return wrong

    results = list(pool.map(call_many, range(16)))

    assert results == [[]] * 16


# --- 3: the SDK's invocation id is the key: retries collide


def test_retries_with_the_same_sdk_invocation_id_are_two_calls(
    server: Server,
    start_rapid: StartRapid,
    broker: str,
    ledger: Ledger,
    pool: ThreadPoolExecutor,
) -> None:
    rapid = start_rapid(LEDGER, RAPID_AMQP_URI=broker, RAPID_MAX_CONCURRENCY="2", **ledger.environ)
    event = json.loads(ledger.held)
    payloads = [json.dumps({**event, "number": number}) for number in (1, 2)]

    calls = [
        pool.submit(server.invoke, rapid.function_name, payload, amz_sdk_invocation_id="the-same")
        for payload in payloads
    ]
    ledger.wait_for(2)
    ledger.open()
    answers = [call.result() for call in calls]

    assert [answer.body.decode() for answer in answers] == payloads
    first, second = (answer.headers["x-amzn-RequestId"] for answer in answers)
    assert first != second
    assert "the-same" not in (first, second)


# --- 4: a timeout leaves the handler running in its slot


def test_timeout_kills_the_handler_and_frees_its_slot(
    server: Server, start_rapid: StartRapid, broker: str
) -> None:
    rapid = start_rapid(MISBEHAVE, RAPID_AMQP_URI=broker, AWS_LAMBDA_FUNCTION_TIMEOUT="0.3")
    pid = server.invoke(rapid.function_name, '{"do": "pid"}').json()

    answer = server.invoke(rapid.function_name, '{"do": "sleep", "s": 60}')
    following = server.invoke(rapid.function_name, '{"do": "pid"}')

    assert answer.status == 200
    assert answer.headers["X-Amz-Function-Error"] == "Unhandled"
    assert answer.error_type == "Sandbox.Timedout"
    assert answer.json()["errorMessage"].endswith("Error: Task timed out after 0.30 seconds")
    wait_until(lambda: not is_alive(pid), "the end of the handler")
    assert following.status == 200
    assert following.json() != pid


# --- 5: a runtime crash is answered only at the timeout


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        ({"do": "exit", "code": 3}, "Runtime exited with error: exit status 3"),
        ({"do": "exit", "code": 0}, "Runtime exited without providing a reason"),
        ({"do": "signal", "name": "KILL"}, "Runtime exited with error: signal: killed"),
    ],
    ids=["exit", "exit-0", "killed"],
)
def test_crash_is_answered_at_once(
    invoke: Callable[..., Answer], event: dict[str, Any], reason: str
) -> None:
    answer = invoke(**event)

    assert answer.status == 200
    assert answer.headers["X-Amz-Function-Error"] == "Unhandled"
    request_id = answer.headers["x-amzn-RequestId"]
    assert answer.json() == {
        "errorType": "Runtime.ExitError",
        "errorMessage": f"RequestId: {request_id} Error: {reason}",
    }
    assert invoke(do="echo").status == 200


# --- 6: prefetch 5 × concurrency: calls wait behind a slow one while other pods idle


def test_no_call_waits_behind_a_slow_one_while_another_instance_idles(
    server: Server,
    start_rapid: StartRapid,
    broker: str,
    ledger: Ledger,
    pool: ThreadPoolExecutor,
) -> None:
    name = unique_name()
    for _ in range(2):
        start_rapid(LEDGER, RAPID_AMQP_URI=broker, AWS_LAMBDA_FUNCTION_NAME=name, **ledger.environ)
    # A fast function, as far as both can tell: they may read ahead.
    list(pool.map(lambda number: server.invoke(name, str(number)), range(400)))
    slow = pool.submit(server.invoke, name, ledger.held)
    ledger.wait_for(401)

    quick = list(pool.map(lambda number: server.invoke(name, str(number)), range(200)))

    assert not slow.done()
    assert [answer.body for answer in quick] == [b"%d" % number for number in range(200)]
    ledger.open()
    assert slow.result().status == 200


# --- 7: Event and DryRun are ignored


def test_event_and_dryrun_are_honoured(invoke: Callable[..., Answer], tmp_path: Path) -> None:
    file = tmp_path / "ran"
    event = {"do": "write_tmp", "path": str(file), "text": "yes"}

    checked = invoke(headers={"X-Amz-Invocation-Type": "DryRun"}, **event)
    count = invoke(do="counter").json()
    accepted = invoke(headers={"X-Amz-Invocation-Type": "Event"}, **event)

    assert (checked.status, checked.body) == (204, b"")
    assert checked.headers["x-amzn-RequestId"]
    assert count == 1
    assert not checked.headers["X-Amz-Executed-Version"]
    assert (accepted.status, accepted.body) == (202, b"")
    assert accepted.headers["x-amzn-RequestId"]
    wait_until(file.exists, "the event to be run")
    missing = invoke(function="nobody-knows-me", headers={"X-Amz-Invocation-Type": "Event"})
    assert missing.status == 404
    missing = invoke(function="nobody-knows-me", headers={"X-Amz-Invocation-Type": "DryRun"})
    assert missing.status == 404


# --- 8: the broker password reaches the function's environment


@pytest.mark.parametrize("prefix", ["RAPID_", ""])
def test_broker_password_never_reaches_the_function(
    start_rapid: StartRapid, tmp_path: Path, prefix: str
) -> None:
    extensions = tmp_path / "extensions"
    extensions.mkdir()
    (extensions / "recorder").symlink_to(RECORDER_EXTENSION)
    record = tmp_path / "record"
    settings: dict[str, Any] = {
        f"{prefix}AMQP_URI": f"amqp://user:in-the-uri@{LOOPBACK}:{free_ports(1)[0]}",
        f"{prefix}AMQP_USERNAME": "the-user",
        f"{prefix}AMQP_PASSWORD": "in-a-secret",
        "RAPID_EXTENSIONS_DIR": str(extensions),
        "RECORDER_FILE": str(record),
    }
    rapid = start_rapid(MISBEHAVE, ready=False, **settings)

    environ = rapid.do(do="env").json()["environ"]
    rapid.wait_for_log("broker not reached")

    assert not [name for name in environ if name.startswith(("AMQP", "RAPID"))]
    for secret in ("in-the-uri", "in-a-secret"):
        assert secret not in json.dumps(environ)
        assert secret not in record.read_text()
        assert secret not in "\n".join(rapid.log)


# --- 9: auto-delete transient queues: no scale to zero, and RabbitMQ 4.3 refuses them


def test_queue_outlives_its_instances_and_a_call_waits_for_one(
    server: Server,
    start_rapid: StartRapid,
    broker: str,
    amqp: AmqpClient,
    pool: ThreadPoolExecutor,
) -> None:
    name = unique_name()
    start_rapid(ECHO, RAPID_AMQP_URI=broker, AWS_LAMBDA_FUNCTION_NAME=name).stop()

    call = pool.submit(server.invoke, name, "[1]")
    wait_until(lambda: amqp.waiting(name) == 1, "the call to be in the queue")
    assert amqp.consumers(name) == 0
    assert not call.done()
    start_rapid(ECHO, RAPID_AMQP_URI=broker, AWS_LAMBDA_FUNCTION_NAME=name)

    assert call.result().body == b"[1]"


def test_an_event_waits_for_an_instance(
    server: Server, start_rapid: StartRapid, broker: str, amqp: AmqpClient, ledger: Ledger
) -> None:
    name = unique_name()
    start_rapid(ECHO, RAPID_AMQP_URI=broker, AWS_LAMBDA_FUNCTION_NAME=name).stop()

    accepted = server.invoke(name, "[1]", X_Amz_Invocation_Type="Event")
    assert amqp.waiting(f"{name}.events") == 1
    start_rapid(LEDGER, RAPID_AMQP_URI=broker, AWS_LAMBDA_FUNCTION_NAME=name, **ledger.environ)

    assert accepted.status == 202
    ledger.wait_for(1)


def test_declared_queues_are_what_rabbitmq_4_3_takes(
    start_rapid: StartRapid, start_server: StartServer, broker: str, proxy: Proxy
) -> None:
    uri = through(proxy, broker)
    rapid = start_rapid(ECHO, RAPID_AMQP_URI=uri)
    server = start_server(AMQP_URI=uri)
    assert server.invoke(rapid.function_name).status == 200
    assert server.invoke(rapid.function_name, X_Amz_Invocation_Type="Event").status == 202
    assert server.invoke(rapid.function_name, X_Amz_Invocation_Type="DryRun").status == 204

    methods = proxy.methods

    declared = [method for method in methods if isinstance(method, pika.spec.Queue.Declare)]
    name = rapid.function_name
    queues = [method.queue for method in declared if not method.passive]
    assert queues == [f"{name}.dead", f"{name}.events", "lambda.retry.1000", name]
    for method in declared:
        assert method.passive or (
            method.durable and not method.exclusive and not method.auto_delete
        )
    limits = [method for method in methods if isinstance(method, pika.spec.Basic.Qos)]
    assert limits
    assert not any(method.global_qos for method in limits)


# --- 10: --log-level error (SAM passes it) is taken for the command


@pytest.mark.parametrize("flags", [("--log-level", "error"), ("--log-level=error",)])
def test_log_level_flag_is_not_taken_for_the_command(
    start_rapid: StartRapid, flags: tuple[str, ...]
) -> None:
    rapid = start_rapid(ECHO, flags=flags)

    answer = rapid.invoke(b"[1]")

    assert answer.body == b"[1]"
    assert "[INFO]" not in "\n".join(rapid.log)


def test_unknown_log_level_is_one_clear_line() -> None:
    done = run_rapid("--log-level", "loud", ECHO)

    assert done.returncode == 2
    assert done.stderr.startswith("rapid: --log-level is 'loud'; expected one of ")
    assert done.stderr.count("\n") == 1


# --- 11: START/REPORT memory is made up


def test_memory_in_report_is_measured(start_rapid: StartRapid) -> None:
    rapid = start_rapid(
        MISBEHAVE, RAPID_PRINT_REPORTS="TRUE", AWS_LAMBDA_FUNCTION_MEMORY_SIZE="512"
    )
    pid = rapid.do(do="pid").json()
    before_mb = _reported_mb(rapid, 1)

    rapid.do(do="print", text="x" * 1_000_000, times=60)

    after_mb = _reported_mb(rapid, 2)
    peak_mb = _peak_kb(pid) / 1024
    assert before_mb < 40
    assert after_mb - before_mb >= 50
    assert after_mb == pytest.approx(math.ceil(peak_mb), abs=2)


def _reported_mb(rapid: Rapid, count: int) -> int:
    line = rapid.wait_for_log("REPORT RequestId", count=count)
    assert "Memory Size: 512 MB" in line
    match = re.search(r"Max Memory Used: (\d+) MB", line)
    assert match is not None
    return int(match[1])


def _peak_kb(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))


# --- 12: no metrics


def test_both_programs_have_metrics(server: Server, start_rapid: StartRapid, broker: str) -> None:
    rapid = start_rapid(MISBEHAVE, RAPID_AMQP_URI=broker)
    name = rapid.function_name
    server.invoke(name)
    server.invoke(name, '{"do": "exit"}')
    server.invoke(name, '{"do": "raise"}')

    ours = rapid.get("/metrics").body.decode()
    theirs = server.get("/metrics").body.decode()

    def count(outcome: str) -> str:
        return f'lambda_invocations_total{{function_name="{name}",outcome="{outcome}"}}'

    assert f"{count('success')} 1.0" in ours
    assert f"{count('error')} 1.0" in ours
    assert f"{count('failure')} 1.0" in ours
    assert f'lambda_duration_seconds_count{{function_name="{name}"}} 3.0' in ours
    assert f'lambda_concurrent_executions{{function_name="{name}"}} 0.0' in ours
    assert f"{count('success')} 1.0" in theirs
    assert f"{count('error')} 2.0" in theirs


# --- what users of the peers ask for most


def test_concurrent_calls_beyond_the_limit_wait_for_their_turn(
    start_rapid: StartRapid, pool: ThreadPoolExecutor
) -> None:
    rapid = start_rapid(ECHO, RAPID_MAX_CONCURRENCY="2")
    payloads = [b"%d" % number for number in range(60)]

    answers = list(pool.map(rapid.invoke, payloads))

    assert [answer.body for answer in answers] == payloads


@pytest.mark.parametrize(
    "name",
    [
        "{0}",
        "{0}:$LATEST",
        "{0}:live",
        "123456789012:function:{0}",
        "arn:aws:lambda:us-east-1:123456789012:function:{0}",
        "arn:aws:lambda:us-east-1:123456789012:function:{0}:live",
    ],
)
def test_a_function_is_called_by_its_own_name_from_an_sdk(
    server: Server, echo_on_broker: Rapid, name: str
) -> None:
    client = boto3.client(
        "lambda",
        endpoint_url=server.url,
        region_name="us-east-1",
        aws_access_key_id="none",
        aws_secret_access_key="none",
        config=botocore.config.Config(retries={"total_max_attempts": 1}),
    )

    answer = client.invoke(
        FunctionName=name.format(echo_on_broker.function_name), Payload=b'{"x": 1}'
    )

    assert answer["StatusCode"] == 200
    assert answer["Payload"].read() == b'{"x": 1}'
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.invoke(FunctionName="nobody-knows-me")
    client.close()


@pytest.fixture(scope="module")
def echo_on_broker(broker: str) -> Iterator[Rapid]:
    with Rapid(ECHO, RAPID_AMQP_URI=broker) as rapid:
        yield rapid


def test_function_errors_are_visible_and_json(invoke: Callable[..., Answer]) -> None:
    body = '{"errorType":"Oops","errorMessage":"my words"}'

    answer = invoke(do="raise", body=body)

    assert answer.status == 200
    assert answer.headers["X-Amz-Function-Error"] == "Unhandled"
    assert answer.body == body.encode()


def test_a_warm_runtime_serves_call_after_call(invoke: Callable[..., Answer]) -> None:
    counts = [invoke(do="counter").json() for _ in range(5)]

    assert counts == [1, 2, 3, 4, 5]


@pytest.mark.skipif(os.getuid() != 0, reason="to give up being root, one has to be root")
def test_neither_privileges_nor_accounts_nor_sockets_of_others_are_needed() -> None:
    port, runtime_api_port = free_ports(2)
    unprivileged = (
        *("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"),
        *("--bounding-set=-all", "--no-new-privs", "--inh-caps=-all"),
    )
    program = Program(
        "rapid as nobody",
        [*unprivileged, *RAPID, MISBEHAVE],
        {
            "RAPID_INVOKE_API_HOST": LOOPBACK,
            "RAPID_PORT": str(port),
            "RAPID_RUNTIME_API_PORT": str(runtime_api_port),
            "RAPID_EXTENSIONS_DIR": "/nonexistent",
        },
    )
    with contextlib.closing(program):
        program.start()
        wait_for(lambda: _status(port) or program.exit_code, "rapid to listen")
        with Client(port) as client:
            answer = client.post("/2015-03-31/functions/function/invocations", b'{"do": "env"}')
            environ = answer.json()["environ"]
            client.post("/2015-03-31/functions/function/invocations", b'{"do": "exit"}')
            again = client.post("/2015-03-31/functions/function/invocations", b"{}")

        assert answer.status == 200
        assert not [name for name in environ if name.startswith("AWS_ACCESS")]
        assert again.status == 200
        assert program.stop() == 0


def _status(port: int) -> int | None:
    try:
        with Client(port) as client:
            return client.get("/readyz").status
    except OSError:
        return None


def test_a_busy_instance_shows_it_and_is_not_cut_off_by_sigterm(
    server: Server,
    start_rapid: StartRapid,
    broker: str,
    ledger: Ledger,
    pool: ThreadPoolExecutor,
) -> None:
    rapid = start_rapid(LEDGER, RAPID_AMQP_URI=broker, **ledger.environ)
    call = pool.submit(server.invoke, rapid.function_name, ledger.held)
    ledger.wait_for(1)

    metrics = rapid.get("/metrics").body.decode()
    rapid.signal(signal.SIGTERM)
    rapid.wait_for_log("stopping")
    ledger.open()

    gauge = f'lambda_concurrent_executions{{function_name="{rapid.function_name}"}} 1.0'
    assert gauge in metrics
    assert call.result().status == 200
    assert rapid.wait_exit() == 0


def test_environment_variables_are_not_silently_ignored(start_rapid: StartRapid) -> None:
    given: dict[str, Any] = {
        "MY_VARIABLE": "1",
        "lower_case": "2",
        "WITH_NEWLINE": "a\nb",
        "EMPTY": "",
        "UNICODE": "žluťoučký",
        "LD_LIBRARY_PATH": "/opt/lib-of-mine",
        "TZ": ":Europe/Prague",
    }
    rapid = start_rapid(MISBEHAVE, **given)

    environ = rapid.do(do="env").json()["environ"]

    assert {name: environ.get(name) for name in given} == given


def test_function_output_is_untouched_on_stdout_and_ours_is_on_stderr(
    start_rapid: StartRapid,
) -> None:
    rapid = start_rapid(MISBEHAVE)
    lines = bytes(range(256)) + b"\nwithout end"

    rapid.do(do="print", hex=lines.hex())
    rapid.do(do="print", text="an error\n", to="stderr")
    rapid.stop()

    wait_until(lambda: rapid.stdout == lines, "its standard output")
    wait_until(lambda: b"an error\n" in rapid.stderr, "its standard error")
    assert b"serving" in rapid.stderr


def test_trace_header_is_always_there(invoke: Callable[..., Answer]) -> None:
    given = "Root=1-6746f0a1-0123456789abcdef01234567;Parent=0123456789abcdef;Sampled=1"

    plain = dict(invoke(do="headers").json()["headers"])
    traced = invoke(headers={"X-Amzn-Trace-Id": given}, do="headers")

    assert re.match(
        r"Root=1-[0-9a-f]{8}-[0-9a-f]{24};Parent=[0-9a-f]{16};Sampled=0",
        plain["Lambda-Runtime-Trace-Id"],
    )
    assert dict(traced.json()["headers"])["Lambda-Runtime-Trace-Id"] == given
    assert traced.headers["X-Amzn-Trace-Id"] == given


def test_a_runtime_of_curl_and_bash_works(start_rapid: StartRapid) -> None:
    rapid = start_rapid(BASH_ECHO)

    assert [rapid.invoke(b'{"n": %d}' % n).body for n in range(3)] == [
        b'{"n": 0}',
        b'{"n": 1}',
        b'{"n": 2}',
    ]
