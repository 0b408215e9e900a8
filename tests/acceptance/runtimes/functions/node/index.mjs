// The behaviours of the matrix for aws-lambda-ric.
import { existsSync } from "node:fs";
import { setTimeout } from "node:timers/promises";

if (process.env.FAIL_INIT) throw new Error("init on purpose");

let calls = 0;

// Does what event.do asks for; any other event is answered with itself.
export const handler = async (event, context) => {
  calls += 1;
  switch (event?.do) {
    case "fail":
      return fail();
    case "context":
      return describe(context);
    case "count":
      return { n: event.n, count: calls };
    case "sleep":
      return setTimeout(event.seconds * 1000, event);
    case "size":
      return { bytes: event.data.length };
    case "big":
      return "x".repeat(event.bytes - '""'.length);
    default:
      return event;
  }
};

// Writes event.parts, the second when there is the file event.until; then fails if event.fails.
export const stream = globalThis.awslambda?.streamifyResponse(async (event, response) => {
  response.setContentType("text/x");
  for (const [number, part] of event.parts.entries()) {
    while (number === 1 && !existsSync(event.until)) await setTimeout(5);
    response.write(part);
  }
  if (event.fails) throw new RangeError("in the middle");
  response.end();
});

function fail() {
  throw new RangeError("on purpose");
}

function describe(context) {
  return {
    request_id: context.awsRequestId,
    arn: context.invokedFunctionArn,
    name: context.functionName,
    version: context.functionVersion,
    memory_mb: Number(context.memoryLimitInMB),
    remaining_ms: context.getRemainingTimeInMillis(),
    trace_id: process.env._X_AMZN_TRACE_ID,
    client_context: context.clientContext?.custom ?? null,
  };
}
