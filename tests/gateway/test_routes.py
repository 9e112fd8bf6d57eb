"""What the gateway says over HTTP of its models and its tokens, told by workers that serve two models."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from msgspec import structs
from starlette.responses import Response

from service.contracts import ScoreCall, Scored
from service.gateway.app import create_gateway
from service.gateway.settings import GatewaySettings
from tests.gateway.stand_in import INFO, StandIn, reply

ADAPTER = structs.replace(INFO, model="adapter", digest="sha256:adapter")


async def reusing(call: ScoreCall) -> Response:
    """Every pair has 10 tokens; all but the first pair's prefix was at hand."""
    digest = (INFO if call.model == INFO.model else ADAPTER).digest
    return reply(
        [Scored(1.0, 10, 0, truncated=False, reused_tokens=6 if place else 0) for place in range(len(call.documents))], digest
    )


@asynccontextmanager
async def opened() -> AsyncIterator[httpx.AsyncClient]:
    """A client of a gateway over one worker with two models."""
    app = create_gateway(GatewaySettings(), [StandIn(reusing, INFO, ADAPTER).client])
    transport = httpx.ASGITransport(app=app)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        async with asyncio.timeout(10):
            while (await client.get("/health/ready")).is_error:
                await asyncio.sleep(0.01)
        yield client


async def tokens(gateway: httpx.AsyncClient) -> Counter[str]:
    text = (await gateway.get("/metrics")).text
    return Counter(
        {source: int(float(count)) for source, count in re.findall(r'rerank_prompt_tokens_total{source="(\w+)"} (\S+)', text)}
    )


async def rerank(gateway: httpx.AsyncClient, **fields: Any) -> dict[str, Any]:
    answer = await gateway.post("/rerank", json={"query": "q"} | fields)
    assert answer.status_code == httpx.codes.OK, answer.text
    body: dict[str, Any] = answer.json()
    return body


async def test_tokens_are_counted_once_each_by_where_they_came_from() -> None:
    async with opened() as gateway:
        before = await tokens(gateway)
        first = await rerank(gateway, documents=["a", "b", "c"])
        second = await rerank(gateway, documents=["a", "b", "d"])
        grown = await tokens(gateway)
        grown.subtract(before)
        assert grown == {"computed": 18 + 10, "prefix": 12, "cached": 20}
        assert grown.total() == first["usage"]["prompt_tokens"] + second["usage"]["prompt_tokens"]


async def test_all_models_are_listed_and_the_default_one_is_described() -> None:
    async with opened() as gateway:
        listed = (await gateway.get("/v1/models")).json()["data"]
        assert [each["id"] for each in listed] == ["adapter", "m"]
        info = (await gateway.get("/info")).json()
        assert (info["model"], info["model_digest"], info["version"]) == ("m", INFO.digest, None)


async def test_each_model_is_asked_by_its_name_and_cached_apart() -> None:
    async with opened() as gateway:
        for model, digest in ((None, INFO.digest), ("m", INFO.digest), ("adapter", ADAPTER.digest)):
            answer = await rerank(gateway, documents=["e"], **({"model": model} if model else {}))
            assert (answer["model"], answer["meta"]["model_digest"]) == (model or "m", digest)
            assert answer["meta"]["cached_pairs"] == (1 if model == "m" else 0)
