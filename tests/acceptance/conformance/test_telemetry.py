from __future__ import annotations

import base64
import contextlib
import json
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.conformance.conftest import StartPuppet
from tests.acceptance.conformance.doors import Calls
from tests.acceptance.conformance.listener import (
    COLD_CALL,
    Listener,
    TcpListener,
    platform_types,
    types_of,
)
from tests.acceptance.conformance.puppet import (
    LOGS,
    NEXT,
    TELEMETRY,
    ExtensionPuppet,
    Puppet,
    Turn,
    make_extension,
)
from tests.conftest import StartRapid
from tests.extensions import RecorderExtension
from tests.support import (
    AWSLAMBDARIC,
    LIMIT_S,
    MISBEHAVE,
    Answer,
    Rapid,
    wait_until,
)

conformance = pytest.mark.conformance

ISO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
UNKNOWN_ID = "11111111-2222-4333-8444-555555555555"
TRACE = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"


class Subscriber(Listener):
    """A listener, and rapids whose recorder extension subscribes it."""

    def __init__(self, start_rapid: StartRapid, extension: RecorderExtension) -> None:
        super().__init__()
        self._start_rapid = start_rapid
        self.extension = extension

    def start(self, *command: str, subscription: Any = None, **settings: Any) -> Rapid:
        """Start a rapid; ``subscription`` has changes of the body."""
        body = json.dumps(a_subscription(self.port, **(subscription or {})))
        environ = {"RECORDER_SUBSCRIBE": body, **self.extension.environ, **settings}
        return self._start_rapid(*command, **environ)


@pytest.fixture
def listener(start_rapid: StartRapid, extension: RecorderExtension) -> Iterator[Subscriber]:
    with Subscriber(start_rapid, extension) as listener:
        yield listener


def a_subscription(port: int, **changes: Any) -> dict[str, Any]:
    """Return a body for the Telemetry API; what is None is left out."""
    body = {
        "schemaVersion": "2022-12-13",
        "types": ["platform", "function", "extension"],
        "buffering": {"maxItems": 1000, "maxBytes": 262_144, "timeoutMs": 25},
        "destination": {"protocol": "HTTP", "URI": f"http://sandbox.localdomain:{port}"},
        **changes,
    }
    return {name: value for name, value in body.items() if value is not None}


@contextlib.contextmanager
def ready(puppet: Puppet, extension: ExtensionPuppet) -> Iterator[None]:
    """Bring the environment through its init, and hold the extension in its ``next``."""
    with extension.park(puppet.raw()):
        puppet.rapid.wait_for_log("environment ready")
        yield


def serve(puppet: Puppet, turn: Turn, payload: bytes = b"{}") -> None:
    assert puppet.runtime.post(turn.response_path, payload).status == 202
    assert turn.outcome().status == 200


# --- 114, 115: subscribing


@conformance(114)
def test_a_subscription_of_each_schema_is_answered_ok(puppet: Puppet, listener: Subscriber) -> None:
    extension = puppet.extension("internal", ["INVOKE"])

    for version in ("2022-07-01", "2022-12-13", "2025-01-29"):
        body = a_subscription(listener.port, schemaVersion=version)
        answer = extension.subscribe(TELEMETRY, body)

        assert (answer.status, answer.body) == (200, b'"OK"')
        assert answer.headers["Content-Type"] == "application/json"


def to_uri(uri: str) -> dict[str, Any]:
    return {"destination": {"protocol": "HTTP", "URI": uri}}


