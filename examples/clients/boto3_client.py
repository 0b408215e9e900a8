#!/usr/bin/env python3
"""Calls a function with boto3 and prints its answer.

    boto3_client.py [FUNCTION [PAYLOAD [ENDPOINT]]]

Exit status: 0 the function answered, 1 it failed, 2 the call failed.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass

import boto3
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

FUNCTION_FAILED = 1
CALL_FAILED = 2

#: No signature: nobody checks it, so no credentials are needed. The time limit is the longest
#: that a function may have. No retries: each would run the function once more.
CONFIG = Config(signature_version=UNSIGNED, read_timeout=900, retries={"total_max_attempts": 1})


@dataclass(frozen=True)
class Answer:
    """What came of a call that reached the function."""

    payload: bytes
    function_error: str | None  #: ``Unhandled`` when the function failed


def invoke(function_name: str, payload: bytes, endpoint: str) -> Answer:
    """Invoke the function and wait for its answer.

    Raises ``ClientError`` when the call is refused, ``BotoCoreError`` when nobody answers.
    """
    client = boto3.client("lambda", endpoint_url=endpoint, region_name="us-east-1", config=CONFIG)
    answer = client.invoke(FunctionName=function_name, Payload=payload)
    return Answer(answer["Payload"].read(), answer.get("FunctionError"))


def main() -> int:
    """Make one call as the command line says; return the exit status."""
    parser = argparse.ArgumentParser(description="Call a function with boto3.")
    parser.add_argument("function", nargs="?", default="echo-lambda")
    parser.add_argument("payload", nargs="?", default='{"hello": "world"}')
    parser.add_argument("endpoint", nargs="?", default="http://127.0.0.1:8080")
    wish = parser.parse_args()
    try:
        answer = invoke(wish.function, wish.payload.encode(), wish.endpoint)
    except (BotoCoreError, ClientError) as error:
        print(error, file=sys.stderr)
        return CALL_FAILED
    sys.stdout.buffer.write(answer.payload + b"\n")
    if answer.function_error is not None:
        print(f"X-Amz-Function-Error: {answer.function_error}", file=sys.stderr)
        return FUNCTION_FAILED
    return 0


if __name__ == "__main__":
    sys.exit(main())
