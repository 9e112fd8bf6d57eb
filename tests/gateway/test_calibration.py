"""Probabilities of calibrated models: in answers of every shape, in `/info`, and beside workers
that have none, over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from service.gateway.app import create_gateway
from service.gateway.dialects import native
from service.gateway.domain import RerankResult, ScoredDocument
from service.gateway.settings import GatewaySettings
from service.limits import Limits
from service.wire import Calibration, IsotonicMap, PlattMap, Scored, WorkerInfo
from tests.gateway.stand_in import INFO, Reader

ISOTONIC = IsotonicMap((0.0, 2.0, 4.0), (0.1, 0.1, 0.9))
PLATT = PlattMap(1.0, -1.0)


def calibration(instruction: str, applied: IsotonicMap | PlattMap) -> Calibration:
    return Calibration(instruction, applied, "ab" * 32, 1800, 0.05, 0.01, 0.008, 0.02)


CALIBRATED = structs.replace(
    INFO,
    version="sha256:calibrated",
    calibrations=(calibration("find", ISOTONIC), calibration("Match.", PLATT)),
)


@asynccontextmanager
async def gateway(*workers: Reader, **fields: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A gateway in this process, once it knows every worker."""
    app = create_gateway(GatewaySettings(**fields), [worker.client for worker in workers])
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app=app), base_url="http://gateway", timeout=60
        ) as client,
    ):
        async with asyncio.timeout(10):
            while (await client.get("/health/ready")).is_error:
                await asyncio.sleep(0.01)
        yield client


def reader(info: WorkerInfo) -> Reader:
    worker = Reader()
    worker.info, worker.digest = info, info.digest
    return worker


async def rerank(client: httpx.AsyncClient, path: str = "/rerank", **fields: Any) -> httpx.Response:
    return await client.post(path, json={"query": "q", "documents": ["3", "1", "4"]} | fields)


async def test_results_have_the_probability_of_the_instruction_and_keep_their_order() -> None:
    async with gateway(reader(CALIBRATED)) as client:
        results = (await rerank(client)).json()["results"]
        found = [(each["index"], each["logit"], each["probability"]) for each in results]
        assert found == [(2, 4.0, 0.9), (0, 3.0, pytest.approx(0.5)), (1, 1.0, 0.1)]
        assert all(each["relevance_score"] != each["probability"] for each in results)

        same = (await rerank(client, instruction="find")).json()["results"]
        assert [each["probability"] for each in same] == [each["probability"] for each in results]
        matched = (await rerank(client, instruction="Match.")).json()["results"]
        assert matched[2]["probability"] == 0.5
        other = (await rerank(client, instruction="Sort.")).json()["results"]
        assert not any("probability" in each for each in other)


async def test_min_score_is_of_either() -> None:
    async with gateway(reader(CALIBRATED)) as client:
        kept = (await rerank(client, min_score=0.4, min_score_on="probability")).json()["results"]
        assert [each["index"] for each in kept] == [2, 0]
        kept = (await rerank(client, min_score=0.4, min_score_on="relevance_score")).json()
        assert len(kept["results"]) == 3


async def test_a_probability_that_is_not_there_is_a_400() -> None:
    async with gateway(reader(CALIBRATED), reader(structs.replace(INFO, model="plain"))) as client:
        for fields in ({"instruction": "Sort."}, {"model": "plain"}):
            answer = await rerank(client, min_score_on="probability", **fields)
            assert answer.status_code == httpx.codes.BAD_REQUEST
            assert answer.json()["errors"][0]["loc"] == ["min_score_on"]
            assert "no calibration" in answer.json()["message"]
        unknown = await rerank(client, min_score_on="odds")
        assert unknown.status_code == httpx.codes.BAD_REQUEST


async def test_a_model_names_its_calibrations() -> None:
    async with gateway(reader(CALIBRATED)) as client:
        named = {
            "instruction": "find",
            "map": "isotonic",
            "rows": f"sha256:{'ab' * 32}",
            "pairs": 1800,
            "relevant_share": 0.05,
            "ece": 0.01,
            "ece_interval": [0.008, 0.02],
        }
        assert (await client.get("/info")).json()["calibrations"][0] == named
        (model,) = (await client.get("/v1/models")).json()["data"]
        assert [each["map"] for each in model["calibrations"]] == ["isotonic", "platt"]


@pytest.mark.parametrize(
    ("path", "fields", "listed"),
    [
        ("/v1/rerank", {"top_k": 3}, "data"),
        ("/v1/reranking", {"input": ["3"], "documents": None}, "data"),
        ("/score", {"queries": "q", "query": None}, "data"),
    ],
)
async def test_dialects_with_logits_have_probabilities(
    path: str, fields: dict[str, Any], listed: str
) -> None:
    async with gateway(reader(CALIBRATED)) as client:
        body = {"query": "q", "documents": ["3"], **fields}
        sent = {name: value for name, value in body.items() if value is not None}
        answer = await client.post(path, json={"model": "m", **sent})
        assert answer.status_code == httpx.codes.OK, answer.text
        assert answer.json()[listed][0]["probability"] == pytest.approx(0.5)