#: What a subscription may not have; ``OWN_PORT`` stands for the port of the Runtime API.
WRONG: list[dict[str, Any]] = [
    *({"schemaVersion": each} for each in (None, "2020-08-15", ["2022-07-01"])),
    *({"types": each} for each in (None, [], ["platform", "all"], "platform", [["platform"]])),
    *({"buffering": {"maxItems": each}} for each in (999, 10_001)),
    *({"buffering": {"maxBytes": each}} for each in (262_143, 1_048_577)),
    *({"buffering": {"timeoutMs": each}} for each in (24, 30_001, True, "100")),
    {"buffering": [1]},
    *({"destination": each} for each in (None, "http://sandbox.localdomain:8080")),
    {"destination": {"protocol": "UDP", "port": 8080}},
    {"destination": {"protocol": "HTTP"}},
    to_uri("https://sandbox.localdomain:8080"),
    to_uri("http://example.com:8080"),
    to_uri("http://sandbox.localdomain:x"),
    to_uri("http://sandbox.localdomain:80800"),
    to_uri("http://sandbox:80/\r\nX: y"),
    to_uri("http://sandbox:OWN_PORT"),
    {"destination": {"protocol": "TCP"}},
    *({"destination": {"protocol": "TCP", "port": port}} for port in (0, "8080", "OWN_PORT")),
]
NO_OBJECTS = (b"", b"no json", b"[]", b"[" * 100_000)


@conformance(114)
def test_a_wrong_subscription_is_refused_and_a_right_one_still_taken(
    puppet: Puppet, listener: Subscriber
) -> None:
    extension = puppet.extension("internal", [])
    own_port = str(puppet.rapid.runtime_api_port)
    right = a_subscription(listener.port)
    wrong = [json.dumps({**right, **changes}) for changes in WRONG]
    wrong = [text.replace('"OWN_PORT"', own_port).replace("OWN_PORT", own_port) for text in wrong]

    for body in (*NO_OBJECTS, *map(str.encode, wrong)):
        headers = {"Lambda-Extension-Identifier": extension.identifier}
        answer = puppet.runtime.request("PUT", TELEMETRY, body, headers)

        assert (answer.status, answer.error_type) == (400, "ValidationError"), body
        assert answer.json()["errorMessage"]
    assert extension.subscribe(TELEMETRY, right).status == 200


@conformance(114)
def test_after_init_a_subscription_comes_too_late(puppet: Puppet, listener: Subscriber) -> None:
    extension = puppet.extension("internal", [])
    with puppet.park(), ready(puppet, extension), puppet.rapid.runtime_api() as client:
        late = ExtensionPuppet(client, extension.identifier)
        answers = [
            late.subscribe(path, a_subscription(listener.port, schemaVersion=version))
            for path, version in ((TELEMETRY, "2022-07-01"), (LOGS, "2020-08-15"))
        ]

    assert [answer.status for answer in answers] == [403, 403]
    assert [answer.error_type for answer in answers] == [
        "Telemetry.SubscriptionClosed",
        "Logs.SubscriptionClosed",
    ]


@conformance(115)
def test_the_logs_api_takes_its_own_schemas_and_has_errors_of_its_own(
    puppet: Puppet, listener: Subscriber
) -> None:
    extension = puppet.extension("internal", ["INVOKE"])

    for version in ("2021-03-18", "2020-08-15", None):
        body = a_subscription(listener.port, schemaVersion=version)
        answer = extension.subscribe(LOGS, body)
        assert (answer.status, answer.body) == (200, b"OK")

    other_api = puppet.extension("other", [])
    assert other_api.subscribe(TELEMETRY, a_subscription(listener.port)).status == 200
    for refused in (
        extension.subscribe(LOGS, a_subscription(listener.port)),  # a Telemetry API schema
        other_api.subscribe(LOGS, a_subscription(listener.port, schemaVersion="2021-03-18")),
    ):
        assert (refused.status, refused.error_type) == (400, "Logs.ValidationError")


def test_a_second_subscription_replaces_the_first(puppet: Puppet, listener: Subscriber) -> None:
    extension = puppet.extension("internal", [])
    with Listener() as second:
        extension.subscribe(TELEMETRY, a_subscription(listener.port))
        extension.subscribe(TELEMETRY, a_subscription(second.port))

        with puppet.park(), ready(puppet, extension):
            records = second.wait_for("platform.initReport")

    assert types_of(records).count("platform.initStart") == 1
    assert listener.of_type("platform.initReport") == []


# --- 116: what is delivered


