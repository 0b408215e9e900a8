"""Function URLs as every front serves them: rapid itself, and the Lambda Server in each way."""

from __future__ import annotations

import base64
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from lambda_protocol.limits import SYNC_PAYLOAD_BYTES
from tests.integration.urls.conftest import SHOP, Front
from tests.support import Answer, wait_until

GOLDEN = Path(__file__).parents[2] / "unit" / "protocol" / "function_urls"
REQUESTS = sorted((GOLDEN / "requests").glob("*.json"))
ANSWERS = sorted((GOLDEN / "answers").glob("*.json"))


def head_of(vector: dict[str, Any], target: str, body: bytes) -> bytes:
    """Return the request of a golden file as bytes; each character of a header is one."""
    given = vector["request"]
    method, _, protocol = given["line"].split(" ")
    headers = [(n, v) for n, v in given["headers"] if n != "Host"]
    lines = [f"{method} {target} {protocol}", "Host: x", *(f"{n}: {v}" for n, v in headers)]
    head = "\r\n".join(lines).encode("latin-1")
    if b"chunked" in head:
        return head + b"\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    lines_of_length = [line for line in head.split(b"\r\n") if b"Content-Length" not in line]
    length = b"Content-Length: %d" % len(body)
    return b"\r\n".join([*lines_of_length, length, b"", b""]) + body


@pytest.mark.parametrize("file", REQUESTS, ids=lambda file: file.stem)
def test_an_event_is_that_of_the_golden_file_but_for_where_it_came(
    front: Front, file: Path
) -> None:
    """The codec's own test compares the whole event. Here the request is bytes on a socket.

    The function answers events at one path, so the path is that of the request with another end.
    """
    vector = json.loads(file.read_text())
    given, expected = vector["request"], vector["event"]
    method, target, protocol = given["line"].split(" ")
    if protocol == "HTTP/1.0" or method == "HEAD":
        pytest.skip("this client speaks HTTP/1.1 and reads a body")
    if front.has_gunicorns_reader and file.stem[:2] in ("13", "17", "43"):
        pytest.skip("gunicorn reads two Cookie headers, Upgrade and raw bytes its own way")
    query = target.partition("?")[1] + target.partition("?")[2]
    encoded = given.get("body_base64")
    body = given.get("body", "").encode() if encoded is None else base64.b64decode(encoded)

    with front.raw() as raw:
        raw.send(head_of(vector, f"{front.prefix}/event{query}", body))
        if any(name == "Expect" for name, _ in given["headers"]) and body:
            raw.read_answer(has_body=False)
        answer = raw.read_answer()
    if method == "OPTIONS":
        assert answer.headers["Vary"] == "Origin"  # the setting Cors answers a preflight
        return
    event = answer.json()

    assert (event["rawPath"], event["requestContext"]["http"]["method"]) == ("/event", method)
    of_place = {
        "host",
        "x-forwarded-for",
        "x-forwarded-port",
        "x-forwarded-prefix",
        "x-amzn-trace-id",
    }
    of_place |= {"x-forwarded-proto"} if given["scheme"] == "https" else set()
    for headers in (event["headers"], expected["headers"]):
        for name in of_place:
            headers.pop(name, None)
    for event_of in (event, expected):
        for member in ("requestContext", "rawPath"):
            del event_of[member]
    assert event == expected


@pytest.mark.parametrize("file", ANSWERS, ids=lambda file: file.stem)
def test_an_answer_is_that_of_the_golden_file(front: Front, file: Path) -> None:
    vector = json.loads(file.read_text())

    with front.raw() as raw:
        body = vector["payload"].encode()
        head = f"POST {front.prefix}/answer HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
        raw.send(head.encode() + b"\r\n" + body)
        expected = vector["answer"]
        status = 502 if isinstance(expected, str) else expected["status"]
        answer = raw.read_answer(has_body=status not in (204, 304))

    assert answer.status == status
    if isinstance(expected, str):
        assert answer.body == b"Internal Server Error"
        return
    given = [[name.lower(), value] for name, value in answer.headers.items()]
    for name, value in expected["headers"]:
        assert [name.lower(), value] in given
    names = [name for name, _ in given]
    assert names.count("set-cookie") == sum(n == "Set-Cookie" for n, _ in expected["headers"])
    assert all(names.count(name) <= 1 for name in ("content-length", "connection", "date"))
    encoded = expected.get("body_base64")
    body = expected["body"].encode() if encoded is None else base64.b64decode(encoded)
    assert answer.body == body
    assert "x-amzn-requestid" in names
    assert "x-amzn-trace-id" in names


