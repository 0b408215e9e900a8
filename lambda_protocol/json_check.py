"""Checks that bytes are JSON without building what they mean: in constant memory.

``json`` builds objects of 40 times the text, in one call that no thread interrupts. Here the
pattern engine reads scalars and small containers, many at a time, and a loop follows the nesting.
Source: RFC 8259; what Python's ``json`` takes, but for NaN and Infinity.
"""

from __future__ import annotations

import codecs
import functools
import re
from typing import Final, NamedTuple

#: The deepest nesting that is read: about what Python's ``json`` reads by its usual limit.
MAX_DEPTH: Final = 900
#: How much is checked for UTF-8 at a time, bytes.
_SLICE_BYTES: Final = 65_536

#: How many levels of small containers are read in one go.
_LEVELS: Final = 4

# Possessive throughout: nothing is tried twice, and a repetition needs no memory. Counts bound what
# is read in one go.
_SPACE: Final = rb"[ \t\n\r]*+"
_STRING: Final = rb'"(?>[^"\\\x00-\x1f]++|\\(?>["\\/bfnrt]|u[0-9a-fA-F]{4}))*+"'
_NUMBER: Final = rb"-?+(?>0|[1-9][0-9]*+)(?>\.[0-9]++)?+(?>[eE][-+]?+[0-9]++)?+"
_SCALAR: Final = rb"(?>%b|%b|true|false|null)" % (_STRING, _NUMBER)
_KEY: Final = rb"%b%b:%b" % (_STRING, _SPACE, _SPACE)
_COMMA: Final = rb"%b,%b" % (_SPACE, _SPACE)


class _Patterns(NamedTuple):
    space: re.Pattern[bytes]
    value: re.Pattern[bytes]  #: a scalar, or a small container of few levels
    key: re.Pattern[bytes]
    runs: dict[int, re.Pattern[bytes]]  #: by closing bracket: values with a comma after each


@functools.cache
def _patterns() -> _Patterns:
    """Compile on use: that takes some milliseconds."""
    value = _SCALAR
    for _ in range(_LEVELS):
        value = rb"(?>%b|%b|%b)" % (_SCALAR, _array(value), _object(value))
    return _Patterns(
        re.compile(_SPACE),
        re.compile(value),
        re.compile(_KEY),
        {
            ord("]"): re.compile(rb"(?>%b%b){0,1000}+" % (value, _COMMA)),
            ord("}"): re.compile(rb"(?>%b%b%b){0,1000}+" % (_KEY, value, _COMMA)),
        },
    )


def _array(value: bytes) -> bytes:
    members = rb"(?>%b%b(?>,%b(?!\])|(?=\]))){0,100}+" % (value, _SPACE, _SPACE)
    return rb"\[%b%b\]" % (_SPACE, members)


def _object(value: bytes) -> bytes:
    members = rb"(?>%b%b%b(?>,%b(?!\})|(?=\}))){0,100}+" % (_KEY, value, _SPACE, _SPACE)
    return rb"\{%b%b\}" % (_SPACE, members)


def require_json_text(text: bytes) -> None:
    """Raise ``ValueError`` unless ``text`` is one JSON text in UTF-8; other threads run meanwhile.

    Nesting over ``MAX_DEPTH`` is a ``RecursionError``.
    """
    _require_utf8(text)
    space, value, key, runs = _patterns()
    closings = bytearray()  # of the containers that are open
    at = _end(space, text, 0)
    while True:
        match = value.match(text, at)
        if match is None:
            at = _open(text, at, closings)
        else:
            at = _close(text, match.end(), closings)
            if not closings:
                break
        run = runs[closings[-1]]
        while (end := _end(run, text, at)) > at:
            at = end
        if closings[-1] == ord("}"):
            name = key.match(text, at)
            if name is None:
                raise _fault(at)
            at = name.end()
    if at != len(text):
        raise _fault(at)


def _open(text: bytes, at: int, closings: bytearray) -> int:
    """Enter a container that is not empty; return where its first value or name begins."""
    opening = text[at : at + 1]
    if opening not in (b"[", b"{"):
        raise _fault(at)
    if len(closings) == MAX_DEPTH:
        raise RecursionError
    closings += b"]" if opening == b"[" else b"}"
    return _end(_patterns().space, text, at + 1)


def _close(text: bytes, at: int, closings: bytearray) -> int:
    """Leave every container that ends after a value; return where the next one begins."""
    space = _patterns().space
    while True:
        at = _end(space, text, at)
        if not closings:
            return at
        found = text[at : at + 1]
        if found == b",":
            return _end(space, text, at + 1)
        if found != closings[-1:]:
            raise _fault(at)
        del closings[-1]
        at += 1


def _end(pattern: re.Pattern[bytes], text: bytes, at: int) -> int:
    match = pattern.match(text, at)
    return at if match is None else match.end()


def _require_utf8(text: bytes) -> None:
    if text.isascii():
        return
    decoder = codecs.getincrementaldecoder("utf-8")()
    for start in range(0, len(text), _SLICE_BYTES):
        decoder.decode(text[start : start + _SLICE_BYTES])
    decoder.decode(b"", final=True)


def _fault(at: int) -> ValueError:
    return ValueError(f"no JSON from byte {at} on")