@conformance(116)
def test_records_come_in_order_with_the_functions_lines_inside(listener: Subscriber) -> None:
    rapid = listener.start(MISBEHAVE, subscription={"schemaVersion": "2025-01-29"})

    answer = rapid.do(do="print", text="one\ntwo\nhalf")
    records = listener.wait_for("platform.report")

    assert platform_types(records) == COLD_CALL
    at = types_of(records).index("platform.start")
    assert types_of(records)[at + 1 :] == [*["function"] * 3, "platform.runtimeDone", COLD_CALL[-1]]
    lines = [record["record"] for record in records if record["type"] == "function"]
    assert lines == ["one\n", "two\n", "half"]
    assert all(ISO.fullmatch(record["time"]) for record in records)
    for delivery in listener.deliveries:
        assert delivery.method == "POST"
        assert delivery.headers["content-type"] == "application/json"
    request_id = answer.headers["x-amzn-RequestId"]
    ids = {r["record"]["requestId"] for r in records if r["type"] in COLD_CALL[-3:]}
    assert ids == {request_id}


@conformance(116, 121)
def test_records_of_awslambdaric_come_in_order_and_whole(listener: Subscriber) -> None:
    rapid = listener.start(*AWSLAMBDARIC, "handlers.log_lines")

    rapid.invoke(b'{"message": "first\\nsecond"}')
    records = listener.wait_for("platform.report")

    assert platform_types(records) == COLD_CALL
    begin, end = (types_of(records).index(kind) for kind in COLD_CALL[-3:-1])
    lines = [record["record"] for record in records[begin + 1 : end]]
    assert len(lines) == 2
    assert "printed\n" in lines
    (logged,) = (line for line in lines if line != "printed\n")
    assert logged.endswith("\tfirst\nsecond\n\n") or logged.endswith("\tfirst\nsecond\n")
    wait_until(lambda: b"first\nsecond\n" in rapid.stdout, "the output")


@conformance(116, 121)
def test_json_records_of_awslambdaric_are_objects(listener: Subscriber) -> None:
    rapid = listener.start(*AWSLAMBDARIC, "handlers.log_lines", AWS_LAMBDA_LOG_FORMAT="JSON")

    answer = rapid.invoke(b'{"message": "first\\nsecond"}')
    listener.wait_for("platform.report")

    records = [record["record"] for record in listener.of_type("function")]
    assert "printed\n" in records
    (logged,) = (record for record in records if isinstance(record, dict))
    assert (logged["level"], logged["message"]) == ("WARNING", "first\nsecond")
    assert logged["requestId"] == answer.headers["x-amzn-RequestId"]


@conformance(116)
def test_the_figures_of_a_call_are_measured(
    puppet: Puppet, calls: Calls, listener: Subscriber
) -> None:
    extension = puppet.extension("internal", ["INVOKE"])
    extension.subscribe(TELEMETRY, a_subscription(listener.port))
    with extension.park(puppet.raw()) as parked:
        begun = time.monotonic()
        turn = puppet.take(b"{}", X_Amzn_Trace_Id=TRACE)
        parked.read_answer()
        hold()
        serve(puppet, turn, b'"sixteen bytes!"')
        answered_ms = (time.monotonic() - begun) * 1000
        hold()
        with puppet.park():  # the runtime is done, the extension is not
            listener.wait_for("platform.runtimeDone")
            hold()
            extension.park(parked)
            records = listener.wait_for("platform.report")
    whole_ms = (time.monotonic() - begun) * 1000

    by_type = {record["type"]: record["record"] for record in records}
    start, done, report = (by_type[kind] for kind in COLD_CALL[-3:])
    tracing = {"spanId": "53995c3f42cd8ad8", "type": "X-Amzn-Trace-Id", "value": TRACE}
    assert [record["tracing"] for record in (start, done, report)] == [tracing] * 3
    assert start["version"] == "$LATEST"
    assert (done["status"], report["status"]) == ("success", "success")
    assert done["metrics"]["producedBytes"] == 16
    spans = {span["name"]: span["durationMs"] for span in done["spans"]}
    assert list(spans) == ["responseLatency", "responseDuration", "runtimeOverhead"]
    assert HELD_MS <= spans["responseLatency"] <= answered_ms
    assert 0 <= spans["responseDuration"] <= answered_ms
    assert spans["runtimeOverhead"] >= HELD_MS
    assert sum(spans.values()) == pytest.approx(done["metrics"]["durationMs"], abs=0.01)
    overhead = {span["name"]: span["durationMs"] for span in report["spans"]}["extensionOverhead"]
    assert overhead >= HELD_MS
    metrics = report["metrics"]
    assert done["metrics"]["durationMs"] + overhead == pytest.approx(
        metrics["durationMs"], abs=0.01
    )
    assert metrics["durationMs"] <= whole_ms
    assert metrics["memorySizeMB"] == 3008
    assert 0 < metrics["maxMemoryUsedMB"] < 100
    assert metrics["initDurationMs"] == by_type["platform.initReport"]["metrics"]["durationMs"]
    assert metrics["billedDurationMs"] >= metrics["durationMs"] + metrics["initDurationMs"]
    assert all(ISO.fullmatch(span["start"]) for span in [*done["spans"], *report["spans"]])


