"""The demo site of Flask, behind a WSGI adapter."""

import hashlib

from apig_wsgi import make_lambda_handler
from flask import Flask, Response, redirect, request

app = Flask(__name__)


@app.get("/")
def page() -> str:
    return f"<p>Hello {request.args.get('name', 'you')}</p>"


@app.post("/form")
def form() -> dict[str, str]:
    return {"name": request.form["name"], "text": request.form["text"]}


@app.post("/upload")
def upload() -> dict[str, str]:
    file = request.files["file"]
    return {"name": file.filename or "", "sha256": hashlib.sha256(file.read()).hexdigest()}


@app.post("/login")
def login() -> Response:
    response = redirect("/me", 303)
    response.set_cookie("name", request.form["name"], httponly=True)
    response.set_cookie("seen", "1")
    return response


@app.get("/me")
def me() -> dict[str, str]:
    return {"name": request.cookies["name"]}


@app.get("/download")
def download() -> Response:
    return Response(bytes(range(256)), mimetype="application/octet-stream")


@app.get("/events")
def events() -> Response:
    return Response((f"data: {number}\n\n" for number in (1, 2)), mimetype="text/event-stream")


handler = make_lambda_handler(app, binary_support=True)
