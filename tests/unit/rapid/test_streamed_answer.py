"""An answer that is sent while it is made, over a connection that the test plays."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from rapid.streamed_answer import StreamedAnswer
from tests.support import LIMIT_S


class Line:
    """The connection: it takes a part at once, later, or never."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.ends: list[tuple[bytes, bool]] = []
        self.result: bool | None = True
        self.on_sent: Callable[[], None] | None = None
        self.has_part = threading.Event()

    def send_part(self, data: bytes, on_sent: Callable[[], None]) -> bool | None:
        """Take a part."""
        self.parts.append(data)
        self.on_sent = on_sent
        self.has_part.set()
        return self.result

    def end_parts(self, data: bytes, is_last: bool) -> None:
        """Take the end."""
        self.ends.append((data, is_last))


@pytest.fixture
def line() -> Line:
    return Line()


@pytest.fixture
def answer(line: Line) -> StreamedAnswer:
    return StreamedAnswer(line, b"HEAD", is_chunked=True, is_last=False)


def test_the_head_goes_with_the_first_part(line: Line, answer: StreamedAnswer) -> None:
    answer.write(b"ab")
    answer.write(b"")
    answer.write(b"c")
    answer.end(b"d")

    assert line.parts == [b"HEAD2\r\nab\r\n", b"1\r\nc\r\n"]
    assert line.ends == [(b"1\r\nd\r\n0\r\n\r\n", False)]


def test_an_answer_without_parts_is_one_piece(line: Line, answer: StreamedAnswer) -> None:
    answer.end(b"all")

    assert (line.parts, line.ends) == ([], [(b"HEAD3\r\nall\r\n0\r\n\r\n", False)])


def test_an_answer_that_breaks_off_has_no_end(line: Line, answer: StreamedAnswer) -> None:
    answer.write(b"a")

    answer.end(b"fault", is_clean=False)

    assert line.ends == [(b"5\r\nfault\r\n", True)]


def test_only_the_first_end_counts(line: Line, answer: StreamedAnswer) -> None:
    answer.end(b"1")
    answer.end(b"2")
    answer.write(b"3")

    assert (len(line.ends), line.parts) == (1, [])


def test_a_part_waits_until_the_one_before_has_left(line: Line, answer: StreamedAnswer) -> None:
    line.result = None
    answer.write(b"a")
    line.has_part.clear()
    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(answer.write, b"b")
        assert not line.has_part.is_set()

        assert line.on_sent is not None
        line.on_sent()

        second.result(LIMIT_S)
    assert line.parts == [b"HEAD1\r\na\r\n", b"1\r\nb\r\n"]


def test_an_end_follows_the_part_that_is_on_its_way(line: Line, answer: StreamedAnswer) -> None:
    line.result = None
    answer.write(b"a")
    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(answer.write, b"dropped")

        answer.end(b"timeout")  # by another thread: neither waits for the reader

        second.result(LIMIT_S)
        assert line.ends == []
    assert line.on_sent is not None
    line.on_sent()
    assert (len(line.parts), line.ends) == (1, [(b"7\r\ntimeout\r\n0\r\n\r\n", False)])


def test_what_is_written_to_a_peer_that_is_gone_is_dropped(
    line: Line, answer: StreamedAnswer
) -> None:
    line.result = False
    answer.write(b"a")
    answer.write(b"b")
    answer.end(b"c")

    assert len(line.parts) == 1
    assert len(line.ends) == 1  # the connection hears that nothing is owed


def test_a_connection_that_closes_lets_the_writer_go(line: Line, answer: StreamedAnswer) -> None:
    line.result = None
    answer.write(b"a")
    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(answer.write, b"b")

        answer.on_gone()

        second.result(LIMIT_S)
    answer.end(b"c")
    assert (len(line.parts), line.ends) == (1, [])


def test_without_chunks_the_bytes_are_as_they_are(line: Line) -> None:
    answer = StreamedAnswer(line, b"HEAD", is_chunked=False, is_last=True)
    answer.write(b"a")
    answer.end(b"b")

    assert (line.parts, line.ends) == ([b"HEADa"], [(b"b", True)])
