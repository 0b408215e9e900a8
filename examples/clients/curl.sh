#!/usr/bin/env bash
# Calls a function with curl and prints its answer.
#
#   curl.sh [FUNCTION [PAYLOAD [ENDPOINT]]]
#
# Exit status: 0 the function answered, 1 it failed, 2 the call failed.
set -euo pipefail

function=${1:-echo-lambda}
payload=${2:-'{"hello": "world"}'}
endpoint=${3:-http://127.0.0.1:8080}

headers=$(mktemp)
trap 'rm -f "$headers"' EXIT

curl --silent --show-error --fail-with-body --dump-header "$headers" \
    --header 'Content-Type: application/json' --data-raw "$payload" \
    "$endpoint/2015-03-31/functions/$function/invocations" || exit 2
echo

# A function that failed is a call that succeeded: its status is 200, and only this header tells.
if grep -Fi X-Amz-Function-Error: "$headers" >&2; then
    exit 1
fi
