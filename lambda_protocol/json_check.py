"""Checks that bytes are JSON without building what they mean: in constant memory.

``json`` builds objects of 40 times the text, in one call that no thread interrupts. Here the
pattern engine reads scalars and small containers, many at a time, and a loop follows the nesting.
The pattern engine looks at each byte in turn, so a long string is read by ``bytes.translate``.
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
#: How much of a long string is looked at in one go, bytes: at first, and after that.
_STRING_BYTES: Final[tuple[int, int]] = (2_048, 16_384)
#: What a string may hold as it is, but for the bytes of UTF-8, which are checked before.
_PLAIN: Final = bytes({*range(0x20, 0x100)} - {*b'"\\'})

#: How many levels of small containers are read in one go.
_LEVELS: Final = 4

# Possessive throughout: nothing is tried twice, and a repetition needs no memory. Counts bound what
# is read in one go.
_SPACE: Final = rb"[ \t\n\r]*+"
_RUN: Final = rb'[^"\\\x00-\x1f]{1,1000}+'
_ESCAPE: Final = rb'\\(?>["\\/bfnrt]|u[0-9a-fA-F]{4})'
_STRING: Final = rb'"(?>%b)?+(?>%b(?>%b)?+){0,200}+"' % (_RUN, _ESCAPE, _RUN)
_ANY_STRING: Final = rb'"(?>%b|%b)*+"' % (_RUN, _ESCAPE)
_NUMBER: Final = rb"-?+(?>0|[1-9][0-9]*+)(?>\.[0-9]++)?+(?>[eE][-+]?+[0-9]++)?+"
_SCALAR: Final = rb"(?>%b|%b|true|false|null)" % (_STRING, _NUMBER)
_COLON: Final = rb"%b:%b" % (_SPACE, _SPACE)
_KEY: Final = _STRING + _COLON
_COMMA: Final = rb"%b,%b" % (_SPACE, _SPACE)


class _Patterns(NamedTuple):
    space: re.Pattern[bytes]
    value: re.Pattern[bytes]  #: a scalar, or a small container of few levels
    key: re.Pattern[bytes]
    colon: re.Pattern[bytes]
    escaped: re.Pattern[bytes]  #: of a long string, a part that has an escape in it
    runs: dict[int, re.Pattern[bytes]]  #: by closing bracket: values with a comma after each
    openings: dict[int, re.Pattern[bytes]]  #: containers to enter, by the most of them
    brackets: re.Pattern[bytes]  #: one of these; its bracket is a group
    closings: re.Pattern[bytes]  #: what may follow a value before a comma


@functools.cache
def _patterns() -> _Patterns:
    """Compile on use: that takes some milliseconds."""
    value = small = _SCALAR
    for level in range(_LEVELS):
        value = rb"(?>%b|%b|%b)" % (_SCALAR, _array(value), _object(value))
        small = small if level else value
    opening = _opening(small)
    return _Patterns(
        space=re.compile(_SPACE),
        value=re.compile(value),
        key=re.compile(_KEY),
        colon=re.compile(_COLON),
        escaped=re.compile(rb"(?>%b(?>%b)?+){1,1000}+" % (_ESCAPE, _RUN)),
        runs={
            ord("]"): re.compile(rb"(?>%b%b){0,1000}+" % (value, _COMMA)),
            ord("}"): re.compile(rb"(?>%b%b%b){0,1000}+" % (_KEY, value, _COMMA)),
        },
        openings={most: re.compile(rb"%b{1,%d}+" % (opening, most)) for most in (100, 10, 1)},
        brackets=re.compile(rb"(?=([\[{]))" + opening),
        closings=re.compile(rb"(?>%b[\]}]){0,1000}+%b" % (_SPACE, _SPACE)),
    )


@functools.cache
def _deepest() -> re.Pattern[bytes]:
    """As ``value``, also with long strings: where no more containers may be entered."""
    return re.compile(_patterns().value.pattern.replace(_STRING, _ANY_STRING))


def _array(value: bytes) -> bytes:
    members = rb"(?>%b%b(?>,%b(?!\])|(?=\]))){0,100}+" % (value, _SPACE, _SPACE)
    return rb"\[%b%b\]" % (_SPACE, members)


def _object(value: bytes) -> bytes:
    members = rb"(?>%b%b%b(?>,%b(?!\})|(?=\}))){0,100}+" % (_KEY, value, _SPACE, _SPACE)
    return rb"\{%b%b\}" % (_SPACE, members)


def _opening(value: bytes) -> bytes:
    """A bracket, and the small members that come before another container."""
    first = rb"\[%b(?!\])(?>%b%b){0,100}+" % (_SPACE, value, _COMMA)
    first_named = rb"\{%b%b(?>%b%b%b){0,100}+" % (_SPACE, _KEY, value, _COMMA, _KEY)
    return rb"(?>%b|%b)" % (first, first_named)


def require_json_text(text: bytes) -> None:
    """Raise ``ValueError`` unless ``text`` is one JSON text in UTF-8; other threads run meanwhile.

    Nesting over ``MAX_DEPTH`` is a ``RecursionError``.
    """
    _require_utf8(text)
    patterns = _patterns()
    closings = bytearray()  # of the containers that are open
    at = _end(patterns.space, text, 0)
    while True:
        if text.startswith(b'"', at):  # a long one, or the last of its container
            end = _end_of_string(text, at)
        elif (match := _match_value(text, at, closings)) is not None:
            end = match.end()
        elif (end := _enter(text, at, closings)) > at:
            at = end
            continue
        elif text.startswith((b"[", b"{"), at):
            raise RecursionError
        else:
            raise _fault(at)
        at = _close(text, end, closings)
        if not closings:
            break
        run = patterns.runs[closings[-1]]
        while (end := _end(run, text, at)) > at:
            at = end
        if closings[-1] == ord("}"):
            at = _end_of_key(text, at)
        at = _enter(text, at, closings)  # what the run has left is seldom small
    if at != len(text):
        raise _fault(at)


def _match_value(text: bytes, at: int, closings: bytearray) -> re.Match[bytes] | None:
    match = _patterns().value.match(text, at)
    if match is None and len(closings) == MAX_DEPTH:
        match = _deepest().match(text, at)
    return match


def _enter(text: bytes, at: int, closings: bytearray) -> int:
    """Enter containers that are not empty; return where the value begins that is next.

    That is ``at`` if no such container begins there, or if ``MAX_DEPTH`` containers are open.
    """
    if not text.startswith((b"[", b"{"), at):
        return at
    patterns, left = _patterns(), MAX_DEPTH - len(closings)
    if not left:
        return at
    most = 100 if left >= 100 else 10 if left >= 10 else 1
    end = _end(patterns.openings[most], text, at)
    if end > at:
        entered = b"".join(patterns.brackets.findall(text, at, end))
        closings += entered.replace(b"[", b"]").replace(b"{", b"}")
        return end
    name_at = _end(patterns.space, text, at + 1)
    if text.startswith(b"[", at) or text.startswith(b"}", name_at):  # it is empty
        return at
    closings += b"}"
    return _end_of_key(text, name_at)


def _close(text: bytes, at: int, closings: bytearray) -> int:
    """Leave every container that ends after a value; return where the next member begins."""
    patterns = _patterns()
    end = _end(patterns.closings, text, at)
    left = text[at:end].translate(None, b" \t\n\r")
    if left:
        if closings[-len(left) :] != left[::-1]:
            raise _fault(at)
        del closings[-len(left) :]
    if not closings:
        return end
    if not text.startswith(b",", end):
        raise _fault(end)
    return _end(patterns.space, text, end + 1)


def _end_of_key(text: bytes, at: int) -> int:
    """Return where the value begins whose name is at ``at``."""
    patterns = _patterns()
    name = patterns.key.match(text, at)
    if name is None and text.startswith(b'"', at):
        name = patterns.colon.match(text, _end_of_string(text, at))
    if name is None:
        raise _fault(at)
    return name.end()


def _end_of_string(text: bytes, at: int) -> int:
    """Return the end of the string that begins at ``at``, which may be a long one."""
    at, size = at + 1, _STRING_BYTES[0]
    while at < len(text):
        special = text[at : at + size].translate(None, _PLAIN)[:1]
        if not special:
            at, size = at + size, _STRING_BYTES[1]
            continue
        at = text.index(special, at)
        if special == b'"':
            return at + 1
        end = _end(_patterns().escaped, text, at)
        if end == at:
            break
        at = end
    raise _fault(at)


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
