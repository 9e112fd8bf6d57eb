"""HTTP as clients send it to a running service: forms of a target, methods, and forms of a body."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest

from tests.promises.raw_http import answer_of, dial, read_to_end, send_raw

BODY = b'{"query": "sort a list", "documents": ["Close the file.", "Sort the list."]}'
JSON = b"content-type: application/json"


def post(body: bytes = BODY, *headers: bytes, target: bytes = b"/v1/rerank") -> bytes:
    """A POST of a body, on a connection that is closed afterwards."""
    lines = [b"POST %s HTTP/1.1" % target, b"host: x", b"connection: close", JSON]
    lines += [b"content-length: %d" % len(body), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def bare(method: bytes, target: bytes, *, close: bool = True) -> bytes:
    """A request without a body."""
    closing = b"connection: close\r\n" if close else b""
    return b"%s %s HTTP/1.1\r\nhost: x\r\n%s\r\n" % (method, target, closing)


def header(received: bytes, name: str) -> str | None:
    """The value of an answer's header."""
    head = received.partition(b"\r\n\r\n")[0].decode("latin-1")
    for line in head.split("\r\n")[1:]:
        known, _, value = line.partition(":")
        if known.lower() == name:
            return value.strip()
    return None


def ranking(answer: dict[str, Any]) -> list[int]:
    return [result["index"] for result in answer["results"]]


@pytest.mark.parametrize(
    "target",
    [
        b"/v1/rerank/",
        b"//rerank",
        b"//v1//rerank//",
        b"http://elsewhere/rerank",
        b"HTTP://elsewhere:8080/v1/rerank/",
        b"https://elsewhere//v2/rerank?a=b",
        b"/v1/rerank?api-version=2024-05-01",
    ],
)
def test_every_form_of_a_path_reaches_its_route(server: str, target: bytes) -> None:
    status, answer = answer_of(send_raw(server, post(target=target)))
    assert (status, ranking(answer)) == (200, [1, 0])


@pytest.mark.parametrize(
    ("target", "meant"),
    [
        (b"/v1/v1/rerank", "POST /v1/rerank"),
        (b"/V1/Rerank", "POST /v1/rerank"),
        (b"/api/v2/rerank", "POST /v2/rerank"),
        (b"/v1/reranks", "POST /v1/rerank"),
    ],
)
def test_a_path_that_is_nearly_right_is_told_the_right_one(
    server: str, target: bytes, meant: str
) -> None:
    status, answer = answer_of(send_raw(server, post(target=target)))
    assert status == 404
    assert answer["message"] == f"There is nothing at this path. Did you mean {meant}?"


@pytest.mark.parametrize(
    "target", [b"/v1/models", b"/info", b"/metrics", b"/docs", b"/openapi.json", b"/health/ready"]
)
def test_head_is_get_without_a_body_and_the_connection_goes_on(server: str, target: bytes) -> None:
    with dial(server) as connection:
        connection.sendall(bare(b"HEAD", target, close=False) + bare(b"GET", b"/health/live"))
        received = read_to_end(connection)
    first, _, rest = received.partition(b"\r\n\r\n")
    assert first.startswith(b"HTTP/1.1 200 ")
    assert int(header(first, "content-length") or 0) > 0
    assert answer_of(rest) == (200, {"status": "live"})

    got = send_raw(server, bare(b"GET", target))
    assert header(got, "content-type") == header(first, "content-type")


def test_head_of_a_path_that_takes_post_names_its_methods(server: str) -> None:
    received = send_raw(server, bare(b"HEAD", b"/rerank"))
    assert received.startswith(b"HTTP/1.1 405 ")
    assert header(received, "allow") == "OPTIONS, POST"
    assert received.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("target", "allow"),
    [
        (b"/rerank", "OPTIONS, POST"),
        (b"//v1/rerank/", "OPTIONS, POST"),
        (b"/v1/models", "GET, HEAD, OPTIONS"),
        (b"*", None),
    ],
)
def test_options_names_the_methods_of_a_path(server: str, target: bytes, allow: str | None) -> None:
    received = send_raw(server, bare(b"OPTIONS", target))
    assert answer_of(received) == (204, {})
    assert header(received, "allow") == allow
    assert header(received, "access-control-allow-origin") is None


