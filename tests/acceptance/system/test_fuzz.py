"""2,000 seeded requests, most of them wrong, to each HTTP listener: it answers, and lives on."""

from __future__ import annotations

import contextlib
import http.client
import json
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from tests.conftest import StartRapid, StartServer
from tests.framings import READ_AS
from tests.support import ECHO, Answer, RawConnection, WebProgram, wait_until

REQUESTS = 2_000
#: Clients at once.
CLIENTS = 8
#: What 2,000 requests may leave in a process: allocators keep some of what they were asked for.
MORE_RSS_MB = 100
MORE_THREADS = 4 * CLIENTS

METHODS = (b"GET", b"POST", b"POST", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"TRACE")
#: Headers that one of the listeners looks at, with a value that it knows.
HEADERS = {
    b"X-Amz-Invocation-Type": b"Event",
    b"X-Amz-Log-Type": b"Tail",
    b"X-Amz-Client-Context": b"e30=",
    b"X-Amzn-Trace-Id": b"Root=1",
    b"X-Amz-Tenant-Id": b"a b",
    b"X-Lambda-Request-Id": b"11111111-2222-4333-8444-555555555555",
    b"Lambda-Runtime-Function-Error-Type": b"Function.Broke",
    b"Lambda-Runtime-Function-Response-Mode": b"streaming",
    b"Lambda-Extension-Name": b"one",
    b"Lambda-Extension-Identifier": b"11111111-2222-4333-8444-555555555555",
    b"Content-Type": b"application/json",
    b"Expect": b"100-continue",
    b"Connection": b"close",
    b"Upgrade": b"h2c",
    b"Accept-Encoding": b"gzip",
}
BODIES = (b"", b"{}", b"[1, 2]", b'"\xff"', b"NaN", b"[" * 3_000, b"1" * 5_000, b'{"a":')
NAMES = (
    *(b"", b"%", b"%zz", b"%00", b"%0d%0aX:%20y", b"%ff", b"..", b"../../etc/passwd", b"a/b"),
    *(b"a:b:c", b"arn:aws:lambda:eu-west-1:123456789012:function:f", b"arn:aws:lambda:::function:"),
    *(b"amq.rabbitmq.reply-to.g2dk.x", b"echo.events", b"f" * 256, b"f" * 257, b"f" * 70_000),
)
QUALIFIERS = (b"", b"?Qualifier=", b"?Qualifier=%FF", b"?Qualifier=" + b"q" * 300, b"?&&=&")


class Fuzzer:
    """Makes requests for a listener with these valid paths. The seed decides all."""

    def __init__(self, seed: int, paths: list[bytes]) -> None:
        self._random = random.Random(seed)
        self._paths = paths

    def cases(self) -> Iterator[bytes]:
        """Make what each connection sends, every kind as often."""
        kinds: list[Callable[[], bytes]] = [
            *(self._valid, self._framed, self._named, self._pipelined, self._garbage),
            *(self._mutated, self._mutated, self._mutated),
        ]
        for number in range(REQUESTS):
            yield kinds[number % len(kinds)]()

    def _valid(self) -> bytes:
        """Return a request whose form is right."""
        choice = self._random.choice
        names = self._random.sample(list(HEADERS), self._random.randrange(4))
        odd = self._random.randbytes(8).hex().encode()
        lines = [name + b": " + choice([HEADERS[name], odd, b"", b"\xff"]) for name in names]
        body = choice([*BODIES, b'"' + b"x" * 100_000 + b'"'])
        lines = [choice(METHODS) + b" " + choice(self._paths) + b" HTTP/1.1", b"Host: x", *lines]
        return b"\r\n".join([*lines, b"Content-Length: %d" % len(body), b"", body])

    def _framed(self) -> bytes:
        """Return a request of the table of framings."""
        data, _ = self._random.choice(list(READ_AS.values()))
        return data.replace(b" / ", b" " + self._random.choice(self._paths) + b" ", 1)

    def _named(self) -> bytes:
        """Return an invocation of a function that cannot be."""
        name, qualifier = self._random.choice(NAMES), self._random.choice(QUALIFIERS)
        path = b"/2015-03-31/functions/" + name + b"/invocations" + qualifier
        return b"POST " + path + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"

    def _pipelined(self) -> bytes:
        kinds: list[Callable[[], bytes]]
        kinds = [self._valid, self._framed, self._garbage, lambda: b"\r\n\r\n"]
        return b"".join(self._random.choice(kinds)() for _ in range(self._random.randrange(2, 9)))

    def _garbage(self) -> bytes:
        size = self._random.choice([10, 300, 5_000])
        return self._random.randbytes(size) + self._random.choice([b"", b"\r\n\r\n", b"\n\n"])

    def _mutated(self) -> bytes:
        """Return a request that something was put into, taken from, doubled in or cut off."""
        choice = self._random.choice
        data = self._valid() if choice([True, False]) else self._framed()
        for _ in range(self._random.randrange(1, 6)):
            at = self._random.randrange(len(data) + 1)
            piece = data[at : at + self._random.randrange(20)]
            odd = choice([b"\x00", b"\x0b", b"\x7f", b"\r", b"\n", b" ", b":", b"9" * 30])
            data = choice(
                [
                    data[:at] + odd + data[at:],
                    data[:at] + data[at + len(piece) :],
                    data[:at] + piece * 2 + data[at + len(piece) :],
                    data[:at] + b"x" * choice([1, 8_000, 70_000]) + data[at:],
                    data[:at] if choice([True, False]) else data,
                ]
            )
        return data


