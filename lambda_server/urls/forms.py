"""Which function a request is for: the four forms of a function URL."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, NamedTuple
from urllib.parse import unquote

from lambda_protocol.errors import LambdaApiError
from lambda_protocol.function_url import PATH_PREFIX
from lambda_server.config import Config, UrlTarget
from lambda_server.urls.sources import UrlSource

#: What every host of the host form contains, in any case.
_MARK: Final = ".lambda-url."
#: ``NAME.lambda-url.REGION.anything``.
_HOST: Final = re.compile(r"(?P<name>[^.:]+)\.lambda-url\.[a-z]{2}(-[a-z]+)+-[0-9]\.[^.:]")


class Target(NamedTuple):
    """What a request names."""

    function: UrlTarget | None  #: None: no function that is known
    prefix: str = ""  #: of the path, which is not the function's
    error: LambdaApiError | None = None  #: why it cannot be known whether there is one


_UNKNOWN: Final = Target(None)


class Forms:
    """Finds the function. Thread-safe."""

    def __init__(self, config: Config, source: UrlSource) -> None:
        """The settings have the table and the default, ``source`` the names of functions."""
        self._table = config.url_hosts
        self._default = config.url_default
        self._has_more = bool(config.url_hosts or config.url_default)
        self._source = source

    def may_be_url(self, host: str, path: str) -> bool:
        """Return whether :meth:`find` is to be asked; False for most plain invocations.

        ``path`` is decoded.
        """
        return self._has_more or _MARK in host.lower() or path.startswith(PATH_PREFIX)

    def is_url_host(self, host: str) -> bool:
        """Return whether every path of ``host`` is a function's, known or not."""
        host = host.lower()
        if _MARK in host and _HOST.match(host):
            return True
        return bool(self._table) and _without_port(host) in self._table

    def find(self, host: str, path: str, is_own: Callable[[], bool]) -> Target | None:
        """Return what a request names by host or raw path; None: it is for the server itself.

        ``is_own`` tells whether the path is one of the server's own. Raises ``LambdaApiError`` if
        functions are not known now.
        """
        host = host.lower()
        if self._table and (target := self._table.get(_without_port(host))) is not None:
            return Target(target)
        if _MARK in host and (match := _HOST.match(host)):
            name = self._source.name_in_host(match["name"])
            return _UNKNOWN if name is None else Target(UrlTarget(name, None))
        if path.startswith(PATH_PREFIX):
            named = path.removeprefix(PATH_PREFIX).partition("/")[0]
            name, _, qualifier = unquote(named).partition(":")
            return Target(UrlTarget(name, qualifier or None), PATH_PREFIX + named)
        if self._default is not None and path.startswith("/") and not is_own():
            return Target(self._default)
        return None


def _without_port(host: str) -> str:
    return host.partition(":")[0]
