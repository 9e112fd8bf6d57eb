"""What the server itself answers, before any app sees a request."""

from __future__ import annotations

import json
import socket
from urllib.parse import urlsplit

import pytest

from service.loopback import is_loopback
from service.web.framing import MAX_HEADER_BYTES


def send_raw(url: str, data: bytes) -> bytes:
    address = urlsplit(url)
    with socket.create_connection((address.hostname, address.port), timeout=20) as connection:
        connection.sendall(data)
        received = b""
        while chunk := connection.recv(65536):
            received += chunk
    return received


@pytest.mark.parametrize(
    "data",
    [
        b"NOT HTTP AT ALL\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\r\nbad header line\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\r\nx: " + b"a" * MAX_HEADER_BYTES,
    ],
    ids=["garbage", "a bad header", "no host", "an endless header"],
)
def test_what_is_no_http_gets_the_one_error_body(server: str, data: bytes) -> None:
    head, _, body = send_raw(server, data).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    answer = json.loads(body)
    assert answer["code"] == "invalid_request"
    assert answer["detail"] == answer["message"] == "The request is not valid HTTP."
    assert f"x-request-id: {answer['request_id']}".encode() in head.lower()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "localhost"])
def test_loopback_is_known(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "10.0.0.1", "192.168.1.1", "example.org", "localhost.example.org", ""]
)
def test_everything_else_is_not_loopback(host: str) -> None:
    assert not is_loopback(host)