#: A pause that figures must show: what is measured has to take time.
HELD_MS = 30.0


def hold() -> None:
    time.sleep(HELD_MS / 1000)


@conformance(116)
def test_init_is_told_as_the_schema_has_it(puppet: Puppet, listener: Subscriber) -> None:
    extension = puppet.extension("internal", ["INVOKE"])
    with Listener() as newest:
        other = puppet.extension("other", [])
        extension.subscribe(TELEMETRY, a_subscription(listener.port, schemaVersion="2022-07-01"))
        other.subscribe(TELEMETRY, a_subscription(newest.port, schemaVersion="2025-01-29"))
        with puppet.park(), extension.park(puppet.raw()), other.park(puppet.raw()):
            old, new = (each.wait_for("platform.initReport") for each in (listener, newest))

    start = new[0]["record"]
    name = puppet.rapid.function_name
    assert start.pop("functionArn") == f"arn:aws:lambda:us-east-1:123456789012:function:{name}"
    assert old[0]["record"] == start
    assert re.fullmatch(r"[0-9a-f]{32}", start.pop("instanceId"))
    assert start == {
        "initializationType": "on-demand",
        "phase": "init",
        "functionName": name,
        "functionVersion": "$LATEST",
        "instanceMaxMemory": 3008 * 1_048_576,
    }
    assert [(r["record"]["name"], r["record"]["types"]) for r in new[1:3]] == [
        (name, ["platform", "function", "extension"]) for name in ("internal", "other")
    ]
    extensions = [r["record"] for r in new if r["type"] == "platform.extension"]
    assert extensions == [
        {"name": "internal", "state": "Ready", "events": ["INVOKE"]},
        {"name": "other", "state": "Ready", "events": []},
    ]
    report = new[-1]["record"]
    assert (report["phase"], report["status"]) == ("init", "success")
    assert report["metrics"]["durationMs"] > 0


@conformance(115, 116)
@pytest.mark.parametrize(
    ("version", "kinds"),
    [
        ("2020-08-15", ["platform.start", "function", "platform.end", "platform.report"]),
        (
            "2021-03-18",
            [
                "platform.start",
                "function",
                "platform.runtimeDone",
                "platform.end",
                "platform.report",
            ],
        ),
    ],
)
def test_the_logs_api_tells_less(listener: Subscriber, version: str, kinds: list[str]) -> None:
    rapid = listener.start(MISBEHAVE, subscription={"schemaVersion": version}, RECORDER_API=LOGS)

    answer = rapid.do(do="print", text="hello\n")
    records = listener.wait_for("platform.report")

    assert types_of(records) == ["platform.logsSubscription", "platform.extension", *kinds]
    by_type = {record["type"]: record["record"] for record in records}
    request_id = answer.headers["x-amzn-RequestId"]
    assert by_type["platform.start"] == {"requestId": request_id, "version": "$LATEST"}
    assert by_type["platform.end"] == {"requestId": request_id}
    assert set(by_type["platform.report"]) == {"requestId", "metrics"}
    if version == "2021-03-18":
        done = {"requestId": request_id, "status": "success"}
        assert by_type["platform.runtimeDone"] == done


