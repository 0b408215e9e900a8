"""The Lambda Server's gunicorn workers with short limits, so that tests need not wait."""

from __future__ import annotations

from lambda_protocol.pace import Pace
from lambda_server.polling_worker import PollingWorker
from lambda_server.worker import ConnectionWorker

#: Clients have half a second for a request's headers, and send and read 50 kB a second.
QUICK = Pace(head_s=0.5, grace_s=0.5, bytes_per_s=50_000, pause_s=1)


class QuickWorker(ConnectionWorker):
    """Threads."""

    PACE = QUICK


class QuickPollingWorker(PollingWorker):
    """One thread for plain calls."""

    PACE = QUICK
