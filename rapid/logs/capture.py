"""What an environment's processes print: passed on line by line, the end kept for callers."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable, Sequence
from typing import Final

from lambda_protocol.limits import LOG_TAIL_BYTES
from rapid.logs.lines import FrameParser, LineSplitter, LogMessage
from rapid.logs.output import LineJoiner, LineOutput, LineWriter, Outputs

#: How much of a line is held until its end comes; a longer one is passed on in parts.
HELD_BYTES: Final = 65_536
_READ_SIZE: Final = 65_536
#: How often a flush reads a pipe that is never empty: what it can hold, unless it was enlarged.
_FLUSH_READS: Final = 4
_FUNCTION: Final = ""

#: Gets the stream, ``function`` or ``extension``, and each record of it; must not block.
OnRecord = Callable[[str, LogMessage], None]
#: Gets what ended the reading of the pipes, in the reading thread.
OnError = Callable[[Exception], None]


def _raise(error: Exception) -> None:
    raise error


class _Pipe:
    """One pipe of ours. Guarded by the capture's lock."""

    __slots__ = (
        "frames", "has_ended", "has_output", "held", "lines", "owner", "reader", "stream", "writer",
    )  # fmt: skip

    def __init__(self, reader: int, owner: str, output: LineOutput, *, is_framed: bool) -> None:
        """``owner`` is an extension's name, or ``_FUNCTION``; ``is_framed``: the log descriptor."""
        self.reader = reader
        self.owner = owner
        self.stream = "extension" if owner else "function"
        self.writer = LineWriter(output)
        self.held = bytearray()  #: the beginning of a line
        self.lines = LineSplitter()
        self.frames = FrameParser() if is_framed else None
        self.has_ended = False
        self.has_output = False  #: since its line was ended

    def cut(self, data: bytes) -> bytes:
        """Return the whole lines that ``data`` completes, and hold the rest."""
        end = data.rfind(b"\n") + 1
        if end == len(data) and not self.held:
            return data
        lines = b""
        if end:
            lines = bytes(self.held) + data[:end]
            self.held.clear()
        self.held += data[end:]
        return lines if len(self.held) < HELD_BYTES else lines + self.take_held()

    def take_held(self) -> bytes:
        """Return the beginning of a line that is held, as it is; it may go on."""
        held = bytes(self.held)
        self.held.clear()
        return held


