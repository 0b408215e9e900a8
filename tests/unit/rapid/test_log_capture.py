from __future__ import annotations

import json
import os
import random
import select
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lambda_protocol.limits import LOG_TAIL_BYTES
from rapid.logs.capture import HELD_BYTES, LogCapture
from rapid.logs.output import MAX_WAITING_BYTES, TextStream, open_outputs, write_all
from tests.support import LIMIT_S, wait_until


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
        self.outputs = open_outputs(self.out.writer, self.err.writer)
        self.capture = LogCapture("test", self.outputs, extensions=("one", "other"))
        self.stdout, self.stderr = self.capture.descriptors_of()
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
    noise = random.Random(1).randbytes(3_000_000) + b"x" * 1_000_000 + b"\n"  # no UTF-8, no lines
    write_all(captured.stderr, b"to stderr")

    write_all(captured.stdout, noise)
    captured.close()

    assert captured.out.data == noise
    assert captured.err.data == b"to stderr"


def test_half_a_line_is_held_until_its_end(captured: Captured) -> None:
    log = TextStream(captured.outputs.stdout)
    os.write(captured.stdout, b'{"a":')
    captured.capture.flush()
    log.write("a line of rapid's own\n")

    os.write(captured.stdout, b"1}\n")
    captured.close()

    assert captured.out.data == b'a line of rapid\'s own\n{"a":1}\n'


def test_half_a_line_is_passed_on_when_its_invocation_ends(captured: Captured) -> None:
    os.write(captured.stdout, b"Password: ")

    captured.capture.flush(ends_lines=True)

    wait_until(lambda: captured.out.data == b"Password: ", "half a line")
    assert captured.capture.tail_since(0) == b"Password: "


@pytest.mark.parametrize(
    ("interrupts", "expected"),
    [(False, b"half\n a line\n"), (True, b"half\nrapid\n a line\n")],
    ids=["alone", "beside rapid"],
)
def test_a_line_that_an_invocation_left_open_is_ended_before_the_next_output(
    captured: Captured, interrupts: bool, expected: bytes
) -> None:
    os.write(captured.stdout, b"half")
    captured.capture.flush(ends_lines=True)
    if interrupts:
        TextStream(captured.outputs.stdout).write("rapid\n")

    os.write(captured.stdout, b" a line\n")
    captured.close()

    assert captured.out.data == expected


def test_a_line_is_held_up_to_64_kib(captured: Captured) -> None:
    os.write(captured.stdout, b"x" * (HELD_BYTES - 1))
    captured.capture.flush()
    os.write(captured.stderr, b"read\n")
    wait_until(lambda: captured.err.data == b"read\n", "the reader")
    assert captured.out.data == b""

    os.write(captured.stdout, b"x")

    wait_until(lambda: len(captured.out.data) == HELD_BYTES, "the line's beginning")


def test_extensions_have_lines_of_their_own(captured: Captured) -> None:
    one, other = (captured.capture.descriptors_of(name)[0] for name in ("one", "other"))
    os.write(one, b"1a ")
    os.write(other, b"2a ")
    os.write(one, b"1b\n")
    captured.capture.flush(ends_lines=True)
    captured.capture.flush(ends_lines=True, extension="one")
    os.write(other, b"2b\n")
    captured.close()

    assert captured.out.data == b"1a 1b\n2a 2b\n"


def test_many_writers_of_one_file_keep_their_lines(tmp_path: Path) -> None:
    """Both descriptors are one file, as with ``2>&1``: six environments, and rapid itself."""
    with (tmp_path / "log").open("w+b", buffering=0) as file:
        second = os.dup(file.fileno())
        outputs = open_outputs(file.fileno(), second)
        captures = [LogCapture(f"test-{n}", outputs) for n in range(6)]

        def print_lines(number: int, descriptor: int) -> None:
            for count in range(300):
                for piece in (b'{"writer":', b"%d," % number, b'"n":%d}' % count, b"\n"):
                    os.write(descriptor, piece)

        descriptors = [fd for capture in captures for fd in capture.descriptors_of()]
        writers = [
            threading.Thread(target=print_lines, args=item) for item in enumerate(descriptors)
        ]
        for writer in writers:
            writer.start()
        log = TextStream(outputs.stderr)
        for count in range(300):
            log.write(f'{{"writer":"rapid","n":{count}}}\n')
        for writer in writers:
            writer.join()
        for capture in captures:
            capture.close()
        os.close(second)
        lines = (tmp_path / "log").read_bytes().splitlines()

    parsed = [json.loads(line) for line in lines]
    assert outputs.stdout is outputs.stderr
    for writer in (*range(12), "rapid"):
        assert [line["n"] for line in parsed if line["writer"] == writer] == list(range(300))


