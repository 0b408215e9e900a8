#!/usr/bin/env bash
# Calls a function with the aws command, version 1 or 2, and prints its answer.
#
#   aws-cli.sh [FUNCTION [PAYLOAD [ENDPOINT]]]
#
# Exit status: 0 the function answered, 1 it failed, 2 the call failed.
set -euo pipefail

function=${1:-echo-lambda}
payload=${2:-'{"hello": "world"}'}
endpoint=${3:-http://127.0.0.1:8080}

# The command repeats a call that failed, and each repetition would run the function once more.
export AWS_MAX_ATTEMPTS=1

answer=$(mktemp)
trap 'rm -f "$answer"' EXIT

# The command writes the answer to a file. It prints what else came, of which we ask for one member.
# fileb: the two versions read a payload on the command line differently. No signature: nobody
# checks it, so no credentials are needed. The time limit is the longest that a function may have.
function_error=$(
    printf '%s' "$payload" | aws lambda invoke --function-name "$function" \
        --payload fileb:///dev/stdin --endpoint-url "$endpoint" --region us-east-1 \
        --no-sign-request --cli-read-timeout 900 --query FunctionError --output text "$answer"
) || exit 2
cat "$answer"
echo

# A function that failed is a call that succeeded: only this member tells.
if [ "$function_error" != None ]; then
    echo "X-Amz-Function-Error: $function_error" >&2
    exit 1
fi
