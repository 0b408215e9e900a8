"""A TCP address: read from text, printed as text, and listened on over both IP families."""

from __future__ import annotations

import errno
import re
import socket
import urllib.parse
from typing import Final, NamedTuple

from lambda_protocol.port_holder import port_holder

#: Every address of the machine, of IPv6 and IPv4.
EVERY_HOST: Final = "::"
_EVERY_IPV4: Final = "0.0.0.0"  # noqa: S104 - compared with, and where a host lacks IPv6
_LOOPBACK: Final = "127.0.0.1"
_MAPPED: Final = "::ffff:"
_PORT_DIGITS: Final = 5
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
#: What a host name cannot have: it ends or begins another part of an address or a URL.
_FORBIDDEN: Final = frozenset(" \t\r\n/\\?#@[]:,=")

_BRACKETED: Final = re.compile(r"\[[0-9A-Fa-f:.]+(%[\w.~-]+)?\](:[0-9]*)?", re.ASCII)


class Address(NamedTuple):
    """A host and a port; printed ``host:port``, an IPv6 address in brackets."""

    host: str  #: a name, an IPv4 or an IPv6 address, without brackets
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """Return the address that ``HOST:PORT``, ``[IPV6]:PORT`` or ``:PORT`` names.

        An empty host is every address, as in aws-lambda-rie. Raises ``ValueError``.
        """
        host, colon, port = text.rpartition(":")
        is_number = port.isascii() and port.isdigit() and len(port) <= _PORT_DIGITS
        if not colon or not is_number or int(port) > 65535:
            raise ValueError(f"{text!r}; expected HOST:PORT or [IPV6]:PORT")
        if ":" in host and not host.startswith("["):
            raise ValueError(f"{text!r}; expected an IPv6 address in brackets: [IPV6]:PORT")
        return cls(parse_host(host) if host else EVERY_HOST, int(port))

    @classmethod
    def of_url(cls, url: str) -> Address:
        """Return where an http or https ``url`` leads; raises ``ValueError``."""
        parts = split_url(url)
        default = _DEFAULT_PORTS.get(parts.scheme)
        port = default if parts.port is None else parts.port
        can_be_sent = f"{parts.path}{parts.query}".isascii() and " " not in url
        if default is None or not parts.hostname or not port or not can_be_sent:
            raise ValueError("expected http://HOST:PORT")  # the URL itself may hold a password
        return cls(parse_host(parts.hostname), port)

    def __str__(self) -> str:
        """Return ``host:port`` or ``[host]:port``."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """The ``http://`` URL of the address, without a path."""
        return f"http://{self}"

    @property
    def reached(self) -> Address:
        """The address by which this machine reaches a listener on this one."""
        is_every = self.host in (EVERY_HOST, _EVERY_IPV4)
        return Address(_LOOPBACK, self.port) if is_every else self

    @property
    def available(self) -> Address:
        """The address itself; on a machine without IPv6, every IPv4 address for ``::``."""
        if self.host != EVERY_HOST:
            return self
        try:
            with socket.socket(socket.AF_INET6) as probe:
                probe.bind((EVERY_HOST, 0))
        except OSError:
            return Address(_EVERY_IPV4, self.port)
        return self

    @property
    def is_ours(self) -> bool:
        """Whether this machine can listen on the host, as far as it shows without DNS.

        Of names only ``localhost`` and the machine's own name count.
        """
        if self.host in (EVERY_HOST, "localhost", socket.gethostname()):
            return True
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        try:
            with socket.socket(family) as probe:
                host, _, scope = self.host.partition("%")
                socket.inet_pton(family, host)  # no name, for which DNS would be asked
                probe.bind((f"{host}%{scope}" if scope else host, 0))
        except OSError:
            return False
        return True

    def listen(self, backlog: int = 256) -> socket.socket:
        """Return a socket that listens here; ``::`` takes IPv4 as well. Port 0 is any free one.

        The message of the ``OSError`` it raises begins with the address, and names the program
        that has the port.
        """
        return self._open(backlog)

    def require_free(self) -> None:
        """Raise what :meth:`listen` would raise. No client can connect meanwhile."""
        self._open(None).close()

    def _open(self, backlog: int | None) -> socket.socket:
        try:
            host, port = self.available
            # As bytes: for a string Python would import the codec of international names.
            known = host.encode() if host.isascii() else host
            family, kind, protocol, _, name = socket.getaddrinfo(
                known, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            sock = socket.socket(family, kind, protocol)
            try:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:  # whatever net.ipv6.bindv6only says
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
                sock.bind(name)
                if backlog is not None:
                    sock.listen(backlog)
            except BaseException:
                sock.close()
                raise
        except OSError as error:
            holder = port_holder(self.port) if error.errno == errno.EADDRINUSE else None
            by = f" by {holder}" if holder else ""
            raise OSError(error.errno, f"{self}: {error.strerror}{by}") from error
        return sock


def parse_host(text: str) -> str:
    """Return a host name or an IP address, an IPv6 address without its brackets.

    Raises ``ValueError``, also for a host with a port.
    """
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if ":" in bare:
        try:
            socket.inet_pton(socket.AF_INET6, bare.partition("%")[0])
        except OSError:
            raise ValueError(f"{text!r}; expected a host without a port") from None
    elif bare != text or not bare or not _FORBIDDEN.isdisjoint(bare):
        raise ValueError(f"{text!r}; expected a host name or an IP address")
    return bare


def split_url(text: str) -> urllib.parse.SplitResult:
    """Return the parts of a URL, whose port is a number; raises ``ValueError``.

    ``urlsplit`` drops line ends and takes text around an IPv6 address; both are refused here.
    """
    parts = urllib.parse.urlsplit(text)
    place = parts.netloc.rpartition("@")[2]
    has_brackets = "[" in place or "]" in place
    if not text.isprintable() or (has_brackets and not _BRACKETED.fullmatch(place)):
        raise ValueError("expected a URL")
    _ = parts.port
    return parts


def peer_host(host: str) -> str:
    """Return a peer's IP address. The IPv6 form ``::ffff:1.2.3.4`` becomes IPv4."""
    return host.removeprefix(_MAPPED) if "." in host else host
