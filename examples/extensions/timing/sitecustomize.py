"""An internal extension: in the runtime's own process, it prints how much time each call is given.

Python imports a module of this name at its start; ``wrapper`` puts this folder on its path.
Source: AWS Lambda Developer Guide, "Using the Lambda Extensions API to create extensions".
"""

from __future__ import annotations

import http.client
import json
import os
import threading
import time

_EXTENSION = "/2020-01-01/extension"


def _register() -> None:
    """Register before the runtime asks for its first event: after that it is too late."""
    connection = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
    connection.request(
        "POST",
        f"{_EXTENSION}/register",
        json.dumps({"events": ["INVOKE"]}),  # an internal extension cannot have SHUTDOWN
        {"Lambda-Extension-Name": "timing"},
    )
    response = connection.getresponse()
    response.read()
    identifier = response.headers["Lambda-Extension-Identifier"]
    threading.Thread(target=_run, args=(connection, identifier), daemon=True).start()


def _run(connection: http.client.HTTPConnection, identifier: str) -> None:
    while True:
        headers = {"Lambda-Extension-Identifier": identifier}
        connection.request("GET", f"{_EXTENSION}/event/next", headers=headers)
        event = json.loads(connection.getresponse().read())
        left_ms = event["deadlineMs"] - time.time() * 1000
        print(f"timing: {event['requestId']} may take {left_ms:.0f} ms", flush=True)


if os.environ.pop("TIMING_EXTENSION", None) and "AWS_LAMBDA_RUNTIME_API" in os.environ:
    _register()
