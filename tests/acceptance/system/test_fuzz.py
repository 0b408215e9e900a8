"""2,000 seeded requests of every wrong kind to each HTTP listener: it answers, and lives on."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import random
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import psutil
import pytest

from devtools.ports import LOOPBACK
from tests.conftest import StartRapid, StartServer
from tests.support import ECHO, Answer, WebProgram, wait_until

REQUESTS = 2_000
#: Clients at once.
CLIENTS = 8
#: An answer that has not come by then does not come, seconds.
ANSWER_LIMIT_S = 0.12
#: What one listener's requests may take, seconds.
RUN_LIMIT_S = 25.0
#: What 2,000 requests may leave in a process: allocators keep some of what they were asked for.
MORE_RSS_KIB = 96 * 1_024
MORE_THREADS = 4 * CLIENTS

METHODS = [b"GET", b"POST", b"POST", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"TRACE"]
HEADER_NAMES = [
    b"X-Amz-Invocation-Type",
    b"X-Amz-Log-Type",
    b"X-Amz-Client-Context",
    b"X-Amzn-Trace-Id",
    b"X-Amz-Tenant-Id",
    b"X-Lambda-Request-Id",
    b"Lambda-Runtime-Function-Error-Type",
    b"Lambda-Runtime-Function-Response-Mode",
    b"Lambda-Extension-Name",
    b"Lambda-Extension-Identifier",
    b"Content-Type",
    b"Expect",
    b"Connection",
    b"Upgrade",
    b"Host",
    b"Accept-Encoding",
]


@dataclass(frozen=True, slots=True)
class Case:
    """What one connection sends."""

    data: bytes
    is_head: bool = False  #: its answer has no body


@dataclass
class Findings:
    """What came back. Appended to by many threads."""

    answers: list[Answer] = field(default_factory=list)
    unreadable: list[tuple[bytes, bytes]] = field(default_factory=list)  #: request, answer


class Fuzzer:
    """Makes requests for a listener whose valid paths are ``paths``; the seed decides all."""

    def __init__(self, seed: int, paths: list[bytes]) -> None:
        self._random = random.Random(seed)
        self._paths = paths

    def cases(self) -> Iterator[Case]:
        """Make all requests, every kind as often."""
        kinds: list[Callable[[], Case]] = [
            self._bad_request_line,
            self._bad_headers,
            self._huge_headers,
            self._control_characters,
            self._odd_chunks,
            self._bad_length,
            self._garbage,
            self._truncated,
            self._wrong_method,
            self._valid_path,
            self._valid_path,
            self._bad_member,
            self._bad_name,
            self._pipelined,
        ]
        for number in range(REQUESTS):
            yield kinds[number % len(kinds)]()

    # --- kinds

    def _bad_request_line(self) -> Case:
        lines = [
            b"",
            b" ",
            b"GET",
            b"GET /",
            b"GET  / HTTP/1.1",
            b"GET / HTTP/1.1 x",
            b"GET / HTTP/9.9",
            b"GET / HTTP/1.10",
            b"GET / http/1.1",
            b"\tGET / HTTP/1.1",
            b"G\xc3\x84T / HTTP/1.1",
            b"GET http://[::1/ HTTP/1.1",
            b"GET http://h:x/healthz HTTP/1.1",
            b"CONNECT h:443 HTTP/1.1",
            b"OPTIONS * HTTP/1.1",
            b"GET " + b"/" * self._random.randrange(100_000) + b" HTTP/1.1",
            self._text(40) + b" " + self._text(40) + b" HTTP/1.1",
            b"PRI * HTTP/2.0",
        ]
        return Case(self._random.choice(lines) + b"\r\nHost: x\r\n\r\n")

    def _bad_headers(self) -> Case:
        lines = [
            b"No colon",
            b": no name",
            b"Space : before",
            b" folded",
            b"A:b\r\n\tfolded",
            b"Host: a\r\nHost: b",
            b"Content-Length: 2\r\nContent-Length: 3",
            b"Content-Length: 2\r\nContent-Length: 2",
            b"Transfer-Encoding: gzip",
            b"Transfer-Encoding: chunked, chunked",
            b"Content-Length: 2\r\nTransfer-Encoding: chunked",
            b"Expect: 200-nonsense",
            b"Connection: " + self._text(50),
            b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings",
            b"Host: [::\xff",
            b"Host: " + self._bytes(20).replace(b"\n", b"").replace(b"\r", b""),
            b"\r\n".join(b"A: b" for _ in range(self._random.randrange(1_000))),
        ]
        return Case(self._request(b"POST", self._path(), [self._random.choice(lines)], b"{}"))

    def _huge_headers(self) -> Case:
        size = self._random.choice([8_000, 70_000, 1_048_576 if self._random.random() < 0.2 else 1])
        name = self._random.choice([*HEADER_NAMES, b"X-Huge", b"N" * size])
        return Case(self._request(b"POST", self._path(), [name + b": " + b"x" * size], b"{}"))

    def _control_characters(self) -> Case:
        data = bytearray(self._request(b"POST", self._path(), [self._header()], b"{}"))
        for _ in range(self._random.randrange(1, 6)):
            data.insert(
                self._random.randrange(len(data)), self._random.choice(b"\x00\x01\x0b\x7f\r\n")
            )
        return Case(bytes(data))

    def _odd_chunks(self) -> Case:
        bodies = [
            b"0\r\n\r\n",
            b"\r\n\r\n",
            b"zz\r\n{}\r\n0\r\n\r\n",
            b"-2\r\n{}\r\n0\r\n\r\n",
            b"+2\r\n{}\r\n0\r\n\r\n",
            b"0x2\r\n{}\r\n0\r\n\r\n",
            b"2\r\n{}0\r\n\r\n",
            b"2\n{}\n0\n\n",
            b"2;a=b;c\r\n{}\r\n0\r\nTrailer: x\r\n\r\n",
            b"2\r\n{}\r\n0\r\n" + b"T: x\r\n" * self._random.randrange(1_000) + b"\r\n",
            b"FFFFFFFF\r\n{}",
            b"FFFFFFFFFFFFFFFF\r\n{}",
            b"00000000002\r\n{}\r\n0\r\n\r\n",
            b"2;" + b"e" * self._random.randrange(50_000) + b"\r\n{}\r\n0\r\n\r\n",
            b"1\r\n{\r\n1\r\n}\r\n",
            self._bytes(60),
        ]
        head = self._request(b"POST", self._path(), [b"Transfer-Encoding: chunked"], None)
        return Case(head + self._random.choice(bodies))

    def _bad_length(self) -> Case:
        lengths = [
            b"-1",
            b"+2",
            b"0x2",
            b"1e3",
            b"2, 2",
            b"",
            b" ",
            b"\xc2\xb2",
            b"9" * self._random.randrange(10, 5_000),
            b"6291457",
            b"1048577",
            b"99999999",
            b"00000002",
            b"1",
            b"3",
        ]
        length = b"Content-Length: " + self._random.choice(lengths)
        headers = [length, *self._maybe(self._header())]
        return Case(self._request(b"POST", self._path(), headers, None) + b"{}")

    def _garbage(self) -> Case:
        ends = [b"", b"\r\n\r\n", b"\n\n"]
        return Case(self._bytes(self._random.choice([10, 300, 5_000])) + self._random.choice(ends))

    def _truncated(self) -> Case:
        data = self._request(b"POST", self._path(), [self._header()], self._body())
        return Case(data[: self._random.randrange(len(data))])

    def _wrong_method(self) -> Case:
        if self._random.random() < 0.2:
            return Case(self._request(b"HEAD", self._path(), [], None), is_head=True)
        return Case(self._request(self._random.choice(METHODS), self._path(), [], self._body()))

    def _valid_path(self) -> Case:
        headers = [self._header() for _ in range(self._random.randrange(4))]
        return Case(self._request(b"POST", self._path(), headers, self._body()))

    def _bad_member(self) -> Case:
        contexts = [
            b"eyJ",
            b"bm8gSlNPTg==",
            b"W10=",
            base64.b64encode(b"[" * 2_000),
            b"\xff",
            b"x" * 9_000,
        ]
        headers = [
            b"X-Amz-Client-Context: " + self._random.choice(contexts),
            b"X-Amz-Invocation-Type: "
            + self._random.choice([b"Event", b"DryRun", b"event", b"\xe4"]),
            b"X-Amz-Log-Type: " + self._random.choice([b"Tail", b"None", b"tail", b"Tail, Tail"]),
            b"X-Amzn-Trace-Id: " + self._random.choice([b"Root=1", b"\xff", b"x" * 9_000]),
            b"X-Amz-Tenant-Id: " + self._random.choice([b"a b", b"\xff", b"!", b"t" * 300]),
        ]
        chosen = self._random.sample(headers, self._random.randrange(1, 4))
        return Case(self._request(b"POST", self._path(), chosen, b"{}"))

    def _bad_name(self) -> Case:
        names = [
            b"",
            b"%",
            b"%zz",
            b"%00",
            b"%0d%0aX:%20y",
            b"%ff",
            b"..",
            b"../../etc/passwd",
            b"a/b",
            b"a:b:c",
            b"arn:aws:lambda:eu-west-1:123456789012:function:f",
            b"arn:aws:lambda:::function:",
            b"amq.rabbitmq.reply-to",
            b"amq.rabbitmq.reply-to.g2dkAA5yZXBseUA.x",
            b"echo.events",
            b"f" * 255,
            b"f" * 256,
            b"f" * 257,
            b"f" * 70_000,
            self._text(30).replace(b" ", b""),
        ]
        qualifiers = [
            b"",
            b"?Qualifier=",
            b"?Qualifier=%FF",
            b"?Qualifier=$LATEST",
            b"?Qualifier=" + b"q" * 300,
            b"?&&=&",
        ]
        name, qualifier = self._random.choice(names), self._random.choice(qualifiers)
        path = b"/2015-03-31/functions/" + name + b"/invocations" + qualifier
        return Case(self._request(b"POST", path, [], b"{}"))

    def _pipelined(self) -> Case:
        parts = [
            self._request(b"POST", self._path(), [], b"{}"),
            self._request(b"GET", b"/healthz", [], None),
            b"\r\n\r\n",
            self._bytes(30),
            b"GET / HTTP/1.1\r\n\r\n",
        ]
        return Case(
            b"".join(self._random.choice(parts) for _ in range(self._random.randrange(2, 9)))
        )

    # --- parts

    def _request(
        self, method: bytes, path: bytes, headers: list[bytes], body: bytes | None
    ) -> bytes:
        lines = [method + b" " + path + b" HTTP/1.1", b"Host: fuzz", *headers]
        if body is not None:
            lines.append(b"Content-Length: %d" % len(body))
        return b"\r\n".join([*lines, b"", body or b""])

    def _path(self) -> bytes:
        return self._random.choice(self._paths)

    def _header(self) -> bytes:
        value = self._random.choice([self._text(30), b"", b"Event", b"DryRun", b"Tail", b"e30="])
        return self._random.choice(HEADER_NAMES) + b": " + value

    def _body(self) -> bytes:
        bodies = [b"", b"{}", b"[1, 2]", b'"\xff"', b"NaN", b"[" * 3_000, b"1" * 5_000, b'{"a":']
        return self._random.choice([*bodies, self._bytes(200), b'"' + b"x" * 100_000 + b'"'])

    def _text(self, limit: int) -> bytes:
        return bytes(self._random.choices(range(0x20, 0x7F), k=self._random.randrange(limit)))

    def _bytes(self, limit: int) -> bytes:
        return self._random.randbytes(self._random.randrange(limit))

    def _maybe(self, *headers: bytes) -> list[bytes]:
        return [header for header in headers if self._random.random() < 0.3]


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a process has."""

    threads: int
    rss_kib: int

    @classmethod
    def of(cls, pid: int) -> Footprint:
        """Read the footprint of a process that lives."""
        process = psutil.Process(pid)
        return cls(process.num_threads(), process.memory_info().rss // 1024)


def fuzz(port: int, seed: int, paths: list[bytes]) -> Findings:
    """Send every case on a connection of its own, and keep what comes back."""
    findings = Findings()

    def send(case: Case) -> None:
        with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, port), 5) as sock:
            sock.settimeout(ANSWER_LIMIT_S)
            received = b""
            with contextlib.suppress(OSError):
                sock.sendall(case.data)
                sock.shutdown(socket.SHUT_WR)  # no more comes: what is cut off is answered now
            with contextlib.suppress(OSError):
                while data := sock.recv(65_536):
                    received += data
                    if case.is_head or _is_whole(received):
                        break
            _sort(findings, case, received)

    with ThreadPoolExecutor(CLIENTS) as pool:
        for done in [pool.submit(send, case) for case in Fuzzer(seed, paths).cases()]:
            done.result()
    return findings


