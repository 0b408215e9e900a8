"""The settings of a function URL, and how a rapid announces them to Lambda Servers.

Source: Lambda API reference, ``FunctionUrlConfig``, for names and values.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from lambda_protocol.environ import WrongValue
from lambda_protocol.limits import FUNCTION_NAME_CHARS
from lambda_protocol.url_cors import UrlCors

NONE: Final = "NONE"
AWS_IAM: Final = "AWS_IAM"
AUTH_TYPES: Final = (NONE, AWS_IAM)
BUFFERED: Final = "BUFFERED"
RESPONSE_STREAM: Final = "RESPONSE_STREAM"
INVOKE_MODES: Final = (BUFFERED, RESPONSE_STREAM)

#: The longest announcement, bytes, and the longest text of the setting ``Cors`` (our choices).
ANNOUNCEMENT_BYTES: Final = 65_536
CORS_BYTES: Final = 32_768

#: Where a path names a function URL.
PATH_PREFIX: Final = "/lambda-url/"
#: Ours: a Lambda Server that asks a rapid for the settings of its function URL sends it.
ASKS_FOR_SETTINGS: Final = "X-Lambda-Url-Settings"

_FUNCTION_NAME: Final = re.compile(rf"[a-zA-Z0-9_.-]{{1,{FUNCTION_NAME_CHARS}}}")


@dataclass(frozen=True, slots=True, kw_only=True)
class UrlSettings:
    """A function URL, as its function has it."""

    auth_type: str  #: NONE or AWS_IAM
    invoke_mode: str = BUFFERED
    cors: UrlCors | None = None

    @property
    def is_open(self) -> bool:
        """Whether every caller is admitted; AWS_IAM refuses each, having no identities."""
        return self.auth_type == NONE

    @property
    def streams(self) -> bool:
        """Whether the answer goes out as it comes."""
        return self.invoke_mode == RESPONSE_STREAM

    @classmethod
    def parse(cls, members: object) -> UrlSettings:
        """Return what the API's members describe. Raises ``WrongValue``."""
        if not isinstance(members, dict):
            raise WrongValue("is no JSON object", "an object with AuthType")
        auth_type, mode = members.get("AuthType"), members.get("InvokeMode", BUFFERED)
        if auth_type not in AUTH_TYPES or mode not in INVOKE_MODES:
            raise WrongValue(f"has AuthType {auth_type!r:.80} and InvokeMode {mode!r:.80}",
                             f"one of {AUTH_TYPES} and one of {INVOKE_MODES}")  # fmt: skip
        cors = members.get("Cors")
        return cls(
            auth_type=auth_type,
            invoke_mode=mode,
            cors=None if cors is None else UrlCors.parse(cors),
        )

    def members(self) -> dict[str, Any]:
        """Return the settings as the API has them; :meth:`parse` reads them."""
        members: dict[str, Any] = {"AuthType": self.auth_type, "InvokeMode": self.invoke_mode}
        if self.cors is not None:
            members["Cors"] = self.cors.members()
        return members


def parse_cors(text: str) -> UrlCors:
    """Return the setting ``Cors`` that a JSON text describes. Raises ``WrongValue``."""
    if len(text.encode()) > CORS_BYTES:
        raise WrongValue(f"has {len(text.encode())} bytes", f"at most {CORS_BYTES}")
    try:
        members = json.loads(text)
    except (ValueError, RecursionError):
        raise WrongValue("is not JSON", 'JSON as {"AllowOrigins": ["*"]}') from None
    return UrlCors.parse(members)


class Announcement(NamedTuple):
    """What a rapid says of its function."""

    function_name: str
    url: UrlSettings | None  #: None: the function has no URL


def encode_announcement(announcement: Announcement) -> bytes:
    """Return the announcement as JSON."""
    url = announcement.url
    members = {
        "FunctionName": announcement.function_name,
        "FunctionUrlConfig": None if url is None else url.members(),
    }
    return json.dumps(members, separators=(",", ":")).encode()


def decode_announcement(body: bytes) -> Announcement:
    """Return what an announcement says. Raises ``WrongValue``; members of later versions are
    left alone.
    """
    if len(body) > ANNOUNCEMENT_BYTES:
        raise WrongValue(f"has {len(body)} bytes", f"at most {ANNOUNCEMENT_BYTES}")
    try:
        members = json.loads(body)
    except (ValueError, RecursionError):
        raise WrongValue("is not JSON", "an announcement") from None
    name = members.get("FunctionName") if isinstance(members, dict) else None
    if not isinstance(name, str) or not _FUNCTION_NAME.fullmatch(name):
        raise WrongValue("names no function", "FunctionName")
    url = members.get("FunctionUrlConfig")
    return Announcement(name, None if url is None else UrlSettings.parse(url))
