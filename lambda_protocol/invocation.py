"""An ``Invocation`` goes in, an ``Outcome`` comes out; everything between is an ``Invoker``."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from lambda_protocol.clock import now_ms
from lambda_protocol.function_name import FunctionRef
from lambda_protocol.http_peer import HttpPeer


class InvocationType(StrEnum):
    """``X-Amz-Invocation-Type``. Source: API_Invoke."""

    REQUEST_RESPONSE = "RequestResponse"
    EVENT = "Event"
    DRY_RUN = "DryRun"


@dataclass(frozen=True, slots=True, kw_only=True)
class Invocation:
    """One invocation of a function, whichever protocol and program it came by."""

    request_id: str  #: ours, never the SDK's; the same everywhere, UUIDv4
    function: FunctionRef
    payload: bytes  #: JSON, never empty
    type: InvocationType = InvocationType.REQUEST_RESPONSE
    wants_log_tail: bool = False  #: ``X-Amz-Log-Type: Tail``
    client_context: str | None = None  #: base64 as received
    trace_id: str  #: ``X-Amzn-Trace-Id`` as received, or made here; never parsed
    tenant_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AsyncInvocation:
    """An asynchronous invocation, and what was tried with it."""

    invocation: Invocation
    first_queued_ms: int  #: epoch milliseconds, at the first edge
    attempt: int = 1  #: the number of the attempt that comes next, or runs
    backoffs: int = 0  #: throttles and faults of the service, which use up no attempt

    @classmethod
    def accepted(cls, invocation: Invocation) -> AsyncInvocation:
        """Return ``invocation`` as accepted now, for its first attempt."""
        return cls(invocation=invocation, first_queued_ms=now_ms())

    def age_s(self, now_ms: int) -> float:
        """Return how long ago it was accepted; the clocks of two machines may differ."""
        return max(0.0, (now_ms - self.first_queued_ms) / 1000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The result of an invocation that reached its function, or was accepted (type ``Event``)."""

    payload: bytes = b""
    function_error: str | None = None  #: ``Unhandled`` when the function failed
    executed_version: str = "$LATEST"
    log_tail: bytes | None = None  #: at most 4 KiB, only when the caller wanted it


#: AWS's one value of ``X-Amz-Function-Error``: every recorded answer of the live service has it.
UNHANDLED = "Unhandled"


class Invoker(Protocol):
    """The port the server is built round; rapid's is the same, answered later: a ``Call``."""

    def invoke(self, invocation: Invocation, caller: HttpPeer | None = None) -> Outcome:
        """Run ``invocation``, accept it (Event) or check it (DryRun); thread-safe.

        Raises ``LambdaApiError`` when it could not be run. ``caller`` is its HTTP client, if that
        can be watched: if it leaves before the outcome, the wait ends with ``CallerGoneError``.
        """


#: Random bytes in hexadecimal. Each piece is used once, and one system call fills the list.
_noise: list[str] = []
_NOISE_BYTES: Final = 20
_PIECES: Final = 64


def _take_noise() -> str:
    """Return 40 random hexadecimal digits. Thread-safe: a list gives each piece to one taker."""
    try:
        return _noise.pop()
    except IndexError:
        fresh = os.urandom(_NOISE_BYTES * _PIECES).hex()
        size = 2 * _NOISE_BYTES
        _noise.extend(fresh[at : at + size] for at in range(size, len(fresh), size))
        return fresh[:size]


os.register_at_fork(after_in_child=_noise.clear)  # no id is given twice


#: Of the digit with the variant of a UUID, two bits are fixed. Source: RFC 9562, 4.1.
_VARIANTS: Final = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}


def new_request_id() -> str:
    """Return a fresh id, a UUIDv4; the ``uuid`` module takes three times as long."""
    noise = _take_noise()[:32]
    variant = _VARIANTS[noise[16]]
    return f"{noise[:8]}-{noise[8:12]}-4{noise[13:16]}-{variant}{noise[17:20]}-{noise[20:]}"


def relayed_request_id(received: str | None) -> str:
    """Return the request id the other program gave the call, or a fresh one if it is none."""
    if received is not None and _REQUEST_ID.fullmatch(received):
        return received
    return new_request_id()


def new_trace_id() -> str:
    """Return a trace header for a caller that sent none; some runtimes do not start without."""
    noise = _take_noise()
    return f"Root=1-{int(time.time()):08x}-{noise[:24]};Parent={noise[24:]};Sampled=0"


_REQUEST_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
