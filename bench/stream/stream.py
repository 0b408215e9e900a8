#!/usr/bin/env python3
"""A custom runtime that streams as many bytes as the event asks for: {"bytes": 1}."""

import http.client
import json
import os
import socket

ADDRESS = os.environ["AWS_LAMBDA_RUNTIME_API"]
RUNTIME = "/2018-06-01/runtime/invocation"
PART = bytes(65_536)

runtime_api = http.client.HTTPConnection(ADDRESS)
runtime_api.connect()
runtime_api.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
while True:
    runtime_api.request("GET", f"{RUNTIME}/next")
    invocation = runtime_api.getresponse()
    left = json.loads(invocation.read())["bytes"]
    request_id = invocation.headers["Lambda-Runtime-Aws-Request-Id"]
    runtime_api.putrequest("POST", f"{RUNTIME}/{request_id}/response")
    runtime_api.putheader("Lambda-Runtime-Function-Response-Mode", "streaming")
    runtime_api.putheader("Transfer-Encoding", "chunked")
    runtime_api.endheaders()
    while left:
        part = PART[:left]
        runtime_api.send(b"%x\r\n%b\r\n" % (len(part), part))
        left -= len(part)
    runtime_api.send(b"0\r\n\r\n")
    runtime_api.getresponse().read()
