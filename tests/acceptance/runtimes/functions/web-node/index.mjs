// The demo site of Express, behind serverless-http.
import { createHash } from "node:crypto";
import express from "express";
import multer from "multer";
import serverless from "serverless-http";

const app = express();
const forms = express.urlencoded({ extended: false });
const files = multer({ storage: multer.memoryStorage() });

app.get("/", (request, response) => {
  response.type("html").send(`<p>Hello ${request.query.name ?? "you"}</p>`);
});

app.post("/form", forms, (request, response) => {
  response.json({ name: request.body.name, text: request.body.text });
});

app.post("/upload", files.single("file"), ({ file }, response) => {
  const sha256 = createHash("sha256").update(file.buffer).digest("hex");
  response.json({ name: file.originalname, sha256 });
});

app.post("/login", forms, (request, response) => {
  response.cookie("name", request.body.name, { httpOnly: true });
  response.cookie("seen", "1");
  response.redirect(303, "/me");
});

app.get("/me", (request, response) => {
  const [, name] = /(?:^|; )name=([^;]*)/.exec(request.headers.cookie ?? "") ?? [];
  response.json({ name });
});

app.get("/download", (_, response) => {
  response.type("application/octet-stream").send(Buffer.from([...Array(256).keys()]));
});

app.get("/events", (_, response) => {
  response.type("text/event-stream");
  for (const number of [1, 2]) response.write(`data: ${number}\n\n`);
  response.end();
});

export const handler = serverless(app, { binary: ["application/octet-stream"] });
