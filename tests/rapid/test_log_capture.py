from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Iterator

import pytest

from lambda_protocol.limits import LOG_TAIL_BYTES
from rapid.log_capture import LogCapture, write_all
from tests.support import wait_until

Opened = Callable[[], LogCapture]


class Sink:
    """Stands in for our standard output: a pipe that a thread empties."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        self.data = b""
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        while data := os.read(self.reader, 1 << 20):
            self.data += data

    def close(self) -> None:
        os.close(self.writer)
        self._thread.join()
        os.close(self.reader)


class Captured:
    """A capture whose output goes to two sinks instead of descriptors 1 and 2."""

    def __init__(self) -> None:
        self.out, self.err = Sink(), Sink()
        self.capture = LogCapture("test", sinks=(self.out.writer, self.err.writer))
        self._is_closed = False

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self.capture.close()
            self.out.close()
            self.err.close()


@pytest.fixture
def captured() -> Iterator[Captured]:
    captured = Captured()
    yield captured
    captured.close()


def test_output_passes_byte_for_byte_each_to_its_own(captured: Captured) -> None:
    noise = random.Random(1).randbytes(3_000_000)  # no UTF-8, no lines
    write_all(captured.capture.stderr, b"to stderr")

    write_all(captured.capture.stdout, noise)
    captured.close()

    assert captured.out.data == noise
    assert captured.err.data == b"to stderr"


def test_a_line_of_1_mb_passes(captured: Captured) -> None:
    line = b"x" * 1_000_000 + b"\n"

    write_all(captured.capture.stdout, line)
    captured.close()

    assert captured.out.data == line


def test_half_a_line_is_passed_on_at_once(captured: Captured) -> None:
    os.write(captured.capture.stdout, b"Password: ")

    wait_until(lambda: captured.out.data == b"Password: ", "half a line")


def test_a_flush_takes_in_what_was_printed_before_it(captured: Captured) -> None:
    for count in range(200):
        mark = captured.capture.total_bytes
        os.write(captured.capture.stdout, b"line %d\n" % count)

        captured.capture.flush()

        assert captured.capture.tail_since(mark) == b"line %d\n" % count


def test_the_tail_holds_what_came_since_the_mark(captured: Captured) -> None:
    os.write(captured.capture.stdout, b"before\n")
    captured.capture.flush()
    mark = captured.capture.total_bytes

    os.write(captured.capture.stdout, b"out\n")
    os.write(captured.capture.stderr, b"err\n")
    captured.capture.flush()

    assert sorted(captured.capture.tail_since(mark).splitlines()) == [b"err", b"out"]


def test_the_tail_is_empty_when_nothing_was_printed(captured: Captured) -> None:
    os.write(captured.capture.stdout, b"before\n")
    captured.capture.flush()

    assert captured.capture.tail_since(captured.capture.total_bytes) == b""


@pytest.mark.parametrize("size", [4095, 4096, 4097, 16_384, 16_385, 100_000])
def test_the_tail_is_cut_at_a_byte(captured: Captured, size: int) -> None:
    data = ("é" * size).encode()[:size]

    write_all(captured.capture.stdout, data)
    wait_until(lambda: captured.capture.total_bytes == size, "the output")

    assert captured.capture.tail_since(0) == data[-LOG_TAIL_BYTES:]


def test_the_tail_of_much_output_in_small_pieces_is_its_end(captured: Captured) -> None:
    pieces = [b"%06d\n" % count for count in range(5000)]

    for piece in pieces:
        os.write(captured.capture.stdout, piece)
    captured.capture.flush()

    assert captured.capture.tail_since(0) == b"".join(pieces)[-LOG_TAIL_BYTES:]


def test_output_after_the_writers_were_closed_here_still_comes_from_a_child(
    captured: Captured,
) -> None:
    inherited = os.dup(captured.capture.stdout)
    captured.capture.close_writers()
    captured.capture.close_writers()

    os.write(inherited, b"from a child\n")
    os.close(inherited)
    captured.close()

    assert captured.out.data == b"from a child\n"


def test_a_close_does_not_wait_for_a_process_that_holds_the_pipe(captured: Captured) -> None:
    held = os.dup(captured.capture.stdout)
    os.write(held, b"last words\n")

    captured.capture.close(0.1)

    wait_until(lambda: captured.out.data == b"last words\n", "what was written before")
    os.close(held)


def test_a_flush_does_not_wait_for_a_full_standard_output() -> None:
    """Whoever reads our output may be slow; the caller's reply must not be."""
    reader, writer = os.pipe()
    capture = LogCapture("test", sinks=(writer, writer))
    blocked = threading.Thread(target=write_all, args=(capture.stdout, b"x" * 1_000_000))
    blocked.start()
    wait_until(lambda: capture.total_bytes >= 65_536, "the pipe to fill")

    capture.flush()

    received = 0
    while received < 1_000_000:
        received += len(os.read(reader, 1 << 20))
    blocked.join()
    capture.close()
    os.close(writer)
    os.close(reader)


def test_a_closed_standard_output_swallows_the_output() -> None:
    reader, writer = os.pipe()
    os.close(reader)

    write_all(writer, b"to nobody")

    os.close(writer)
