"""Models and token counts as the gateway describes them over HTTP, over workers of two models."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from msgspec import structs
from pydantic import ValidationError
from starlette.responses import Response

from service.gateway.app import create_gateway
from service.gateway.settings import GatewaySettings
from service.wire import ImageRule, ScoreCall, Scored, SideRule, Transform, WorkerInfo
from tests.gateway.stand_in import INFO, StandIn, reply

ADAPTER = structs.replace(INFO, model="adapter", digest="sha256:adapter")


async def reusing(call: ScoreCall) -> Response:
    """Every pair has 10 tokens; the prefix of all but the first is reused."""
    digest = (INFO if call.model == INFO.model else ADAPTER).digest
    return reply(
        [
            Scored(1.0, 10, 0, truncated=False, reused_tokens=6 if index else 0)
            for index in range(len(call.documents))
        ],
        digest,
    )


@asynccontextmanager
async def opened(*models: WorkerInfo, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a gateway over one worker, with these models or with two."""
    worker = StandIn(reusing, *(models or (INFO, ADAPTER)))
    app = create_gateway(GatewaySettings(**settings), [worker.client])
    transport = httpx.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://gateway") as client,
    ):
        async with asyncio.timeout(10):
            while (await client.get("/health/ready")).is_error:
                await asyncio.sleep(0.01)
        yield client


