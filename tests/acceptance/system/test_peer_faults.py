"""What hurts users of the programs next to ours; each test is named for what holds here.

What else hurt them is an item of the conformance table.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pika.spec
import pytest

from devtools.ports import LOOPBACK, free_ports
from tests.acceptance.system.amqp import AmqpClient
from tests.acceptance.system.conftest import LEDGER, Ledger, through
from tests.acceptance.system.proxy import Proxy
from tests.conftest import StartRapid, StartServer
from tests.support import (
    ECHO,
    MISBEHAVE,
    RAPID,
    RECORDER_EXTENSION,
    Client,
    Program,
    Rapid,
    Server,
    run_rapid,
    unique_name,
    wait_for,
    wait_until,
)

# --- publishes before it records the waiter: a fast reply is lost


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


# --- the SDK's invocation id is the key: retries collide


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


# --- prefetch 5 × concurrency: calls wait behind a slow one while other pods idle


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


# --- the broker password reaches the function's environment


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


# --- auto-delete transient queues: no scale to zero, and RabbitMQ 4.3 refuses them


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


# --- --log-level error (SAM passes it) is taken for the command


def test_unknown_log_level_is_one_clear_line() -> None:
    done = run_rapid("--log-level", "loud", ECHO)

    assert done.returncode == 2
    assert done.stderr.startswith("rapid: --log-level is 'loud'; expected one of ")
    assert done.stderr.count("\n") == 1


# --- START/REPORT memory is made up


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


# --- no metrics


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
