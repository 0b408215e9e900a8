"""A peer whose answers do not end, in tests of those who wait for one."""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
from collections.abc import Iterator
from typing import Final

from devtools.ports import LOOPBACK
from lambda_protocol.address import Address
from tests.support import LIMIT_S

_PIECE: Final = b"x" * 65_536
_HEAD: Final = b"HTTP/1.1 200 OK\r\n"
_CHUNKED: Final = _HEAD + b"Transfer-Encoding: chunked\r\n\r\n"

#: What each kind of answer goes on with for ever, after its beginning.
ENDLESS: Final[dict[str, tuple[bytes, bytes]]] = {
    "body": (_HEAD + b"\r\n", _PIECE),
    "announced body": (_HEAD + b"Content-Length: 999999999999\r\n\r\n", _PIECE),
    "chunks": (_CHUNKED, b"10000\r\n" + _PIECE + b"\r\n"),
    "one chunk": (_CHUNKED + b"fffffffff\r\n", _PIECE),
    "trailers": (_CHUNKED + b"1\r\nx\r\n0\r\n", b"A: b\r\n"),
    "line": (b"HTTP/1.1 200 ", _PIECE),
    "head": (_HEAD, b"A: b\r\n"),
    "interim answers": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
}
#: The kinds that never come to a body, or do not say where it begins.
WITHOUT_BODY: Final = frozenset({"line", "head", "interim answers"})


class EndlessPeer:
    """Answers every request without end, until its peer hangs up. Context manager."""

    def __init__(self, kind: str, *, is_slow: bool = False) -> None:
        """``kind`` is one of ``ENDLESS``; ``is_slow`` sends a byte at a time."""
        self._beginning, self._rest = ENDLESS[kind]
        self._is_slow = is_slow
        self.requests: list[bytes] = []  #: what came with the beginning of each connection
        self._is_over = threading.Event()
        self._listener = socket.create_server((LOOPBACK, 0))
        self.address = Address(LOOPBACK, self._listener.getsockname()[1])
        self._acceptor = threading.Thread(target=self._accept, name="endless-accept", daemon=True)
        self._acceptor.start()

    def __enter__(self) -> EndlessPeer:
        return self

    def __exit__(self, *_error: object) -> None:
        self._is_over.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._acceptor.join(LIMIT_S)  # else it may accept for the next listener of this descriptor
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            request = sock.recv(1 << 20)
            while request and not request.endswith((b"}", b"]")):  # all of them post JSON
                request += sock.recv(1 << 20)
            self.requests.append(request)
            for piece in self._pieces():
                if self._is_over.is_set():
                    return
                sock.sendall(piece)

    def _pieces(self) -> Iterator[bytes]:
        pieces = itertools.chain([self._beginning], itertools.repeat(self._rest))
        if not self._is_slow:
            yield from pieces
        for piece in pieces:
            for byte in piece:
                yield bytes((byte,))
                self._is_over.wait(0.02)
