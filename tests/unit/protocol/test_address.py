"""Addresses as text, and as what a socket listens on."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from lambda_protocol.address import Address, parse_host, peer_host
from lambda_protocol.port_holder import port_holder


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:9001", Address("127.0.0.1", 9001)),
        ("[::1]:9001", Address("::1", 9001)),
        ("[fe80::1%eth0]:0", Address("fe80::1%eth0", 0)),
        ("sandbox.localdomain:80", Address("sandbox.localdomain", 80)),
    ],
)
def test_an_address_is_printed_as_it_is_read(text: str, address: Address) -> None:
    assert Address.parse(text) == address
    assert str(address) == text
    assert address.url == f"http://{text}"


@pytest.mark.parametrize("text", [":9001", "[::]:9001"])
def test_no_host_is_every_address(text: str) -> None:
    assert Address.parse(text) == Address("::", 9001)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("9001", "expected HOST:PORT"),
        ("", "expected HOST:PORT"),
        ("h:x", "expected HOST:PORT"),
        ("h:-1", "expected HOST:PORT"),
        ("h:65536", "expected HOST:PORT"),
        ("h:000099999", "expected HOST:PORT"),
        ("h:" + "9" * 5000, "expected HOST:PORT"),
        ("h:²", "expected HOST:PORT"),
        ("::1:9001", "in brackets"),
        ("[::1]9001", "expected HOST:PORT"),
        ("[h]:1", "a host name or an IP address"),
        ("[::g]:1", "without a port"),
        ("http://h:1", "in brackets"),
        ("a b:1", "a host name or an IP address"),
        ("u@h:1", "a host name or an IP address"),
    ],
)
def test_what_is_no_address_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Address.parse(text)


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("::", "::"),
        ("[::]", "::"),
        ("::1", "::1"),
        ("[::1]", "::1"),
        ("::ffff:127.0.0.1", "::ffff:127.0.0.1"),
        ("0.0.0.0", "0.0.0.0"),
        ("localhost", "localhost"),
    ],
)
def test_a_host_is_read_with_brackets_and_without(text: str, host: str) -> None:
    assert parse_host(text) == host


@pytest.mark.parametrize("text", ["", "[]", "h:80", "[::1]:80", "[h]", "[::1", "http://h", "a,b"])
def test_what_is_no_host_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected a host"):
        parse_host(text)


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://h", Address("h", 80)),
        ("https://h/path?q", Address("h", 443)),
        ("http://[::1]:8081/", Address("::1", 8081)),
        ("http://user:secret@h:1", Address("h", 1)),
    ],
)
def test_a_url_leads_to_an_address(url: str, address: Address) -> None:
    assert Address.of_url(url) == address


@pytest.mark.parametrize(
    "url",
    [
        "",
        "h:1",
        "ftp://h",
        "ftp://h:1",
        "http://",
        "http://h:0",
        "http://h:x",
        "http://::1",
        "http://[::",
        "http://[",
        "http://]",
        "http://[::1]x:1",
        "http://[v1.x]:1",
        "http://h:\u0663",
        "http://h:1/\r\nX: y",
        "http://h:1/a b",
        "http://h:1/\u00e9",
        "http://\ud800:1/",
        "http://h\t:1",
    ],
)
def test_a_url_without_an_address_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Address.of_url(url)


@pytest.mark.parametrize(
    ("host", "reached"),
    [("::", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::1", "::1"), ("10.0.0.1", "10.0.0.1")],
)
def test_a_listener_on_every_address_is_reached_by_loopback(host: str, reached: str) -> None:
    assert Address(host, 1).reached == Address(reached, 1)


@pytest.mark.parametrize(
    ("shown", "host"),
    [("::ffff:10.1.2.3", "10.1.2.3"), ("10.1.2.3", "10.1.2.3"), ("::1", "::1"), ("", ""),
     ("::ffff:1:2", "::ffff:1:2")],
)  # fmt: skip
def test_a_peer_over_ipv4_is_shown_as_ipv4(shown: str, host: str) -> None:
    assert peer_host(shown) == host


@pytest.mark.parametrize(
    ("host", "families"),
    [
        pytest.param("::", {"127.0.0.1", "::1"}, id="every"),
        pytest.param("0.0.0.0", {"127.0.0.1"}, id="every-ipv4"),
        pytest.param("::1", {"::1"}, id="ipv6"),
        pytest.param("127.0.0.1", {"127.0.0.1"}, id="ipv4"),
        pytest.param("localhost", {"127.0.0.1"}, id="name"),
    ],
)
def test_a_listener_is_reached_over(host: str, families: set[str]) -> None:
    reached = set()
    with Address(host, 0).listen() as listener:
        port = listener.getsockname()[1]
        for client_host in ("127.0.0.1", "::1"):
            with (
                contextlib.suppress(ConnectionRefusedError),
                socket.create_connection((client_host, port), 5),
            ):
                reached.add(client_host)

    assert reached == families


@pytest.mark.parametrize("wanted", [Address.listen, Address.require_free])
@pytest.mark.parametrize("host", ["127.0.0.1", "::"])
def test_an_address_that_is_taken_says_which_and_by_whom(
    host: str, wanted: Callable[[Address], object]
) -> None:
    program = Path("/proc/self/comm").read_text().strip()
    with Address(host, 0).listen() as other:
        port = other.getsockname()[1]

        with pytest.raises(OSError, match=rf"127\.0\.0\.1:{port}: Address.* in use") as raised:
            wanted(Address("127.0.0.1", port))

    assert str(raised.value).endswith(f" by {program}, pid {os.getpid()}")


def test_nobody_can_connect_while_it_is_seen_whether_an_address_is_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(socket.socket, "listen", lambda *_: pytest.fail("it listens"))

    Address("127.0.0.1", 0).require_free()


def test_nobody_holds_a_port_that_is_only_bound() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))

        assert port_holder(bound.getsockname()[1]) is None


def test_a_host_that_does_not_exist_says_so() -> None:
    with pytest.raises(OSError, match=r"nowhere\.invalid:1: "):
        Address("nowhere.invalid", 1).listen()
