"""Gateways that store images, and the images that are put there."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import httpx
from PIL import Image

from service.gateway.admission.keys import digest
from service.gateway.app import create_gateway
from service.gateway.settings import GatewaySettings
from tests.gateway.encoded_pictures import encode
from tests.gateway.stand_in import Reader

PNG_TYPE = {"content-type": "image/png"}


def image(shade: int, side: int = 8) -> bytes:
    """A PNG that is different for each shade from 0 to 2**24."""
    colour = (shade & 255, shade >> 8 & 255, shade >> 16 & 255)
    return encode(Image.new("RGB", (side, side), colour))


def noise(number: int, side: int = 64) -> bytes:
    """A PNG of about 3 bytes a pixel."""
    seed = hashlib.shake_256(b"%d" % number).digest(side * side * 3)
    return encode(Image.frombytes("RGB", (side, side), seed))


def reference(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@asynccontextmanager
async def gateway(
    folder: Path,
    tenants: Collection[str] = ("one", "other"),
    quota: Mapping[str, float] = MappingProxyType({}),
    **settings: Any,
) -> AsyncIterator[dict[str, httpx.AsyncClient]]:
    """A client for each tenant, or `key:name` for a key without one, of a gateway with a worker
    that scores each picture as 0."""
    file = folder / "keys.json"
    keys = [
        {"sha256": digest(name.encode() * 8).hex(), **_owner(name), **quota} for name in tenants
    ]
    file.write_text(json.dumps({"keys": keys}), encoding="utf-8")
    made = GatewaySettings(api_keys_file=file, **settings)
    app = create_gateway(made, [Reader().client])

    clients: dict[str, httpx.AsyncClient] = {}
    for name in tenants:
        clients[name] = httpx.AsyncClient(
            transport=httpx.ASGITransport(app=app),
            base_url="http://gateway",
            headers={"authorization": f"Bearer {name * 8}"},
        )
    async with app.router.lifespan_context(app):
        async with asyncio.timeout(30):
            while (await clients[next(iter(tenants))].get("/health/ready")).is_error:
                await asyncio.sleep(0.01)
        yield clients


def _owner(name: str) -> dict[str, str]:
    kind, _, own = name.rpartition(":")
    return {"name": own} if kind == "key" else {"tenant": name}


async def kept_open(
    *arguments: Any, **settings: Any
) -> AsyncIterator[dict[str, httpx.AsyncClient]]:
    """The same for a fixture, which is ended by another task than began it."""
    opened: asyncio.Future[dict[str, httpx.AsyncClient]] = asyncio.Future()
    ended = asyncio.Event()

    async def keep() -> None:
        async with gateway(*arguments, **settings) as clients:
            opened.set_result(clients)
            await ended.wait()

    keeping = asyncio.create_task(keep())
    yield await opened
    ended.set()
    await keeping


async def put(client: httpx.AsyncClient, *images: bytes) -> list[dict[str, Any]]:
    """Put images, one as the body and several as parts; returns the entries of the answer."""
    if len(images) == 1:
        answer = await client.put("/v1/images", content=images[0], headers=PNG_TYPE)
    else:
        files = [("images", (f"{number}.png", data)) for number, data in enumerate(images)]
        answer = await client.put("/v1/images", files=files)
    assert answer.status_code == httpx.codes.OK, answer.text
    entries: list[dict[str, Any]] = answer.json()["images"]
    return entries


async def missing(client: httpx.AsyncClient, *images: bytes) -> list[str]:
    digests = [reference(data) for data in images]
    answer = await client.post("/v1/images/missing", json={"digests": digests})
    assert answer.status_code == httpx.codes.OK, answer.text
    found: list[str] = answer.json()["missing"]
    return found


async def ranks(client: httpx.AsyncClient, *images: bytes, **fields: Any) -> httpx.Response:
    """Ask for documents that refer to images."""
    documents = [{"image": reference(data)} for data in images]
    return await client.post("/rerank", json={"query": "q", "documents": documents, **fields})
