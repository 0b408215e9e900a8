"""The checklist: what an AWS client, runtime or extension may count on, one row an item.

A row is covered by tests marked ``@pytest.mark.conformance(number)``, or says why it comes later.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Programs(StrEnum):
    """Which of our programs the claim is about."""

    BOTH = "both"  #: every way to the Invoke API: a rapid's own, a Server over broker, or direct
    SERVER = "Server"
    RAPID = "rapid"


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One claim."""

    number: int
    section: str
    claim: str  #: one sentence
    programs: Programs
    later: str | None = None  #: why it is not covered yet; None: it is
    how: str = ""  #: what a reader of the table must know of the test


def _section(
    title: str, programs: Programs, *rows: tuple[int, str] | tuple[int, str, dict[str, str]]
) -> tuple[Item, ...]:
    """Return the rows of one section; a third element changes a row's other fields."""
    items = []
    for number, claim, *changes in rows:
        fields = changes[0] if changes else {}
        items.append(
            Item(
                number=number,
                section=title,
                claim=claim,
                programs=Programs(fields.get("programs", programs)),
                later=fields.get("later"),
                how=fields.get("how", ""),
            )
        )
    return tuple(items)


def _later(reason: str) -> dict[str, str]:
    return {"later": reason}


def _how(text: str) -> dict[str, str]:
    return {"how": text}


_STREAMING: Final = _later("response streaming (InvokeWithResponseStream) is not built yet")
_SERVER: Final = {"programs": "Server"}
_RAPID: Final = {"programs": "rapid"}

