"""The Lambda Server's gunicorn worker with short limits, so that tests need not wait."""

from __future__ import annotations

from lambda_protocol.pace import Pace
from lambda_server.worker import ConnectionWorker


class QuickWorker(ConnectionWorker):
    """Clients have half a second for a request's headers, and send and read 50 kB a second."""

    PACE = Pace(head_s=0.5, grace_s=0.5, bytes_per_s=50_000, pause_s=1)
