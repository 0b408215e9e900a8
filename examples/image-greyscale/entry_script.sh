#!/bin/sh
# Starts the function. AWS Lambda sets AWS_LAMBDA_RUNTIME_API, and rapid does too; where nobody has,
# rapid goes first: it stands where AWS's images have their emulator.
# Source: AWS Lambda Developer Guide, "Using an alternative base image".
if [ -z "${AWS_LAMBDA_RUNTIME_API}" ]; then
    exec /usr/local/bin/aws-lambda-rie /opt/runtime/bin/python -m awslambdaric "$@"
else
    exec /opt/runtime/bin/python -m awslambdaric "$@"
fi
