"""Gateways that take feedback, and what their folders hold."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx

DOCUMENTS: list[Any] = [
    "0011111",
    {"id": "best", "text": "0033333"},
    {"text": "0022222", "metadata": {"doc_id": 7, "title": "private"}},
]
"""The worker of these tests reads a text as its score."""


async def answer(client: httpx.AsyncClient, request_id: str, **fields: Any) -> list[int]:
    """Have documents ranked under an id of the caller's; returns the indices of the results."""
    body = {"query": "a circle that is red", "documents": DOCUMENTS} | fields
    ranked = await client.post("/rerank", json=body, headers={"x-request-id": request_id})
    assert ranked.status_code == httpx.codes.OK, ranked.text
    return [result["index"] for result in ranked.json()["results"]]


async def give(client: httpx.AsyncClient, request_id: str, **fields: Any) -> httpx.Response:
    return await client.post("/v1/feedback", json={"request_id": request_id, **fields})


async def clicks(client: httpx.AsyncClient, request_id: str, *indices: int) -> httpx.Response:
    return await give(
        client, request_id, events=[{"index": index, "clicked": True} for index in indices]
    )


def lines(folder: Path, kind: str | None = None) -> list[dict[str, Any]]:
    """The lines in the files of a folder, of one kind or of all."""
    found: list[dict[str, Any]] = []
    for path in sorted((folder / "events").glob("*")):
        found += [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [line for line in found if kind in (None, line["kind"])]


async def written(folder: Path, kind: str, count: int = 1) -> list[dict[str, Any]]:
    """The lines of a kind, once there are so many."""
    async with asyncio.timeout(60):
        while len(found := lines(folder, kind)) < count:
            await asyncio.sleep(0.02)
    return found


async def until_written(folder: Path, request_id: str, kind: str | None = None) -> None:
    """Wait for a line about a request, of one kind or of any."""
    async with asyncio.timeout(60):
        while request_id not in {line["request_id"] for line in lines(folder, kind)}:
            await asyncio.sleep(0.02)
