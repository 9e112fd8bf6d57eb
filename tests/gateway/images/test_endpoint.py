"""Images that are put once: what is stored, what is refused, and to whom it is told."""

from __future__ import annotations

import base64
import gzip
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.errors import MAX_PROBLEMS
from service.image_api import MAX_DIGESTS
from tests.gateway.dialects.test_image_urls import BODIES, DOCUMENT, QUERY
from tests.gateway.encoded_pictures import encode, picture, png_that_claims
from tests.gateway.images.storing import (
    PNG_TYPE,
    gateway,
    image,
    kept_open,
    missing,
    noise,
    put,
    ranks,
    reference,
)
from tests.metrics import metric_value

Clients = dict[str, httpx.AsyncClient]
MEMORY_BYTES = 400_000
IMAGE_BYTES = 40_000


@pytest.fixture(scope="module")
async def clients(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Clients]:
    """Two tenants of a gateway with memory for a few images."""
    settings = {
        "images_memory_bytes": MEMORY_BYTES,
        "max_image_bytes": IMAGE_BYTES,
        "max_body_bytes": 2 * MEMORY_BYTES,
        "max_put_images": 40,
    }
    async for clients in kept_open(tmp_path_factory.mktemp("images"), **settings):
        yield clients


async def test_an_image_is_put_once_and_then_named_by_its_digest(clients: Clients) -> None:
    data = encode(picture((30, 20)))
    before = int(time.time())
    (entry,) = await put(clients["one"], data)
    assert entry.pop("expires_at") - before in range(86_400, 86_500)
    assert entry == {"digest": reference(data), "bytes": len(data), "width": 30, "height": 20}

    answer = (await ranks(clients["one"], data, data)).json()
    assert [result["index"] for result in answer["results"]] == [0, 1]

    # base64 of the same image is the same image: its score is cached
    encoded = {"image": base64.b64encode(data).decode()}
    again = await clients["one"].post("/rerank", json={"query": "q", "documents": [encoded]})
    assert again.json()["results"][0]["meta"]["cached"]


async def test_a_bad_image_is_an_entry_at_its_place(clients: Clients) -> None:
    good, other = image(1), image(2)
    entries = await put(
        clients["one"], good, b"no image", png_that_claims(10**5, 10**5), b"", noise(1, 128), other
    )
    assert [entry.get("code") for entry in entries] == [
        None,
        "invalid_image",
        "image_too_large",
        "invalid_image",
        "image_too_large",
        None,
    ]
    assert all(entry["message"] for entry in entries if "code" in entry)
    assert await missing(clients["one"], good, other) == []


