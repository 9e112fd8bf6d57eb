"""A model that is replaced while a request is answered: the request is scored by the new one alone,
and its images are fetched once, over HTTP from end to end."""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import trustme
from msgspec import structs

from service.gateway.app import create_gateway
from service.gateway.media.fetching import Fetcher
from service.gateway.media.urls import FetchRules
from service.gateway.settings import GatewaySettings
from tests.gateway.encoded_pictures import encode, picture
from tests.gateway.stand_in import INFO, Reader
from tests.promises.image_urls.hostile import HOST, PUBLIC, Dialler, Hostile, Resolver, hostile, ok

TWO = structs.replace(INFO, digest="sha256:two")
RULES = FetchRules(
    hosts=(), seconds=30, at_once=8, max_urls=8, max_image_bytes=2**20, max_request_bytes=2**22
)


@dataclass
class Service:
    """A gateway that fetches image URLs, its only worker, and the server of the images."""

    client: httpx.AsyncClient
    worker: Reader
    images: Hostile

    async def rerank(self, *documents: str | dict[str, str]) -> dict[str, Any]:
        answer = await self.client.post("/rerank", json={"query": "q", "documents": documents})
        assert answer.status_code == httpx.codes.OK, answer.text
        body: dict[str, Any] = answer.json()
        return body

    def fetched(self) -> Counter[str]:
        """The number of requests for each path since the last call."""
        paths = Counter(head.split()[1].decode() for head in self.images.heads)
        self.images.heads.clear()
        return paths


def image(path: str) -> dict[str, str]:
    return {"image": f"https://{HOST}/{path}"}


@asynccontextmanager
async def serving() -> AsyncIterator[Service]:
    authority, worker = trustme.CA(), Reader()
    trusted = ssl.create_default_context()
    authority.configure_trust(trusted)

    async with hostile(ok(encode(picture())), authority) as images:
        fetcher = Fetcher(
            RULES, resolve=Resolver([PUBLIC]), backend=Dialler(images.port), ssl_context=trusted
        )
        # only a reply tells that the model was replaced, no probe does
        settings = GatewaySettings(worker_probe_ms=60_000)
        app = create_gateway(settings, [worker.client], fetcher=fetcher)

        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(
                transport=httpx.ASGITransport(app=app), base_url="http://gateway", timeout=60
            ) as client,
        ):
            async with asyncio.timeout(10):
                while (await client.get("/health/ready")).is_error:
                    await asyncio.sleep(0.01)
            yield Service(client, worker, images)


async def test_all_documents_are_scored_again_and_each_image_is_fetched_once() -> None:
    async with serving() as service:
        await service.rerank("1")
        assert service.worker.seen() == [["1"]]

        service.worker.becomes(TWO, more=100)
        answer = await service.rerank("1", image("a"), image("b"))

        assert (answer["meta"]["model_digest"], answer["meta"]["cached_pairs"]) == (TWO.digest, 0)
        assert [result["logit"] for result in answer["results"]] == [101, 100, 100]
        assert service.worker.seen() == [[0], ["1", 0]]
        assert service.fetched() == {"/a": 1, "/b": 1}
