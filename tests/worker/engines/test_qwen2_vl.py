"""Both engines give pairs of jina-reranker-m0 and MonoQwen2-VL their authors' scores, in every
cell."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from model_store.checkpoint import resolve
from service.cli.main import app
from service.wire import Pixels, ScoreCall, Scored, SideRule, WireItem, WorkerInfo
from service.worker.engines.torch.engine import TorchEngine
from service.worker.settings import WorkerSettings
from tests.qwen2_vl import (
    SIDES,
    JinaAuthors,
    MonoAuthors,
    Side,
    as_item,
    side,
    write_qwen2_vl,
)
from tests.worker.calls import verdicts
from tests.worker.engines.conftest import Serve
from tests.worker.engines.vllm.engine_worker import Pair
from tests.worker.engines.vllm.one_process import WorkerInProcess
from tests.worker.serving import ready_worker

DOCUMENTS: list[Side] = [side(kind, seed) for seed in (2, 3) for kind in SIDES]
DOCUMENTS.append(("Berlin is the capital of Germany. " * 40,))
EXACT, ACROSS_ENGINES = 1e-4, 1e-3


def call_of(query: Side, documents: list[Side] = DOCUMENTS, model: str = "") -> ScoreCall:
    """A call with images of the size that the models read; a worker asks for the model's name."""
    images: dict[bytes, Pixels] = {}

    def wire(parts: Side) -> WireItem:
        item: WireItem = []
        for part, given in zip(as_item(parts), parts, strict=True):
            if isinstance(part, str) or isinstance(given, str):
                item.append(given)
                continue
            images.setdefault(part.key, Pixels(part.key, part.width, part.height, given.tobytes()))
            item.append(list(images).index(part.key))
        return item

    items = [wire(query), *map(wire, documents)]
    return ScoreCall(model, None, items[0], items[1:], list(images.values()), truncate=True)


def logits(pairs: list[Pair]) -> list[float]:
    found = []
    for pair in pairs:
        assert isinstance(pair, Scored), pair
        found.append(pair.logit)
    return found


async def torch_scores(folder: Path, *calls: ScoreCall) -> tuple[WorkerInfo, list[list[float]]]:
    engine = TorchEngine(device="cpu", threads=1)
    (info,) = await engine.start(resolve(str(folder)))
    found = [logits(await verdicts(engine, call)) for call in calls]
    await engine.close()
    return info, found


def queries() -> list[Side]:
    return [side(kind, 1) for kind in SIDES]


