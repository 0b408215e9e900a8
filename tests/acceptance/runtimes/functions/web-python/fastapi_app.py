"""The demo site of FastAPI, behind Mangum."""

import hashlib
from typing import Annotated

from fastapi import Cookie, FastAPI, Form, UploadFile
from fastapi.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from mangum import Mangum

app = FastAPI()


@app.get("/", response_class=HTMLResponse)
def page(name: str = "you") -> str:
    return f"<p>Hello {name}</p>"


@app.post("/form")
def form(name: Annotated[str, Form()], text: Annotated[str, Form()]) -> dict[str, str]:
    return {"name": name, "text": text}


@app.post("/upload")
def upload(file: UploadFile) -> dict[str, str]:
    return {"name": file.filename or "", "sha256": hashlib.sha256(file.file.read()).hexdigest()}


@app.post("/login")
def login(name: Annotated[str, Form()]) -> Response:
    response = RedirectResponse("/me", status_code=303)
    response.set_cookie("name", name, httponly=True)
    response.set_cookie("seen", "1")
    return response


@app.get("/me")
def me(name: Annotated[str, Cookie()]) -> dict[str, str]:
    return {"name": name}


@app.get("/download")
def download() -> Response:
    return Response(bytes(range(256)), media_type="application/octet-stream")


@app.get("/events")
def events() -> Response:
    return StreamingResponse(
        (f"data: {number}\n\n" for number in (1, 2)), media_type="text/event-stream"
    )


handler = Mangum(app, lifespan="off")