async def tokens(gateway: httpx.AsyncClient) -> Counter[str]:
    text = (await gateway.get("/metrics")).text
    return Counter(
        {
            source: int(float(count))
            for source, count in re.findall(
                r'rerank_prompt_tokens_total{source="(\w+)"} (\S+)', text
            )
        }
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


PAGES_BY_TEXT = structs.replace(
    INFO,
    family="pages",
    golden_pairs=7,
    read_out="True - False",
    probability=Transform(shift=2.65, name="sigmoid(x - 2.65)"),
    cacheable_side="document",
    takes_instruction=False,
    query_side=SideRule(max_images=0),
    document_side=SideRule(texts=False, max_images=1),
)
"""A model of texts as queries and single images as documents."""


async def test_a_model_is_described_by_what_decides_a_clients_choice() -> None:
    async with opened(PAGES_BY_TEXT) as gateway:
        (entry,) = (await gateway.get("/v1/models")).json()["data"]
        info = (await gateway.get("/info")).json()
        properties = {
            "family": "pages",
            "modalities": {"query": ["text"], "document": ["image"]},
            "read_out": "True - False",
            "transform": "sigmoid(x - 2.65)",
            "cacheable_side": "document",
            "takes_instruction": False,
            "golden_pairs": 7,
        }
        assert properties.items() <= entry.items()
        assert properties.items() <= info.items()
        assert info["limits"]["max_query_images"] == 0
        assert info["limits"]["max_document_images"] == 1


@pytest.mark.parametrize(
    ("side", "images", "modalities", "most"),
    [
        (SideRule(), INFO.images, ["text", "image", "text+image"], 4),
        (SideRule(mixed=False), INFO.images, ["text", "image"], 4),
        (SideRule(max_images=2), INFO.images, ["text", "image", "text+image"], 2),
        (SideRule(max_images=9), INFO.images, ["text", "image", "text+image"], 4),
        (SideRule(), None, ["text"], None),
    ],
)
async def test_modalities_are_those_that_the_side_and_the_model_allow(
    side: SideRule, images: ImageRule | None, modalities: list[str], most: int | None
) -> None:
    async with opened(structs.replace(INFO, images=images, document_side=side)) as gateway:
        info = (await gateway.get("/info")).json()
        assert info["modalities"]["document"] == modalities
        assert info["limits"].get("max_document_images") == most


async def test_each_model_is_asked_by_its_name_and_cached_apart() -> None:
    async with opened() as gateway:
        for model, digest in ((None, INFO.digest), ("m", INFO.digest), ("adapter", ADAPTER.digest)):
            answer = await rerank(gateway, documents=["e"], **({"model": model} if model else {}))
            assert (answer["model"], answer["meta"]["model_digest"]) == (model or "m", digest)
            assert answer["meta"]["cached_pairs"] == (1 if model == "m" else 0)


ALIASES = {"rerank-v3.5": "m", "org/other": "adapter", "adapter": "m", "lost": "gone"}


async def test_an_alias_is_as_good_as_the_name_it_stands_for() -> None:
    async with opened(model_aliases=ALIASES) as gateway:
        for name, model in (
            ("rerank-v3.5", "m"),
            ("org/other", "adapter"),
            ("m", "m"),
            ("adapter", "m"),
        ):
            assert (await rerank(gateway, documents=["e"], model=name))["model"] == model
            found = (await gateway.get(f"/v1/models/{name}")).json()
            shape = {name: found[name] for name in ("id", "object", "created", "owned_by", "root")}
            assert shape == {
                "id": name,
                "object": "model",
                "created": 0,
                "owned_by": "gmr-rerank",
                "root": model,
            }
        listed = {
            each["id"]: each["root"] for each in (await gateway.get("/v1/models")).json()["data"]
        }
        assert listed == {"m": "m", "adapter": "m", "org/other": "adapter", "rerank-v3.5": "m"}


async def test_no_model_means_the_default_one_however_it_is_said() -> None:
    async with opened(model_aliases=ALIASES) as gateway:
        for name in ("", "default/not-specified", None):
            assert (await rerank(gateway, documents=["e"], model=name))["model"] == "m"


async def test_an_unknown_model_is_told_which_there_are() -> None:
    many = {f"alias-{number}": "m" for number in range(60)}
    for aliases, named in (({}, "adapter, m."), (many, "adapter, m, alias-0, alias-1, alias-10, ")):
        async with opened(model_aliases=aliases) as gateway:
            for answer in (
                await gateway.post(
                    "/rerank", json={"query": "q", "documents": ["a"], "model": "rerank-v9"}
                ),
                await gateway.get("/v1/models/rerank-v9"),
                await gateway.get("/v1/models/vec-ai/lychee%2Fx"),
            ):
                assert (answer.status_code, answer.json()["code"]) == (404, "model_not_found")
                said = answer.json()["message"]
                assert said.startswith(f"No such model is served here. You may use: {named}")
                assert len(said) < 1_000
    assert said.endswith("and 52 more.")


async def test_without_a_ready_worker_there_is_no_list_of_models() -> None:
    app = create_gateway(GatewaySettings(), [])
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as gateway:
        for path in ("/v1/models", "/v1/models/m"):
            answer = await gateway.get(path)
            assert (answer.status_code, answer.json()["code"]) == (503, "no_worker")
            assert answer.headers["retry-after"]


async def test_a_bad_document_is_listed_where_the_operator_has_set_it() -> None:
    for setting, status in (("fail", 400), ("skip", 200)):
        async with opened(on_error=setting) as gateway:
            answer = await gateway.post(
                "/rerank",
                json={
                    "query": "q",
                    "documents": ["a", "", {"text": "b", "id": 7, "metadata": {"k": [None]}}],
                },
            )
            assert answer.status_code == status
            body = answer.json()
            said = (
                [body["message"]] if status == 400 else [each["message"] for each in body["errors"]]
            )

            assert said == ["documents[1] needs a text or an image."]
    assert body["results"][1] | {"id": 7, "metadata": {"k": [None]}} == body["results"][1]


@pytest.mark.parametrize(
    "given",
    [
        "a",
        "a=",
        "=m",
        "a=m,a=n",
        f"a={'x' * 257}",
        ",".join(f"a{number}=m" for number in range(65)),
    ],
)
def test_aliases_that_cannot_be_are_refused(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RERANK_MODEL_ALIASES", given)
    with pytest.raises(ValidationError):
        GatewaySettings()
    monkeypatch.setenv("RERANK_MODEL_ALIASES", " a = m , b/c=n ")

    assert GatewaySettings().model_aliases == {"a": "m", "b/c": "n"}
