"""HTTP as the three fronts of an Invoke API speak it: the server's two workers, and rapid."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from lambda_protocol.http1 import DRAIN_BYTES
from lambda_protocol.limits import SYNC_PAYLOAD_BYTES
from tests import support
from tests.fakes import FakeInstance, QueuedInstance
from tests.integration.calls import MIB, PATH, assert_is_aws_error, post
from tests.support import ECHO, Client, Rapid, RawConnection, Server

Front = Rapid | Server


@contextlib.contextmanager
def threads() -> Iterator[Front]:
    with FakeInstance() as instance, Server(**instance.settings) as server:
        yield server


@contextlib.contextmanager
def polling() -> Iterator[Front]:
    with QueuedInstance() as instance, Server(**instance.settings) as server:
        yield server


@pytest.fixture(
    scope="module",
    params=[threads, polling, lambda: Rapid(ECHO)],
    ids=["threads", "polling", "rapid"],
)
def _front(request: pytest.FixtureRequest) -> Iterator[Front]:
    with request.param() as front:
        yield front


@pytest.fixture
def front(_front: Front) -> Front:
    """Give a front of the function ``echo``; never stop it."""
    support.started.append(_front)  # so that its output is shown when the test fails
    return _front


@pytest.fixture
def raw(front: Front) -> Iterator[RawConnection]:
    with front.raw() as connection:
        yield connection


def assert_serves(front: Front) -> None:
    with front.client() as client:
        answer = client.post(PATH.decode(), b'"alive"')
    assert (answer.status, answer.body) == (200, b'"alive"')


def test_a_connection_is_kept_for_many_calls(front: Front) -> None:
    with front.client() as client:
        client.get("/healthz")
        port = client.local_port

        for number in range(20):
            assert client.post(PATH.decode(), b"%d" % number).body == b"%d" % number
            assert client.get("/healthz").headers["Connection"] in (None, "keep-alive")

        assert client.local_port == port


def test_pipelined_requests_are_answered_in_their_order(raw: RawConnection) -> None:
    raw.send(b"".join(post(b"%d" % number) for number in range(50)))

    assert [raw.read_answer().body for _ in range(50)] == [b"%d" % n for n in range(50)]


def test_connection_close_is_honoured(raw: RawConnection) -> None:
    raw.send(post(b"1", b"Connection: close"))

    answer = raw.read_answer()

    assert (answer.body, answer.headers["Connection"]) == (b"1", "close")
    assert raw.read_to_end() == b""


@pytest.mark.parametrize(
    ("headers", "is_kept"), [((), False), ((b"Connection: keep-alive",), True)]
)
def test_http_1_0_closes_unless_it_says_keep_alive(
    raw: RawConnection, headers: tuple[bytes, ...], is_kept: bool
) -> None:
    raw.send(post(b"1", *headers, version=b"HTTP/1.0"))

    answer = raw.read_answer()

    assert (answer.body, answer.headers["Connection"] == "keep-alive") == (b"1", is_kept)
    if is_kept:
        raw.send(post(b"2", *headers, version=b"HTTP/1.0"))
        assert raw.read_answer().body == b"2"
    else:
        assert raw.read_to_end() == b""


@pytest.mark.parametrize("path", [b"/healthz", b"/metrics", b"/unknown", PATH])
def test_head_has_no_body_and_the_connection_stays_in_step(raw: RawConnection, path: bytes) -> None:
    raw.send(b"HEAD %b HTTP/1.1\r\nHost: x\r\n\r\n" % path + post(b'"next"'))

    head = raw.read_answer(has_body=False)

    assert head.headers["Connection"] in (None, "keep-alive")
    assert raw.read_answer().body == b'"next"'


def test_continue_is_said_before_the_body_is_sent(raw: RawConnection) -> None:
    raw.send(
        b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n" % PATH
    )

    assert raw.read_answer(has_body=False).status == 100
    raw.send(b'"a"')

    assert raw.read_answer().body == b'"a"'


def test_a_chunked_body_is_taken(raw: RawConnection) -> None:
    raw.send(
        b"POST %b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        b'2;ext=1\r\n"a\r\n3\r\nbc"\r\n0\r\nTrailer: x\r\n\r\n' % PATH + post(b'"next"')
    )

    assert [raw.read_answer().body for _ in range(2)] == [b'"abc"', b'"next"']


def test_a_request_may_come_byte_by_byte(raw: RawConnection) -> None:
    for byte in post(b'"slow"'):
        raw.send(bytes((byte,)))

    assert raw.read_answer().body == b'"slow"'


def test_a_body_over_the_limit_is_413_and_the_connection_goes_on(raw: RawConnection) -> None:
    raw.send(post(b" " * (SYNC_PAYLOAD_BYTES + 1)))

    assert_is_aws_error(raw.read_answer(), 413)
    raw.send(post(b'"next"'))
    assert raw.read_answer().body == b'"next"'


def test_a_body_far_over_the_limit_is_413_before_it_is_sent(raw: RawConnection) -> None:
    length = SYNC_PAYLOAD_BYTES + DRAIN_BYTES + 1
    raw.send(b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (PATH, length))

    answer = raw.read_answer()

    assert_is_aws_error(answer, 413)
    assert answer.headers["Connection"] == "close"


@pytest.mark.parametrize(
    ("data", "status"),
    [
        pytest.param(b"nonsense\r\n\r\n", 400, id="no-request-line"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400, id="tls"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", 400, id="no-host"),
        pytest.param(b"BREW / HTTP/1.1\r\nHost: x\r\n\r\n", 501, id="method"),
        pytest.param(b"GET / HTTP/2.0\r\n\r\n", 505, id="version"),
        pytest.param(b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 600 + b"\r\n", 431, id="many-headers"),
        pytest.param(b"GET / HTTP/1.1\r\nA: " + b"x" * 3 * MIB + b"\r\n\r\n", 431, id="long"),
    ],
)  # fmt: skip
def test_what_is_no_http_is_an_error_in_awss_form_and_the_worker_lives(
    front: Front, raw: RawConnection, data: bytes, status: int
) -> None:
    workers = front.descendants()

    with contextlib.suppress(ConnectionError):  # it may have hung up on what is too long
        raw.send(data)

    assert_is_aws_error(raw.read_answer(), status)
    assert raw.read_to_end() == b""
    assert front.descendants() == workers
    assert_serves(front)


def test_a_slow_client_does_not_disturb_others(front: Front) -> None:
    half = post(b'"slow"')
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(front.raw()) for _ in range(20)]
        for connection in slow:
            connection.send(half[:-3])
        with Client(front.port, timeout_s=5) as client:
            for number in range(100):
                assert client.post(PATH.decode(), b"%d" % number).body == b"%d" % number

        for connection in slow:
            connection.send(half[-3:])
            assert connection.read_answer().body == b'"slow"'


def test_a_client_that_does_not_read_does_not_disturb_others(front: Front) -> None:
    big = post(b'"' + b"x" * (SYNC_PAYLOAD_BYTES - 2) + b'"')
    with contextlib.ExitStack() as stack:
        for _ in range(4):
            deaf = stack.enter_context(front.raw())
            deaf.send(big)
        assert_serves(front)
