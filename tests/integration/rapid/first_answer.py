"""A rapid that prints the modules that it has imported when its first call is answered, and stops.

Python runs it, or the static file's interpreter. It imports nothing that rapid does not.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time

PATH = "/2015-03-31/functions/function/invocations"


def call_once(port: int) -> None:
    """Call the function, print ``sys.modules``, and stop rapid."""
    with socket.socket() as connection:
        while connection.connect_ex(("127.0.0.1", port)) != 0:
            time.sleep(0.01)
        head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n"
        connection.sendall(head.encode() + b"{}")
        answer = connection.recv(65536)
    print("answer", answer.split()[-1].decode(), "modules", *sorted(sys.modules), flush=True)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=call_once, args=[int(os.environ["RAPID_PORT"])], daemon=True).start()
    from rapid.__main__ import main

    # Of variables that tests have, rapid would log that they are no settings of its own.
    known = {name: os.environ[name] for name in os.environ["SETTINGS"].split(",")}
    sys.exit(main([os.environ["FUNCTION"]], known))
