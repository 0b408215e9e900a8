"""The names of headers, as AWS spells them; HTTP and AMQP messages have the same.

Source: API_Invoke. Names that begin with ``X-Lambda-`` are this project's own.
"""

from __future__ import annotations

from typing import Final

# Of an invocation.
INVOCATION_TYPE: Final = "X-Amz-Invocation-Type"
LOG_TYPE: Final = "X-Amz-Log-Type"
CLIENT_CONTEXT: Final = "X-Amz-Client-Context"
TRACE_ID: Final = "X-Amzn-Trace-Id"
TENANT_ID: Final = "X-Amz-Tenant-Id"
#: In a message only: a URL has it as the parameter ``Qualifier``.
QUALIFIER: Final = "X-Amz-Function-Qualifier"
#: In a request from Lambda Server to rapid: the request id that the invocation has already.
RELAYED_REQUEST_ID: Final = "X-Lambda-Request-Id"
#: In a message, 1: a Lambda Server has checked the invocation and chosen its request id, which is
#: the correlation id.
RELAYED: Final = "X-Lambda-Relayed"
#: In a message, 1: this client understands frames. Without it there is one reply and nothing else.
FRAMES: Final = "X-Lambda-Frames"
#: In a message: when it was sent, milliseconds on a clock that only its sender reads. A client that
#: says so answers the frame ``wanted``.
SENT_MS: Final = "X-Lambda-Sent-Ms"

# Of an outcome.
REQUEST_ID: Final = "x-amzn-RequestId"
ERROR_TYPE: Final = "x-amzn-ErrorType"
EXECUTED_VERSION: Final = "X-Amz-Executed-Version"
FUNCTION_ERROR: Final = "X-Amz-Function-Error"
LOG_RESULT: Final = "X-Amz-Log-Result"
#: In a reply: the HTTP status, and the error code of an error.
STATUS: Final = "X-Lambda-Status"
ERROR_CODE: Final = "X-Lambda-Error-Type"

#: In an answer from rapid to Lambda Server: the content type of a streamed response.
RESPONSE_CONTENT_TYPE: Final = "X-Lambda-Response-Content-Type"

# Of frames.
#: In a reply: which frame this is; absent from the last one.
FRAME: Final = "X-Lambda-Frame"
#: In the frame ``started``: 1 if the function runs the call, and when it is answered at the latest.
RUNNING: Final = "X-Lambda-Running"
ANSWERED_WITHIN_MS: Final = "X-Lambda-Answered-Within-Ms"
#: In a message: the response is wanted while it is written, and so many bytes may be sent before
#: there is more credit. In the frame ``credit``: how many may be sent in all.
CREDIT: Final = "X-Lambda-Credit"
#: In the frames of a response: the number of this one, from 0.
SEQUENCE: Final = "X-Lambda-Sequence"
#: In the answer to the frame ``wanted``: 1 or 0.
WANTED: Final = "X-Lambda-Wanted"

# Of an asynchronous invocation.
#: Which attempt a message is for, from 1.
ATTEMPT: Final = "X-Lambda-Attempt"
#: When the invocation was accepted, epoch milliseconds.
FIRST_QUEUED_MS: Final = "X-Lambda-First-Queued-Ms"
#: How often a throttle or a fault of the service has delayed it.
BACKOFFS: Final = "X-Lambda-Backoffs"
# Of a dead letter. Source: Lambda developer guide, "Dead-letter queues", message attributes.
DEAD_REQUEST_ID: Final = "RequestID"
DEAD_ERROR_CODE: Final = "ErrorCode"
DEAD_ERROR_MESSAGE: Final = "ErrorMessage"
