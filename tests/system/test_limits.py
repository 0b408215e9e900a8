"""What strangers send at the limits, to real processes: neither program grows, stalls or dies."""

from __future__ import annotations

from tests.conftest import StartRapid
from tests.support import ECHO, Rapid


def test_4000_made_up_names_and_methods_are_no_labels_of_rapid(start_rapid: StartRapid) -> None:
    rapid = start_rapid(ECHO, RAPID_ANY_FUNCTION_NAME="TRUE")
    assert dry_run(rapid, range(1)) == [204]
    before = series(rapid)

    assert dry_run(rapid, range(4000)) == [204] * 4000
    for number in range(4000):
        with rapid.raw() as connection:
            connection.send(b"BREW%d / HTTP/1.1\r\nHost: x\r\n\r\n" % number)
            assert connection.read_answer().status == 501

    assert series(rapid) == before


def dry_run(rapid: Rapid, numbers: range) -> list[int]:
    """Ask for made-up functions over one connection; return the statuses."""
    statuses = []
    with rapid.raw() as connection:
        for number in numbers:
            connection.send(
                b"POST /2015-03-31/functions/made-up-%d/invocations HTTP/1.1\r\nHost: x\r\n"
                b"X-Amz-Invocation-Type: DryRun\r\n\r\n" % number
            )
            statuses.append(connection.read_answer(has_body=False).status)
    return statuses


def series(rapid: Rapid) -> set[str]:
    """Return the time series of ``/metrics``: names with labels, without values."""
    lines = rapid.get("/metrics").body.decode().splitlines()
    return {line.rpartition(" ")[0] for line in lines if not line.startswith("#")}
