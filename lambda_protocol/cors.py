"""Cross-origin requests: which web pages may call the Lambda API.

A browser sends a page's ``text/plain`` POST to any server and only hides the answer from the page.
So a request that names a foreign origin is refused before it runs a function. Clients that are
no browsers send neither header and are not concerned.
Source: Fetch standard, "CORS protocol"; Fetch Metadata Request Headers, "Sec-Fetch-Site".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from lambda_protocol import headers
from lambda_protocol.environ import ConfigError
from lambda_protocol.errors import AccessDeniedException
from lambda_protocol.invoke_http import HeaderLookup

ORIGIN: Final = "origin"
FETCH_SITE: Final = "sec-fetch-site"
HOST: Final = "host"
FORWARDED_PROTO: Final = "x-forwarded-proto"
REQUEST_METHOD: Final = "access-control-request-method"
REQUEST_HEADERS: Final = "access-control-request-headers"

#: Response headers that a page may read, besides those that every page may.
EXPOSED: Final = (
    f"{headers.EXECUTED_VERSION}, {headers.FUNCTION_ERROR}, {headers.LOG_RESULT}, "
    f"{headers.ERROR_TYPE}, {headers.REQUEST_ID}, {headers.TRACE_ID}"
)
#: How long a browser may remember a preflight's answer, seconds (our choice).
MAX_AGE_S: Final = 600

#: These run and change nothing: a link on any page may lead here.
_OPEN_PATHS: Final = frozenset(
    {"/healthz", "/readyz", "/metrics", "/ping", "/_/health", "/_/ready"}
)
_ORIGIN: Final = re.compile(r"[a-z][a-z0-9+.-]*://[a-z0-9._~\[\]:-]+")
_DEFAULT_PORTS: Final = {"http": ":80", "https": ":443"}
#: What a preflight asks for is sent back: one method, names of headers.
_TOKENS: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z, ]{1,4096}")


@dataclass(frozen=True, slots=True)
class Admission:
    """A request that may go on, or is a preflight and ends here with status 204."""

    headers: tuple[tuple[str, str], ...] = ()  #: for the response
    is_preflight: bool = False


_PLAIN: Final = Admission()


@dataclass(frozen=True, slots=True)
class AllowedOrigins:
    """The origins whose pages may call, besides the server's own. Thread-safe."""

    setting: str  #: the name of the setting that has them
    origins: frozenset[str] = frozenset()
    has_every: bool = False

    @classmethod
    def parse(cls, setting: str, text: str) -> AllowedOrigins:
        """Return the origins that are separated by commas in ``text``, or ``*`` for every one.

        Raises ``ConfigError``.
        """
        if text.strip() == "*":
            return cls(setting, has_every=True)
        origins = set()
        for part in filter(None, (part.strip() for part in text.split(","))):
            origin = part.lower().removesuffix("/")
            if not _ORIGIN.fullmatch(origin):
                raise ConfigError(
                    f"{setting} has {part!r}; expected origins as https://HOST[:PORT], "
                    "separated by commas, or * alone"
                )
            origins.add(_without_default_port(origin))
        return cls(setting, frozenset(origins))

    def admit(
        self, method: str, path: str, header: HeaderLookup, *, is_tls: bool = False
    ) -> Admission:
        """Return how the request goes on; raises ``AccessDeniedException`` for a foreign page.

        ``is_tls`` tells that the connection itself is encrypted.
        """
        origin = header(ORIGIN)
        is_cross_site = header(FETCH_SITE) == "cross-site"
        if origin is None and (self.has_every or not is_cross_site):
            return _PLAIN
        is_allowed = origin is not None and (self.has_every or origin.lower() in self.origins)
        is_own = not is_cross_site and _is_own(origin or "", header, is_tls=is_tls)
        if is_allowed or is_own:
            assert origin is not None
            is_preflight = method == "OPTIONS" and header(REQUEST_METHOD) is not None
            return Admission(self._headers(origin, header, is_preflight), is_preflight)
        if path in _OPEN_PATHS:
            return _PLAIN
        page = "another site" if origin is None else f"the origin {origin[:200]!r}"
        raise AccessDeniedException(
            f"A web page of {page} may not call. {self.setting} names the origins that may."
        )

    def _headers(
        self, origin: str, header: HeaderLookup, is_preflight: bool
    ) -> tuple[tuple[str, str], ...]:
        """Return the response's headers; credentials are never allowed."""
        headers = [("Access-Control-Allow-Origin", "*" if self.has_every else origin)]
        headers.append(("Vary", "Origin"))
        if not is_preflight:
            return (*headers, ("Access-Control-Expose-Headers", EXPOSED))
        for asked, answered in (
            (REQUEST_METHOD, "Access-Control-Allow-Methods"),
            (REQUEST_HEADERS, "Access-Control-Allow-Headers"),
        ):
            value = header(asked)
            if value is not None and _TOKENS.fullmatch(value):
                headers.append((answered, value))
        return (*headers, ("Access-Control-Max-Age", str(MAX_AGE_S)))


def comes_from_page(header: HeaderLookup) -> bool:
    """Return whether a browser sent the request for a web page, of whatever origin."""
    return header(ORIGIN) is not None or header(FETCH_SITE) not in (None, "none")


def _is_own(origin: str, header: HeaderLookup, *, is_tls: bool) -> bool:
    """Return whether ``origin`` is the server's own, as far as the request tells.

    A proxy may have ended TLS, and need not say so. Thus an https page may call over http, while
    an http page may not where the request came by TLS.
    """
    scheme, _, authority = origin.lower().partition("://")
    is_secure = is_tls or (header(FORWARDED_PROTO) or "").lower().startswith("https")
    if scheme not in _DEFAULT_PORTS or (scheme == "http" and is_secure):
        return False
    host = (header(HOST) or "").lower().removesuffix(_DEFAULT_PORTS[scheme])
    return bool(authority) and authority == host


def _without_default_port(origin: str) -> str:
    """Return an origin as a browser writes it."""
    return origin.removesuffix(_DEFAULT_PORTS.get(origin.partition("://")[0], "\0"))