@conformance(115, 116)
def test_the_logs_api_tells_of_a_fault(listener: Subscriber) -> None:
    rapid = listener.start(
        MISBEHAVE, subscription={"schemaVersion": "2021-03-18"}, RECORDER_API=LOGS
    )

    answer = rapid.do(do="exit", code=3)
    records = listener.wait_for("platform.report")

    (fault,) = [record["record"] for record in records if record["type"] == "platform.fault"]
    request_id = answer.headers["x-amzn-RequestId"]
    assert fault == (
        f"RequestId: {request_id} Error: Runtime exited with error: exit status 3\n"
        "Runtime.ExitError"
    )


@conformance(116)
@pytest.mark.parametrize(
    ("event", "status", "error_type"),
    [
        ({"do": "raise", "type": "Function.OnPurpose"}, "error", "Function.OnPurpose"),
        ({"do": "exit", "code": 1}, "failure", "Runtime.ExitError"),
        ({"do": "sleep", "s": 60}, "timeout", "Sandbox.Timedout"),
    ],
    ids=["error", "failure", "timeout"],
)
def test_a_call_that_fails_is_told_so_before_shutdown(
    listener: Subscriber, event: dict[str, Any], status: str, error_type: str
) -> None:
    rapid = listener.start(MISBEHAVE, AWS_LAMBDA_FUNCTION_TIMEOUT="1")

    answer = rapid.do(**event)
    records = listener.wait_for("platform.report")

    assert answer.headers["X-Amz-Function-Error"] == "Unhandled"
    assert types_of(records)[-2:] == ["platform.runtimeDone", "platform.report"]
    for record in records[-2:]:
        assert record["record"]["requestId"] == answer.headers["x-amzn-RequestId"]
        assert record["record"]["status"] == status
        assert record["record"]["errorType"] == error_type


@conformance(116)
def test_an_init_that_fails_is_told_and_done_again_in_the_invoke_phase(
    tmp_path: Path, listener: Subscriber
) -> None:
    state = str(tmp_path / "state")
    rapid = listener.start(
        MISBEHAVE, ready=False, MISBEHAVE_INIT="once:exit", MISBEHAVE_STATE=state
    )
    listener.wait_for("platform.initReport")
    assert rapid.invoke().status == 200
    listener.wait_for("platform.report")

    inits = [each["record"] for each in listener.of_type("platform.initReport")]
    assert [(init["phase"], init["status"]) for init in inits] == [
        ("init", "error"),
        ("invoke", "success"),
    ]
    assert inits[0]["errorType"] == "Runtime.ExitError"
    starts = listener.of_type("platform.initStart")
    assert [start["record"]["phase"] for start in starts] == ["init", "invoke"]


@conformance(116)
def test_what_an_extension_prints_is_a_stream_of_its_own_and_not_in_the_tail(
    listener: Subscriber,
) -> None:
    rapid = listener.start(MISBEHAVE, RECORDER_PRINT="from the extension")

    answer = rapid.invoke(json.dumps({"do": "print", "text": "f\n"}), X_Amz_Log_Type="Tail")
    listener.wait_for("platform.report")
    records = listener.wait_for("extension")

    assert [r["record"] for r in records if r["type"] == "function"] == ["f\n"]
    assert {r["record"] for r in records if r["type"] == "extension"} == {"from the extension\n"}
    assert "extension" not in tail_of(answer)
    wait_until(lambda: b"from the extension\n" in rapid.stdout, "the output")


def tail_of(answer: Answer) -> str:
    return base64.b64decode(answer.headers["X-Amz-Log-Result"]).decode()


@conformance(116)
def test_only_the_streams_that_were_asked_for_come(listener: Subscriber) -> None:
    rapid = listener.start(
        MISBEHAVE, subscription={"types": ["function"]}, RECORDER_PRINT="from the extension"
    )

    rapid.do(do="print", text="one\n")
    rapid.do(do="print", text="two\n")
    records = listener.wait_for("function", 2)

    assert [(r["type"], r["record"]) for r in records] == [
        ("function", "one\n"),
        ("function", "two\n"),
    ]


