// Calls functions with AWS's SDK for JavaScript; see caller_rows.py for its lines.
import { createInterface } from "node:readline";
import { writeFileSync } from "node:fs";
import {
  InvokeCommand,
  InvokeWithResponseStreamCommand,
  LambdaClient,
} from "@aws-sdk/client-lambda";

const client = new LambdaClient({
  endpoint: process.argv[2],
  region: "us-east-1",
  credentials: { accessKeyId: "dummy", secretAccessKey: "dummy" },
  maxAttempts: 1,
});

async function call(InvocationType, FunctionName, Payload) {
  try {
    if (InvocationType === "Stream") return await stream(FunctionName, Payload);
    const answer = await client.send(new InvokeCommand({ FunctionName, InvocationType, Payload }));
    const payload = Buffer.from(answer.Payload ?? []);
    return ["ok", answer.StatusCode, answer.FunctionError ?? "", payload.toString()];
  } catch (error) {
    return ["exception", error.name, error.$metadata.httpStatusCode, error.message];
  }
}

// Makes the file FIRST_PART when the first part has come.
async function stream(FunctionName, Payload) {
  const command = new InvokeWithResponseStreamCommand({ FunctionName, Payload });
  const answer = await client.send(command);
  const parts = [];
  let code = "no end";
  for await (const event of answer.EventStream) {
    if (event.PayloadChunk) parts.push(Buffer.from(event.PayloadChunk.Payload));
    if (event.InvokeComplete) code = event.InvokeComplete.ErrorCode ?? "";
    if (parts.length === 1) writeFileSync(process.env.FIRST_PART, "");
  }
  return ["ok", answer.StatusCode, code, Buffer.concat(parts).toString()];
}

for await (const line of createInterface({ input: process.stdin })) {
  console.log((await call(...line.split("\t"))).join("\t"));
}
