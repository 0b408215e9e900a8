"""What the interpreter is made fast for: rapid serves calls, and its neighbours speak HTTP.

Run by an interpreter that counts what it does. Every process here is that interpreter: the caller,
rapid, and the function's runtime, which is this file as well.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from typing import Final

from devtools.ports import LOOPBACK, free_ports
from lambda_protocol.amqp_frames import FrameReader, Properties, encode_ack, publish_pieces

_CALLS: Final = 2_000
_CALLERS: Final = 4
_LIMIT_S: Final = 600.0  # an interpreter that counts, on a machine that is busy
_PATH: Final = "/2015-03-31/functions/trained/invocations"
_EVENT: Final = json.dumps(
    {
        "headers": {f"header-{number}": "value" * 4 for number in range(10)},
        "body": "é" * 300,
        "numbers": [1.5, None, True, *range(50)],
    }
).encode()


def main() -> int:
    """Run rapid under load, then the codec of its other door; return the exit code."""
    own = [sys.executable, "-S"]
    port, runtime_api_port = free_ports(2)
    rapid = subprocess.Popen(
        [*own, "-m", "rapid", *own, __file__, "runtime"],
        env={
            **os.environ,
            "AWS_LAMBDA_FUNCTION_NAME": "trained",
            "RAPID_INVOKE_API_HOST": LOOPBACK,
            "RAPID_PORT": str(port),
            "RAPID_RUNTIME_API_PORT": str(runtime_api_port),
            "RAPID_PRINT_REPORTS": "TRUE",
        },
        stdout=subprocess.DEVNULL,
    )
    try:
        _wait_until_ready(rapid, port)
        callers = [threading.Thread(target=_call, args=[port]) for _ in range(_CALLERS)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        _code_frames()
    finally:
        rapid.send_signal(signal.SIGTERM)  # it writes its counters when it ends in good order
        code = rapid.wait(_LIMIT_S)
    return code


def serve() -> None:
    """Be the function: echo every event. Source: AWS, the Runtime API."""
    connection = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
    invocations = "/2018-06-01/runtime/invocation"
    while True:
        connection.request("GET", f"{invocations}/next")
        answer = connection.getresponse()
        event = json.loads(answer.read())
        request_id = answer.headers["Lambda-Runtime-Aws-Request-Id"]
        connection.request("POST", f"{invocations}/{request_id}/response", json.dumps(event))
        connection.getresponse().read()


def _wait_until_ready(rapid: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + _LIMIT_S
    while time.monotonic() < deadline and rapid.poll() is None:
        connection = http.client.HTTPConnection(LOOPBACK, port, timeout=_LIMIT_S)
        try:
            connection.request("GET", "/readyz")
            if connection.getresponse().status == http.HTTPStatus.OK:
                return
        except OSError:
            pass
        finally:
            connection.close()
        time.sleep(0.05)
    raise SystemExit("rapid did not start")


def _call(port: int) -> None:
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=_LIMIT_S)
    for number in range(_CALLS // _CALLERS):
        headers = {"X-Amz-Log-Type": "Tail"} if number % 8 == 0 else {}
        connection.request("POST", _PATH, _EVENT, headers)
        connection.getresponse().read()


def _code_frames() -> None:
    reader = FrameReader()
    for number in range(_CALLS):
        properties = Properties(correlation_id=str(number), headers={"X-Lambda-Status": 200})
        reply = b"".join(publish_pieces(1, "trained", properties, _EVENT, frame_max=131_072))
        reader.feed(reply + encode_ack(1, number))


if __name__ == "__main__":
    if sys.argv[1:] == ["runtime"]:
        serve()
    sys.exit(main())