def send(port: int, data: bytes) -> Answer | None:
    """Send it all on a connection of its own; return the first answer, if there is one.

    Raises ``HTTPException`` for what no client can read.
    """
    with contextlib.suppress(OSError, http.client.IncompleteRead), RawConnection(port) as peer:
        with contextlib.suppress(OSError):
            peer.send(data)
            peer.close_sending()  # no more comes: what is cut off is answered now
        with contextlib.closing(http.client.HTTPResponse(peer.socket)) as response:
            response.begin()
            return Answer(response.status, response.headers, response.read())
    return None


def check(
    program: WebProgram, port: int, paths: list[bytes], seed: int, pids: list[int]
) -> list[Answer]:
    """Fuzz one listener of ``program``, and hold every process of ``pids`` to its promises."""
    for case, _ in zip(Fuzzer(seed + 1, paths).cases(), range(100), strict=False):
        send(port, case)  # caches and pools are filled
    processes = [psutil.Process(pid) for pid in pids]
    threads = [process.num_threads() for process in processes]
    rss = [process.memory_info().rss for process in processes]

    with ThreadPoolExecutor(CLIENTS) as pool:
        all_answers = list(pool.map(lambda case: send(port, case), Fuzzer(seed, paths).cases()))

    answers = [answer for answer in all_answers if answer is not None]
    assert len(answers) > REQUESTS / 3
    for process, few, little in zip(processes, threads, rss, strict=True):
        wait_until(
            lambda process=process, few=few: process.num_threads() <= few + MORE_THREADS,  # type: ignore[misc]
            f"the threads of {process.pid} to end",
        )
        assert process.memory_info().rss <= little + MORE_RSS_MB * 1e6
    assert program.exit_code is None
    assert not [line for line in program.log if "Traceback" in line]
    return answers


def assert_errors_are_awss(answers: list[Answer]) -> None:
    """Hold every error to the form that SDKs read."""
    errors = [answer for answer in answers if answer.status >= 400]
    assert {answer.status for answer in errors} >= {400, 404, 405}
    for answer in errors:
        assert answer.headers["Content-Type"] == "application/json", answer
        assert answer.headers["x-amzn-ErrorType"], answer
        assert answer.headers["x-amzn-RequestId"], answer
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
        *(b"/healthz", b"/readyz", b"/metrics", b"/"),
    ]


INVOCATION = b"/2018-06-01/runtime/invocation/"
RUNTIME_PATHS = [
    INVOCATION + b"next",
    INVOCATION + b"11111111-2222-4333-8444-555555555555/response",
    INVOCATION + b"11111111-2222-4333-8444-555555555555/error",
    INVOCATION + b"%2f%00/response",
    *(b"/2018-06-01/runtime/init/error", b"/2018-06-01/runtime/restore/next"),
    *(b"/2018-06-01/runtime/restore/error", b"/2018-06-01/ping"),
    *(b"/2020-01-01/extension/register", b"/2020-01-01/extension/event/next"),
    *(b"/2020-01-01/extension/init/error", b"/2020-01-01/extension/exit/error"),
    *(b"/2020-08-15/logs", b"/2022-07-01/telemetry", b"/"),
]


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["direct", "broker"])
def test_the_server_outlives_2000_fuzzed_requests(
    mode: str, start_rapid: StartRapid, start_server: StartServer, request: pytest.FixtureRequest
) -> None:
    uri = request.getfixturevalue("broker") if mode == "broker" else ""
    rapid = start_rapid(ECHO, RAPID_AMQP_URI=uri)
    server = start_server(AMQP_URI=uri, LAMBDA_ENDPOINTS="" if uri else rapid.endpoint)
    workers = server.descendants()

    answers = check(server, server.port, invoke_paths(rapid.function_name), 1, workers)

    assert server.descendants() == workers
    assert_errors_are_awss(answers)
    assert server.invoke(rapid.function_name, b'"good"').body == b'"good"'
    assert rapid.exit_code is None
    assert not [line for line in rapid.log if "Traceback" in line]


@pytest.mark.slow
def test_rapids_invoke_api_outlives_2000_fuzzed_requests(start_rapid: StartRapid) -> None:
    rapid = start_rapid(ECHO)

    answers = check(rapid, rapid.port, invoke_paths(rapid.function_name), 2, [rapid.pid])

    assert_errors_are_awss(answers)
    assert rapid.invoke(b'"good"').body == b'"good"'


@pytest.mark.slow
def test_the_runtime_api_outlives_2000_fuzzed_requests(start_rapid: StartRapid) -> None:
    rapid = start_rapid(ECHO)
    assert rapid.invoke(b'"before"').body == b'"before"'

    answers = check(rapid, rapid.runtime_api_port, RUNTIME_PATHS, 3, [rapid.pid])

    assert {answer.status for answer in answers} >= {400, 403, 404, 405}
    assert [answer for answer in answers if not answer.headers["Content-Type"]] == []
    assert rapid.invoke(b'"good"').body == b'"good"'