def test_the_event_says_who_called_and_where(front: Front) -> None:
    answer = front.get("/event", X_Amzn_Trace_Id="Root=1-2-3")
    event = answer.json()

    assert event["requestContext"]["http"]["sourceIp"] == "127.0.0.1"
    assert event["requestContext"]["apiId"] == front.name
    assert event["requestContext"]["domainName"] == "127.0.0.1"
    assert event["requestContext"]["requestId"] == answer.headers["x-amzn-RequestId"]
    assert answer.headers["X-Amzn-Trace-Id"] == "Root=1-2-3"
    headers = event["headers"]
    assert headers["host"] == f"127.0.0.1:{front.program.port}"
    assert headers["x-forwarded-for"] == "127.0.0.1"
    assert headers["x-forwarded-proto"] == "http"
    assert headers["x-forwarded-port"] == str(front.program.port)
    assert headers["x-forwarded-prefix"] == front.prefix
    assert headers["x-amzn-trace-id"] == "Root=1-2-3"


@pytest.mark.parametrize("path", ["/a%2Fb/%C3%A4//c/../d?x=%20", "", "/", "?x=1", "//"])
def test_the_path_is_as_it_was_sent(front: Front, path: str) -> None:
    answer = front.get(path).json()

    assert answer["path"] == (path.partition("?")[0] or "/")


def test_a_qualifier_stands_behind_the_name(front: Front) -> None:
    with front.client() as client:
        assert client.get(f"{front.prefix}:live/x").json()["path"] == "/x"


def test_another_functions_url_does_not_exist(front: Front) -> None:
    with front.patient_client() as client:
        for name in ("other", "a..b", "x" * 300, "", f"{front.name}:a!b", "%00", "a:b:c"):
            answer = client.get(f"/lambda-url/{name}/x")

            assert (answer.status, answer.body) == (403, b'{"Message":null}'), name
            assert answer.headers["x-amzn-ErrorType"] == "AccessDeniedException"


def test_a_function_that_fails_is_502(front: Front) -> None:
    for path in ("/error", "/exit"):
        answer = front.get(path)

        assert (answer.status, answer.body) == (502, b"Internal Server Error")
        assert answer.headers["Content-Type"] == "text/plain"


def test_a_body_over_the_limit_is_413(front: Front) -> None:
    answer = front.request("POST", "/answer", b"a" * (SYNC_PAYLOAD_BYTES + 1))

    assert answer.status == 413
    assert answer.headers["x-amzn-ErrorType"] == "RequestEntityTooLargeException"
    assert front.get("/x").status == 200


def test_a_body_below_the_limit_is_taken(front: Front) -> None:
    text = b'"' + b"a" * (SYNC_PAYLOAD_BYTES - 10_000) + b'"'

    answer = front.request("POST", "/answer", text, {"Content-Type": "text/plain"})

    assert (answer.status, len(answer.body)) == (200, len(text) - 2)


def test_a_binary_body_comes_back(front: Front) -> None:
    blob = bytes(range(256)) * 1000

    event = front.request("PUT", "/event", blob, {"Content-Type": "image/png"}).json()

    assert event["isBase64Encoded"] is True
    assert base64.b64decode(event["body"]) == blob


