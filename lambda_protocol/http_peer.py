"""Finds out whether the peer of a connection is gone.

An HTTP client that only stopped sending is not: it still waits for the answer. TCP sends a FIN in
both cases. If the client has left, its kernel answers further bytes with a reset. So the client is
sent an interim response. Python's ``http.client`` skips the interim response ``100 Continue``, and
takes any other for the answer.
Source: RFC 9110, section 15.2; RFC 9293, section 3.5.2.
"""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections.abc import Callable
from typing import Final

#: The interim response; HTTP/1.0 knows none.
INTERIM_RESPONSE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
#: How long after the FIN, and after the one before, an interim response is sent, seconds. Go's
#: client takes five of them in all, and one may have answered ``Expect: 100-continue``.
_PROBE_DELAYS_S: Final = (0.0, 1.0, 4.0, 16.0)
#: How long a reset is waited for, seconds: enough in one data centre. A later one is seen later.
_RESET_WAIT_MS: Final = 10
#: How often a client that has sent a FIN is looked at, seconds.
_CHECK_S: Final = 1.0


def has_ended(sock: socket.socket, *, may_send: bool = False) -> bool:
    """Whether the peer of a connection that owes us nothing has closed it. Never blocks.

    Bytes that it sends unasked end the connection as well, unless it ``may_send``.
    """
    poller = select.poll()  # select.select takes no descriptor over 1,023
    poller.register(sock, select.POLLRDHUP if may_send else select.POLLIN | select.POLLRDHUP)
    return bool(poller.poll(0))


def address_of(sock: socket.socket) -> str:
    """Return the IP address of the peer of a connection, empty if it is gone or has none."""
    try:
        return shown_address(str(sock.getpeername()[0]))
    except (OSError, IndexError):
        return ""


def shown_address(address: str) -> str:
    """Return an IP address; one of IPv4 as such, where a socket for IPv6 has it."""
    return address.removeprefix("::ffff:")


class HttpPeer:
    """The client of one request that waits for its answer. One thread at a time."""

    __slots__ = (
        "_has_closed_half",
        "_knows_interim",
        "_poller",
        "_probe_at",
        "_probe_delays",
        "_send_probe",
        "_socket",
    )

    def __init__(
        self, sock: socket.socket, send_probe: Callable[[], object], *, http_version: str
    ) -> None:
        """``send_probe`` sends :data:`INTERIM_RESPONSE`; never called for ``HTTP/1.0``."""
        self._socket = sock
        self._knows_interim = http_version != "HTTP/1.0"
        self._send_probe = send_probe
        self._has_closed_half = False
        self._probe_delays = iter(_PROBE_DELAYS_S)
        self._probe_at = time.monotonic() + next(self._probe_delays)
        self._poller = select.poll()
        self._poller.register(sock, select.POLLRDHUP)

    def has_left(self, *, may_probe: bool = True, reset_wait_ms: int = _RESET_WAIT_MS) -> bool:
        """Whether the client has reset the connection, or closed it and not only its own half.

        Takes no time while the client sends nothing; after a FIN up to ``reset_wait_ms``, four
        times at most.
        """
        state = self._state(0)
        if state == select.POLLRDHUP:
            self._has_closed_half = True
            self._poller.modify(self._socket, 0)  # a reset is told unasked
        if self._has_closed_half and not state & _LEFT:
            return may_probe and self._probe() and bool(self._state(reset_wait_ms))
        return state != 0

    def stop_probing(self) -> None:
        """Send no interim response any more: the answer has begun."""
        self._knows_interim = False

    def waits_for(self, other: socket.socket, limit_s: float) -> bool:
        """Wait until ``other`` is readable; False if the client left before that.

        Raises ``TimeoutError`` after ``limit_s``.
        """
        both = select.poll()
        both.register(other, select.POLLIN)
        both.register(self._socket, select.POLLRDHUP)
        deadline = time.monotonic() + limit_s
        while (left_s := deadline - time.monotonic()) > 0:
            ready = [descriptor for descriptor, _ in both.poll(min(left_s, _CHECK_S) * 1000)]
            if other.fileno() in ready:
                return True
            if self.has_left():
                return False
            if self._has_closed_half:
                both.modify(self._socket, 0)
        raise TimeoutError(f"nothing came within {limit_s:g} s")

    def _probe(self) -> bool:
        """Send an interim response, if one is due; False when none is."""
        now = time.monotonic()
        if now < self._probe_at or not self._knows_interim:
            return False
        self._probe_at = now + next(self._probe_delays, float("inf"))
        with contextlib.suppress(OSError):  # the reset has come
            self._send_probe()
        return True

    def _state(self, wait_ms: int) -> int:
        return next((state for _, state in self._poller.poll(wait_ms)), 0)


_LEFT: Final = select.POLLHUP | select.POLLERR
