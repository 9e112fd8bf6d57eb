"""LoRA adapters are models of their own: each scores as if its weights had been merged, beside the
base and each other."""

from __future__ import annotations

import asyncio
from pathlib import Path
from random import Random

import pytest
from msgspec import structs

from model_store.evaluation.naive import NaiveReranker
from model_store.synthetic import cells
from model_store.synthetic.examples import Example
from service.errors import ModelNotFound
from service.wire import ScoreCall
from service.worker.engines.torch.engine import TorchEngine
from tests.worker.calls import as_call
from tests.worker.engines.vllm.adapters import merge
from tests.worker.engines.vllm.agreement import TOLERANCE, agree, drift, logit
from tests.worker.engines.vllm.conftest import ADAPTERS, DATED
from tests.worker.engines.vllm.engine_worker import EngineWorker

pytestmark = pytest.mark.slow

CELLS = ("T-T", "T-I", "IT-IT")


def example(cell: str) -> Example:
    return cells.sample(cell, Random(f"adapters/{cell}"), "heldout", 5)


def call(cell: str, model: str) -> ScoreCall:
    sample = example(cell)
    return structs.replace(as_call(sample.instruction, sample.query, sample.documents), model=model)


async def test_they_are_served_after_the_model_each_with_a_digest(
    cached: EngineWorker, plain: EngineWorker
) -> None:
    served = await cached.served()
    assert [info.model for info in served] == ["gmr-tiny", *ADAPTERS, DATED]
    assert len({info.digest for info in served}) == len(served)
    alone = (await plain.served())[0]
    assert structs.replace(served[0], picture_store="") == structs.replace(alone, picture_store="")
    # these come without a manifest
    assert [bool(info.version) for info in served] == [True, False, False, False]
    assert [bool(info.golden_pairs) for info in served] == [True, False, False, False]
    assert (
        len(
            {
                structs.replace(info, model="", digest="", version="", golden_pairs=0)
                for info in served
            }
        )
        == 1
    )


@pytest.mark.parametrize("name", ADAPTERS)
async def test_an_adapter_scores_as_if_it_were_merged(
    cached: EngineWorker, adapters: dict[str, Path], name: str, tmp_path: Path
) -> None:
    reference = NaiveReranker(merge(adapters[name], tmp_path / "merged"))
    for cell in CELLS:
        sample = example(cell)
        wanted = [
            reference.logit(sample.instruction, sample.query, document, frugal=True)
            for document in sample.documents
        ]
        found = [logit(pair) for pair in await cached.ask(call(cell, name))]
        assert found == pytest.approx(wanted, abs=TOLERANCE)


async def test_names_of_2025_are_served_as_todays(cached: EngineWorker) -> None:
    for cell in CELLS:
        wanted, found = await cached.ask(call(cell, "colours")), await cached.ask(call(cell, DATED))
        assert drift(wanted, found) < TOLERANCE


async def test_the_model_and_its_adapters_do_not_mix(
    cached: EngineWorker, oracle: TorchEngine
) -> None:
    calls: list[ScoreCall] = []
    for cell in CELLS:
        calls += [call(cell, name) for name in ("gmr-tiny", *ADAPTERS)]
    alone = [await cached.ask(scored) for scored in calls]
    together = await asyncio.gather(*map(cached.ask, calls))
    for found, expected in zip(together, alone, strict=True):
        assert drift(found, expected) < TOLERANCE
    for base in range(0, len(calls), 3):
        assert drift(alone[base], alone[base + 1]) > 0.1
        assert drift(alone[base], alone[base + 2]) > 0.1
    for cell in CELLS:
        assert await agree(cached, oracle, call(cell, "gmr-tiny"))


@pytest.mark.parametrize("name", ["", "gmr-tiny-2", "Colours", "../colours"])
async def test_an_unknown_name_is_not_found(cached: EngineWorker, name: str) -> None:
    answer = await cached.post(call("T-T", name))
    assert (answer.status_code, answer.json()["code"]) == (ModelNotFound.status, ModelNotFound.code)
