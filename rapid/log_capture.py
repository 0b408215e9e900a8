"""What an environment's processes print: passed on byte for byte, the end kept for callers."""

from __future__ import annotations

import contextlib
import os
import select
import threading
from collections.abc import Callable
from typing import Final

from lambda_protocol.limits import LOG_TAIL_BYTES
from rapid.log_lines import FrameParser, LineSplitter, LogMessage

#: How long a reply waits for a capture that is blocked by our own full standard output, seconds.
FLUSH_LIMIT_S: Final = 0.1
_READ_SIZE: Final = 65_536

#: Gets the stream, ``function`` or ``extension``, and each record of it; must not block.
OnRecord = Callable[[str, LogMessage], None]
#: Gets what ended the reading of the pipes, in the reading thread.
OnError = Callable[[Exception], None]


def _raise(error: Exception) -> None:
    raise error


class _Pipe:
    """One pipe of ours. Guarded by the capture's lock."""

    __slots__ = ("frames", "lines", "reader", "sink", "stream")

    def __init__(self, reader: int, stream: str, sink: int, *, is_framed: bool) -> None:
        """Pass what comes on to ``sink``, a descriptor; ``is_framed`` is the log descriptor."""
        self.reader = reader
        self.stream = stream
        self.sink = sink
        self.lines = LineSplitter()
        self.frames = FrameParser() if is_framed else None


class LogCapture:
    """The pipes of one environment's processes. Thread-safe.

    What is passed on is neither split nor decoded, so partial lines, 1 MB lines and bytes that are
    no UTF-8 all pass. Records are made of it only while somebody listens.
    """

    def __init__(
        self,
        name: str,
        *,
        sinks: tuple[int, int] = (1, 2),
        has_extensions: bool = False,
        keeps: Callable[[LogMessage], bool] = lambda message: True,
        on_error: OnError = _raise,
    ) -> None:
        """Open the pipes and start reading; ``name`` is for the thread.

        ``sinks`` are the descriptors that standard output and error are passed on to. With
        extensions there are pipes for them, and the log descriptor for the runtime; ``keeps``
        tells which of its messages are wanted.
        """
        self._lock = threading.Lock()
        self._pipes: dict[int, _Pipe] = {}  # by read end; guarded by _lock
        self._writers: list[int] = []
        self._tail = bytearray()  # guarded by _lock; the function's last output
        self._on_record: OnRecord | None = None  # guarded by _lock
        self._keeps = keeps
        self.total_bytes = 0  #: of the function ever captured; a mark from which a tail is cut
        out, err = sinks
        self.stdout = self._open_pipe("function", out)
        self.stderr = self._open_pipe("function", err)
        #: Where the runtime may write whole messages, and where extensions print.
        self.log_descriptor: int | None = None
        self.extension_stdout, self.extension_stderr = self.stdout, self.stderr
        if has_extensions:
            self.log_descriptor = self._open_pipe("function", out, is_framed=True)
            self.extension_stdout = self._open_pipe("extension", out)
            self.extension_stderr = self._open_pipe("extension", err)
        self._on_error = on_error
        self._thread = threading.Thread(target=self._run, name=f"{name}-logs", daemon=True)
        try:
            self._thread.start()
        except BaseException:
            self._close_pipes()
            raise

    def listen(self, on_record: OnRecord | None) -> None:
        """Make records of what comes from now on, or no longer."""
        with self._lock:
            self._on_record = on_record

    def flush(self, limit_s: float = FLUSH_LIMIT_S, *, ends_lines: bool = False) -> None:
        """Take in what is in the pipes now: a function's last print precedes its response.

        ``ends_lines`` makes records of the function's half lines too: nothing more comes of them.
        """
        if self._lock.acquire(timeout=limit_s):
            try:
                for pipe in self._pipes.values():
                    self._pump_locked(pipe)
                    if ends_lines and pipe.stream == "function":
                        self._record_lines_locked(pipe, pipe.lines.take_rest())
            finally:
                self._lock.release()

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
        """Pass on what is left and stop reading."""
        self.close_writers()
        self._thread.join(limit_s)
        self._close_pipes()

    def _close_pipes(self) -> None:
        self.close_writers()
        with self._lock:
            for descriptor in self._pipes:
                os.close(descriptor)
            self._pipes.clear()

    def _open_pipe(self, stream: str, sink: int, *, is_framed: bool = False) -> int:
        reader, writer = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(reader, False)
        self._pipes[reader] = _Pipe(reader, stream, sink, is_framed=is_framed)
        self._writers.append(writer)
        return writer

    def _run(self) -> None:
        try:
            self._read_pipes()
        except Exception as error:
            self._on_error(error)

    def _read_pipes(self) -> None:
        poller = select.poll()
        with self._lock:
            for descriptor in self._pipes:
                poller.register(descriptor, select.POLLIN)
            left = len(self._pipes)
        while left:
            for descriptor, _ in poller.poll(1000):
                with self._lock:
                    pipe = self._pipes.get(descriptor)
                    if pipe is not None and self._pump_locked(pipe):
                        continue
                    left -= 1
                    poller.unregister(descriptor)

    def _pump_locked(self, pipe: _Pipe) -> bool:
        """Pass on what one pipe holds; False when it has ended."""
        while True:
            try:
                data = os.read(pipe.reader, _READ_SIZE)
            except BlockingIOError:
                return True
            if not data:
                self._on_end_locked(pipe)
                return False
            if pipe.frames is not None:
                self._take_messages_locked(pipe, pipe.frames.feed(data))
            else:
                self._pass_on_locked(pipe, data)
                if self._on_record is not None:
                    self._record_lines_locked(pipe, pipe.lines.feed(data))
            if len(data) < _READ_SIZE:
                return True

    def _pass_on_locked(self, pipe: _Pipe, data: bytes) -> None:
        if pipe.stream == "function":
            self.total_bytes += len(data)
            self._tail += data
            if len(self._tail) > 4 * LOG_TAIL_BYTES:
                del self._tail[:-LOG_TAIL_BYTES]
        write_all(pipe.sink, data)

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
            self._pass_on_locked(pipe, message.text + b"\n" if needs_end else message.text)
            if self._on_record is not None:
                self._on_record(pipe.stream, message)

    def _on_end_locked(self, pipe: _Pipe) -> None:
        if pipe.frames is not None:
            self._take_messages_locked(pipe, pipe.frames.take_rest())
        self._record_lines_locked(pipe, pipe.lines.take_rest())


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of ``data``; a closed descriptor swallows it, as it would have the function's."""
    view = memoryview(data)
    with contextlib.suppress(OSError):
        while view:
            view = view[os.write(descriptor, view) :]
