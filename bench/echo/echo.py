#!/usr/bin/env python3
"""Echo for machines without Go: a custom runtime on the standard library alone."""

import http.client
import os

runtime_api = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
while True:
    runtime_api.request("GET", "/2018-06-01/runtime/invocation/next")
    invocation = runtime_api.getresponse()
    payload = invocation.read()
    request_id = invocation.headers["Lambda-Runtime-Aws-Request-Id"]
    runtime_api.request("POST", f"/2018-06-01/runtime/invocation/{request_id}/response", payload)
    runtime_api.getresponse().read()
