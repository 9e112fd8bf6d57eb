"""Both engines give Qwen3-VL-Reranker's scores as its authors' code computes them: with its
deepstack, with a tied and with an untied head, for all nine cells and for several images."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import pytest
from msgspec import structs
from sentence_transformers import CrossEncoder

from model_store.checkpoint import resolve
from model_store.golden import GoldenPair, write_golden
from model_store.golden import Side as GoldenSide
from model_store.manifest import digest_files, write_manifest
from service.wire import ImageRule, ScoreCall, Scored, WorkerInfo
from service.worker.engines.torch.engine import TorchEngine
from tests.qwen3_vl import (
    INSTRUCTION,
    AuthorsCode,
    Side,
    call_of,
    messages_of,
    picture,
    write_cross_encoder,
    write_qwen3_vl,
)
from tests.worker.calls import verdicts
from tests.worker.engines.conftest import Serve
from tests.worker.engines.vllm.engine_worker import Pair

EXACT = 1e-4
ENGINES = 1e-3
SIZES = ((64, 64), (96, 64), (160, 128), (64, 224), (256, 96))
PICTURES = [picture(seed, *size) for seed, size in enumerate(SIZES)]
ONE, TWO, THREE, FOUR, FIVE = PICTURES

QUERIES: dict[str, Side] = {
    "T": ("how do I sort a list",),
    "I": (ONE,),
    "IT": ("what is beside", TWO, "?"),
}
DOCUMENTS: dict[str, list[Side]] = {
    "T": [("Sort the list in ascending order.",), ("Berlin is a city. " * 40,), ("",)],
    "I": [(THREE,), (ONE,), (FIVE,)],
    "IT": [("a caption first", FOUR), (TWO, "a caption")],
}
CELLS = [f"{query}-{document}" for query in QUERIES for document in DOCUMENTS]
SEVERAL_QUERY: Side = (ONE, "between", TWO, "and", ONE)
SEVERAL: list[Side] = [
    (ONE, TWO),
    (TWO, ONE),
    (FOUR, "in the middle", FIVE, THREE, "last"),
    ("no picture",),
    (FIVE, FIVE, FIVE, "thrice"),
    (),
]


def sides_of(cell: str) -> tuple[list[Side], list[Side]]:
    """The query of a cell, and its documents."""
    query, document = cell.split("-")
    return [QUERIES[query]], DOCUMENTS[document]


@dataclass(frozen=True)
class Model:
    """A folder, and a TorchEngine and the authors' code that have loaded it."""

    folder: Path
    engine: TorchEngine
    authors: AuthorsCode
    info: WorkerInfo

    def wanted(self, query: Side, documents: list[Side]) -> list[float]:
        return [self.authors.logit(query, document) for document in documents]

    async def found(self, call: ScoreCall) -> list[float]:
        return [logit_of(pair) for pair in await verdicts(self.engine, call)]


def logit_of(pair: Pair) -> float:
    assert isinstance(pair, Scored), pair
    return pair.logit


@pytest.fixture(scope="module", params=["tied", "untied"])
async def model(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Model]:
    name, tied = f"qwen3-vl-reranker-{request.param}", request.param == "tied"
    folder = write_qwen3_vl(tmp_path_factory.mktemp("models") / name, seed=3, tied=tied)
    engine = TorchEngine(device="cpu", threads=1 if tied else 2)
    (info,) = await engine.start(resolve(str(folder)))
    yield Model(folder, engine, AuthorsCode(folder), info)
    await engine.close()


def test_the_model_is_described(model: Model) -> None:
    info = model.info
    assert (info.family, info.template) == ("qwen3-vl-reranker", "official")
    assert (info.read_out, info.cacheable_side) == ("yes - no", "query")
    assert info.max_pair_tokens == 10_240
    assert info.images == ImageRule(32, 4096, 1_310_720)


@pytest.mark.parametrize("cell", CELLS)
async def test_every_cell_scores_as_the_authors_code_does(model: Model, cell: str) -> None:
    (query,), documents = sides_of(cell)
    found = await model.found(call_of(query, documents))
    assert found == pytest.approx(model.wanted(query, documents), abs=EXACT)


async def test_several_images_score_as_the_authors_code_does(model: Model) -> None:
    found = await model.found(call_of(SEVERAL_QUERY, SEVERAL))
    assert found == pytest.approx(model.wanted(SEVERAL_QUERY, SEVERAL), abs=EXACT)