@conformance(116)
@pytest.mark.parametrize(
    ("version", "first"), [("2022-07-01", '{"a": 1}\n'), ("2022-12-13", {"a": 1})]
)
def test_json_lines_are_objects_to_newer_schemas_and_text_to_older(
    listener: Subscriber, version: str, first: object
) -> None:
    rapid = listener.start(
        MISBEHAVE, subscription={"schemaVersion": version}, AWS_LAMBDA_LOG_FORMAT="JSON"
    )

    rapid.do(do="print", text='{"a": 1}\n{no json\ntext\n')
    listener.wait_for("platform.report")

    lines = [each["record"] for each in listener.of_type("function")]
    assert lines == [first, "{no json\n", "text\n"]


@conformance(116)
def test_a_json_log_keeps_records_of_its_level_and_above(listener: Subscriber) -> None:
    rapid = listener.start(MISBEHAVE, AWS_LAMBDA_LOG_FORMAT="JSON", AWS_LAMBDA_LOG_LEVEL="WARN")
    lines = ['{"level":"debug"}', '{"level":"WARNING"}', '{"level":"Error"}', "plain", '{"x":1}']

    rapid.do(do="print", text="\n".join(lines) + "\n")
    records = listener.wait_for("platform.report")

    kept = [record["record"] for record in records if record["type"] == "function"]
    assert kept == [{"level": "WARNING"}, {"level": "Error"}]
    # Passed on as they are.
    wait_until(lambda: rapid.stdout.decode().splitlines() == lines, f"{lines}")


@conformance(116)
def test_a_runtime_of_several_at_once_is_reported_without_runtime_done(
    start_puppet: StartPuppet, listener: Subscriber
) -> None:
    puppet = start_puppet(AWS_LAMBDA_MAX_CONCURRENCY="4")
    assert puppet.register("invoked", {"events": ["INVOKE"]}).status == 403
    extension = puppet.extension("internal", [])
    refused = extension.subscribe(TELEMETRY, a_subscription(listener.port))
    newest = a_subscription(listener.port, schemaVersion="2025-01-29")
    assert (refused.status, extension.subscribe(TELEMETRY, newest).status) == (400, 200)
    with extension.park(puppet.raw()):
        turn = puppet.take()
        serve(puppet, turn, b"1")
        records = listener.wait_for("platform.report")

    assert "platform.runtimeDone" not in types_of(records)
    report = records[-1]["record"]
    assert set(report["metrics"]) == {"durationMs"}
    assert [span["name"] for span in report["spans"]] == ["responseLatency", "responseDuration"]
    assert report["requestId"] == turn.request_id


# --- 117: where it is delivered


@conformance(117)
@pytest.mark.parametrize(
    ("host", "path"),
    [("sandbox.localdomain", "/a/path?q=1"), ("sandbox", "/"), ("sandbox.localdomain", "")],
)
def test_host_and_path_of_the_destination_are_kept(
    puppet: Puppet, listener: Subscriber, host: str, path: str
) -> None:
    extension = puppet.extension("internal", [])
    uri = f"http://{host}:{listener.port}{path}"
    extension.subscribe(
        TELEMETRY, a_subscription(listener.port, destination={"protocol": "HTTP", "URI": uri})
    )

    listener.wait_for("platform.initStart")

    assert listener.deliveries[0].path == (path or "/")
    assert listener.deliveries[0].headers["host"] == f"{host}:{listener.port}"


@conformance(117)
def test_the_logs_api_may_ask_for_put(puppet: Puppet, listener: Subscriber) -> None:
    extension = puppet.extension("internal", [])
    destination = {
        "protocol": "HTTP",
        "URI": f"http://sandbox:{listener.port}",
        "method": "PUT",
        "encoding": "JSON",
    }
    body = a_subscription(listener.port, schemaVersion="2021-03-18", destination=destination)
    assert extension.subscribe(LOGS, body).status == 200

    listener.wait_for("platform.logsSubscription")

    assert listener.deliveries[0].method == "PUT"


