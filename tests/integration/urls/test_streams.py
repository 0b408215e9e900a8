"""Function URLs whose answers are sent while their functions write them, on every front."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.integration.urls.conftest import SHOP, Front
from tests.support import RawConnection

PRELUDE = json.dumps(
    {"statusCode": 201, "headers": {"Content-Type": "text/event-stream"}, "cookies": ["a=1", "b=2"]}
)
NULS = "\0" * 8


def ask(front: Front, raw: RawConnection, headers: str = "", **wish: Any) -> None:
    """Ask the function to stream."""
    body = json.dumps(wish).encode()
    head = f"POST {front.prefix}/stream HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
    raw.send(f"{head}{headers}\r\n".encode() + body)


def head_of(raw: RawConnection) -> tuple[int, list[tuple[str, str]]]:
    """Return status and headers of the next answer."""
    lines = raw.read_until(b"\r\n\r\n").decode().split("\r\n")
    fields = [line.partition(": ") for line in lines[1:] if line]
    return int(lines[0].split(" ")[1]), [(name.lower(), value) for name, _, value in fields]


def chunk_of(raw: RawConnection) -> bytes:
    """Return the next chunk of the body, b"" for its end."""
    size = int(raw.read_until(b"\r\n").rstrip(), 16)
    data = raw.read_until(b"\r\n")
    while len(data) < size + 2:
        data += raw.read_until(b"\r\n")
    return data[:-2]


def whole_of(raw: RawConnection) -> bytes:
    """Return the rest of the body."""
    return b"".join(iter(lambda: chunk_of(raw), b""))


def test_a_part_arrives_before_the_function_ends(streaming: Front, tmp_path: Path) -> None:
    file = tmp_path / "go"
    with streaming.raw() as raw:
        ask(streaming, raw, parts=[PRELUDE + NULS + "data: 1\n\n", "data: 2\n\n"], until=str(file))

        status, headers = head_of(raw)
        assert status == 201
        assert [value for name, value in headers if name == "set-cookie"] == ["a=1", "b=2"]
        assert ("content-type", "text/event-stream") in headers
        assert ("x-accel-buffering", "no") in headers
        assert ("transfer-encoding", "chunked") in headers
        assert {"x-amzn-requestid", "x-amzn-trace-id"} <= {name for name, _ in headers}
        assert chunk_of(raw) == b"data: 1\n\n"
        file.touch()
        assert whole_of(raw) == b"data: 2\n\n"


def test_the_head_arrives_before_the_body(streaming: Front, tmp_path: Path) -> None:
    file = tmp_path / "go"
    with streaming.raw() as raw:
        ask(streaming, raw, parts=[PRELUDE + NULS, "late"], until=str(file))

        assert head_of(raw)[0] == 201
        file.touch()
        assert whole_of(raw) == b"late"


def test_a_prelude_may_come_byte_by_byte(streaming: Front) -> None:
    with streaming.raw() as raw:
        for _ in range(2):  # the connection goes on
            ask(streaming, raw, parts=[*PRELUDE, *NULS, "body"])

            assert head_of(raw)[0] == 201
            assert whole_of(raw) == b"body"


def test_a_stream_without_a_prelude_has_the_runtimes_type(streaming: Front) -> None:
    with streaming.raw() as raw:
        ask(streaming, raw, parts=["<p>", "</p>"], type="text/html")

        status, headers = head_of(raw)
        assert (status, dict(headers)["content-type"]) == (200, "text/html")
        assert whole_of(raw) == b"<p></p>"


def test_a_buffered_handler_is_passed_on_as_it_is(streaming: Front) -> None:
    answer = streaming.answer({"statusCode": 404})

    assert (answer.status, answer.json()) == (200, {"statusCode": 404})


@pytest.mark.parametrize("status", [204, 304])
def test_what_has_no_body_ends_with_its_head(streaming: Front, status: int) -> None:
    prelude = json.dumps({"statusCode": status})
    with streaming.raw() as raw:
        for _ in range(2):
            ask(streaming, raw, parts=[prelude + NULS, "dropped", "dropped"])

            got, headers = head_of(raw)
            assert got == status
            assert not {"content-length", "transfer-encoding"} & {name for name, _ in headers}


@pytest.mark.parametrize(
    "wish",
    [
        {"parts": [PRELUDE]},
        {"parts": ["{}}", NULS, "body"]},
        {"parts": ['{"statusCode":7}' + NULS]},
        {"parts": []},
    ],
    ids=["no end", "no JSON", "no status", "nothing"],
)
def test_a_prelude_that_is_none_is_502(streaming: Front, wish: dict[str, Any]) -> None:
    answer = streaming.request("POST", "/stream", json.dumps(wish).encode())

    assert (answer.status, answer.body) == (502, b"Internal Server Error")


@pytest.mark.parametrize("path", ["/error", "/exit"])
def test_an_error_before_the_first_byte_is_502(streaming: Front, path: str) -> None:
    answer = streaming.get(path, Origin=SHOP)

    assert (answer.status, answer.body) == (502, b"Internal Server Error")
    assert answer.headers["Access-Control-Allow-Origin"] == SHOP


@pytest.mark.parametrize("then", ["exit", "error"])
def test_an_error_after_the_first_byte_cuts_the_connection(
    streaming: Front, tmp_path: Path, then: str
) -> None:
    file = tmp_path / "go"
    with streaming.raw() as raw:
        parts = [PRELUDE + NULS + "one", "two"]
        ask(streaming, raw, parts=parts, until=str(file), then=then)
        assert head_of(raw)[0] == 201
        assert chunk_of(raw) == b"one"
        file.touch()

        rest = raw.read_to_end()
    assert b"0\r\n\r\n" not in rest
    assert streaming.get("/x").status == 200


def test_a_page_reads_a_stream_if_its_origin_may(streaming: Front) -> None:
    with streaming.raw() as raw:
        ask(streaming, raw, f"Origin: {SHOP}\r\n", parts=[PRELUDE + NULS, "x"])

        _, headers = head_of(raw)
        assert ("access-control-allow-origin", SHOP) in headers
        assert whole_of(raw) == b"x"


def test_head_has_no_body(streaming: Front) -> None:
    with streaming.raw() as raw:
        for _ in range(2):
            raw.send(f"HEAD {streaming.prefix}/x HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert head_of(raw)[0] == 200


def test_a_caller_of_http_1_0_reads_to_the_end(streaming: Front) -> None:
    body = json.dumps({"parts": [PRELUDE + NULS, "one", "two"]}).encode()
    head = f"POST {streaming.prefix}/stream HTTP/1.0\r\nContent-Length: {len(body)}\r\n\r\n"
    with streaming.raw() as raw:
        raw.send(head.encode() + body)

        status, headers = head_of(raw)
        assert (status, "transfer-encoding" in dict(headers)) == (201, False)
        assert raw.read_to_end() == b"onetwo"


def test_a_caller_that_leaves_a_stream_costs_no_environment(
    streaming: Front, tmp_path: Path
) -> None:
    for number in range(4):
        file = tmp_path / str(number)
        with streaming.raw() as raw:
            ask(streaming, raw, parts=[PRELUDE + NULS + "one", "two"], until=str(file))
            assert head_of(raw)[0] == 201
            chunk_of(raw)
        file.touch()

    assert [streaming.get("/x").status for _ in range(4)] == [200] * 4


def test_a_url_that_does_not_stream_collects_a_stream(front: Front) -> None:
    with front.raw() as raw:
        for _ in range(2):
            ask(front, raw, parts=[*PRELUDE, NULS, "one", "two"])

            answer = raw.read_answer()
            assert (answer.status, answer.body) == (201, b"onetwo")
            assert answer.headers["Content-Type"] == "text/event-stream"
            assert answer.headers.get_all("Set-Cookie") == ["a=1", "b=2"]