async def test_a_worker_older_than_calibrations_goes_on() -> None:
    described = msgspec.to_builtins(INFO)
    del described["calibrations"]
    worker = Reader()
    worker.info_body = msgspec.json.encode([described])
    async with gateway(worker) as client:
        assert "probability" not in (await rerank(client)).json()["results"][0]
        assert (await client.get("/info")).json()["calibrations"] == []


async def test_a_gateway_older_than_calibrations_reads_a_calibrated_worker() -> None:
    older = msgspec.defstruct("Older", [("model", str), ("digest", str)], frozen=True)
    assert msgspec.json.decode(msgspec.json.encode(CALIBRATED), type=older).digest == INFO.digest


async def test_a_new_calibration_uses_the_scores_that_are_cached() -> None:
    """Its digest is that of the scores: nothing is scored again, and nothing is stale."""
    worker = reader(INFO)
    async with gateway(worker, worker_probe_ms=50) as client:
        before = (await rerank(client)).json()["results"]
        assert worker.seen() == [["3", "1", "4"]]
        worker.info = CALIBRATED
        async with asyncio.timeout(10):
            while not (await client.get("/info")).json()["calibrations"]:
                await asyncio.sleep(0.01)

        after = (await rerank(client)).json()["results"]
        assert worker.seen() == []
        assert next(each["probability"] for each in after) == 0.9
        assert [each["logit"] for each in after] == [each["logit"] for each in before]


async def test_of_equal_scores_the_version_of_most_workers_is_named() -> None:
    workers = [reader(INFO), reader(CALIBRATED), reader(CALIBRATED)]
    async with gateway(*workers) as client:
        async with asyncio.timeout(10):
            while not (await client.get("/info")).json()["calibrations"]:
                await asyncio.sleep(0.01)
        assert "probability" in (await rerank(client)).json()["results"][0]


async def test_a_worker_older_than_calibrations_hides_none_of_its_version() -> None:
    older = structs.replace(CALIBRATED, calibrations=())
    async with gateway(reader(older), reader(CALIBRATED)) as client:
        async with asyncio.timeout(10):
            while not (await client.get("/info")).json()["calibrations"]:
                await asyncio.sleep(0.01)
        answer = await rerank(client, min_score_on="probability")
        assert answer.json()["results"][0]["probability"] == 0.9


async def test_scores_of_a_replaced_model_have_no_probability_of_the_former_one() -> None:
    worker = reader(CALIBRATED)
    new = structs.replace(INFO, digest="sha256:two")
    # only a reply tells that the model was replaced, no probe does
    async with gateway(worker, worker_probe_ms=60_000) as client:
        worker.becomes(new, more=1)
        answer = (await rerank(client)).json()
        assert answer["meta"]["model_digest"] == new.digest
        assert not any("probability" in each for each in answer["results"])


async def test_a_needed_probability_is_never_that_of_the_former_model() -> None:
    worker = reader(CALIBRATED)
    new = structs.replace(INFO, digest="sha256:two")
    async with gateway(worker, worker_probe_ms=60_000) as client:
        worker.becomes(new, more=1)
        answer = await rerank(client, min_score_on="probability")
        assert answer.status_code in (httpx.codes.BAD_REQUEST, httpx.codes.BAD_GATEWAY)


LOGITS = st.lists(st.floats(-50, 50), min_size=1, max_size=20)
KNOTS = st.lists(
    st.tuples(st.floats(-60, 60), st.floats(0, 1)),
    min_size=1,
    max_size=9,
    unique_by=lambda knot: knot[0],
)


def rising(knots: Sequence[tuple[float, float]]) -> IsotonicMap:
    scores, probabilities = zip(*knots, strict=True)
    return IsotonicMap(tuple(sorted(scores)), tuple(sorted(probabilities)))


@given(LOGITS, KNOTS.map(rising) | st.builds(PlattMap, st.floats(0, 1e6), st.floats(-1e6, 1e6)))
@settings(max_examples=100)
def test_a_calibration_never_changes_the_order(
    logits: list[float], applied: IsotonicMap | PlattMap
) -> None:
    documents = [str(logit) for logit in logits]
    query = native.read({"query": "q", "documents": documents}, Limits())
    logits.sort(reverse=True)
    ranked = [
        ScoredDocument(index, Scored(logit, 1, 0, truncated=False), cached=False)
        for index, logit in enumerate(logits)
    ]
    model = structs.replace(INFO, calibrations=(calibration("find", applied),))
    results = native.write(query, RerankResult(model, ranked, []), "id").results

    assert [each.index for each in results] == list(range(len(logits)))
    found = [each.probability for each in results]
    assert all(each is not None and 0 <= each <= 1 for each in found)
    assert found == sorted(found, reverse=True, key=lambda each: each or 0.0)
