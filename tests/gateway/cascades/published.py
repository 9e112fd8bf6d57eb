"""Folders of cascades, and a worker with the models of their stages."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from msgspec import structs
from starlette.responses import Response

from model_store.cascades.description import Cascade
from model_store.cascades.folder import CASCADE
from model_store.manifest import (
    CASCADE_FAMILY,
    Manifest,
    digest_files,
    manifest_digest,
    write_manifest,
)
from service.errors import PairTooLong
from service.gateway.app import create_gateway
from service.gateway.settings import GatewaySettings
from service.wire import Refused, ScoreCall, Scored, WorkerInfo
from tests.conftest import TINY
from tests.gateway.stand_in import INFO, StandIn, first_parts, reply

SMALL = structs.replace(INFO, model="small", digest="sha256:5", version="sha256:" + "5" * 64)
BIG = structs.replace(INFO, model="big", digest="sha256:b", version="sha256:" + "b" * 64)
SMALL_STAGE = {"model": "small", "version": SMALL.version}
BIG_STAGE = {"model": "big", "version": BIG.version}
HALF = {"share": 0.5, "at_least": 2}
QUARTER_PIXELS = 250_880


def cascade_folder(folder: Path, *stages: dict[str, Any], name: str = "fast") -> Path:
    """A cascade's folder; without stages, of a small model and then a big one."""
    stages = stages or (SMALL_STAGE | {"keep": HALF}, BIG_STAGE)
    figures = {"cascade": 0.9, "last_stage": 0.9, "difference": 0.0, "low": 0.0, "high": 0.0}
    described = {
        "name": name,
        "stages": stages,
        "evidence": figures
        | {
            "queries": 20,
            "tokens": [50] * len(stages),
            "last_stage_tokens": 100,
            "saving": 2.0,
            "benchmark": "nine-cells-20",
            "benchmark_digest": "sha256:" + "0" * 64,
            "metric": "ndcg@10",
            "level": 0.95,
            "max_loss": 0.003,
            "scored": [1.0, *[0.5] * (len(stages) - 1)],
            "discordance": 0.1,
            "overlap": 0.95,
            "cells": {"T-T": figures | {"queries": 20, "saving": 2.0}},
        },
    }
    Cascade.model_validate(described)
    folder.mkdir(parents=True)
    (folder / CASCADE).write_text(json.dumps(described), encoding="utf-8")
    manifest = Manifest(
        name=name,
        family=CASCADE_FAMILY,
        template="stages",
        default_instruction="find",
        max_tokens=3200,
        files=digest_files(folder, [CASCADE]),
    )
    write_manifest(folder, manifest)
    return folder


def tiny_stages() -> tuple[dict[str, Any], dict[str, Any]]:
    """gmr-tiny with its smallest images, which keeps a quarter, and then as it is."""
    stage = {"model": TINY.name, "version": f"sha256:{manifest_digest(TINY)}"}
    return stage | {"max_pixels": 16 * 28**2, "keep": {"share": 0.25, "at_least": 1}}, stage


class Stages(StandIn):
    """A worker of several models. The score of a document is the number in its text that has the
    model's place: "3 7" has 3 by the first model and 7 by the second. A picture has its width.

    "late" in a text leaves it unscored by models after the first, "long" has them refuse it.
    """

    def __init__(self, *models: WorkerInfo) -> None:
        self.models = models or (SMALL, BIG)
        super().__init__(self._read, *self.models)

    async def _read(self, call: ScoreCall) -> Response:
        names = [model.model for model in self.models]
        place = names.index(call.model)
        return reply(
            [self._pair(place, document[0], call) for document in call.documents],
            self.models[place].digest,
        )

    def _pair(self, place: int, part: str | int, call: ScoreCall) -> Scored | Refused | None:
        if isinstance(part, int):
            image = call.images[part]
            cells = image.width * image.height // 28**2
            return Scored(float(image.rgb[0]), 10 + cells, cells, truncated=False)
        if place and "late" in part:
            return None
        if place and "long" in part:
            return Refused(PairTooLong.code)
        return Scored(float(part.split()[place]), 10 * (place + 1), 0, truncated=False)

    def scored_by(self, model: str) -> list[str]:
        """The documents that a model scored, in order."""
        scored: list[str] = []
        for call in self.calls:
            if call.model == model:
                scored += map(str, first_parts(call))
        return sorted(scored)


@asynccontextmanager
async def opened(
    worker: StandIn, *folders: Path, **settings: Any
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a gateway with some cascades; by default none of their requests is compared."""
    configured: dict[str, Any] = {"cascades": folders, "cascade_compare_share": 0.0} | settings
    app = create_gateway(GatewaySettings(**configured), [worker.client])
    transport = httpx.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://gateway") as client,
    ):
        async with asyncio.timeout(30):
            while (await client.get("/health/ready")).is_error:
                await asyncio.sleep(0.01)
        yield client


async def rerank(client: httpx.AsyncClient, documents: Sequence[Any], **fields: Any) -> Any:
    body = {"query": "q", "model": "fast", "documents": documents} | fields
    answer = await client.post("/rerank", json=body)
    assert answer.status_code == httpx.codes.OK, answer.text
    return answer.json()