def test_head_has_no_body(front: Front) -> None:
    with front.raw() as raw:
        for _ in range(2):  # the second answer would begin with the first one's body
            raw.send(f"HEAD {front.prefix}/event HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            answer = raw.read_answer(has_body=False)
            assert answer.status == 200
            assert int(answer.headers["Content-Length"]) > 100


def test_expect_is_answered(front: Front) -> None:
    with front.raw() as raw:
        head = f"POST {front.prefix}/event HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n"
        raw.send(f"{head}Content-Type: text/plain\r\nExpect: 100-continue\r\n\r\n".encode())
        assert raw.read_answer(has_body=False).status == 100
        raw.send(b"hi")
        assert raw.read_answer().json()["body"] == "hi"


def test_an_upgrade_is_ignored_but_for_a_websocket(front: Front) -> None:
    answer = front.get("/event", Connection="Upgrade, HTTP2-Settings", Upgrade="h2c")
    assert answer.status == 200
    assert "upgrade" not in answer.json()["headers"]

    answer = front.get("/event", Connection="Upgrade", Upgrade="websocket")
    assert (answer.status, answer.body.count(b"\n")) == (501, 1)


# --- web pages


def test_a_preflight_is_answered_without_the_function(front: Front) -> None:
    before = front.get("/x").json()["count"]
    asked = {"Origin": SHOP, "Access-Control-Request-Method": "PUT"}

    answer = front.request("OPTIONS", "/x", None, asked)

    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["Access-Control-Allow-Origin"] == SHOP
    assert answer.headers["Access-Control-Allow-Methods"] == "GET,PUT"
    after = [front.get("/x").json()["count"] for _ in range(2)]
    assert min(after) <= before + 2  # two environments at most; none had the preflight


def test_a_page_reads_an_answer_if_its_origin_may(front: Front) -> None:
    allowed, foreign = front.get("/x", Origin=SHOP), front.get("/x", Origin="https://evil.example")

    assert (allowed.status, foreign.status) == (200, 200)
    assert allowed.headers["Access-Control-Allow-Origin"] == SHOP
    assert allowed.headers["Access-Control-Expose-Headers"] == "x-id"
    assert "Access-Control-Allow-Origin" not in foreign.headers
    failed = front.get("/error", Origin=SHOP)
    assert (failed.status, failed.headers["Access-Control-Allow-Origin"]) == (502, SHOP)


# --- connections


def test_a_connection_is_kept(front: Front) -> None:
    with front.client() as client:
        client.get(f"{front.prefix}/x")
        port = client.local_port
        for path in ("/x", "/error", "/x", "/answer", "/x"):
            client.get(front.prefix + path)
        client.post(f"/2015-03-31/functions/{front.name}/invocations", b'{"rawPath":"/error"}')

        assert client.local_port == port


def test_200_connections_are_served_at_once(front: Front) -> None:
    clients = [front.client() for _ in range(200)]
    start = threading.Barrier(50)

    def ask(index: int) -> list[Answer]:
        start.wait()
        return [client.get(f"{front.prefix}/n{index}") for client in clients[index::50]]

    with ThreadPoolExecutor(50) as pool:
        answers = [answer for some in pool.map(ask, range(50)) for answer in some]

    for client in clients:
        client.close()
    assert [answer.status for answer in answers] == [200] * 200
    assert {answer.json()["path"] for answer in answers} == {f"/n{index}" for index in range(50)}


def test_a_client_that_hangs_up_costs_no_worker(front: Front, tmp_path: Path) -> None:
    file = tmp_path / "go"
    begun = Path(f"{file}.begun")
    for _ in range(5):
        with front.raw() as raw:
            raw.send(f"GET {front.prefix}/hold?{file} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            wait_until(begun.exists, "the function to begin")
    file.touch()

    assert [front.get("/x").status for _ in range(4)] == [200] * 4


# --- the server's other forms


def test_a_host_names_the_function_whatever_its_case(server_front: Front) -> None:
    front = server_front
    with front.client() as client:
        event = client.request("GET", "/event?a=b", None, {"Host": front.host}).json()

    assert (event["rawPath"], event["rawQueryString"]) == ("/event", "a=b")
    assert event["requestContext"]["domainPrefix"] == front.name
    assert "x-forwarded-prefix" not in event["headers"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/healthz"),
        ("GET", "/readyz"),
        ("GET", "/metrics"),
        ("POST", "/2015-03-31/functions/NAME/invocations"),
        ("POST", "/2014-11-13/functions/NAME/invoke-async"),
        ("GET", "/lambda-url/NAME/x"),
        ("DELETE", "/"),
    ],
)
def test_every_path_of_a_functions_host_is_the_functions(
    server_front: Front, method: str, path: str
) -> None:
    front = server_front
    path = path.replace("NAME", front.name)
    with front.client() as client:
        for _ in range(2):
            answer = client.request(method, path, b"{}", {"Host": front.host})
            assert answer.json()["path"] == path
        assert client.get("/healthz").json() == {"status": "ok"}


@pytest.mark.parametrize(
    "host", ["other.lambda-url.us-east-1.localhost", "a_b.lambda-url.eu-west-2.x"]
)
def test_a_host_of_no_function_has_nothing(server_front: Front, host: str) -> None:
    with server_front.patient_client() as client:
        for path in ("/", "/healthz", f"/lambda-url/{server_front.name}/"):
            answer = client.request("GET", path, None, {"Host": host})
            assert (answer.status, answer.body) == (403, b'{"Message":null}')


@pytest.mark.parametrize("host", ["a.lambda-url.localhost", "lambda-url.us-east-1.x", "x.y.z"])
def test_a_host_that_only_looks_alike_is_the_servers(server_front: Front, host: str) -> None:
    with server_front.client() as client:
        assert client.request("GET", "/healthz", None, {"Host": host}).json() == {"status": "ok"}
