"""MonoQwen2-VL is described by its folder's name, and has words of its own for a page."""

from __future__ import annotations

from pathlib import Path

import pytest

from model_store.checkpoint import Checkpoint, resolve
from model_store.families.mono_qwen2_vl import MonoQwen2VL
from model_store.families.readout import Transform
from model_store.families.tokens import LiteralTokenizer
from model_store.manifest import CheckpointUnusable
from tests.conftest import TINY
from tests.qwen2_vl import SIDES, prompt_of, side, write_qwen2_vl


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return resolve(str(write_qwen2_vl(tmp_path_factory.mktemp("hub") / "MonoQwen2-VL-v0.1")))


def test_a_page_has_the_words_of_the_model_card(checkpoint: Checkpoint) -> None:
    (words,) = LiteralTokenizer.load(TINY).encode([" image document to"])
    pages = []
    for query in SIDES:
        for document in SIDES:
            ids = prompt_of(checkpoint, side(query, 1), side(document, 2)).ids
            starts = range(len(ids))
            if any(list(ids[start : start + len(words)]) == words for start in starts):
                pages.append((query, document))

    assert pages == [("text", "image")]


def test_a_folder_is_described_without_flags(checkpoint: Checkpoint) -> None:
    family = checkpoint.family
    assert family.name == "mono-qwen2-vl"
    assert checkpoint.transform == Transform()
    assert checkpoint.readout.name == "True - False"
    assert (family.cacheable_side, family.takes_instruction) == ("document", False)
    assert family.query_side.max_images == family.document_side.max_images == 1
    assert family.images
    assert family.images.max_pixels == 12_845_056


def test_another_qwen2_vl_is_none(tmp_path: Path) -> None:
    """Plain Qwen2-VL has the same network and was trained for something else."""
    folder = write_qwen2_vl(tmp_path / "Qwen2-VL-2B-Instruct")
    with pytest.raises(CheckpointUnusable, match="RERANK_MODEL_FAMILY"):
        resolve(str(folder))
    assert resolve(str(folder), family="mono-qwen2-vl").family.name == "mono-qwen2-vl"


def test_the_wordings_are_part_of_the_fingerprint() -> None:
    class OtherWording(MonoQwen2VL):
        wordings = MonoQwen2VL.wordings | {"page": "Is this relevant? The query is:"}

    tokenizer = LiteralTokenizer.load(TINY)
    assert OtherWording(tokenizer).fingerprint != MonoQwen2VL(tokenizer).fingerprint