@conformance(117)
def test_tcp_gets_a_record_a_line_and_a_new_connection_when_one_ends(
    puppet: Puppet, calls: Calls
) -> None:
    extension = puppet.extension("internal", [])
    with TcpListener() as listener:
        destination = {"protocol": "TCP", "port": listener.port}
        body = a_subscription(listener.port, destination=destination)
        assert extension.subscribe(TELEMETRY, body).status == 200
        with extension.park(puppet.raw()):
            listener.wait_for("platform.telemetrySubscription")
            listener.hang_up()
            wait_until(lambda: listener.connections == 1, "the first connection")
            serve(puppet, puppet.take())
            with puppet.park():
                records = listener.wait_for("platform.report")

    assert platform_types(records) == COLD_CALL
    assert listener.connections == 2


# --- 118: subscribers that do not take it


@conformance(118)
@pytest.mark.parametrize("is_there", [True, False], ids=["hanging", "gone"])
def test_a_dead_subscriber_slows_no_call(listener: Subscriber, is_there: bool) -> None:
    if is_there:
        listener.hang()
    else:
        listener.close()
    rapid = listener.start(MISBEHAVE)
    rapid.invoke()

    with rapid.client() as client:
        for _ in range(500):  # one wait for the subscriber a call would be 100 s
            answer = client.post(rapid.path, b'{"do": "print", "text": "line\\n"}')
            assert answer.status == 200

    # The answer to a call may come before its last line is passed on.
    wait_until(lambda: rapid.stdout.count(b"line\n") == 500, "500 lines")


@conformance(118)
def test_what_a_subscriber_was_too_slow_for_is_told_once_it_is_back(listener: Subscriber) -> None:
    rapid = listener.start(MISBEHAVE)
    rapid.invoke()
    listener.wait_for("platform.report")
    listener.status = 500

    for number in range(4):
        rapid.do(do="print", text=f"{number} {'x' * 500}\n", times=1000)
    listener.status = 200
    rapid.do(do="print", text="the last\n")

    def has_caught_up() -> bool:
        lines = [record["record"] for record in listener.of_type("function")]
        return "the last\n" in lines

    wait_until(has_caught_up, "the last line")
    dropped = [record["record"] for record in listener.of_type("platform.logsDropped")]
    assert dropped
    lines = listener.of_type("function")
    missing = sum(each["droppedRecords"] for each in dropped)
    platform = 3 * 6 + 5 - len([r for r in listener.records if r["type"] in COLD_CALL])
    assert len(lines) - 1 + missing - platform == 4000
    assert all(each["droppedBytes"] > 400 * each["droppedRecords"] for each in dropped)
    assert all(each["reason"] for each in dropped)
    numbers = [line["record"].partition(" ")[0] for line in lines[:-1]]
    assert numbers == sorted(numbers)


@conformance(118)
def test_a_batch_that_was_refused_comes_again_before_what_follows(listener: Subscriber) -> None:
    listener.status = 503
    rapid = listener.start(MISBEHAVE)
    for number in range(20):
        rapid.do(do="print", text=f"{number}\n")

    listener.status = 200
    listener.wait_for("platform.report", 20)

    lines = [record["record"] for record in listener.of_type("function")]
    assert lines == [f"{number}\n" for number in range(20)]


@conformance(118)
def test_what_is_left_is_delivered_before_extensions_hear_of_the_shutdown(
    start_puppet: StartPuppet, tmp_path: Path, listener: Subscriber
) -> None:
    directory = tmp_path / "external"
    make_extension(directory, "external")
    puppet = start_puppet(RAPID_EXTENSIONS_DIR=str(directory))
    extension = puppet.extension("external", ["SHUTDOWN"])
    buffering = {"maxItems": 1000, "maxBytes": 262_144, "timeoutMs": 30_000}
    extension.subscribe(TELEMETRY, a_subscription(listener.port, buffering=buffering))
    with extension.park(puppet.raw()) as parked:
        puppet.rapid.wait_for_log("exec '")
        serve(puppet, puppet.take())
        puppet.rapid.signal(signal.SIGTERM)

        event = parked.read_answer().json()
        delivered = types_of(listener.records)

    assert event["eventType"] == "SHUTDOWN"
    assert delivered[-2:] == ["platform.runtimeDone", "platform.report"]


