"""Requests of a runtime while its response is passed on."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from contextlib import closing

import pytest

from devtools.ports import LOOPBACK
from tests.acceptance.conformance.conftest import StartPuppet
from tests.acceptance.conformance.puppet import NEXT, Puppet
from tests.support import LIMIT_S, RawConnection


class Streaming:
    """A call whose response has begun: its first part, ``a``, is with the caller."""

    def __init__(self, puppet: Puppet) -> None:
        self._caller = http.client.HTTPConnection(LOOPBACK, puppet.rapid.port, timeout=LIMIT_S)
        name = puppet.rapid.function_name
        path = f"/2021-11-15/functions/{name}/response-streaming-invocations"
        self._caller.request("POST", path, b"{}")
        event = puppet.runtime.get(NEXT)
        self.path = (
            f"/2018-06-01/runtime/invocation/{event.headers['Lambda-Runtime-Aws-Request-Id']}"
        )
        self.runtime = RawConnection(puppet.rapid.runtime_api_port)
        self.runtime.send(
            f"POST {self.path}/response HTTP/1.1\r\nHost: x\r\n"
            "Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n".encode()
        )
        self._answer = self._caller.getresponse()
        assert b"a" in self._answer.read1()

    def end(self) -> bytes:
        """End the response; return what the caller still gets."""
        self.runtime.send(b"0\r\n\r\n")
        assert self.runtime.read_answer().status == 202
        return self._answer.read()

    def read(self) -> bytes:
        """Return what the caller still gets."""
        return self._answer.read()

    def close(self) -> None:
        """Hang up."""
        self._caller.close()
        self.runtime.close()


@pytest.fixture
def streaming(puppet: Puppet) -> Iterator[Streaming]:
    with closing(Streaming(puppet)) as streaming:
        yield streaming


@pytest.mark.parametrize("framing", ["Content-Length: 60000", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize("headers", ["", "Lambda-Runtime-Invocation-Id: another\r\n"])
def test_a_second_response_is_refused_and_what_follows_it_is_no_request(
    puppet: Puppet, streaming: Streaming, framing: str, headers: str
) -> None:
    with RawConnection(puppet.rapid.runtime_api_port) as second:
        second.send(
            f"POST {streaming.path}/response HTTP/1.1\r\nHost: x\r\n{headers}{framing}\r\n\r\n"
            "GET /2018-06-01/ping HTTP/1.1\r\nHost: x\r\n\r\n".encode()
        )
        answer = second.read_answer()
        rest = second.read_to_end()

    assert (answer.status, answer.headers["Connection"]) == (410 if headers else 403, "close")
    assert rest == b""
    assert b"InvokeComplete" in streaming.end()


def test_an_error_after_the_beginning_is_refused(puppet: Puppet, streaming: Streaming) -> None:
    answer = puppet.runtime.post(f"{streaming.path}/error", b"{}")

    assert (answer.status, answer.json()["errorType"]) == (403, "InvalidStateTransition")
    assert b"InvokeComplete" in streaming.end()


def test_a_next_before_the_end_is_answered_after_it(puppet: Puppet, streaming: Streaming) -> None:
    with puppet.park() as parked:
        streaming.end()
        caller = puppet.call(b'"next"')

        assert parked.read_answer().body == b'"next"'
    del caller


def test_bytes_of_a_stream_that_timed_out_are_counted(start_puppet: StartPuppet) -> None:
    puppet = start_puppet(AWS_LAMBDA_FUNCTION_TIMEOUT="1")
    with closing(Streaming(puppet)) as streaming:
        assert b"Sandbox.Timedout" in streaming.read()

    text = puppet.rapid.get("/metrics").body.decode()
    assert f'bytes_total{{function_name="{puppet.rapid.function_name}"}} 1.0' in text
    assert "lambda_first_byte_seconds_count" in text


def test_a_wait_for_the_rate_ends_with_the_call(start_puppet: StartPuppet) -> None:
    puppet = start_puppet(AWS_LAMBDA_FUNCTION_TIMEOUT="1", RAPID_STREAM_RATE="1")
    with closing(Streaming(puppet)) as streaming:
        streaming.runtime.send(b"%x\r\n%b\r\n" % (7 << 20, bytes(7 << 20)))

        assert b"Sandbox.Timedout" in streaming.read()

        streaming.runtime.send(b"0\r\n\r\n")
        assert streaming.runtime.read_answer().status == 403  # at once
