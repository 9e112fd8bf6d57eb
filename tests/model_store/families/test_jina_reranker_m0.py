"""jina-reranker-m0 is described by its folder alone, and what cannot be read alike is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar

import pytest
from safetensors.torch import load_file, save_file

from model_store.checkpoint import Checkpoint, resolve
from model_store.families.jina_reranker_m0 import JinaRerankerM0
from model_store.families.prompt import Image
from model_store.families.readout import Transform
from model_store.families.tokens import LiteralTokenizer
from model_store.manifest import CheckpointUnusable
from tests.conftest import TINY
from tests.qwen2_vl import SCORE_ID, prompt_of, write_qwen2_vl


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    folder = tmp_path_factory.mktemp("hub") / "jina-reranker-m0"
    return resolve(str(write_qwen2_vl(folder, ranking=True)))


def test_the_last_id_comes_after_a_text_that_ends_with_it(checkpoint: Checkpoint) -> None:
    """It is the last byte of some characters."""
    ids = prompt_of(checkpoint, ("\u0127",), ("a",)).ids
    assert ids[-2:] == (SCORE_ID, SCORE_ID)
    assert prompt_of(checkpoint, ("b",), ("a",)).ids.count(SCORE_ID) == 1


def test_a_folder_is_described_without_flags(checkpoint: Checkpoint) -> None:
    family, manifest = checkpoint.family, checkpoint.manifest
    assert (family.name, manifest.max_tokens, manifest.default_instruction) == (
        "jina-reranker-m0",
        10_240,
        "",
    )
    assert checkpoint.transform == Transform(shift=2.65)
    assert checkpoint.readout.name == "two-layer score head"
    assert (family.cacheable_side, family.takes_instruction) == ("document", False)
    assert family.query_side.max_images == family.document_side.max_images == 1
    # the authors' code has a smaller bound than the folder's processor
    assert family.images
    assert (family.images.min_pixels, family.images.max_pixels) == (3_136, 602_112)
    assert family.images.tokens(Image(b"", 28 * 24, 28 * 32)) == 768


def test_the_network_alone_tells_the_family(tmp_path: Path) -> None:
    folder = write_qwen2_vl(tmp_path / "some-model", ranking=True, names="new")
    assert resolve(str(folder)).family.name == "jina-reranker-m0"


def test_the_last_id_is_part_of_the_fingerprint() -> None:
    class OtherId(JinaRerankerM0):
        templates: ClassVar[dict[str, tuple[str, str]]] = {
            name: (first, second.replace("{100}", "{101}"))
            for name, (first, second) in JinaRerankerM0.templates.items()
        }

    tokenizer = LiteralTokenizer.load(TINY)
    assert OtherId(tokenizer).fingerprint != JinaRerankerM0(tokenizer).fingerprint


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"vision_config": {"hidden_act": "gelu"}}, "hidden_act of config.json is 'gelu'"),
        ({"hidden_size": 64}, "has the shape"),
        ({"vocab_size": "many"}, "vocab_size is 'many', not a whole number"),
        ({"image_token_id": 5}, "image_token_id of config.json is 5"),
    ],
)
def test_what_cannot_be_read_alike_is_refused(
    tmp_path: Path, changes: dict[str, object], sentence: str
) -> None:
    folder = write_qwen2_vl(tmp_path / "jina-reranker-m0", ranking=True)
    _change(folder / "config.json", changes)
    with pytest.raises(CheckpointUnusable) as refused:
        _ = resolve(str(folder)).family
    assert sentence in str(refused.value)


def test_a_head_of_another_width_is_refused_by_its_name(tmp_path: Path) -> None:
    folder = write_qwen2_vl(tmp_path / "jina-reranker-m0", ranking=True)
    file = folder / "model.safetensors"
    tensors = load_file(file)
    tensors["score.2.weight"] = tensors["score.2.weight"].repeat(2, 1)
    save_file(tensors, file, metadata={"format": "pt"})

    with pytest.raises(CheckpointUnusable, match=r"score\.2\.weight has the shape \[2, 128\]"):
        resolve(str(folder))


def _change(path: Path, changes: dict[str, object]) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(content | changes), encoding="utf-8")
