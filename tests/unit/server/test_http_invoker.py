"""Direct mode: connections to an instance that are kept, replaced, lost."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from lambda_protocol.errors import (
    ResourceNotFoundException,
    ResourceNotReadyException,
    ServiceException,
    TooManyRequestsException,
)
from lambda_protocol.function_name import FunctionRef
from lambda_protocol.http1 import Request
from lambda_protocol.invocation import Outcome
from lambda_protocol.response_stream import Streamed, encode_chunk, encode_end, encode_fault
from lambda_server import http_invoker
from lambda_server.http_invoker import HttpInvoker
from tests.endless import EndlessPeer
from tests.fakes import FakeInstance, http_answer
from tests.support import LIMIT_S, make_invocation, wait_until


@pytest.fixture
def invoker(instance: FakeInstance) -> Iterator[HttpInvoker]:
    invoker = HttpInvoker(
        {"echo": instance.address}, connect_timeout_s=2.0, answer_timeout_s=LIMIT_S
    )
    yield invoker
    close(invoker)


@pytest.fixture
def impatient(instance: FakeInstance, monkeypatch: pytest.MonkeyPatch) -> Iterator[HttpInvoker]:
    """Give an invoker that waits 0.2 s for an answer."""
    monkeypatch.setattr(http_invoker, "REPLY_GRACE_S", 0.0)
    invoker = HttpInvoker({"echo": instance.address}, connect_timeout_s=2.0, answer_timeout_s=0.2)
    yield invoker
    close(invoker)


def close(invoker: HttpInvoker) -> None:
    """Close this thread's connections, as the end of its process does."""
    for connection in getattr(invoker._local, "connections", {}).values():
        connection.close()


def test_an_outcome_is_what_the_instance_answers(
    invoker: HttpInvoker, instance: FakeInstance
) -> None:
    tail = base64.b64encode(b"END").decode()
    instance.reply = lambda request: http_answer(
        b"\x00\xff",
        "X-Amz-Executed-Version: 3",
        "X-Amz-Function-Error: Unhandled",
        f"X-Amz-Log-Result: {tail}",
    )

    assert invoker.invoke(make_invocation()) == Outcome(
        payload=b"\x00\xff", function_error="Unhandled", executed_version="3", log_tail=b"END"
    )


def test_a_call_reaches_the_instance_byte_for_byte(
    invoker: HttpInvoker, instance: FakeInstance
) -> None:
    invocation = make_invocation(
        payload=b' {"x" : "\xc3\xa4"} ',
        function=FunctionRef(name="echo", qualifier="$LATEST"),
        trace_id="Root=1-2-3;  x=y",
    )

    invoker.invoke(invocation)

    (request,) = instance.requests
    assert (request.method, request.body) == ("POST", b' {"x" : "\xc3\xa4"} ')
    assert request.path == "/2015-03-31/functions/echo/invocations"
    assert request.query == "Qualifier=%24LATEST"
    assert request.headers["x-amzn-trace-id"] == "Root=1-2-3;  x=y"
    assert request.headers["x-lambda-request-id"] == invocation.request_id


def test_an_error_of_the_instance_is_raised(invoker: HttpInvoker, instance: FakeInstance) -> None:
    instance.reply = lambda request: http_answer(
        b'{"message":"No more."}',
        "x-amzn-ErrorType: TooManyRequestsException",
        status="429 Its Words",
    )

    with pytest.raises(TooManyRequestsException, match="No more"):
        invoker.invoke(make_invocation())


def test_an_unknown_function_is_404(invoker: HttpInvoker, instance: FakeInstance) -> None:
    with pytest.raises(ResourceNotFoundException):
        invoker.invoke(make_invocation(function=FunctionRef(name="other")))

    assert instance.connections == 0