def check(
    program: WebProgram, listener: int, paths: list[bytes], seed: int, pids: list[int]
) -> Findings:
    """Fuzz one listener of ``program``, and hold every process of ``pids`` to its promises."""
    fuzz_some = Fuzzer(seed + 1, paths).cases()
    for case in [next(fuzz_some) for _ in range(100)]:  # caches and pools are filled
        with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, listener)) as sock:
            sock.sendall(case.data)
    before = {pid: Footprint.of(pid) for pid in pids}
    started = time.monotonic()

    findings = fuzz(listener, seed, paths)

    assert time.monotonic() - started < RUN_LIMIT_S
    for pid, footprint in before.items():
        wait_until(
            lambda pid=pid, limit=footprint.threads + MORE_THREADS: (  # type: ignore[misc]
                Footprint.of(pid).threads <= limit
            ),
            f"the threads of {pid} to end",
        )
        assert Footprint.of(pid).rss_kib <= footprint.rss_kib + MORE_RSS_KIB
    assert program.exit_code is None
    assert not [line for line in program.log if "Traceback" in line]
    assert findings.unreadable == []
    assert len(findings.answers) > REQUESTS / 3
    return findings


def assert_errors_are_awss(findings: Findings) -> None:
    """Hold every error to the form that SDKs read."""
    errors = [answer for answer in findings.answers if answer.status >= 400]
    assert {answer.status for answer in errors} >= {400, 404, 405}
    for answer in errors:
        assert answer.headers["Content-Type"] == "application/json", answer
        assert answer.headers["x-amzn-ErrorType"], answer
        assert answer.headers["x-amzn-RequestId"], answer
        if answer.body:  # HEAD has none
            members = json.loads(answer.body)
            assert members.get("message") or members.get("Message"), answer


