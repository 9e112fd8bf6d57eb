"""Every limit and the capacity, over HTTP, with small values."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.conftest import free_port, running
from tests.gateway.encoded_pictures import bare, encode, picture
from tests.promises.bad_input.test_rerank_over_http import expect, post

pytestmark = pytest.mark.slow

LIMITS = {
    "max_documents": 8,
    "max_body_bytes": 262_144,
    "max_text_chars": 8_000,
    "max_images_per_item": 1,
    "max_image_bytes": 1_024,
    "max_image_pixels": 2_500,
    "min_image_side": 5,
    "max_image_aspect": 10,
}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of a server with small limits, a capacity of one request, and no queue."""
    environment = {f"RERANK_{name.upper()}": str(value) for name, value in LIMITS.items()}
    environment |= {"RERANK_CAPACITY_TOKENS": "1", "RERANK_MAX_QUEUED_REQUESTS": "0"}
    with (
        running(
            "serve", port=free_port(), log=tmp_path_factory.mktemp("small") / "log", **environment
        ) as url,
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        yield client


def test_info_shows_the_limits(small: httpx.Client) -> None:
    limits = small.get("/info").json()["limits"]
    assert {name: limits[name] for name in LIMITS} == LIMITS


@pytest.mark.parametrize(
    ("fields", "code", "loc"),
    [
        ({"documents": ["d"] * 9}, "invalid_request", ["documents"]),
        ({"documents": [{"text": "x" * 8_001}]}, "invalid_request", ["documents", 0]),
        ({"instruction": "x" * 8_001}, "invalid_request", ["instruction"]),
        (
            {
                "query": {
                    "content": (
                        [{"type": "image_url", "image_url": {"url": bare(encode(picture()))}}] * 2
                    )
                }
            },
            "invalid_request",
            ["query"],
        ),
        (
            {"query": {"image": bare(encode(picture()) + bytes(1024))}},
            "image_too_large",
            ["query", "image"],
        ),
        (
            {"query": {"image": bare(encode(picture((51, 50))))}},
            "image_too_large",
            ["query", "image"],
        ),
        ({"query": {"image": bare(encode(picture((4, 20))))}}, "invalid_image", ["query", "image"]),
        ({"query": {"image": bare(encode(picture((5, 51))))}}, "invalid_image", ["query", "image"]),
    ],
)
def test_each_limit_holds(
    small: httpx.Client, fields: dict[str, Any], code: str, loc: list[str | int]
) -> None:
    expect(small.post("/rerank", json={"query": "q", "documents": ["d"], **fields}), 400, code, loc)


def test_what_is_just_within_the_limits_is_answered(small: httpx.Client) -> None:
    image = bare(encode(picture((5, 50))))
    documents = [*["d"] * 6, "x" * 8_000, {"image": image}]
    assert (
        len(
            small.post("/rerank", json={"query": {"image": image}, "documents": documents}).json()[
                "results"
            ]
        )
        == 8
    )


def test_a_body_that_is_too_large_is_refused(small: httpx.Client) -> None:
    expect(post(small, b" " * 262_145), 413, "body_too_large")
    expect(post(small, b" " * 262_144), 400, "invalid_request")


@pytest.mark.parametrize(
    ("header", "sent"),
    [
        (b"content-length: 1000000000000", b""),
        (b"transfer-encoding: chunked", b"40001\r\n" + b" " * 0x40001 + b"\r\n"),
    ],
)
def test_a_body_is_refused_before_it_has_ended(
    small: httpx.Client, header: bytes, sent: bytes
) -> None:
    with socket.create_connection(
        (small.base_url.host, small.base_url.port or 80), timeout=60
    ) as connection:
        connection.sendall(
            b"POST /rerank HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            + header
            + b"\r\n\r\n"
            + sent
        )
        assert connection.recv(65_536).startswith(b"HTTP/1.1 413 ")


def test_a_request_beyond_capacity_is_told_when_to_come_again(small: httpx.Client) -> None:
    long = [f"{number} {'word ' * 1590}" for number in range(8)]
    request = small.build_request(
        "POST", "/rerank", json={"query": "q", "documents": long, "cache": "bypass"}
    )
    body = request.read()
    head = (
        "POST /rerank HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length:"
        f" {len(body)}\r\n\r\n"
    )
    with socket.create_connection(
        (small.base_url.host, small.base_url.port or 80), timeout=60
    ) as connection:
        connection.sendall(head.encode() + body)
        in_flight(small, 1)
        response = small.post("/rerank", json={"query": "q", "documents": ["d"]})
    expect(response, 503, "overloaded")
    assert int(response.headers["retry-after"]) >= 1
    in_flight(small, 0)
    assert small.post("/rerank", json={"query": "q", "documents": ["d"]}).status_code == 200


def in_flight(client: httpx.Client, number: int) -> None:
    """Return when that many requests are in flight."""
    for _ in range(2_000):
        if f"\nrerank_requests_in_flight {number}.0" in client.get("/metrics").text:
            return
    raise AssertionError(f"there never were {number} requests in flight")
