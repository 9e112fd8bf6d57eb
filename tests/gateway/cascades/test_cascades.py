"""Requests for cascades over HTTP: which documents each stage scores, the order of the answer, and
what becomes of errors and deadlines."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import httpx
import pytest
from msgspec import structs

from service.gateway.admission.keys import KeyEntry, change_keys, digest
from service.gateway.app import create_gateway
from service.gateway.cascades.catalogue import CascadesUnusable
from service.gateway.settings import GatewaySettings
from tests.gateway.cascades.published import (
    BIG,
    BIG_STAGE,
    HALF,
    QUARTER_PIXELS,
    SMALL,
    SMALL_STAGE,
    Stages,
    cascade_folder,
    opened,
    rerank,
)
from tests.gateway.encoded_pictures import bare, encode, picture
from tests.metrics import metric_value

FOUR = ["1 9", "4 -2", "3 5", "2 8"]
"""The first model orders them 1, 2, 3, 0 and keeps the first two; the second has 2 before 1."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return cascade_folder(tmp_path / "fast")


def stages_of(answer: Any) -> list[tuple[int, int]]:
    return [(each["index"], each["meta"]["stage"]) for each in answer["results"]]


async def test_the_last_stage_scores_what_the_first_one_keeps(folder: Path) -> None:
    worker = Stages()
    async with opened(worker, folder) as client:
        before = metric_value("rerank_cascade_documents_total", cascade="fast", stage="1")
        answer = await rerank(client, FOUR)

    assert worker.scored_by("small") == sorted(FOUR)
    assert worker.scored_by("big") == ["3 5", "4 -2"]
    assert stages_of(answer) == [(2, 2), (1, 2), (3, 1), (0, 1)]
    logits = [each["logit"] for each in answer["results"]]
    assert logits[:2] == [5, -2], "scores of the last stage stay as they are"
    assert logits[2] == math.nextafter(-2, -math.inf)
    assert logits[3] == pytest.approx(-3)
    relevances = [each["relevance_score"] for each in answer["results"]]
    assert relevances == sorted(relevances, reverse=True)
    assert all(0 <= each <= 1 for each in relevances)
    assert answer["model"] == "fast"
    assert answer["usage"]["prompt_tokens"] == 4 * 10 + 2 * 20, "of both stages"
    after = metric_value("rerank_cascade_documents_total", cascade="fast", stage="1")
    assert after - before == 2


async def test_a_second_request_takes_all_stages_from_the_cache(folder: Path) -> None:
    worker = Stages()
    async with opened(worker, folder) as client:
        first = await rerank(client, FOUR)
        calls = len(worker.calls)
        second = await rerank(client, FOUR)
        alone = await rerank(client, FOUR, model="big")

    assert len(worker.calls) == calls + 1, "the big model alone had two documents left"
    assert second["meta"]["cached_pairs"] == 4
    assert [each["logit"] for each in second["results"]] == [
        each["logit"] for each in first["results"]
    ]
    assert [each["index"] for each in alone["results"]] == [0, 3, 2, 1]
    assert "stage" not in alone["results"][0]["meta"]


async def test_few_documents_and_queries_of_their_own_are_scored_by_the_last_stage_alone(
    folder: Path,
) -> None:
    worker = Stages()
    async with opened(worker, folder) as client:
        assert stages_of(await rerank(client, FOUR[:2])) == [(0, 2), (1, 2)]
        pairs = {"model": "fast", "queries": ["a", "b", "c"], "documents": FOUR[:3]}
        scored = (await client.post("/score", json=pairs)).json()
        assert [each["logit"] for each in scored["data"]] == [9, -2, 5]
    assert worker.scored_by("small") == []


