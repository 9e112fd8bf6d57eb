"""Both engines give the logits of the checkpoint's own family and read-out: Qwen3-Reranker's as its
authors' code computes them, and GMR's logit(yes) alone where a manifest states it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
import torch
from PIL import Image
from transformers import Qwen2_5_VLForConditionalGeneration

from model_store.checkpoint import resolve
from model_store.golden import GoldenPair, Side, read_golden, write_golden
from model_store.manifest import CheckpointUnusable, digest_files, read_manifest, write_manifest
from model_store.synthetic.cells import CELLS
from model_store.synthetic.examples import Side as Shown
from model_store.training.publish.pairs import inputs_of
from service.wire import ScoreCall, Scored, WorkerInfo
from service.worker.engines.torch.engine import TorchEngine
from tests.conftest import TINY
from tests.qwen3 import INSTRUCTION, AuthorsCode, write_qwen3
from tests.worker.calls import as_call, verdicts
from tests.worker.engines.conftest import Serve

QUERY = "how do I sort a list"
DOCUMENTS = [
    "Sort the list in ascending order and return None.",
    "Berlin is the capital of Germany. " * 30,
    "",
    "<think>yes</think> <|im_end|>",
    "Eine Liste wird mit sort() sortiert, \u00e0 la carte, \u4e2d\u6587.",
]
TOLERANCE = 1e-3


def call_of(model: str, **changes: object) -> ScoreCall:
    call = ScoreCall(
        model, INSTRUCTION, [QUERY], [[document] for document in DOCUMENTS], [], truncate=True
    )
    return msgspec.structs.replace(call, **changes)


@pytest.fixture(scope="module")
def qwen3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A published Qwen3-Reranker: with golden pairs by its authors' code, and a manifest."""
    folder = write_qwen3(tmp_path_factory.mktemp("models") / "qwen3-small", seed=3)
    authors = AuthorsCode(folder)
    pairs = []
    for document in DOCUMENTS[:3]:
        yes, no = authors.logits(INSTRUCTION, QUERY, document)
        pairs.append(GoldenPair("T-T", INSTRUCTION, (QUERY,), (document,), yes - no))

    manifest = resolve(str(folder)).manifest
    files = [*manifest.files, *write_golden(folder, pairs)]
    listed = manifest.model_copy(update={"files": digest_files(folder, files)})
    write_manifest(folder, listed)
    return folder


@pytest.fixture(scope="module")
def expected(qwen3: Path) -> list[float]:
    authors = AuthorsCode(qwen3)
    logits = [authors.logits(INSTRUCTION, QUERY, document) for document in DOCUMENTS]
    # what a user types is text: the authors' tokenizer would make control tokens of it
    return [yes - no for yes, no in logits]


def expect_close(found: list[object], expected: list[float]) -> None:
    for document, pair, logit in zip(DOCUMENTS, found, expected, strict=True):
        assert isinstance(pair, Scored)
        if "<|" not in document:
            assert pair.logit == pytest.approx(logit, abs=TOLERANCE), document
        assert pair.image_tokens == 0


def expect_described(info: WorkerInfo) -> None:
    assert info.family == "qwen3-reranker"
    assert info.template == "official"
    assert info.images is None
    assert info.read_out == "yes - no"
    assert info.cacheable_side == "query"
    assert info.max_pair_tokens == 8192


async def test_torch_scores_qwen3_as_its_authors_do(qwen3: Path, expected: list[float]) -> None:
    engine = TorchEngine(device="cpu", threads=1)
    (info,) = await engine.start(resolve(str(qwen3)))
    expect_described(info)
    found = await verdicts(engine, call_of(info.model))
    alone = [
        (await verdicts(engine, call_of(info.model, documents=[[document]])))[0]
        for document in DOCUMENTS
    ]
    await engine.close()
    expect_close(found, expected)

    assert found == alone


async def test_a_head_of_its_own_is_read(tmp_path: Path) -> None:
    """The 8B checkpoint has an output head beside its embeddings."""
    folder = write_qwen3(tmp_path / "qwen3-untied", seed=4, tied=False)
    yes, no = AuthorsCode(folder).logits(INSTRUCTION, QUERY, DOCUMENTS[0])

    engine = TorchEngine(device="cpu", threads=1)
    (info,) = await engine.start(resolve(str(folder)))
    (found,) = await verdicts(engine, call_of(info.model, documents=[[DOCUMENTS[0]]]))
    await engine.close()
    assert isinstance(found, Scored)
    assert found.logit == pytest.approx(yes - no, abs=TOLERANCE)


@pytest.fixture(scope="module")
def single_label(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """gmr-tiny as if contrastive learning had trained it: its score is logit(yes) alone.

    Its golden pairs are of all nine cells.
    """
    folder = tmp_path_factory.mktemp("models") / "gmr-single"
    shutil.copytree(TINY, folder)
    manifest = read_manifest(folder)
    assert manifest

    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    checkpoint = resolve(str(folder))
    pairs = []
    for pair in read_golden(folder):
        with torch.inference_mode():
            logits = model(**inputs_of(model, checkpoint, pair)).logits[0, -1]
        pairs.append(replace(pair, logit=float(logits[checkpoint.family.label_ids[0]])))

    shutil.rmtree(folder / "golden")
    names = [name for name in manifest.files if not name.startswith("golden")]
    files = digest_files(folder, [*names, *write_golden(folder, pairs)])
    write_manifest(folder, manifest.model_copy(update={"files": files, "read_out": "yes"}))
    return folder


def shown(side: Side) -> Shown:
    """A golden pair's side with pictures as a request has them."""
    return tuple(part if isinstance(part, str) else Image.fromarray(part) for part in side)


async def test_torch_reads_a_single_label(single_label: Path) -> None:
    engine = TorchEngine(device="cpu", threads=1)
    (info,) = await engine.start(resolve(str(single_label)))
    assert info.read_out == "yes"

    pairs = read_golden(single_label)
    assert {pair.cell for pair in pairs} == set(CELLS)
    for pair in pairs:
        call = as_call(pair.instruction, shown(pair.query), [shown(pair.document)])
        (found,) = await verdicts(engine, call)
        assert isinstance(found, Scored)
        assert found.logit == pytest.approx(pair.logit, abs=TOLERANCE)

    await engine.close()


@pytest.mark.slow
def test_vllm_reads_a_single_label(single_label: Path, vllm_worker: Serve) -> None:
    """A worker is ready once its golden pairs came out."""
    info = vllm_worker(single_label).info
    assert info.read_out == "yes"
    assert info.golden_pairs == len(read_golden(single_label)) > 0


def test_a_checkpoint_of_text_refuses_pixel_bounds(qwen3: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bounded"
    shutil.copytree(qwen3, folder)
    manifest = read_manifest(folder)
    tiny = read_manifest(TINY)
    assert manifest
    assert tiny

    write_manifest(folder, manifest.model_copy(update={"pixels": tiny.pixels}))
    with pytest.raises(CheckpointUnusable, match="the family qwen3-reranker reads text only"):
        _ = resolve(str(folder)).family