def invoke_paths(name: str) -> list[bytes]:
    """Return the paths of an Invoke listener; the function most often."""
    function = f"/2015-03-31/functions/{name}/invocations".encode()
    return [
        *[function] * 4,
        function + b"?Qualifier=$LATEST",
        function + b"?Qualifier=v1&Qualifier=v2&x=%zz",
        b"/2015-03-31/functions/nobody/invocations",
        f"/2014-11-13/functions/{name}/invoke-async/".encode(),
        b"/2021-11-15/functions/x/response-streaming-invocations",
        b"/healthz",
        b"/readyz",
        b"/metrics",
        b"/",
    ]


RUNTIME_PATHS = [
    b"/2018-06-01/runtime/invocation/next",
    b"/2018-06-01/runtime/invocation/11111111-2222-4333-8444-555555555555/response",
    b"/2018-06-01/runtime/invocation/11111111-2222-4333-8444-555555555555/error",
    b"/2018-06-01/runtime/invocation/%2f%00/response",
    b"/2018-06-01/runtime/init/error",
    b"/2018-06-01/runtime/restore/next",
    b"/2018-06-01/runtime/restore/error",
    b"/2018-06-01/ping",
    b"/2020-01-01/extension/register",
    b"/2020-01-01/extension/event/next",
    b"/2020-01-01/extension/init/error",
    b"/2020-01-01/extension/exit/error",
    b"/2020-08-15/logs",
    b"/2022-07-01/telemetry",
    b"/",
]


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["direct", "broker"])
def test_the_server_outlives_2000_fuzzed_requests(
    mode: str, start_rapid: StartRapid, start_server: StartServer, request: pytest.FixtureRequest
) -> None:
    if mode == "direct":
        rapid = start_rapid(ECHO)
        endpoint = f"{rapid.function_name}=http://{LOOPBACK}:{rapid.port}"
        server = start_server(LAMBDA_ENDPOINTS=endpoint)
    else:
        uri = request.getfixturevalue("broker")
        rapid = start_rapid(ECHO, RAPID_AMQP_URI=uri)
        server = start_server(AMQP_URI=uri)
    workers = server.descendants()

    findings = check(server, server.port, invoke_paths(rapid.function_name), 1, workers)

    assert server.descendants() == workers
    assert_errors_are_awss(findings)
    assert server.invoke(rapid.function_name, b'"good"').body == b'"good"'
    assert rapid.exit_code is None
    assert not [line for line in rapid.log if "Traceback" in line]


