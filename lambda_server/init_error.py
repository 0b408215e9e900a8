"""A runtime that reports an init error and ends: its arguments are the type and the message.

``lambda-server dev`` runs it in place of a function whose own rapid cannot start, so that callers
of the function read why. Source: Lambda runtime API, "Initialization error".
"""

from __future__ import annotations

import http.client
import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Final

_PATH: Final = "/2018-06-01/runtime/init/error"
_LIMIT_S: Final = 10.0


def main(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """Report the error of ``arguments``, its type and its message; return the exit code."""
    error_type, message = arguments[:2]
    body = json.dumps({"errorMessage": message, "errorType": error_type, "stackTrace": []})
    headers = {"Lambda-Runtime-Function-Error-Type": error_type}
    runtime_api = environ["AWS_LAMBDA_RUNTIME_API"]
    connection = http.client.HTTPConnection(runtime_api, timeout=_LIMIT_S)
    connection.request("POST", _PATH, body, headers)
    connection.getresponse().read()
    connection.close()
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
