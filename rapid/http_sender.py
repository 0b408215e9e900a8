"""Posts records of events to destinations by HTTP.

Imported only when there is such a destination: the client brings TLS, a tenth of the start time.
"""

from __future__ import annotations

import http.client
import logging
import queue
import threading
import urllib.parse
from typing import Final

from lambda_protocol.address import Address
from rapid.destinations import HttpDestination, OnDelivered

logger = logging.getLogger(__name__)

#: For each step of a delivery, seconds.
HTTP_TIMEOUT_S: Final = 5.0
#: Before each further try of a delivery, seconds.
HTTP_RETRY_DELAYS_S: Final = (0.5, 2.0)
#: Records that wait; beyond this a delivery has failed.
MAX_WAITING: Final = 1_000


class HttpSender:
    """Posts records, one after the other, from a thread of its own. Thread-safe."""

    def __init__(self) -> None:
        """Nothing runs before the first record."""
        self._records: queue.Queue[tuple[str, bytes, OnDelivered] | None]
        self._records = queue.Queue(MAX_WAITING)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None  # guarded by _lock
        self._stopping = threading.Event()

    def send(self, destination: HttpDestination, record: bytes, on_delivered: OnDelivered) -> None:
        """Post ``record`` soon; ``on_delivered`` hears what came of it."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="http-destination", daemon=True
                )
                self._thread.start()
        try:
            self._records.put_nowait((destination.url, record, on_delivered))
        except queue.Full:
            logger.error("destination is too slow: record not delivered")
            on_delivered(False)

    def stop(self, limit_s: float) -> None:
        """Deliver what waits, without further tries, for ``limit_s``."""
        self._stopping.set()
        with self._lock:
            thread = self._thread
        if thread is not None:
            try:
                self._records.put(None, timeout=limit_s)
            except queue.Full:
                return
            thread.join(limit_s)

    def _run(self) -> None:
        while (item := self._records.get()) is not None:
            url, record, on_delivered = item
            on_delivered(self._deliver(url, record))

    def _deliver(self, url: str, record: bytes) -> bool:
        for delay_s in (0.0, *HTTP_RETRY_DELAYS_S):
            if delay_s and self._stopping.wait(delay_s):
                return False
            try:
                status = _post(url, record)
            except (OSError, http.client.HTTPException) as error:
                logger.warning("destination not reached", extra={"error": repr(error)})
                continue
            if status < 300:
                return True
            logger.warning("destination refuses the record", extra={"status": status})
        return False


def _post(url: str, record: bytes) -> int:
    """Post ``record`` and return the status; raises ``OSError`` or ``HTTPException``."""
    parts = urllib.parse.urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(*Address.of_url(url), timeout=HTTP_TIMEOUT_S)
    try:
        path = urllib.parse.urlunsplit(("", "", parts.path or "/", parts.query, ""))
        connection.request("POST", path, record, {"Content-Type": "application/json"})
        response = connection.getresponse()
        response.read()
        return response.status
    finally:
        connection.close()