async def test_a_smaller_size_of_images_is_a_stage_with_scores_of_its_own(tmp_path: Path) -> None:
    stages = (BIG_STAGE | {"max_pixels": QUARTER_PIXELS, "keep": HALF}, BIG_STAGE)
    worker = Stages(BIG)
    images = [{"image": bare(encode(picture((1000 - 30 * each, 900))))} for each in range(4)]
    async with opened(worker, cascade_folder(tmp_path / "fast", *stages)) as client:
        answer = await rerank(client, images)
        texts = await rerank(client, ["1", "2", "3", "4"])

    sizes = [image.width * image.height for call in worker.calls for image in call.images]
    assert sum(size <= QUARTER_PIXELS for size in sizes) == 4
    assert sum(size > QUARTER_PIXELS for size in sizes) == 2
    assert [stage for _, stage in stages_of(answer)] == [2, 2, 1, 1]
    assert [stage for _, stage in stages_of(texts)] == [2, 2, 2, 2], "texts have one size"


async def test_every_dialect_has_the_cascades_order(folder: Path) -> None:
    async with opened(Stages(), folder) as client:
        tei = await client.post(
            "/rerank", json={"query": "q", "texts": FOUR, "raw_scores": True, "model": "fast"}
        )
        nim = await client.post(
            "/v1/ranking",
            json={"model": "fast", "query": {"text": "q"}, "passages": [{"text": t} for t in FOUR]},
        )
        score = await client.post(
            "/score", json={"model": "fast", "queries": "q", "documents": FOUR}
        )
        lines = await client.post(
            "/v1/rerank/stream",
            content='{"id": 1, "model": "fast", "query": "q", "documents": ["1 9", "4 -2", "3 5"]}',
            headers={"content-type": "application/x-ndjson"},
        )
    rankings = nim.json()["rankings"]
    assert [each["index"] for each in rankings] == [2, 1, 3, 0]
    assert [each["logit"] for each in rankings] == sorted(
        (each["logit"] for each in rankings), reverse=True
    )
    if tei.status_code == httpx.codes.OK and isinstance(tei.json(), list):
        assert [each["index"] for each in tei.json()] == [2, 1, 3, 0]
    by_index = {each["index"]: each["score"] for each in score.json()["data"]}
    assert sorted(by_index, key=lambda index: -by_index[index]) == [2, 1, 3, 0]
    assert [each["index"] for each in lines.json()["results"]] == [2, 1, 0]


async def test_a_deadline_leaves_the_score_of_the_stage_before_where_errors_are_skipped(
    folder: Path,
) -> None:
    documents = ["1 9", "4 late", "3 5", "2 8"]
    async with opened(Stages(), folder) as client:
        answer = await rerank(client, documents, on_error="skip")
        failed = await client.post(
            "/rerank", json={"query": "p", "model": "fast", "documents": documents}
        )
    assert stages_of(answer) == [(2, 2), (1, 1), (3, 1), (0, 1)]
    assert answer["errors"] == []
    assert "1 documents" in answer["meta"]["warnings"][0]
    assert (failed.status_code, failed.json()["code"]) == (504, "deadline_exceeded")


async def test_a_document_that_a_later_stage_refuses_is_an_error_of_its_own(folder: Path) -> None:
    documents = ["1 9", "4 long", "3 5", "2 8"]
    async with opened(Stages(), folder) as client:
        answer = await rerank(client, [*documents, {"image": "bad"}], on_error="skip")
        failed = await client.post(
            "/rerank", json={"query": "p", "model": "fast", "documents": documents}
        )
    assert [each["index"] for each in answer["results"]] == [2, 3, 0]
    assert [(each["index"], each["code"]) for each in answer["errors"]] == [
        (1, "pair_too_long"),
        (4, "invalid_image"),
    ]
    assert failed.json()["errors"][0]["loc"] == ["documents", 1]