ITEMS: Final[tuple[Item, ...]] = (
    *_section(
        "Invoke: success",
        Programs.BOTH,
        (
            1,
            "A JSON payload is answered 200, application/json, with the runtime's bytes as posted.",
        ),
        (2, "x-amzn-RequestId of the answer is the request id that the runtime was given."),
        (3, "The answer names the executed version and no function error."),
        (4, "An Event is answered 202, empty, with a request id and no version, before it is run."),
        (5, "A DryRun is answered 204, empty, and the function does not run."),
        (6, "Without an invocation type the call is synchronous."),
        (7, "Log type Tail adds the last 4,096 bytes of the log at most, up to the REPORT line."),
        (8, "There is no log result without Tail, nor for an Event."),
        (9, "Tail works for a function that fails."),
        (10, "An empty body reaches the function as {}."),
        (11, "JSON scalars are payloads like any other."),
        (12, "A request without a Content-Type is served: boto3 sends none."),
        (13, "A request with the Content-Type of a form is served: curl -d sends that."),
        (14, "A chunked request body is read."),
        (15, "100 boto3 calls in a row use one TCP connection."),
        (16, "The client context reaches the runtime decoded."),
        (
            17,
            "The caller's trace header reaches the runtime verbatim; a new one when there is none.",
        ),
        (18, "The tenant id reaches the runtime."),
        (19, "Each call has a request id of its own, also when the SDK's invocation id repeats."),
        (20, "boto3's invoke gives status, version, payload bytes and a log result that decodes."),
        (21, "aws lambda invoke --log-type Tail succeeds."),
    ),
    *_section(
        "Function names",
        Programs.BOTH,
        (22, "Name, partial ARN and full ARN, with or without qualifier, mean the same function."),
        (23, "Percent-encoded colons and dollar signs in the path are decoded."),
        (24, "Two different qualifiers in name and query: 400 InvalidParameterValueException."),
        (25, "A malformed function name: 400 ValidationException."),
        (26, "An unknown function: 404 ResourceNotFoundException that names its ARN.", _SERVER),
        (27, "A rapid always serves the name function.", _RAPID),
        (
            28,
            "The ARN given to the runtime has a qualifier if, and only if, the caller gave one.",
        ),
    ),
    *_section(
        "Invoke: errors",
        Programs.BOTH,
        (29, "Every error carries type, request id and JSON, and boto3 raises the class it names."),
        (30, "A payload that is not JSON: 400 InvalidRequestContentException, for Events too."),
        (31, "A client context that is no base64 JSON object: 400 InvalidRequestContentException."),
        (32, "A synchronous payload of 6,291,456 bytes passes, one byte more is 413."),
        (33, "An Event of 1,048,576 bytes passes, one byte more is 413."),
        (34, "With every environment busy: 429 TooManyRequestsException with a Reason."),
        (35, "An unknown path is 404, a known one with GET is 405, both as JSON."),
        (36, "An unknown invocation type: 400 InvalidParameterValueException."),
        (37, "A fault of ours: 500 ServiceException of Type Service."),
        (38, "What the function does wrong is never a 5xx."),
    ),
    *_section(
        "Function errors",
        Programs.BOTH,
        (39, "A handler's error: 200, Unhandled, and the bytes that the runtime posted."),
        (40, "Exit 1 while handling: Runtime.ExitError, exit status 1."),
        (41, "Exit 0 while handling: Runtime.ExitError, without providing a reason."),
        (42, "Death by SIGKILL: Runtime.ExitError, signal: killed."),
        (43, "A timeout: 200, Unhandled, Sandbox.Timedout with the limit in seconds."),
        (44, "A timeout is answered at the deadline, within half a second."),
        (45, "After a timeout a new process serves, with a fresh memory and the same /tmp."),
        (46, "After an exit a new process serves."),
        (47, "An init error that the runtime posts is the answer, Unhandled."),
        (48, "A missing bootstrap: Runtime.InvalidEntrypoint, and the daemon stays up."),
        (
            49,
            "A response of 6,291,557 bytes: Function.ResponseSizeTooLarge, and 413 to the runtime.",
        ),
        (50, "A response of 6,291,556 bytes passes."),
        (51, "awslambdaric's exit after that 413 changes nothing for the caller or the next call."),
        (
            52,
            "A base image whose exec wrapper is missing: Runtime.ExitError, exit status 127.",
            _how("our own bootstrap script, written after the base images'"),
        ),
        (53, "The caller has the answer when the runtime has posted it, extensions busy or not."),
    ),
    *_section(
        "Response streaming",
        Programs.BOTH,
        (
            54,
            "boto3's invoke_with_response_stream gives the chunks and one InvokeComplete.",
            _STREAMING,
        ),
        (55, "The first chunk arrives while the handler still runs.", _STREAMING),
        (56, "The framing is AWS's event stream, byte by byte.", _STREAMING),
        (57, "A handler's error is an InvokeComplete with ErrorCode Unhandled.", _STREAMING),
        (58, "Error trailers are an InvokeComplete error.", _STREAMING),
        (59, "Log type Tail puts the log result into InvokeComplete.", _STREAMING),
        (60, "On the streaming path DryRun is 204 and Event is 400.", _STREAMING),
        (61, "Errors before the stream are plain JSON errors.", _STREAMING),
        (62, "A buffered function can be called by the streaming operation.", _STREAMING),
        (63, "A streaming function called by Invoke gives its body, or its error, in one answer."),
        (
            64,
            "Response mode Streaming or foo: 400 InvalidFunctionResponseMode, and an error.",
        ),
    ),
    *_section(
        "InvokeAsync and Event",
        Programs.BOTH,
        (65, "The old invoke-async operation is answered 202 and runs the function."),
        (66, "A failing event runs three times with one request id."),
        (67, "With no retry attempts an event runs once."),
        (68, "An event over its maximum age is dropped: EventAgeExceeded."),
        (69, "The record of a failed event has AWS's form."),
        (70, "The record of a successful event has AWS's form."),
    ),
    *_section(
        "Runtime API",
        Programs.RAPID,
        (71, "next: 200, application/json, Content-Length and every header, in AWS's spelling."),
        (72, "Optional headers of next without a value are absent."),
        (73, "The deadline is the start plus the timeout, in epoch milliseconds."),
        (
            74,
            "next stays open without a byte for as long as there is no event.",
            _how(
                "an in-process listener whose 30 s receive limit is cut to 1 s, parked for over 3"
            ),
        ),
        (75, "A response to the right request id: 202 and status OK."),
        (
            76,
            "A response to another request id: 400 InvalidRequestID; the right one still counts.",
        ),
        (77, "A second response: 403 InvalidStateTransition; the caller keeps the first."),
        (78, "A response before next: 400 InvalidRequestID."),
        (79, "next twice without an answer gives the same event."),
        (80, "init/error after the first next: 403."),
        (81, "Every 4xx and 5xx has a Content-Type, without which awslambdaric crashes."),
        (82, "A chunked post with declared trailers is read whole, on a connection that lives on."),
        (83, "A header of 1 MiB is taken."),
        (84, "A body shorter than announced is refused and fails the call, not the daemon."),
        (85, "Connection: close is honoured, and errors leave a keep-alive connection open."),
        (86, "Expect: 100-continue is honoured."),
        (87, "ping answers pong."),
        (88, "restore/next is 404, and 200 when SnapStart is simulated."),
        (89, "AWS's clients for Python, Node.js, Go, Rust and Java: 100 calls and an error each."),
    ),
    *_section(
        "Lifecycle",
        Programs.RAPID,
        (
            90,
            "Without a command the bootstrap of /var/task, /opt, /var/runtime runs, in /var/task.",
            _how("the order by unit test on a folder; a real run in a mount namespace"),
        ),
        (91, "rapid python -m awslambdaric app.handler keeps the directory and sets _HANDLER."),
        (92, "With one argument, _HANDLER comes from the environment."),
        (
            93,
            "A base image with rapid in place of aws-lambda-rie works unchanged.",
            _how("our own entrypoint script, written after the base images', on the true paths"),
        ),
        (
            94,
            "A base image with rapid as outer entrypoint works.",
            _how("as 93"),
        ),
        (95, "aws-lambda-rie's flags are honoured in both forms, = and space."),
        (
            96,
            "The runtime has every reserved variable, and the container's own.",
            _how("credentials are those the container was given"),
        ),
        (97, "Extensions do not get _HANDLER and the other variables that are not for them."),
        (
            98,
            "An init over its limit is reported as a timeout, and done again at the first call.",
            _how("with a limit of 1 s instead of 10"),
        ),
        (99, "On SIGTERM extensions hear SHUTDOWN SPINDOWN, all ends within 2 s, exit status 0."),
        (100, "Orphaned grandchildren are killed and reaped at a reset."),
    ),
    *_section(
        "Extensions",
        Programs.RAPID,
        (101, "Extensions start before the runtime, which starts once all have registered."),
        (102, "register answers 200, an id and the function; the account id only when asked."),
        (103, "An extension without a name: 403 Extension.InvalidExtensionName."),
        (104, "An unknown event, or SHUTDOWN for an internal one: 403 Extension.InvalidEventType."),
        (105, "A second registration, an eleventh extension and a late one get their 403s."),
        (106, "Registering for null events works; such a next blocks and counts for init."),
        (107, "INVOKE events carry deadline, request id, ARN and trace."),
        (108, "The next call waits until every INVOKE extension is back in next."),
        (109, "An extension that does not come back is a timeout at the function's deadline."),
        (110, "SHUTDOWN says TIMEOUT after a timeout and FAILURE after a crash."),
        (111, "An extension's exit while handling: Extension.Crash, and a reset."),
        (112, "init/error and exit/error need their type header (403), and get 202 with it."),
        (113, "A missing, invalid or unknown identifier: 403 of its own type each."),
    ),
    *_section(
        "Telemetry and logs",
        Programs.RAPID,
        (114, "Subscribing to telemetry is checked, and closed after init."),
        (115, "Subscribing to logs with schema 2021-03-18 works."),
        (116, "A subscriber gets the platform's and the function's records in order."),
        (117, "A destination's host name and path are honoured."),
        (118, "A dead subscriber blocks nobody, and is told what it missed."),
        (119, "START, END and REPORT share the request id; Init Duration is last, and only cold."),
        (120, "With log format JSON the platform's lines are objects of time, type and record."),
        (121, "A multi-line message on the log descriptor is one record."),
        (122, "Partial lines, lines of 1 MB and bytes that are no UTF-8 pass, also in the tail."),
    ),
    *_section(
        "Newer features",
        Programs.RAPID,
        (
            123,
            "With AWS_LAMBDA_MAX_CONCURRENCY=4, four nexts get four calls, answered in any order.",
            {"programs": "both"},
        ),
        (124, "In that mode a late response is 410 once, then 400."),
        (125, "Two tenants never share an environment.", {"programs": "both"}),
        (126, "The metadata endpoint answers with its token and is 401 without."),
        (
            127,
            "next gives each attempt an invocation id; an answer that echoes a stale one is 410.",
        ),
    ),
)

BY_NUMBER: Final = {item.number: item for item in ITEMS}
