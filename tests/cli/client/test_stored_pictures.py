"""Pictures travel once to a service that stores them, and with their request to any other."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.cli.bulk.requests import RowContext, RowShape
from service.cli.bulk.scoring import Scorer
from service.cli.client.calls import Service
from service.cli.client.ranking import Question, RequestSizes, rank
from service.cli.client.stored_pictures import PUT_FROM_BYTES
from service.cli.documents.items import Document
from service.gateway.app import create_gateway
from service.gateway.settings import GatewaySettings
from tests.gateway.images.storing import image, noise
from tests.gateway.stand_in import INFO, Reader

SIDE = 256
PICTURES = 8


class Wire(httpx.ASGITransport):
    """Counts the calls of each path and the bytes that are sent to it."""

    def __init__(self, app: Any) -> None:
        super().__init__(app=app)
        self.calls: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        path = f"{request.method} {request.url.path}"
        self.calls[path] += 1
        self.bytes[path] += len(await request.aread())
        return await super().handle_async_request(request)


@asynccontextmanager
async def service(**settings: Any) -> AsyncIterator[tuple[Service, Wire]]:
    app = create_gateway(GatewaySettings(**settings), [Reader().client])
    wire = Wire(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=wire, base_url="http://gateway/") as client,
    ):
        async with asyncio.timeout(30):
            while (await client.get("health/ready")).is_error:
                await asyncio.sleep(0.01)
        wire.calls.clear()
        yield Service(client), wire


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Pictures that are worth putting, and a text file with the name of one."""
    folder = tmp_path_factory.mktemp("pictures")
    made = [folder / f"{number}.png" for number in range(PICTURES)]
    for number, file in enumerate(made):
        file.write_bytes(noise(number, SIDE))
    assert sum(file.stat().st_size for file in made) > PUT_FROM_BYTES
    return made


async def ranked(service: Service, files: list[Path], put_images: int = 3) -> dict[str, Any]:
    documents = [Document.of_picture(file) for file in files]
    sizes = RequestSizes(documents=100, concurrency=2, put_images=put_images)
    advanced: list[int] = []
    answer = await rank(service, Question({"text": "q"}), documents, sizes, advance=advanced.append)
    assert sum(advanced) == len(files)
    return answer


def indexes(answer: dict[str, Any]) -> list[int]:
    assert answer["errors"] == []
    return sorted(result["index"] for result in answer["results"])


async def test_pictures_travel_once(files: list[Path]) -> None:
    size = sum(file.stat().st_size for file in files)
    async with service() as (asked, wire):
        assert indexes(await ranked(asked, files)) == list(range(PICTURES))
        assert wire.calls["PUT /v1/images"] == -(-PICTURES // 3)
        assert size < wire.bytes["PUT /v1/images"] < 1.01 * size
        assert wire.bytes["POST /rerank"] < 5_000

        wire.calls.clear()
        wire.bytes.clear()
        assert indexes(await ranked(asked, files)) == list(range(PICTURES))
        assert wire.calls == {"POST /v1/images/missing": 1, "POST /rerank": 1}
        assert sum(wire.bytes.values()) < 5_000


async def test_few_pictures_are_sent_with_their_request(files: list[Path]) -> None:
    async with service() as (asked, wire):
        assert indexes(await ranked(asked, files[:2])) == [0, 1]
        assert wire.calls == {"POST /rerank": 1}


@pytest.mark.parametrize(
    "settings",
    [{"images_memory_bytes": 0}, {"images_memory_bytes": 2 * SIDE * SIDE * 3 + 10_000}],
    ids=["none stored", "too little room"],
)
async def test_pictures_that_are_not_kept_are_sent_with_their_request(
    files: list[Path], settings: dict[str, int]
) -> None:
    async with service(**settings) as (asked, wire):
        assert indexes(await ranked(asked, files)) == list(range(PICTURES))
        assert wire.bytes["POST /rerank"] > PUT_FROM_BYTES


async def test_a_bad_picture_is_the_error_of_its_document(
    files: list[Path], tmp_path: Path
) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(image(1)[:30])
    async with service() as (asked, _):
        answer = await ranked(asked, [*files, bad])
    assert [result["index"] for result in answer["results"]] == list(range(PICTURES))
    (error,) = answer["errors"]
    assert (error["index"], error["code"]) == (PICTURES, "invalid_image")


@pytest.mark.parametrize("memory", [2**25, 2 * SIDE * SIDE * 3 + 10_000, 0])
async def test_rows_of_a_file_refer_to_pictures_too(files: list[Path], memory: int) -> None:
    rows = [
        {"query": f"query {number}", "documents": [{"image": file.name} for file in files]}
        for number in range(3)
    ]
    rows.append({"query": {"image": files[0].name}, "documents": ["7", {"image": files[1].name}]})
    async with service(images_memory_bytes=memory) as (asked, wire):
        shape = RowShape(options={"on_error": "skip"})
        context = RowContext(shape, files[0].parent, 100, put_images=100)
        scorer = Scorer(asked, context, digest=INFO.digest, concurrency=1)
        found = await scorer.score(rows)
        assert [scores.fields()["logits"] for scores in found] == [
            *[[0.0] * PICTURES] * 3,
            [7.0, 0.0],
        ]
        if memory == 2**25:
            await scorer.score(rows)
            size = sum(file.stat().st_size for file in files)
            assert size < wire.bytes["PUT /v1/images"] < 1.01 * size
            assert wire.bytes["POST /v1/rerank/stream"] < 10_000