async def test_three_stages_make_one_order(tmp_path: Path) -> None:
    middle = structs.replace(BIG, model="middle", digest="sha256:m", version="sha256:" + "a" * 64)
    stages = (
        SMALL_STAGE | {"keep": {"share": 0.6, "at_least": 3}},
        {
            "model": "middle",
            "version": middle.version,
            "keep": {"margin": 1, "rank": 1, "at_least": 1},
        },
        BIG_STAGE,
    )
    worker = Stages(SMALL, middle, BIG)
    documents = ["5 1 0", "4 3 1", "3 2 7", "2 9 9", "1 9 9"]
    async with opened(worker, cascade_folder(tmp_path / "fast", *stages)) as client:
        answer = await rerank(client, documents)
    assert stages_of(answer) == [(2, 3), (1, 3), (0, 2), (3, 1), (4, 1)]


async def test_a_cascade_is_listed_and_used_as_a_model_is(folder: Path) -> None:
    async with opened(Stages(), folder, model_aliases={"quick": "fast"}) as client:
        listed = {each["id"]: each for each in (await client.get("/v1/models")).json()["data"]}
        one = (await client.get("/v1/models/fast")).json()
        info = (await client.get("/info")).json()
        aliased = await rerank(client, FOUR, model="quick")
        full = await rerank(client, FOUR, model="big")

    assert set(listed) == {"small", "big", "fast", "quick"}
    assert listed["fast"]["cascade"]["ready"]
    assert [stage["model"] for stage in listed["fast"]["cascade"]["stages"]] == ["small", "big"]
    assert "cascade" not in listed["big"]
    assert one["id"] == "fast"
    assert info["cascades"]["fast"]["evidence"]["benchmark"] == "nine-cells-20"
    assert aliased["model"] == "fast"
    assert aliased["meta"]["model_digest"] != full["meta"]["model_digest"]


async def test_a_key_may_be_for_a_cascade_without_its_stages(folder: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    entry = KeyEntry(sha256=digest(b"secret").hex(), name="a", models=("fast",))
    change_keys(keys, lambda _: (entry,), create=True)
    async with opened(Stages(), folder, api_keys_file=keys) as client:
        client.headers["authorization"] = "Bearer secret"
        assert stages_of(await rerank(client, FOUR))[0] == (2, 2)
        refused = await client.post(
            "/rerank", json={"query": "q", "model": "big", "documents": FOUR}
        )
        listed = (await client.get("/v1/models")).json()["data"]
        info = (await client.get("/info")).json()
    assert refused.status_code == httpx.codes.FORBIDDEN
    assert [each["id"] for each in listed] == ["fast"]
    assert "model" not in listed[0]["cascade"]["stages"][0]
    assert info["model"] == "fast"


async def test_a_stage_in_another_version_is_not_served(folder: Path) -> None:
    other = structs.replace(BIG, version="sha256:" + "c" * 64)
    async with opened(Stages(SMALL, other), folder) as client:
        listed = {each["id"]: each for each in (await client.get("/v1/models")).json()["data"]}
        refused = await client.post(
            "/rerank", json={"query": "q", "model": "fast", "documents": FOUR}
        )
        direct = await rerank(client, FOUR, model="big")
    assert (refused.status_code, refused.json()["code"]) == (503, "no_worker")
    assert "stage 2" in refused.json()["message"]
    assert not listed["fast"]["cascade"]["ready"]
    assert "another version" in listed["fast"]["cascade"]["reason"]
    assert len(direct["results"]) == 4


@pytest.mark.parametrize("damage", ["absent", "changed", "twice"])
def test_a_gateway_does_not_start_with_a_folder_that_is_no_cascade(
    damage: str, folder: Path
) -> None:
    folders = [folder]
    if damage == "absent":
        folders = [folder.parent / "nothing"]
    elif damage == "changed":
        (folder / "cascade.json").write_text("{}", encoding="utf-8")
    else:
        folders = [folder, folder]
    with pytest.raises(CascadesUnusable, match="RERANK_CASCADES"):
        create_gateway(GatewaySettings(cascades=tuple(folders)), [])
