"""Ways to say where a request ends, and how each is read or refused. Source: RFC 9112; RFC 9110."""

from __future__ import annotations

GET = b"GET / HTTP/1.1\r\nHost: x\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
NEXT = b"GET /next HTTP/1.1\r\nHost: x\r\n\r\n"

#: What is read: target and body of each request, then the status of a refusal, or "truncated".
Read = list[object]

READ_AS: dict[str, tuple[bytes, Read]] = {
    # Lengths
    "no-body": (POST + b"\r\n" + NEXT, [("/", b""), ("/next", b"")]),
    "length": (POST + b"Content-Length: 2\r\n\r\nab" + NEXT, [("/", b"ab"), ("/next", b"")]),
    "length-0": (POST + b"Content-Length: 0\r\n\r\n" + NEXT, [("/", b""), ("/next", b"")]),
    "length-with-zeros": (POST + b"Content-Length: 02\r\n\r\nab", [("/", b"ab")]),
    "length-in-spaces": (POST + b"Content-Length: \t 2 \t\r\n\r\nab", [("/", b"ab")]),
    "length-of-get": (GET + b"Content-Length: 2\r\n\r\nab" + NEXT, [("/", b"ab"), ("/next", b"")]),
    "length-in-any-case": (POST + b"cOnTeNt-LeNgTh: 2\r\n\r\nab", [("/", b"ab")]),
    "length-empty": (POST + b"Content-Length:\r\n\r\n", [400]),
    "length-negative": (POST + b"Content-Length: -1\r\n\r\na", [400]),
    "length-plus": (POST + b"Content-Length: +1\r\n\r\na", [400]),
    "length-hex": (POST + b"Content-Length: 0x1\r\n\r\na", [400]),
    "length-python": (POST + b"Content-Length: 1_0\r\n\r\na", [400]),
    "length-superscript": (POST + b"Content-Length: \xb2\r\n\r\na", [400]),
    "length-fraction": (POST + b"Content-Length: 1.0\r\n\r\na", [400]),
    "length-two-words": (POST + b"Content-Length: 1 1\r\n\r\na", [400]),
    "length-list": (POST + b"Content-Length: 1, 1\r\n\r\na", [400]),
    "length-endless": (POST + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n", [413]),
    "length-twice": (POST + b"Content-Length: 1\r\n" * 2 + b"\r\na", [400]),
    "length-differs": (POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\na", [400]),
    "length-underscore": (POST + b"Content_Length: 2\r\n\r\n" + NEXT, [("/", b""), ("/next", b"")]),
    # Codings
    "chunked": (CHUNKED + b"2\r\nab\r\n0\r\n\r\n" + NEXT, [("/", b"ab"), ("/next", b"")]),
    "chunked-in-any-case": (
        POST + b"TRANSFER-ENCODING: Chunked\r\n\r\n0\r\n\r\n",
        [("/", b"")],
    ),
    "chunked-and-length": (
        POST + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        [400],
    ),
    "chunked-and-length-0": (
        POST + b"Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n0\r\n\r\n",
        [400],
    ),
    "chunked-twice": (POST + b"Transfer-Encoding: chunked\r\n" * 2 + b"\r\n0\r\n\r\n", [400]),
    "chunked-in-a-list-twice": (
        POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        [400],
    ),
    "gzip": (POST + b"Transfer-Encoding: gzip\r\n\r\n", [400]),
    "gzip-then-chunked": (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", [400]),
    "chunked-then-identity": (
        POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        [400],
    ),
    "identity": (POST + b"Transfer-Encoding: identity\r\n\r\n", [400]),
    "xchunked": (POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", [400]),
    "coding-empty": (POST + b"Transfer-Encoding:\r\n\r\n", [400]),
    "chunked-quoted": (POST + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n', [400]),
    "chunked-after-vertical-tab": (
        POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
        [400],
    ),
    "chunked-of-http-1.0": (
        b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n0\r\n\r\n",
        [400],
    ),
    # Chunks
    "chunk-extension": (CHUNKED + b"2;x=y\r\nab\r\n0\r\n\r\n", [("/", b"ab")]),
    "chunk-upper-case": (CHUNKED + b"A\r\n0123456789\r\n0\r\n\r\n", [("/", b"0123456789")]),
    "chunk-with-zeros": (CHUNKED + b"002\r\nab\r\n000\r\n\r\n", [("/", b"ab")]),
    "chunk-without-size": (CHUNKED + b"\r\nab\r\n0\r\n\r\n", ["truncated"]),
    "chunk-negative": (CHUNKED + b"-2\r\nab\r\n0\r\n\r\n", ["truncated"]),
    "chunk-plus": (CHUNKED + b"+2\r\nab\r\n0\r\n\r\n", ["truncated"]),
    "chunk-0x": (CHUNKED + b"0x2\r\nab\r\n0\r\n\r\n", ["truncated"]),
    "chunk-python": (CHUNKED + b"0_2\r\nab\r\n0\r\n\r\n", ["truncated"]),
    "chunk-17-digits": (CHUNKED + b"0" * 16 + b"2\r\nab\r\n0\r\n\r\n", ["truncated"]),
    "chunk-after-space": (CHUNKED + b" 2\r\nab\r\n0\r\n\r\n", ["truncated"]),
    "chunk-before-space": (CHUNKED + b"2 \r\nab\r\n0\r\n\r\n", ["truncated"]),
    "chunk-vertical-tab": (CHUNKED + b"2\x0b\r\nab\r\n0\r\n\r\n", ["truncated"]),
    "chunk-null": (CHUNKED + b"2\x00\r\nab\r\n0\r\n\r\n", ["truncated"]),
    "chunk-line-feed": (CHUNKED + b"2\nab\r\n0\r\n\r\n", ["truncated"]),
    "chunk-line-feed-in-extension": (CHUNKED + b"2;\nab\r\n0\r\n\r\n", ["truncated"]),
    "chunk-carriage-return-in-extension": (CHUNKED + b"2;\rxx\r\nab\r\n0\r\n\r\n", ["truncated"]),
    "chunk-control-in-extension": (CHUNKED + b"2;\x01\r\nab\r\n0\r\n\r\n", ["truncated"]),
    "chunk-ended-by-line-feed": (CHUNKED + b"2\r\nab\n0\r\n\r\n", ["truncated"]),
    "chunk-longer-than-its-size": (CHUNKED + b"2\r\nabcd\r\n0\r\n\r\n", ["truncated"]),
    # Trailers
    "trailer": (CHUNKED + b"0\r\nA: b\r\n\r\n" + NEXT, [("/", b""), ("/next", b"")]),
    "trailer-without-colon": (CHUNKED + b"0\r\nno colon\r\n\r\n", ["truncated"]),
    "trailer-folded": (CHUNKED + b"0\r\nA: b\r\n c\r\n\r\n", ["truncated"]),
    "trailer-line-feed": (CHUNKED + b"0\r\nA: b\nC: d\r\n\r\n", ["truncated"]),
    "trailer-null": (CHUNKED + b"0\r\nA: \x00\r\n\r\n", ["truncated"]),
    "trailer-space-before-colon": (CHUNKED + b"0\r\nA : b\r\n\r\n", ["truncated"]),
    # Hosts
    "host-missing": (b"GET / HTTP/1.1\r\n\r\n", [400]),
    "host-missing-in-http-1.0": (b"GET / HTTP/1.0\r\n\r\n", [("/", b"")]),
    "host-empty": (b"GET / HTTP/1.1\r\nHost:\r\n\r\n", [("/", b"")]),
    "host-v6": (b"GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", [("/", b"")]),
    "host-twice": (GET + b"Host: x\r\n\r\n", [400]),
    "host-two-words": (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", [400]),
    "host-with-path": (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", [400]),
    "host-with-user": (b"GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", [400]),
    # Heads
    "empty-lines-first": (b"\r\n\r\n" + NEXT, [("/next", b"")]),
    "line-feed-first": (b"\n" + NEXT, [400]),
    "two-spaces": (b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n", [400]),
    "tab-in-request-line": (b"GET\t/ HTTP/1.1\r\nHost: x\r\n\r\n", [400]),
    "space-after-version": (b"GET / HTTP/1.1 \r\nHost: x\r\n\r\n", [400]),
    "no-version": (b"GET /\r\n\r\n", [400]),
    "lower-case-version": (b"GET / http/1.1\r\nHost: x\r\n\r\n", [400]),
    "http-2": (b"GET / HTTP/2.0\r\nHost: x\r\n\r\n", [505]),
    "malformed-method": (b"GE(T / HTTP/1.1\r\nHost: x\r\n\r\n", [400]),
    "unknown-method": (b"BREW / HTTP/1.1\r\nHost: x\r\n\r\n", [501]),
    "lower-case-method": (b"get / HTTP/1.1\r\nHost: x\r\n\r\n", [501]),
    "target-without-slash": (b"GET x HTTP/1.1\r\nHost: x\r\n\r\n", [400]),
    "target-with-authority": (b"GET http://y/a?b HTTP/1.1\r\nHost: x\r\n\r\n", [("/a?b", b"")]),
    "target-of-authority": (b"GET http://y HTTP/1.1\r\nHost: x\r\n\r\n", [("/", b"")]),
    "no-colon": (GET + b"no colon\r\n\r\n", [400]),
    "no-name": (GET + b": x\r\n\r\n", [400]),
    "space-before-colon": (GET + b"X : y\r\n\r\n", [400]),
    "folded": (GET + b"X: y\r\n folded\r\n\r\n", [400]),
    "line-feed": (GET + b"X: a\nY: b\r\n\r\n", [400]),
    "carriage-return": (GET + b"X: a\rb\r\n\r\n", [400]),
    "null": (GET + b"X: a\x00b\r\n\r\n", [400]),
    "delete-character": (GET + b"X: a\x7fb\r\n\r\n", [400]),
}  # fmt: skip