@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        (b"no image", PNG_TYPE, 400, "invalid_image"),
        (b"", PNG_TYPE, 400, "invalid_image"),
        (noise(1, 128), PNG_TYPE, 400, "image_too_large"),
        (png_that_claims(10**5, 10**5), PNG_TYPE, 400, "image_too_large"),
        (b"x" * (2 * MEMORY_BYTES + 1), PNG_TYPE, 413, "body_too_large"),
        (b"{}", {"content-type": "application/json"}, 415, "unsupported_media_type"),
        (b"", {"content-type": "multipart/form-data"}, 415, "unsupported_media_type"),
        (b"x", {"content-type": "multipart/form-data; boundary=y"}, 400, "invalid_request"),
        (image(1), PNG_TYPE | {"content-encoding": "br"}, 415, "unsupported_media_type"),
    ],
)
async def test_a_bad_body_is_refused(
    clients: Clients, body: bytes, headers: dict[str, str], status: int, code: str
) -> None:
    answer = await clients["one"].put("/v1/images", content=body, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


@pytest.mark.parametrize(
    ("content", "headers"),
    [
        (image(3), {"content-type": "image/webp"}),
        (image(3), {"content-type": "application/octet-stream"}),
        (image(3), {}),
        (gzip.compress(image(3)), PNG_TYPE | {"content-encoding": "gzip"}),
    ],
    ids=["other type", "binary", "no type", "gzip"],
)
async def test_what_an_image_is_its_bytes_say(
    clients: Clients, content: bytes, headers: dict[str, str]
) -> None:
    answer = await clients["one"].put("/v1/images", content=content, headers=headers)
    assert answer.json()["images"][0]["digest"] == reference(image(3))


async def test_more_images_than_a_body_may_hold_are_refused(clients: Clients) -> None:
    files = [("images", (str(number), image(number))) for number in range(41)]
    answer = await clients["one"].put("/v1/images", files=files)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")


async def test_all_unknown_images_are_listed_at_once(clients: Clients) -> None:
    unknown = [image(100_000 + number) for number in range(3 * MAX_PROBLEMS)]
    await put(clients["one"], image(4))
    answer = await ranks(clients["one"], image(4), *unknown, query={"image": reference(b"query")})
    body = answer.json()
    assert (answer.status_code, body["code"]) == (400, "unknown_image")
    assert [place["loc"] for place in body["errors"]] == [
        ["query", "image"],
        *(["documents", index, "image"] for index in range(1, 1 + len(unknown))),
    ]

    # the client sends just those, and asks again
    await put(clients["one"], *unknown[:40])
    await put(clients["one"], *unknown[40:])
    again = await ranks(clients["one"], image(4), *unknown)
    assert len(again.json()["results"]) == 1 + len(unknown)


async def test_a_request_that_is_told_to_put_images_costs_no_quota(tmp_path: Path) -> None:
    quota = {"pairs_per_second": 0.001}
    async with gateway(tmp_path, quota=quota, images_memory_bytes=MEMORY_BYTES) as clients:
        images = [image(number) for number in range(3)]
        for _ in range(2):
            assert (await ranks(clients["one"], *images)).json()["code"] == "unknown_image"
        await put(clients["one"], *images)
        assert len((await ranks(clients["one"], *images)).json()["results"]) == len(images)
        assert (await ranks(clients["one"], *images)).json()["code"] == "rate_limited"


async def test_a_query_that_skips_errors_lists_unknown_images_as_those_of_documents(
    clients: Clients,
) -> None:
    await put(clients["one"], image(5))
    answer = await ranks(clients["one"], image(5), image(6_000), on_error="skip")
    body = answer.json()
    assert [result["index"] for result in body["results"]] == [0]
    assert [(error["index"], error["code"]) for error in body["errors"]] == [(1, "unknown_image")]

    query = {"image": reference(image(6_000))}
    answer = await ranks(clients["one"], image(5), on_error="skip", query=query)
    assert (answer.status_code, answer.json()["code"]) == (400, "unknown_image")


@pytest.mark.parametrize(
    "digest", ["sha256:", "sha256:12", "sha256:" + "g" * 64, "sha256: " + "a" * 64]
)
async def test_a_malformed_digest_is_an_invalid_image(clients: Clients, digest: str) -> None:
    answer = await clients["one"].post(
        "/rerank", json={"query": "q", "documents": ["a", {"image": digest}]}
    )
    body = answer.json()
    assert (answer.status_code, body["code"]) == (400, "invalid_image")
    assert body["errors"][0]["loc"] == ["documents", 1, "image"]
    assert digest.removeprefix("sha256:") in ("", "12") or digest not in answer.text


async def test_upper_case_digits_are_the_same_digest(clients: Clients) -> None:
    await put(clients["one"], image(7))
    digest = "sha256:" + reference(image(7)).removeprefix("sha256:").upper()
    body = {"query": "q", "documents": [{"image": digest}]}
    answer = await clients["one"].post("/rerank", json=body)
    assert answer.status_code == httpx.codes.OK, answer.text


@pytest.mark.parametrize("path", BODIES)
async def test_every_dialect_with_images_takes_digests(clients: Clients, path: str) -> None:
    query, document = image(8), image(9)

    def referring(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: referring(inner) for name, inner in value.items()}
        if isinstance(value, list):
            return [referring(inner) for inner in value]
        # Elasticsearch names the form of a value, in which a digest stands for the base64
        changed = {QUERY: reference(query), DOCUMENT: reference(document), "url": "base64"}
        return changed.get(value, value)

    await put(clients["one"], query, document)
    answer = await clients["one"].post(path, json=referring(BODIES[path]))
    assert answer.status_code == httpx.codes.OK, answer.text


async def test_a_tenant_never_learns_what_another_has(clients: Clients) -> None:
    """An image that another tenant put, and one that nobody did, are answered alike."""
    theirs, nobodys = image(10), image(11_000)
    await put(clients["one"], theirs)
    answers = []
    for data in (theirs, nobodys):
        assert await missing(clients["other"], data) == [reference(data)]
        body = (await ranks(clients["other"], data)).json()
        answers.append({**body, "request_id": ""})
    assert answers[0] == answers[1]
    assert answers[0]["code"] == "unknown_image"

    # putting it is answered as a first time, and takes nothing from the other tenant
    (entry,) = await put(clients["other"], theirs)
    assert entry["digest"] == reference(theirs)
    assert await missing(clients["one"], theirs) == []


async def test_a_tenant_cannot_drive_anothers_images_out(clients: Clients) -> None:
    mine = [noise(number) for number in range(5)]
    await put(clients["other"], *mine)
    for number in range(60):
        await put(clients["one"], noise(1_000 + number))
    assert await missing(clients["other"], *mine) == []

    limit = metric_value("rerank_image_store_limit_bytes", tier="memory")
    assert 0 < metric_value("rerank_image_store_bytes", tier="memory") <= limit == MEMORY_BYTES


async def test_images_are_in_use_until_their_request_is_answered(clients: Clients) -> None:
    many = [noise(2_000 + number) for number in range(10)]
    await put(clients["one"], *many)
    answer = await ranks(clients["one"], *many)
    assert answer.status_code == httpx.codes.OK, answer.text

    await ranks(clients["one"], many[0])
    assert metric_value("rerank_images_in_use_bytes") == len(many[0])


@pytest.mark.parametrize(
    ("body", "loc"),
    [
        ({}, ["digests"]),
        ({"digests": ["sha256:12"]}, ["digests", 0]),
        ({"digests": [7]}, ["digests", 0]),
        ({"digests": ["sha256:" + "a" * 64] * (MAX_DIGESTS + 1)}, ["digests"]),
    ],
    ids=["none", "short", "number", "many"],
)
async def test_bad_digests_are_refused_at_their_place(
    clients: Clients, body: object, loc: list[object]
) -> None:
    answer = await clients["one"].post("/v1/images/missing", json=body)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
    assert answer.json()["errors"][0]["loc"] == loc


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"\xff", b"[" * 100_000, b" " * (2**20 + 1)])
async def test_a_body_that_is_no_object_is_refused(clients: Clients, body: bytes) -> None:
    answer = await clients["one"].post("/v1/images/missing", content=body)
    assert answer.status_code in (400, 413)
    assert answer.json().keys() >= {"code", "message", "detail", "request_id"}


async def test_images_need_a_key(clients: Clients) -> None:
    for method, path in (("PUT", "/v1/images"), ("POST", "/v1/images/missing")):
        headers = {"authorization": "Bearer wrong"}
        answer = await clients["one"].request(method, path, content=image(1), headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")


async def test_without_memory_no_image_is_stored(tmp_path: Any) -> None:
    async with gateway(tmp_path, images_memory_bytes=0) as clients:
        answer = await clients["one"].put("/v1/images", content=image(1), headers=PNG_TYPE)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
        answer = await ranks(clients["one"], image(1))
        assert (answer.status_code, answer.json()["code"]) == (400, "unknown_image")


async def test_tenants_that_share_the_cache_share_images(tmp_path: Any) -> None:
    async with gateway(tmp_path, cache_shared=True) as clients:
        await put(clients["one"], image(1))
        assert await missing(clients["other"], image(1)) == []
        answer = await ranks(clients["other"], image(1))
        assert answer.status_code == httpx.codes.OK, answer.text
