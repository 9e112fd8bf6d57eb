"""Rerankers of text on causal decoders have the scores of their authors' formatting and a plain
forward pass, on both engines."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from model_store.checkpoint import resolve
from service.wire import ScoreCall, Scored, WorkerInfo
from service.worker.engines.torch.engine import TorchEngine
from tests.text_decoders import RERANKERS, AuthorsScorer, convert, write_reranker
from tests.worker.calls import verdicts
from tests.worker.engines.conftest import Serve

INSTRUCTIONS = ("", "Find the passage that answers.")
QUERY = "how do I sort a list?"
DOCUMENTS = [
    "Sort the list in ascending order and return None.",
    "Berlin is the capital of Germany. " * 30,
    "",
    "Eine Liste wird mit sort() sortiert, \u00e0 la carte, \u4e2d\u6587?",
]
TRANSFORMS = {
    "qwen3-reranker": "sigmoid",
    "zerank": "sigmoid(x / 5)",
    "mxbai-rerank-v2": "sigmoid(x - 6)",
    "bge-reranker-v2-gemma": "sigmoid",
}


def call_of(model: str, instruction: str) -> ScoreCall:
    return ScoreCall(
        model, instruction, [QUERY], [[document] for document in DOCUMENTS], [], truncate=True
    )


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {
        family: write_reranker(root, family, seed=seed) for seed, family in enumerate(RERANKERS)
    }


def expect_described(info: WorkerInfo, family: str) -> None:
    assert info.family == family
    assert info.template == "official"
    assert info.images is None
    assert info.read_out == " - ".join(RERANKERS[family].labels)
    assert info.probability.name == TRANSFORMS[family]
    assert info.cacheable_side == "query"
    assert info.takes_instruction == (family != "bge-reranker-v2-gemma")


@pytest.mark.parametrize("family", RERANKERS)
async def test_torch_gives_the_authors_scores(folders: Mapping[str, Path], family: str) -> None:
    authors = AuthorsScorer(folders[family], family)
    engine = TorchEngine(device="cpu", threads=1)
    (info,) = await engine.start(resolve(str(folders[family])))
    expect_described(info, family)
    for instruction in INSTRUCTIONS:
        found = await verdicts(engine, call_of(info.model, instruction))
        expected = authors.scores(instruction, QUERY, DOCUMENTS)
        logits = [pair.logit for pair in found if isinstance(pair, Scored)]
        assert logits == pytest.approx(expected, abs=1e-4)
        assert len(set(logits)) == len(DOCUMENTS)
    await engine.close()


@pytest.mark.parametrize("family", ["qwen3-reranker", "mxbai-rerank-v2"])
async def test_a_conversion_for_classifiers_has_the_same_prompt_and_scores(
    folders: Mapping[str, Path], family: str, tmp_path: Path
) -> None:
    """A common mistake with it is the pair without the template."""
    expected = AuthorsScorer(folders[family], family).scores("", QUERY, DOCUMENTS)
    copied = Path(shutil.copytree(folders[family], tmp_path / folders[family].name))
    engine = TorchEngine(device="cpu", threads=1)
    (info,) = await engine.start(resolve(str(convert(copied, family))))
    found = await verdicts(engine, call_of(info.model, ""))
    await engine.close()

    assert (info.family, info.read_out) == (family, "score head")
    logits = [pair.logit for pair in found if isinstance(pair, Scored)]
    assert logits == pytest.approx(expected, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("family", RERANKERS)
def test_vllm_gives_the_authors_scores(
    folders: Mapping[str, Path], vllm_worker: Serve, family: str
) -> None:
    worker = vllm_worker(folders[family])
    expect_described(worker.info, family)
    authors = AuthorsScorer(folders[family], family)
    calls = [call_of(worker.info.model, instruction) for instruction in INSTRUCTIONS]
    for instruction, found in zip(INSTRUCTIONS, worker.ask_all(calls), strict=True):
        logits = [pair.logit for pair in found if isinstance(pair, Scored)]
        expected = authors.scores(instruction, QUERY, DOCUMENTS)
        assert logits == pytest.approx(expected, abs=1e-3)
