// Calls functions with AWS's SDK for JavaScript; see caller_rows.py for its lines.
import { createInterface } from "node:readline";
import { InvokeCommand, LambdaClient } from "@aws-sdk/client-lambda";

const client = new LambdaClient({
  endpoint: process.argv[2],
  region: "us-east-1",
  credentials: { accessKeyId: "dummy", secretAccessKey: "dummy" },
  maxAttempts: 1,
});

async function call(InvocationType, FunctionName, Payload) {
  try {
    const answer = await client.send(new InvokeCommand({ FunctionName, InvocationType, Payload }));
    const payload = Buffer.from(answer.Payload ?? []);
    return ["ok", answer.StatusCode, answer.FunctionError ?? "", payload.toString()];
  } catch (error) {
    return ["exception", error.name, error.$metadata.httpStatusCode, error.message];
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  console.log((await call(...line.split("\t"))).join("\t"));
}