@pytest.mark.slow
def test_rapids_invoke_api_outlives_2000_fuzzed_requests(start_rapid: StartRapid) -> None:
    rapid = start_rapid(ECHO)

    findings = check(rapid, rapid.port, invoke_paths(rapid.function_name), 2, [rapid.pid])

    assert_errors_are_awss(findings)
    assert rapid.invoke(b'"good"').body == b'"good"'


@pytest.mark.slow
def test_the_runtime_api_outlives_2000_fuzzed_requests(start_rapid: StartRapid) -> None:
    rapid = start_rapid(ECHO)
    assert rapid.invoke(b'"before"').body == b'"before"'

    findings = check(rapid, rapid.runtime_api_port, RUNTIME_PATHS, 3, [rapid.pid])

    assert {answer.status for answer in findings.answers} >= {400, 403, 404, 405}
    assert [a for a in findings.answers if not a.headers["Content-Type"]] == []
    assert rapid.invoke(b'"good"').body == b'"good"'


def _is_whole(received: bytes) -> bool:
    """Whether a first final answer is here, with its body."""
    answers, _ = _parse(received)
    return any(answer.status >= 200 for answer in answers)


def _sort(findings: Findings, case: Case, received: bytes) -> None:
    answers, rest = _parse(received)
    if case.is_head and not answers and b"\r\n\r\n" in rest:  # its length is that of no body
        answers, rest = [_head(rest.partition(b"\r\n\r\n")[0], b"")], b""
    findings.answers += [answer for answer in answers if answer.status >= 200]
    if rest and not rest.startswith(b"HTTP/1.1 "[: len(rest)]):
        findings.unreadable.append((case.data[:500], rest[:500]))


def _parse(received: bytes) -> tuple[list[Answer], bytes]:
    """Return the complete answers in ``received``, and what follows them."""
    answers = []
    while received.startswith(b"HTTP/1.1 ") and b"\r\n\r\n" in received:
        head, _, rest = received.partition(b"\r\n\r\n")
        answer = _head(head, b"")
        length = int(answer.headers.get("Content-Length", "0"))
        if len(rest) < length:
            break
        answers.append(Answer(answer.status, answer.headers, rest[:length]))
        received = rest[length:]
    return answers, received


def _head(head: bytes, body: bytes) -> Answer:
    status_line, *lines = head.decode("latin-1").split("\r\n")
    headers = http.client.HTTPMessage()
    for line in lines:
        name, _, value = line.partition(":")
        headers[name] = value.strip()
    return Answer(int(status_line.split(" ")[1]), headers, body)
