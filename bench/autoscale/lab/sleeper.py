"""A function that does what its payload says, and returns the payload.

``sleep_ms``: how long to sleep. ``touch``: a file to make then, for an event has no answer.
"""

from __future__ import annotations

import http.client
import json
import os
import time
from pathlib import Path

_NEXT = "/2018-06-01/runtime/invocation"


def main() -> None:
    """Serve invocations until the process is ended from outside."""
    api = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
    while True:
        api.request("GET", f"{_NEXT}/next")
        invocation = api.getresponse()
        payload = invocation.read()
        wanted = json.loads(payload)
        time.sleep(wanted.get("sleep_ms", 0) / 1000)
        if "touch" in wanted:
            Path(wanted["touch"]).touch()
        request_id = invocation.headers["Lambda-Runtime-Aws-Request-Id"]
        api.request("POST", f"{_NEXT}/{request_id}/response", payload)
        api.getresponse().read()


if __name__ == "__main__":
    main()
