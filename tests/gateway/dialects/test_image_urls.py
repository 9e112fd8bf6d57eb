"""Images at URLs, where the operator allows them, in every dialect with a place for images."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import trustme

from service.gateway.app import create_gateway
from service.gateway.media.fetching import Fetcher
from service.gateway.media.urls import FetchRules
from service.gateway.settings import GatewaySettings
from tests.gateway.encoded_pictures import encode, picture
from tests.gateway.stand_in import Reader
from tests.promises.image_urls.hostile import HOST, PUBLIC, Dialler, Resolver, hostile, ok

RULES = FetchRules(
    hosts=(), seconds=30, at_once=8, max_urls=8, max_image_bytes=2**20, max_request_bytes=2**22
)
QUERY, DOCUMENT = f"https://{HOST}/query.png", f"https://{HOST}/document.png"


def item(url: str) -> dict[str, str]:
    return {"image": url}


def part(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def of_elastic(url: str) -> dict[str, str]:
    return {"type": "image", "format": "url", "value": url}


BODIES: Mapping[str, dict[str, Any]] = {
    "/rerank": {"query": item(QUERY), "documents": [item(DOCUMENT)]},
    "/v2/rerank": {"query": [part(QUERY)], "documents": [[part(DOCUMENT)]]},
    "/api/v1/rerank": {"query": item(QUERY), "documents": [item(DOCUMENT)]},
    "/v1/ranking": {"query": item(QUERY), "passages": [item(DOCUMENT)]},
    "/v1/reranking": {"query": item(QUERY), "input": [part(DOCUMENT)]},
    "/score": {
        "text_1": [{"content": [part(QUERY)]}, item(QUERY)],
        "text_2": [{"content": [part(DOCUMENT)]}, item(DOCUMENT)],
    },
    "/api/v1/services/rerank/text-rerank/text-rerank": {
        "input": {"query": item(QUERY), "documents": [item(DOCUMENT)]}
    },
    "/_inference/rerank/m": {"query": of_elastic(QUERY), "input": [of_elastic(DOCUMENT)]},
    "/sglang/v1/rerank": {"query": [part(QUERY)], "documents": [[part(DOCUMENT)]]},
}


@asynccontextmanager
async def serving() -> AsyncIterator[tuple[httpx.AsyncClient, list[bytes]]]:
    """A client of a gateway that fetches images, and the requests for them so far."""
    authority = trustme.CA()
    trusted = ssl.create_default_context()
    authority.configure_trust(trusted)

    async with hostile(ok(encode(picture())), authority) as images:
        fetcher = Fetcher(
            RULES, resolve=Resolver([PUBLIC]), backend=Dialler(images.port), ssl_context=trusted
        )
        app = create_gateway(GatewaySettings(), [Reader().client], fetcher=fetcher)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(
                transport=httpx.ASGITransport(app=app), base_url="http://gateway"
            ) as client,
        ):
            async with asyncio.timeout(10):
                while (await client.get("/health/ready")).is_error:
                    await asyncio.sleep(0.01)
            yield client, images.heads


async def test_an_image_at_a_url_is_fetched_once_whatever_the_dialect() -> None:
    async with serving() as (client, heads):
        for path, body in BODIES.items():
            heads.clear()
            answer = await client.post(path, json=body)
            assert answer.status_code == httpx.codes.OK, (path, answer.text)
            fetched = sorted(head.split()[1] for head in heads)
            assert fetched == [b"/document.png", b"/query.png"], path


@pytest.mark.parametrize("path", BODIES)
def test_an_image_at_a_url_is_refused_where_the_operator_does_not_allow_them(
    client: httpx.Client, path: str
) -> None:
    url = path.replace("/m", "/gmr-tiny") if path.endswith("/m") else path
    refused = client.post(url, json=BODIES[path])
    assert refused.status_code == httpx.codes.BAD_REQUEST
    assert refused.json()["code"] == "image_url_disabled"