async def test_a_logit_is_the_same_to_the_last_bit_in_every_company(model: Model) -> None:
    rng = Random("company")
    documents = [*DOCUMENTS["T"], *DOCUMENTS["I"], *DOCUMENTS["IT"], *SEVERAL]
    documents += [("word " * words, picture(words, 64, 32 * words)) for words in range(2, 9)]
    for query in (QUERIES["T"], SEVERAL_QUERY):
        together = await model.found(call_of(query, documents))
        for size in (1, 1, 2, 3, 5, 9):
            indexes = rng.sample(range(len(documents)), size)
            found = await model.found(call_of(query, [documents[index] for index in indexes]))
            assert found == [together[index] for index in indexes]


async def test_the_maps_of_an_image_decide_its_scores(model: Model) -> None:
    """The comparison with the authors' code would not show maps that are left out, if they decided
    nothing."""
    shallow = AuthorsCode(model.folder)
    for parameter in shallow.model.model.visual.deepstack_merger_list.parameters():
        parameter.data.zero_()

    for query, document in ((QUERIES["T"], (THREE,)), (QUERIES["I"], ("text",))):
        (deep,) = await model.found(call_of(query, [document]))
        assert abs(deep - shallow.logit(query, document)) > 100 * EXACT


@pytest.fixture(scope="module")
def cross_encoder_folder(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model's folder in sentence-transformers' form."""
    folder = Path(shutil.copytree(model.folder, tmp_path_factory.mktemp("st") / model.folder.name))
    write_cross_encoder(folder)
    return folder


async def test_scores_and_ids_are_those_of_sentence_transformers(
    model: Model, cross_encoder_folder: Path
) -> None:
    """It reads images with the processor of transformers itself."""
    folder = str(cross_encoder_folder)
    assert resolve(folder).manifest.family == "qwen3-vl-reranker"
    cross_encoder = CrossEncoder(folder, device="cpu", model_kwargs={"dtype": "float32"})
    some = [*(documents[0] for documents in DOCUMENTS.values()), *SEVERAL[2:4]]
    for query, documents in ((SEVERAL_QUERY, some), ((), [some[0], ()])):
        pairs = [messages_of(query, document) for document in documents]
        predicted = [float(cross_encoder.predict([pair])[0]) for pair in pairs]
        assert await model.found(call_of(query, documents)) == pytest.approx(predicted, abs=EXACT)

        for pair, document in zip(pairs, documents, strict=True):
            (ids,) = cross_encoder.preprocess([pair], prompt=INSTRUCTION)["input_ids"]
            assert ids.tolist() == model.authors.ids(INSTRUCTION, query, document)


async def test_the_folders_own_template_gives_the_same_scores(
    model: Model, cross_encoder_folder: Path
) -> None:
    """The family of any folder in sentence-transformers' form, on the same network."""
    checkpoint = resolve(str(cross_encoder_folder), family="sentence-transformers")
    generic = TorchEngine(device="cpu", threads=1)
    (info,) = await generic.start(checkpoint)
    assert info.family == "sentence-transformers"

    call = call_of(SEVERAL_QUERY, SEVERAL)
    found = [logit_of(pair) for pair in await verdicts(generic, call)]
    await generic.close()
    assert found == pytest.approx(await model.found(call), abs=1e-5)


def publish(model: Model) -> None:
    """Give the folder a manifest, and golden pairs of all cells by the authors' code."""
    pairs = []
    for cell in CELLS:
        query, document = (sides[0] for sides in sides_of(cell))
        logit = model.authors.logit(query, document)
        pairs.append(GoldenPair(cell, INSTRUCTION, pixels(query), pixels(document), logit))

    manifest = resolve(str(model.folder)).manifest
    files = digest_files(model.folder, [*manifest.files, *write_golden(model.folder, pairs)])
    write_manifest(model.folder, manifest.model_copy(update={"files": files}))


def pixels(side: Side) -> GoldenSide:
    return tuple(part if isinstance(part, str) else np.asarray(part) for part in side)


SMALL_STEPS = {
    "max_num_batched_tokens": "128",
    "mm_processor_cache_gb": "0.0001",
}
"""Images are computed in pieces, and the engine holds about sixty tokens' embeddings."""


@pytest.mark.slow
@pytest.mark.parametrize("model", ["tied"], indirect=True)
def test_vllm_scores_as_the_authors_code_does(model: Model, vllm_worker: Serve) -> None:
    """The worker itself scores golden pairs of all cells when it starts."""
    publish(model)
    worker = vllm_worker(model.folder, **SMALL_STEPS)
    assert worker.info.golden_pairs == len(CELLS)
    assert worker.info.images == model.info.images

    documents = [*SEVERAL, (picture(9, 416, 448),), ("before", picture(8, 448, 416), "after")]
    call = structs.replace(call_of(SEVERAL_QUERY, documents), model=worker.info.model)
    found = [logit_of(pair) for pair in worker.ask(call)]
    assert found == pytest.approx(model.wanted(SEVERAL_QUERY, documents), abs=ENGINES)
