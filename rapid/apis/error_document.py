"""An error document of a runtime that is over the limit of a response, made to fit.

Source: Lambda runtime API, "Invocation error", for its members; Lambda quotas, for the limit.
"""

from __future__ import annotations

import json
import re
from typing import Final

#: A JSON string, also one that the document's end cuts off, or what structures JSON.
_TOKEN: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+(")?|[{}\[\]:,]', re.DOTALL)
#: What a cut may leave of an escape sequence; an even number of backslashes before it is none.
_CUT_ESCAPE: Final = re.compile(rb"(?<!\\)(?:\\\\)*(\\(?:u[0-9a-fA-F]{0,3})?)\Z")


def shorten(document: bytes, limit_bytes: int, error_type: str) -> bytes:
    """Return an error document of at most ``limit_bytes`` with type and message of ``document``.

    The message is cut as far as it must be; other members are left out. ``document`` may be cut
    off itself. Where it names no type, ``error_type`` is it.
    """
    members = _top_level_strings(document)
    kind = members.get(b'"errorType"') or json.dumps(error_type).encode()
    message = members.get(b'"errorMessage"')
    if message is None:
        text = f"The runtime's error is over the limit of {limit_bytes} bytes and has no message"
        message = json.dumps(text).encode()
    before, between, after = b'{"errorMessage":', b',"errorType":', b"}"
    room = limit_bytes - len(before) - len(between) - len(after)
    kind = _cut(kind, room // 2)
    return before + _cut(message, room - len(kind)) + between + kind + after


def _top_level_strings(document: bytes) -> dict[bytes, bytes]:
    """Return the members of a JSON object that are strings, both as they are written."""
    members: dict[bytes, bytes] = {}
    depth, key, is_value = 0, b"", False
    for match in _TOKEN.finditer(document):
        token = match[0]
        if token in (b"{", b"["):
            depth += 1
        elif token in (b"}", b"]"):
            depth -= 1
        elif depth != 1:
            continue
        elif token in (b":", b","):
            is_value = token == b":"
        elif is_value:
            members[key] = token if match[1] else _close(token)
        else:
            key = token
    return members


def _cut(text: bytes, limit_bytes: int) -> bytes:
    """Return a written JSON string of at most ``limit_bytes``: no character or escape is halved."""
    return text if len(text) <= limit_bytes else _close(text[: limit_bytes - 1])


def _close(text: bytes) -> bytes:
    """End a written JSON string that is cut off."""
    text = text.decode("utf-8", "ignore").encode()
    match = _CUT_ESCAPE.search(text)
    return (text[: match.start(1)] if match else text) + b'"'