class LogCapture:
    """The pipes of one environment's processes. Thread-safe.

    Each process has its own, so that no other tears its lines. A line is held until its end comes,
    the process or the invocation ends, or it is longer than ``HELD_BYTES``. Otherwise the bytes
    pass as they are: lines of 1 MB, and bytes that are no UTF-8. Records are made of them only
    while somebody listens.

    Taking in what was printed never blocks. Only the capture's thread waits for our own standard
    output, and reads no more meanwhile: so the function waits as well.
    """

    def __init__(
        self,
        name: str,
        outputs: Outputs,
        *,
        extensions: Sequence[str] = (),
        keeps: Callable[[LogMessage], bool] = lambda message: True,
        on_error: OnError = _raise,
    ) -> None:
        """Open the pipes and start reading; ``name`` is for the thread.

        With external ``extensions`` there are pipes for each, and the log descriptor for the
        runtime; ``keeps`` tells which of its messages are wanted.
        """
        self._lock = threading.Lock()
        self._pipes: dict[int, _Pipe] = {}  # by read end; guarded by _lock
        self._poller = select.poll()  # of the pipes that have not ended; guarded by _lock
        self._outputs = outputs
        self._wake = os.eventfd(0)  # wakes the thread; -1 once it has ended; guarded by _lock
        self._writers: list[int] = []
        self._tail = bytearray()  # guarded by _lock; the function's last output
        self._tail_joiner = LineJoiner()
        self._on_record: OnRecord | None = None  # guarded by _lock
        self._keeps = keeps
        self.total_bytes = 0  #: of the function ever captured; a mark from which a tail is cut
        self._descriptors = {
            owner: (self._open_pipe(owner, outputs.stdout), self._open_pipe(owner, outputs.stderr))
            for owner in (_FUNCTION, *extensions)
        }
        #: Where the runtime may write whole messages.
        self.log_descriptor: int | None = None
        if extensions:
            self.log_descriptor = self._open_pipe(_FUNCTION, outputs.stdout, is_framed=True)
        self._on_error = on_error
        self._thread = threading.Thread(target=self._run, name=f"{name}-logs", daemon=True)
        try:
            self._thread.start()
        except BaseException:
            self._close_pipes()
            self._close_wake()
            raise

    def descriptors_of(self, extension: str | None = None) -> tuple[int, int]:
        """Return where an extension, or the function, writes its standard output and error."""
        return self._descriptors[extension or _FUNCTION]

    def listen(self, on_record: OnRecord | None) -> None:
        """Make records of what comes from now on, or no longer."""
        with self._lock:
            self._on_record = on_record

    def flush(self, *, ends_lines: bool = False, extension: str | None = None) -> None:
        """Take in what is in the pipes now: a function's last print precedes its response.

        ``ends_lines`` passes on the half lines of the function, or of an ``extension``: nothing
        more comes of them. Never blocks, and takes in a part of a flood that does not end.
        """
        with self._lock:
            ready = self._poller.poll(0)
            for descriptor, _ in ready:
                pipe = self._pipes[descriptor]
                for _ in range(_FLUSH_READS):
                    if not (pipe.writer.has_room and self._pump_locked(pipe)):
                        break
            ended = []
            if ends_lines:
                owner = extension or _FUNCTION
                pipes = self._pipes.values()
                ended = [pipe for pipe in pipes if pipe.has_output and pipe.owner == owner]
            for pipe in ended:
                self._end_line_locked(pipe)
        if ready or ended:
            self._outputs.wake()

    def tail_since(self, mark: int) -> bytes:
        """Return the last output, at most 4 KiB, captured since ``total_bytes`` was ``mark``."""
        with self._lock:
            wanted = min(self.total_bytes - mark, LOG_TAIL_BYTES)
            return bytes(self._tail[-wanted:]) if wanted > 0 else b""

    def close_writers(self) -> None:
        """Close our copies of the write ends: the pipes end with the last process. Idempotent."""
        writers, self._writers = self._writers, []
        for descriptor in writers:
            os.close(descriptor)

    def close(self, limit_s: float = 1.0) -> None:
        """Pass on what is left and stop reading. Idempotent."""
        self.close_writers()
        self._thread.join(limit_s)
        self._close_pipes()

    def _close_pipes(self) -> None:
        self.close_writers()
        with self._lock:
            for pipe in self._pipes.values():
                self._end_locked(pipe)
                os.close(pipe.reader)
            self._pipes.clear()
            if self._wake >= 0:  # a process still holds a pipe
                os.eventfd_write(self._wake, 1)
        self._outputs.wake()

    def _open_pipe(self, owner: str, output: LineOutput, *, is_framed: bool = False) -> int:
        reader, writer = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(reader, False)
        self._pipes[reader] = _Pipe(reader, owner, output, is_framed=is_framed)
        self._poller.register(reader, select.POLLIN)
        self._writers.append(writer)
        return writer

    def _run(self) -> None:
        try:
            self._pass_on()
        except Exception as error:
            self._on_error(error)
        finally:
            self._close_wake()

    def _pass_on(self) -> None:
        poller = select.poll()
        poller.register(self._wake, select.POLLIN)
        with self._lock:
            for descriptor in self._pipes:
                poller.register(descriptor, select.POLLIN)
            left = len(self._pipes)
        while left and self._pipes:
            for descriptor, _ in poller.poll(1000):
                if descriptor == self._wake:
                    os.eventfd_read(descriptor)
                    continue
                with self._lock:
                    pipe = self._pipes.get(descriptor)
                    if pipe is not None:
                        self._pump_locked(pipe)
                        if not pipe.has_ended:
                            continue
                left -= 1
                poller.unregister(descriptor)
            self._outputs.write_waiting()

    def _close_wake(self) -> None:
        with self._lock:
            os.close(self._wake)
            self._wake = -1

    def _pump_locked(self, pipe: _Pipe) -> bool:
        """Take in what one read of a pipe gives; return whether there may be more."""
        try:
            data = os.read(pipe.reader, _READ_SIZE)
        except BlockingIOError:
            return False
        pipe.has_output = True
        if not data:
            self._end_locked(pipe)
        elif pipe.frames is not None:
            self._take_messages_locked(pipe, pipe.frames.feed(data))
        else:
            self._pass_on_locked(pipe, pipe.cut(data))
            if self._on_record is not None:
                self._record_lines_locked(pipe, pipe.lines.feed(data))
        return len(data) == _READ_SIZE

    def _pass_on_locked(self, pipe: _Pipe, data: bytes) -> None:
        """Keep ``data`` for the tail, and have it written next."""
        if not data:
            return
        pipe.writer.put(data)
        if pipe.owner == _FUNCTION:
            joined = self._tail_joiner.join(data, pipe)
            self.total_bytes += len(joined)
            self._tail += joined
            if len(self._tail) > 4 * LOG_TAIL_BYTES:
                del self._tail[:-LOG_TAIL_BYTES]

    def _record_lines_locked(self, pipe: _Pipe, lines: list[bytes]) -> None:
        if self._on_record is not None:
            for line in lines:
                self._on_record(pipe.stream, LogMessage(line))

    def _take_messages_locked(self, pipe: _Pipe, messages: list[LogMessage]) -> None:
        """Print messages of the log descriptor, each with a line end, and make records of them."""
        for message in messages:
            if not self._keeps(message):
                continue
            needs_end = message.is_framed and not message.text.endswith(b"\n")
            text = message.text + b"\n" if needs_end else message.text
            self._pass_on_locked(pipe, pipe.cut(text))
            if self._on_record is not None:
                self._on_record(pipe.stream, message)

    def _end_line_locked(self, pipe: _Pipe) -> None:
        pipe.has_output = False
        self._pass_on_locked(pipe, pipe.take_held())
        pipe.writer.end_line()
        self._record_lines_locked(pipe, pipe.lines.take_rest())

    def _end_locked(self, pipe: _Pipe) -> None:
        """Take what is left of a pipe that nothing more comes from. Idempotent."""
        if pipe.has_ended:
            return
        pipe.has_ended = True
        self._poller.unregister(pipe.reader)
        if pipe.frames is not None:
            self._take_messages_locked(pipe, pipe.frames.take_rest())
        self._end_line_locked(pipe)
