"""Cross-origin requests to a function URL, as its setting ``Cors`` allows them.

The service answers a preflight itself. To every other answer it adds the headers that the setting
asks for, in the place of the function's own.
Source: Lambda API reference, ``Cors``; Fetch standard, "CORS protocol".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from lambda_protocol.environ import WrongValue
from lambda_protocol.invoke_http import HeaderLookup, HttpResponse

#: The most items and characters of an item of each list. Source: Lambda API reference, ``Cors``
#: (checked 2026-11).
_LISTS: Final = {
    "AllowHeaders": (100, 1024),
    "AllowMethods": (6, 6),
    "AllowOrigins": (100, 253),
    "ExposeHeaders": (100, 1024),
}
#: The longest time that a browser may keep a preflight's answer, seconds. Source: the same.
_MAX_AGE_S: Final = 86_400
_MEMBERS: Final = ("AllowCredentials", *_LISTS, "MaxAge")

#: What the service says instead of the function.
_OWN_HEADERS: Final = frozenset(
    {
        "access-control-allow-credentials",
        "access-control-allow-origin",
        "access-control-expose-headers",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class UrlCors:
    """The setting ``Cors`` of a function URL. Thread-safe."""

    allow_credentials: bool = False
    allow_headers: tuple[str, ...] = ()
    allow_methods: tuple[str, ...] = ()
    allow_origins: tuple[str, ...] = ()
    expose_headers: tuple[str, ...] = ()
    max_age_s: int | None = None

    @classmethod
    def parse(cls, members: object) -> UrlCors:
        """Return the setting that the API's members describe. Raises ``WrongValue``."""
        if not isinstance(members, dict):
            raise WrongValue("is no JSON object", f"an object with {', '.join(_MEMBERS)}")
        for name in members:
            if name not in _MEMBERS:
                raise WrongValue(f"has the member {name[:80]!r}", ", ".join(_MEMBERS))
        allow_credentials = members.get("AllowCredentials", False)
        if not isinstance(allow_credentials, bool):
            raise WrongValue("has an AllowCredentials that is no boolean", "true or false")
        max_age_s = members.get("MaxAge")
        if max_age_s is not None and not (type(max_age_s) is int and 0 <= max_age_s <= _MAX_AGE_S):
            raise WrongValue(
                f"has the MaxAge {str(max_age_s)[:80]}", f"a whole number from 0 to {_MAX_AGE_S}"
            )
        return cls(
            allow_credentials=allow_credentials,
            allow_headers=_list(members, "AllowHeaders"),
            allow_methods=_list(members, "AllowMethods"),
            allow_origins=_origins(members),
            expose_headers=_list(members, "ExposeHeaders"),
            max_age_s=max_age_s,
        )

    def members(self) -> dict[str, Any]:
        """Return the setting as the API has it; :meth:`parse` reads it."""
        lists = {
            "AllowHeaders": self.allow_headers,
            "AllowMethods": self.allow_methods,
            "AllowOrigins": self.allow_origins,
            "ExposeHeaders": self.expose_headers,
        }
        members: dict[str, Any] = {name: [*items] for name, items in lists.items() if items}
        if self.allow_credentials:
            members["AllowCredentials"] = True
        if self.max_age_s is not None:
            members["MaxAge"] = self.max_age_s
        return members

    def preflight(self, method: str, header: HeaderLookup) -> HttpResponse | None:
        """Return the answer to a preflight; None for any other request."""
        origin, asked = header("origin"), header("access-control-request-method")
        if method != "OPTIONS" or origin is None or asked is None:
            return None
        if not self.allows(origin):
            return HttpResponse(200, [("Vary", "Origin")], b"")
        fields = self._headers_for(origin)
        lists = (
            ("Access-Control-Allow-Methods", self.allow_methods, asked),
            (
                "Access-Control-Allow-Headers",
                self.allow_headers,
                header("access-control-request-headers") or "",
            ),
        )
        for name, items, wanted in lists:
            # With credentials a browser takes * for the name of a method or a header.
            value = wanted if "*" in items else ",".join(items)
            if value:
                fields.append((name, value))
        if self.max_age_s is not None:
            fields.append(("Access-Control-Max-Age", str(self.max_age_s)))
        return HttpResponse(200, fields, b"")

    def applied(self, fields: list[tuple[str, str]], origin: str | None) -> list[tuple[str, str]]:
        """Return the headers of an answer to a request of ``origin``; None: it named none."""
        kept = [field for field in fields if field[0].lower() not in _OWN_HEADERS]
        if origin is None or not self.allows(origin):
            return [*kept, ("Vary", "Origin")]
        kept += self._headers_for(origin)
        if self.expose_headers:
            kept.append(("Access-Control-Expose-Headers", ",".join(self.expose_headers)))
        return kept

    def allows(self, origin: str) -> bool:
        """Return whether pages of ``origin`` may read answers."""
        return "*" in self.allow_origins or origin.lower() in self.allow_origins

    def _headers_for(self, origin: str) -> list[tuple[str, str]]:
        fields = [("Access-Control-Allow-Origin", origin), ("Vary", "Origin")]
        if self.allow_credentials:
            fields.append(("Access-Control-Allow-Credentials", "true"))
        return fields


def _list(members: Mapping[str, Any], name: str) -> tuple[str, ...]:
    items = members.get(name)
    if items is None:
        return ()
    most, most_characters = _LISTS[name]
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        raise WrongValue(f"has {name} that is no array of texts", "an array of texts")
    if len(items) > most:
        raise WrongValue(f"has {name} of {len(items)} items", f"at most {most}")
    for item in items:
        if not 1 <= len(item) <= most_characters or not item.isascii() or not item.isprintable():
            raise WrongValue(
                f"has {name} with {item[:80]!r}",
                f"1 to {most_characters} printable characters of ASCII",
            )
    return tuple(items)


def _origins(members: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the origins as browsers write them: lower case, without a path."""
    origins = _list(members, "AllowOrigins")
    for origin in origins:
        if origin != "*" and ("*" in origin or "://" not in origin):
            raise WrongValue(
                f"has AllowOrigins with {origin[:80]!r}", "https://HOST[:PORT], or * for every one"
            )
    return tuple(origin.lower().removesuffix("/") for origin in origins)