def test_a_body_is_sent_once_the_service_asks_for_it(server: str) -> None:
    request = post(BODY, b"expect: 100-continue").removesuffix(BODY)
    with dial(server) as connection:
        connection.sendall(request)
        interim = connection.recv(65_536)
        assert interim == b"HTTP/1.1 100 \r\n\r\n" or interim.startswith(b"HTTP/1.1 100 Continue")
        connection.sendall(BODY)
        status, answer = answer_of(read_to_end(connection))
    assert (status, ranking(answer)) == (200, [1, 0])


@pytest.mark.parametrize(
    ("target", "length", "status"),
    [(b"/rerank", 999_999_999, 413), (b"/nowhere", 10, 404), (b"/info", 10, 405)],
)
def test_a_body_that_would_be_refused_is_not_asked_for(
    server: str, target: bytes, length: int, status: int
) -> None:
    lines = [b"POST %s HTTP/1.1" % target, b"host: x", JSON, b"expect: 100-continue"]
    lines += [b"content-length: %d" % length, b"connection: close"]
    received = send_raw(server, b"\r\n".join(lines) + b"\r\n\r\n")
    assert b"HTTP/1.1 100" not in received
    assert answer_of(received)[0] == status


def chunked(*headers: bytes) -> bytes:
    lines = [b"POST /rerank HTTP/1.1", b"host: x", JSON, b"transfer-encoding: chunked", *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)


def test_a_body_with_two_lengths_is_refused(server: str) -> None:
    """Proxies could read either, and take the rest for another request (RFC 9112, 6.1)."""
    status, answer = answer_of(send_raw(server, chunked(b"content-length: %d" % len(BODY))))
    assert (status, answer["message"]) == (400, "The request is not valid HTTP.")
    assert answer_of(send_raw(server, chunked(b"connection: close")))[0] == 200


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (gzip.compress(BODY), (b"content-encoding: gzip",)),
        (gzip.compress(BODY), (b"Content-Encoding: X-GZIP",)),
        (b"\xef\xbb\xbf" + BODY, ()),
        (gzip.compress(b"\xef\xbb\xbf" + BODY), (b"content-encoding: gzip",)),
        (BODY, (b"expect: something-else",)),
    ],
    ids=["gzip", "x-gzip", "byte order mark", "both", "another expectation"],
)
def test_every_form_of_a_body_is_read(server: str, body: bytes, headers: tuple[bytes, ...]) -> None:
    status, answer = answer_of(send_raw(server, post(body, *headers)))
    assert (status, ranking(answer)) == (200, [1, 0])


@pytest.mark.parametrize(
    ("body", "headers", "status", "said"),
    [
        (gzip.compress(BODY), (), 400, "The request body is gzip: send Content-Encoding: gzip"),
        (BODY, (b"content-encoding: gzip",), 400, "The request body is not valid gzip."),
        (BODY, (b"content-encoding: br",), 415, "Send the body as it is, or with"),
        (gzip.compress(bytes(2**26)), (b"content-encoding: gzip",), 400, "A compressed body may"),
        (
            json.dumps({"query": "q"}).encode("utf-16"),
            (),
            400,
            "The request body looks like UTF-16",
        ),
        ('{"query": "ü"}'.encode("latin-1"), (), 400, "The request body is not valid UTF-8"),
    ],
    ids=["gzip unsaid", "no gzip", "brotli", "a bomb", "UTF-16", "Latin-1"],
)
def test_a_body_that_cannot_be_read_is_told_why(
    server: str, body: bytes, headers: tuple[bytes, ...], status: int, said: str
) -> None:
    received, answer = answer_of(send_raw(server, post(body, *headers)))
    assert received == status
    assert answer["message"].startswith(said)