# --- 121: the log descriptor


@conformance(121)
def test_a_message_on_the_log_descriptor_is_one_record_and_printed(listener: Subscriber) -> None:
    rapid = listener.start(MISBEHAVE)
    event = {"do": "log_frame", "type": "a55a0003", "text": "first\nsecond"}

    answer = rapid.invoke(json.dumps(event), X_Amz_Log_Type="Tail")
    records = listener.wait_for("platform.report")

    assert [r["record"] for r in records if r["type"] == "function"] == ["first\nsecond"]
    wait_until(lambda: b"first\nsecond\n" in rapid.stdout, "the output")
    assert "first\nsecond\n" in tail_of(answer)


@conformance(121)
def test_messages_on_the_log_descriptor_below_the_level_are_left_out_of_a_json_log(
    listener: Subscriber,
) -> None:
    rapid = listener.start(MISBEHAVE, AWS_LAMBDA_LOG_FORMAT="JSON")

    rapid.do(do="log_frame", type="a55a000a", text='{"debug": 1}')
    rapid.do(do="log_frame", type="a55a0016", text='{"error": 1}')
    records = listener.wait_for("platform.report", 2)

    assert [r["record"] for r in records if r["type"] == "function"] == [{"error": 1}]
    assert b"debug" not in rapid.stdout


def test_without_extensions_there_is_no_log_descriptor(start_rapid: StartRapid) -> None:
    rapid = start_rapid(MISBEHAVE, _LAMBDA_TELEMETRY_LOG_FD="99")

    assert "_LAMBDA_TELEMETRY_LOG_FD" not in rapid.do(do="env").json()["environ"]


# --- extensions beside


def test_each_environment_has_telemetry_and_extensions_of_its_own(
    calls: Calls, listener: Subscriber
) -> None:
    rapid = listener.start(MISBEHAVE, RAPID_MAX_CONCURRENCY="2")

    started = [calls.start(rapid, b'{"do":"sleep","s":0.5}') for _ in range(2)]
    assert [call.result(LIMIT_S).status for call in started] == [200, 200]
    records = listener.wait_for("platform.report", 2)

    instances = {r["record"]["instanceId"] for r in records if r["type"] == "platform.initStart"}
    assert len(instances) == 2
    environs = listener.extension.written("environ")
    assert sorted(environ["INSTANCE"] for environ in environs) == ["0", "1"]
    assert len({environ["AWS_LAMBDA_RUNTIME_API"] for environ in environs}) == 2


def test_a_file_switches_extensions_and_telemetry_off(
    start_puppet: StartPuppet, tmp_path: Path, listener: Subscriber
) -> None:
    directory = tmp_path / "opt" / "extensions"
    directory.mkdir(parents=True)
    make_extension(directory, "one")
    (tmp_path / "opt" / "disable-extensions-jwigqn8j").touch()
    puppet = start_puppet(RAPID_EXTENSIONS_DIR=str(directory))
    headers = {"Lambda-Extension-Identifier": UNKNOWN_ID}

    statuses = [
        puppet.register("internal").status,
        puppet.runtime.request("PUT", TELEMETRY, b"{}", headers).status,
        puppet.runtime.request("PUT", LOGS, b"{}", headers).status,
    ]

    assert statuses == [404, 404, 404]
    assert len(puppet.rapid.descendants()) == 1
    assert puppet.runtime.get(NEXT.replace("next", "nowhere")).status == 404


def test_more_than_ten_extensions_are_too_many(start_rapid: StartRapid, tmp_path: Path) -> None:
    for number in range(11):
        make_extension(tmp_path / "many", f"extension-{number}")
    rapid = start_rapid(MISBEHAVE, ready=False, RAPID_EXTENSIONS_DIR=str(tmp_path / "many"))

    assert rapid.invoke().error_type == "Extension.TooManyExtensions"