@pytest.fixture(scope="module")
def jina(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_qwen2_vl(tmp_path_factory.mktemp("hub") / "jina-reranker-m0", ranking=True)


@pytest.fixture(scope="module")
def mono(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_qwen2_vl(tmp_path_factory.mktemp("hub") / "MonoQwen2-VL-v0.1", seed=1)


@pytest.fixture(scope="module")
def expected_of_jina(jina: Path) -> list[list[float]]:
    authors = JinaAuthors(jina)
    return [[authors.raw_score(query, each) for each in DOCUMENTS] for query in queries()]


@pytest.fixture(scope="module")
def expected_of_mono(mono: Path) -> list[list[float]]:
    authors = MonoAuthors(mono)
    return [[authors.raw_score(query, each) for each in DOCUMENTS] for query in queries()]


def expect_close(found: list[list[float]], expected: list[list[float]], within: float) -> None:
    for row, (scores, wanted) in enumerate(zip(found, expected, strict=True)):
        assert scores == pytest.approx(wanted, abs=within), SIDES[row]
    flat = [score for row in expected for score in row]
    assert max(flat) - min(flat) > 100 * ACROSS_ENGINES  # scores that tell pairs apart


async def test_torch_scores_jina_as_its_authors_do(
    jina: Path, expected_of_jina: list[list[float]]
) -> None:
    info, found = await torch_scores(jina, *map(call_of, queries()))
    expect_close(found, expected_of_jina, EXACT)

    assert (info.cacheable_side, info.takes_instruction) == ("document", False)
    assert info.query_side == info.document_side == SideRule(max_images=1)
    assert (info.read_out, info.probability.name) == ("two-layer score head", "sigmoid(x - 2.65)")
    assert info.probability(2.65) == 0.5


async def test_torch_scores_mono_as_its_authors_do(
    mono: Path, expected_of_mono: list[list[float]]
) -> None:
    info, found = await torch_scores(mono, *map(call_of, queries()))
    expect_close(found, expected_of_mono, EXACT)
    assert (info.read_out, info.probability.name) == ("True - False", "sigmoid")


async def test_a_head_of_its_own_is_read(tmp_path: Path) -> None:
    folder = write_qwen2_vl(tmp_path / "MonoQwen2-VL-v0.1", seed=4, tied=False)
    query, document = side("text", 1), side("image", 2)
    _, ((found,),) = await torch_scores(folder, call_of(query, [document]))
    assert found == pytest.approx(MonoAuthors(folder).raw_score(query, document), abs=EXACT)


@pytest.mark.parametrize("ranking", [True, False])
async def test_scores_do_not_depend_on_names_of_tensors_nor_on_a_second_head(
    tmp_path: Path, ranking: bool, jina: Path, mono: Path
) -> None:
    """Checkpoints that transformers saved since 4.52 have other names, and some a copied head."""
    old, seed = (jina, 0) if ranking else (mono, 1)
    folder = write_qwen2_vl(tmp_path / old.name, seed=seed, ranking=ranking, names="new")
    file = folder / "model.safetensors"
    tensors = load_file(file)
    tensors["lm_head.weight"] = tensors["model.language_model.embed_tokens.weight"].clone()
    save_file(tensors, file, metadata={"format": "pt"})

    call = call_of(side("fused", 1))
    before, found = await torch_scores(old, call)
    after, again = await torch_scores(folder, call)
    assert found == again
    assert before.digest != after.digest  # of other files


@pytest.mark.parametrize("family", ["jina", "mono"])
async def test_a_score_is_the_same_to_the_last_bit_in_every_batch(
    family: str, request: pytest.FixtureRequest
) -> None:
    folder: Path = request.getfixturevalue(family)
    query = side("text", 1)
    documents: list[Side] = [(f"The number {number} is red.",) for number in range(37)]
    alone = [call_of(query, [document]) for document in documents[:5]]
    _, found = await torch_scores(folder, call_of(query, documents), *alone)
    assert [scores[0] for scores in found[1:]] == found[0][:5]


async def test_the_digest_changes_with_each_thing_that_changes_a_score(
    jina: Path, tmp_path: Path
) -> None:
    digests = {resolve(str(jina)).digest}
    for number, (name, changes) in enumerate(
        [
            ("preprocessor_config.json", {"max_pixels": 50_176}),
            ("preprocessor_config.json", {"min_pixels": 12_544}),
            ("config.json", {"rope_theta": 10_000.0}),
            ("tokenizer_config.json", {"model_max_length": 77}),
        ]
    ):
        folder = tmp_path / str(number)
        shutil.copytree(jina, folder)
        content = json.loads((folder / name).read_text(encoding="utf-8"))
        (folder / name).write_text(json.dumps(content | changes), encoding="utf-8")
        digests.add(resolve(str(folder)).digest)

    tensors = load_file(jina / "model.safetensors")
    for number, tensor in enumerate(("score.0.bias", "score.2.bias", "visual.merger.ln_q.bias")):
        folder = tmp_path / f"tensor-{number}"
        shutil.copytree(jina, folder)
        changed = tensors | {tensor: tensors[tensor] + 1}
        save_file(changed, folder / "model.safetensors", metadata={"format": "pt"})
        digests.add(resolve(str(folder)).digest)
    assert len(digests) == 8


@pytest.mark.parametrize("family", ["jina", "mono"])
async def test_golden_pairs_by_transformers_are_reproduced(
    family: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Of all nine cells, so that the images of both sides are in the prompt's order."""
    source: Path = request.getfixturevalue(family)
    folder = Path(shutil.copytree(source, tmp_path / source.name))
    made = CliRunner().invoke(app, ["models", "inspect", str(folder), "--golden", "9"])
    assert made.exit_code == 0, made.output

    settings = WorkerSettings(model=str(folder), engine="torch")
    async with ready_worker(settings, TorchEngine(device="cpu", threads=1)) as client:
        (info,) = (await client.get("/info")).json()
    assert info["golden_pairs"] == 9


def asked(worker: WorkerInProcess) -> list[list[float]]:
    """A worker's scores of all pairs, asked for twice: the second time from its prefix cache."""
    calls = [call_of(query, model=worker.info.model) for query in queries()]
    first, second = ([logits(found) for found in worker.ask_all(calls)] for _ in range(2))
    for row, again in zip(first, second, strict=True):
        assert again == pytest.approx(row, abs=EXACT)
    return first


@pytest.mark.slow
@pytest.mark.parametrize("family", ["jina", "mono"])
def test_vllm_scores_as_the_authors_do(
    family: str, request: pytest.FixtureRequest, vllm_worker: Serve
) -> None:
    """vLLM itself would subtract 2.65 from each score of jina-reranker-m0."""
    folder: Path = request.getfixturevalue(family)
    expected: list[list[float]] = request.getfixturevalue(f"expected_of_{family}")
    expect_close(asked(vllm_worker(folder)), expected, ACROSS_ENGINES)
