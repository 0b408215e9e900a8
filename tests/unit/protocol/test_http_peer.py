"""Whether the peer of an idle connection is gone."""

from __future__ import annotations

import socket

import pytest

from lambda_protocol.http_peer import has_ended


@pytest.mark.parametrize(
    ("sent", "closes", "may_send", "expected"),
    [
        (b"", False, False, False),
        (b"", True, False, True),
        (b"unasked", False, False, True),
        (b"unasked", False, True, False),
        (b"unread", True, True, True),
    ],
    ids=["idle", "closed", "sends-unasked", "may-send", "closed-behind-bytes"],
)
def test_a_connection_has_ended_when_its_peer_closed_it_or_spoke_unasked(
    sent: bytes, closes: bool, may_send: bool, expected: bool
) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(sent)
        if closes:
            theirs.close()

        assert has_ended(ours, may_send=may_send) is expected