def test_a_connection_is_kept(invoker: HttpInvoker, instance: FakeInstance) -> None:
    for _ in range(20):
        invoker.invoke(make_invocation())

    assert (len(instance.requests), instance.connections) == (20, 1)


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # each ends with its thread
def test_each_thread_has_a_connection_of_its_own(
    invoker: HttpInvoker, instance: FakeInstance
) -> None:
    instance.hold()
    with ThreadPoolExecutor(4) as pool:
        results = [pool.submit(invoker.invoke, make_invocation()) for _ in range(4)]
        instance.wait_for(4)
        instance.release()
        for result in results:
            result.result(LIMIT_S)

    assert instance.connections == 4


def test_a_connection_that_the_instance_closed_is_replaced(
    invoker: HttpInvoker, instance: FakeInstance
) -> None:
    instance.hangs_up_after_answer = True

    for _ in range(5):
        assert invoker.invoke(make_invocation(payload=b"1")).payload == b"1"
        wait_until(lambda: instance.open_connections == 0, "the instance to hang up")

    assert (len(instance.requests), instance.connections) == (5, 5)


def test_an_instance_that_is_gone_is_502(invoker: HttpInvoker, instance: FakeInstance) -> None:
    invoker.invoke(make_invocation())

    instance.close()

    with pytest.raises(ResourceNotReadyException, match="No instance of the function echo"):
        invoker.invoke(make_invocation())


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(lambda request: None, id="no-answer"),
        pytest.param(lambda request: http_answer(b"x" * 100)[:-1], id="half-an-answer"),
        pytest.param(lambda request: b"HTTP/1.1 2", id="half-a-head"),
        pytest.param(lambda request: b"\x15\x03\x01\x00\x02\x02P\r\n\r\n", id="no-http"),
    ],
)
def test_a_call_whose_answer_is_lost_is_500_and_not_sent_again(
    invoker: HttpInvoker, instance: FakeInstance, reply: Callable[[Any], bytes | None]
) -> None:
    invoker.invoke(make_invocation())
    kept, instance.reply = instance.reply, reply
    instance.hangs_up_after_answer = True

    with pytest.raises(ServiceException, match="lost"):
        invoker.invoke(make_invocation())

    assert len(instance.requests) == 2
    instance.reply = kept
    assert invoker.invoke(make_invocation(payload=b"2")).payload == b"2"


@pytest.mark.parametrize("kind", ["body", "announced body", "chunks"])
def test_an_answer_over_the_limit_is_500_and_not_kept(kind: str) -> None:
    with EndlessPeer(kind) as peer:
        invoker = HttpInvoker(
            {"echo": peer.address}, connect_timeout_s=LIMIT_S, answer_timeout_s=LIMIT_S
        )

        with pytest.raises(ServiceException, match="more than 6291556 bytes"):
            invoker.invoke(make_invocation(payload=b"{}"))
        close(invoker)


def test_an_answer_of_a_byte_now_and_then_is_500_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_invoker, "REPLY_GRACE_S", 0.0)
    with EndlessPeer("head", is_slow=True) as peer:
        invoker = HttpInvoker(
            {"echo": peer.address}, connect_timeout_s=LIMIT_S, answer_timeout_s=0.5
        )

        with pytest.raises(ServiceException, match=r"did not answer within 0\.5 s"):
            invoker.invoke(make_invocation(payload=b"{}"))
        close(invoker)


def test_a_call_that_is_not_answered_in_time_is_500_and_not_sent_again(
    impatient: HttpInvoker, instance: FakeInstance
) -> None:
    instance.hold()
    started = time.monotonic()

    with pytest.raises(ServiceException, match=r"did not answer within 0\.2 s"):
        impatient.invoke(make_invocation())

    assert time.monotonic() - started >= 0.2
    assert len(instance.requests) == 1


def test_a_late_answer_is_not_taken_for_the_next_ones(
    impatient: HttpInvoker, instance: FakeInstance
) -> None:
    instance.hold()
    with pytest.raises(ServiceException):
        impatient.invoke(make_invocation(payload=b'"late"'))

    instance.release()

    assert impatient.invoke(make_invocation(payload=b'"next"')).payload == b'"next"'


