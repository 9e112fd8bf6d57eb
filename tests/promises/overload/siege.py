"""A load above capacity, over HTTP, and the result of each request."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import httpx
from PIL import Image

from tests.processes import Gmr

DOCUMENTS = 6
_WORDS = (
    "amber",
    "basin",
    "cedar",
    "delta",
    "ember",
    "fjord",
    "grove",
    "haven",
    "islet",
    "jetty",
    "knoll",
    "lagoon",
)
_numbers = itertools.count()


def request(*, picture: bool = False) -> dict[str, Any]:
    """A new request: six documents of forty words, or five and an image."""
    dice = random.Random(next(_numbers))
    texts: list[Any] = [" ".join(dice.choices(_WORDS, k=40)) for _ in range(DOCUMENTS)]
    if picture:
        file = BytesIO()
        Image.new("RGB", (56, 56), tuple(dice.randbytes(3))).save(file, "PNG")
        texts[0] = {"image": base64.b64encode(file.getvalue()).decode()}
    return {"query": " ".join(dice.choices(_WORDS, k=5)), "documents": texts}


@dataclass(slots=True)
class Tally:
    """Answers by status, and the `Retry-After` of refused requests."""

    statuses: Counter[int] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    retry_after: list[str] = field(default_factory=list)

    def add(self, answer: httpx.Response) -> int | None:
        """Count an answer; returns its `Retry-After`."""
        self.statuses[answer.status_code] += 1
        if answer.status_code == httpx.codes.OK:
            return None
        self.codes[answer.json()["code"]] += 1
        self.retry_after.append(answer.headers.get("retry-after", ""))
        return int(self.retry_after[-1] or 1)

    @property
    def good(self) -> int:
        return self.statuses[httpx.codes.OK]


def visitor(gateway: Gmr, key: str | None = None) -> httpx.AsyncClient:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=100)
    return httpx.AsyncClient(base_url=gateway.url, timeout=60, limits=limits, headers=headers)


def bodies(*, picture_every: int = 0) -> Iterator[bytes]:
    """An endless sequence of requests, some with an image."""
    for number in itertools.count():
        yield json.dumps(
            request(picture=bool(picture_every) and number % picture_every == 0)
        ).encode()


async def closed_loop(
    gateway: Gmr, callers: int, seconds: float, *, key: str | None = None, picture_every: int = 0
) -> Tally:
    """Each caller sends its next request after the answer, or after `Retry-After`."""
    tally, source, until = Tally(), bodies(picture_every=picture_every), time.monotonic() + seconds

    async def call(client: httpx.AsyncClient) -> None:
        while time.monotonic() < until:
            wait = tally.add(await client.post("/rerank", content=next(source)))
            if wait:
                await asyncio.sleep(min(wait, max(0.0, until - time.monotonic())))

    async with visitor(gateway, key) as client, asyncio.TaskGroup() as group:
        for _ in range(callers):
            group.create_task(call(client))
    return tally


async def open_loop(
    gateway: Gmr, rate: float, seconds: float, *, key: str | None = None, picture_every: int = 0
) -> Tally:
    """`rate` requests per second, whatever the state of earlier ones."""
    tally, source, until = Tally(), bodies(picture_every=picture_every), time.monotonic() + seconds

    async def call(client: httpx.AsyncClient, body: bytes) -> None:
        tally.add(await client.post("/rerank", content=body))

    async with visitor(gateway, key) as client, asyncio.TaskGroup() as group:
        due = time.monotonic()
        while due < until:
            group.create_task(call(client, next(source)))
            due += 1 / rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))
    return tally
