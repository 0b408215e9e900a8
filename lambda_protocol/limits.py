"""Every number that comes from outside, once, with its source and the date it was checked.

Source unless said otherwise: Lambda developer guide, "Lambda quotas" (checked 2026-11).
"""

from __future__ import annotations

from typing import Final

#: Largest payload of a synchronous invocation, bytes.
SYNC_PAYLOAD_BYTES: Final = 6_291_456
#: Largest payload of an asynchronous invocation, bytes (262,144 until late 2025).
ASYNC_PAYLOAD_BYTES: Final = 1_048_576
#: Largest buffered response of a function, bytes. Source: aws-lambda-rie, interop.
RESPONSE_PAYLOAD_BYTES: Final = 6_291_556
#: Largest streamed response of a function, bytes, and how much of it is never slowed down.
STREAMED_BYTES: Final = 200 * 1_048_576
UNPACED_BYTES: Final = 6 * 1_048_576
#: Longest ``X-Amz-Client-Context``, bytes of base64. Source: API_Invoke.
CLIENT_CONTEXT_BYTES: Final = 3_583
#: How much of an invocation's log ``X-Amz-Log-Result`` carries. Source: API_Invoke.
LOG_TAIL_BYTES: Final = 4_096
#: Longest function name in any of its forms, characters. Source: API_Invoke, FunctionName.
FUNCTION_NAME_CHARS: Final = 256
#: Longest name of a queue, bytes. Source: AMQP 0-9-1 specification, short strings.
QUEUE_NAME_BYTES: Final = 255
#: Longest qualifier, characters. Source: API_Invoke, Qualifier.
QUALIFIER_CHARS: Final = 128

#: Function timeout, seconds: the most that AWS allows, and the most that rapid does (our choice).
FUNCTION_TIMEOUT_MAX_S: Final = 900
FUNCTION_TIMEOUT_LIMIT_S: Final = 86_400
#: Init phase of an on-demand function, seconds.
#: Source: Lambda developer guide, "Lambda execution environment lifecycle".
INIT_TIMEOUT_S: Final = 10.0
#: The age at which an asynchronous invocation is discarded, seconds: the default, and the least.
#: Source: API_PutFunctionEventInvokeConfig.
EVENT_AGE_MAX_S: Final = 21_600
EVENT_AGE_MIN_S: Final = 60

#: How long a call may wait unstarted before it is refused, seconds (our choice).
INVOKE_QUEUE_TIMEOUT_S: Final = 30.0
#: A call not answered this long after its arrival is announced to the caller's server, seconds.
STARTED_FRAME_AFTER_S: Final = 1.0
#: The longest time until its answer that such an announcement may name, seconds (our choice).
ANNOUNCED_MAX_S: Final = FUNCTION_TIMEOUT_LIMIT_S
#: What a waiting server adds to a deadline it was told, for the way back, seconds.
REPLY_GRACE_S: Final = 2.0