def test_without_endpoints_it_says_what_to_set(invoker: HttpInvoker) -> None:
    without = HttpInvoker({}, connect_timeout_s=1, answer_timeout_s=1)

    assert without.missing() == "AMQP_URI and LAMBDA_ENDPOINTS are unset or empty"
    assert invoker.missing() is None


# --- a response while it is written


def streamed(*messages: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    """Return the answer of an instance that streams, each message a chunk."""
    head = (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.amazon.eventstream\r\n"
        b"X-Amz-Executed-Version: 3\r\nX-Lambda-Response-Content-Type: text/x\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n"
    )
    return head + b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in messages) + end


def read(streamed: Streamed) -> tuple[list[bytes], Outcome]:
    parts: list[bytes] = []
    try:
        while True:
            parts.append(next(streamed.parts))
    except StopIteration as end:
        return parts, end.value


def test_a_streamed_response_comes_in_parts(invoker: HttpInvoker, instance: FakeInstance) -> None:
    end = Outcome(payload=b"{}", function_error="Unhandled", executed_version="3")
    instance.reply = lambda request: streamed(
        encode_chunk(b"a") + encode_chunk(b"b"), encode_chunk(b"c"), encode_end(end)
    )

    found = invoker.stream(make_invocation())

    assert (found.content_type, found.executed_version) == ("text/x", "3")
    assert read(found) == ([b"a", b"b", b"c"], end)
    assert read(invoker.stream(make_invocation()))[0] == [b"a", b"b", b"c"]
    assert instance.open_connections == 1  # which is kept


def test_an_instance_that_knows_no_streams_is_called_once_and_answers_whole(
    invoker: HttpInvoker, instance: FakeInstance
) -> None:
    def reply(request: Request) -> bytes:
        if "2021-11-15" in request.path:
            return http_answer(
                b'{"message":"no such path"}',
                "x-amzn-ErrorType: UnknownOperationException",
                status="404 Not Found",
            )
        return http_answer(b'"whole"')

    instance.reply = reply

    assert read(invoker.stream(make_invocation())) == ([], Outcome(payload=b'"whole"'))


def test_an_error_before_the_stream_is_raised(invoker: HttpInvoker, instance: FakeInstance) -> None:
    instance.reply = lambda request: http_answer(
        b'{"message":"busy"}', "x-amzn-ErrorType: TooManyRequestsException", status="429 Too Many"
    )

    with pytest.raises(TooManyRequestsException):
        invoker.stream(make_invocation())


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(streamed(encode_chunk(b"a"), end=b""), id="cut off"),
        pytest.param(streamed(encode_chunk(b"a")), id="without an end"),
        pytest.param(streamed(encode_chunk(b"a"), b"no message, but long enough"), id="no message"),
        pytest.param(
            streamed(encode_chunk(b"a"), encode_fault(ServiceException("stop"))), id="a fault"
        ),
    ],
)
def test_a_stream_that_breaks_off_is_a_fault(
    invoker: HttpInvoker, instance: FakeInstance, answer: bytes
) -> None:
    instance.reply = lambda request: answer
    instance.hangs_up_after_answer = True
    found = invoker.stream(make_invocation())
    assert next(found.parts) == b"a"

    with pytest.raises(ServiceException):
        next(found.parts)

    instance.reply = lambda request: streamed(encode_end(Outcome()))
    assert read(invoker.stream(make_invocation())) == ([], Outcome(executed_version="3"))


def test_a_reader_that_wants_no_more_closes_the_connection(
    invoker: HttpInvoker, instance: FakeInstance
) -> None:
    instance.reply = lambda request: streamed(encode_chunk(b"a"), end=b"")
    found = invoker.stream(make_invocation())
    next(found.parts)

    found.parts.close()

    wait_until(lambda: instance.open_connections == 0, "the end of the connection")
