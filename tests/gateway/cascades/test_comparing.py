"""The online guard: which requests are compared, in the background, and what is observed."""

from __future__ import annotations

import asyncio
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from starlette.responses import Response

from service.gateway.cascades.sampling import is_sampled
from service.wire import ScoreCall
from tests.gateway.cascades.published import Stages, cascade_folder, opened, rerank
from tests.metrics import metric_value

FOUR = ["1 9", "4 -2", "3 5", "2 8"]
"""The cascade orders them 2, 1, 3, 0, and the last stage alone 0, 3, 2, 1."""


def compared(outcome: str = "compared") -> float:
    return metric_value("rerank_cascade_comparisons_total", cascade="fast", outcome=outcome)


def observed(metric: str) -> float:
    return metric_value(f"rerank_cascade_{metric}_sum", cascade="fast")


async def until_compared(before: float, outcome: str = "compared") -> None:
    async with asyncio.timeout(30):
        while compared(outcome) == before:
            await asyncio.sleep(0.01)


async def test_a_sampled_request_is_scored_fully_after_its_answer(tmp_path: Path) -> None:
    worker = Stages()
    async with opened(
        worker, cascade_folder(tmp_path / "fast"), cascade_compare_share=1.0
    ) as client:
        before = compared()
        discordance, overlap = observed("discordance"), observed("top10_overlap")
        answer = await rerank(client, FOUR)
        await until_compared(before)
        full = await rerank(client, FOUR, model="big")

    assert [each["index"] for each in answer["results"]] == [2, 1, 3, 0]
    assert worker.scored_by("big") == sorted(FOUR), "each once: the rest in the background"
    assert full["meta"]["cached_pairs"] == 4
    assert observed("discordance") - discordance == 5 / 6, "all pairs but that of 2 and 1"
    assert observed("top10_overlap") - overlap == 1.0


async def test_a_request_that_bypasses_the_cache_leaves_no_score_in_it(tmp_path: Path) -> None:
    async with opened(
        Stages(), cascade_folder(tmp_path / "fast"), cascade_compare_share=1.0
    ) as client:
        before = compared()
        await rerank(client, FOUR, cache="bypass")
        await until_compared(before)
        assert (await rerank(client, FOUR, model="big"))["meta"]["cached_pairs"] == 0


async def test_a_comparison_that_fails_is_counted_and_ends_nothing(tmp_path: Path) -> None:
    documents = ["1 late", "4 -2", "3 5", "2 8"]
    async with opened(
        Stages(), cascade_folder(tmp_path / "fast"), cascade_compare_share=1.0
    ) as client:
        before = compared("failed")
        await rerank(client, documents)
        await until_compared(before, "failed")
        before = compared()
        await rerank(client, FOUR)
        await until_compared(before)


async def test_nothing_is_compared_outside_of_the_sample(tmp_path: Path) -> None:
    worker = Stages()
    async with opened(worker, cascade_folder(tmp_path / "fast")) as client:
        before = compared()
        for number in range(5):
            await rerank(client, FOUR, query=f"query {number}")
        await asyncio.sleep(0.1)
    assert compared() == before
    assert worker.scored_by("big") == sorted(["4 -2", "3 5"] * 5)


class Held(Stages):
    """The last stage scores no document with "rest" in it before `go` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.go = asyncio.Event()
        answer = self.answer

        async def held(call: ScoreCall) -> Response:
            if call.model == "big" and "rest" in str(call.documents):
                await self.go.wait()
            return await answer(call)

        self.answer = held


async def test_no_answer_waits_for_a_comparison_and_what_exceeds_their_room_is_left_out(
    tmp_path: Path,
) -> None:
    worker = Held()
    documents = ["1 9 rest", "4 -2", "3 5", "2 8"]
    async with opened(
        worker, cascade_folder(tmp_path / "fast"), cascade_compare_share=1.0
    ) as client:
        done, busy = compared(), compared("busy")
        for number in range(12):
            await rerank(client, documents, query=f"query {number}")
        assert (compared(), compared("busy")) == (done, busy + 4)
        worker.go.set()
        async with asyncio.timeout(30):
            while compared() < done + 8:
                await asyncio.sleep(0.01)


@given(st.integers(0, 2**63 - 1), st.text(max_size=20), st.binary(max_size=20))
def test_the_sample_is_a_function_of_seed_request_and_query(
    seed: int, request_id: str, query: bytes
) -> None:
    first = is_sampled(seed, 0.5, request_id, query)
    assert is_sampled(seed, 0.5, request_id, query) == first
    assert not is_sampled(seed, 0.0, request_id, query)
    assert is_sampled(seed, 1.0, request_id, query)
    assert is_sampled(seed, 0.9, request_id, query) or not first, "a larger share has the smaller"


def test_the_sample_has_its_share_and_differs_by_seed() -> None:
    def sample(seed: int) -> set[int]:
        return {number for number in range(20_000) if is_sampled(seed, 0.01, f"rr-{number}", b"q")}

    assert 140 < len(sample(0)) < 260
    assert len(sample(0) & sample(1)) < 20