def test_a_flush_takes_in_what_was_printed_before_it(captured: Captured) -> None:
    for count in range(200):
        mark = captured.capture.total_bytes
        os.write(captured.stdout, b"line %d\n" % count)

        captured.capture.flush()

        assert captured.capture.tail_since(mark) == b"line %d\n" % count


def test_the_tail_holds_what_came_since_the_mark(captured: Captured) -> None:
    os.write(captured.stdout, b"before\n")
    captured.capture.flush()
    mark = captured.capture.total_bytes
    assert captured.capture.tail_since(mark) == b""

    os.write(captured.stdout, b"out\n")
    os.write(captured.stderr, b"err\n")
    captured.capture.flush()

    assert sorted(captured.capture.tail_since(mark).splitlines()) == [b"err", b"out"]


@pytest.mark.parametrize("size", [4095, 4096, 4097, 16_384, 16_385, 100_000])
def test_the_tail_is_cut_at_a_byte(captured: Captured, size: int) -> None:
    data = ("é" * size).encode()[:size]

    write_all(captured.stdout, data)
    captured.capture.close_writers()  # its end is the end of the line
    wait_until(lambda: captured.capture.total_bytes == size, "the output")

    assert captured.capture.tail_since(0) == data[-LOG_TAIL_BYTES:]


def test_the_tail_of_much_output_in_small_pieces_is_its_end(captured: Captured) -> None:
    pieces = [b"%06d\n" % count for count in range(5000)]

    for piece in pieces:
        os.write(captured.stdout, piece)
    captured.capture.flush()

    assert captured.capture.tail_since(0) == b"".join(pieces)[-LOG_TAIL_BYTES:]


def test_output_after_the_writers_were_closed_here_still_comes_from_a_child(
    captured: Captured,
) -> None:
    inherited = os.dup(captured.stdout)
    captured.capture.close_writers()
    captured.capture.close_writers()

    os.write(inherited, b"from a child\n")
    os.close(inherited)
    captured.close()

    assert captured.out.data == b"from a child\n"


def test_a_close_does_not_wait_for_a_process_that_holds_the_pipe(captured: Captured) -> None:
    held = os.dup(captured.stdout)
    os.write(held, b"last words\n")

    captured.capture.close(0.1)

    wait_until(lambda: captured.out.data == b"last words\n", "what was written before")
    os.close(held)


def test_a_flush_does_not_wait_for_a_full_standard_output() -> None:
    """Whoever reads our output may be slow; the caller's reply must not be."""
    reader, writer = os.pipe()
    capture = LogCapture("test", open_outputs(writer, writer))
    stdout, _ = capture.descriptors_of()
    blocked = threading.Thread(target=write_all, args=(stdout, b"x" * 999_999 + b"\n"))
    blocked.start()
    wait_until(lambda: capture.total_bytes >= 131_072, "the pipe to fill")

    for _ in range(20):
        capture.flush(ends_lines=True)
    assert capture.total_bytes < 1_000_000

    received = 0
    while received < 1_000_000:
        received += len(os.read(reader, 1 << 20))
    blocked.join()
    capture.close()
    os.close(writer)
    os.close(reader)


def test_lines_of_rapid_that_nobody_reads_are_dropped_and_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    reader, writer = os.pipe()
    outputs = open_outputs(writer, writer)
    log = TextStream(outputs.stderr)
    count = 3 * MAX_WAITING_BYTES // 1024

    for number in range(count):
        log.write(f"{number:1023}\n")
    assert not outputs.stderr.flush(0.01)

    received = b""
    while not (told := [r for r in caplog.records if r.message.startswith("log lines dropped")]):
        if select.select([reader], [], [], 0.01)[0]:  # all is read before the count is told
            received += os.read(reader, 1 << 20)
    assert outputs.stderr.flush(LIMIT_S)
    os.close(writer)
    while data := os.read(reader, 1 << 20):
        received += data
    os.close(reader)
    assert MAX_WAITING_BYTES <= len(received) < 1024 * count
    assert sum(vars(record)["lines"] for record in told) == count - len(received) // 1024


def test_a_closed_standard_output_swallows_the_output() -> None:
    reader, writer = os.pipe()
    os.close(reader)

    write_all(writer, b"to nobody")

    os.close(writer)
