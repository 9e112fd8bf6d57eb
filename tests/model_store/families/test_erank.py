"""ERank is found by its name alone, and what only a row of weights can do is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from model_store.checkpoint import resolve
from model_store.families.catalogue import trained_readout
from model_store.manifest import CheckpointUnusable
from model_store.networks.score_row import score_row
from tests.qwen3 import write_qwen3


@pytest.mark.parametrize("name", ["ERank-4B", "my-erank-14b-awq", "erank", "ERank_legal"])
def test_a_published_name_is_recognised(tmp_path: Path, name: str) -> None:
    manifest = resolve(str(write_qwen3(tmp_path / name))).manifest
    assert (manifest.family, manifest.transform, manifest.read_out) == ("erank", "x / 10", "")


@pytest.mark.parametrize("name", ["qwen3-reranker-4b", "mine", "E2Rank-4B", "Reranker-4b"])
def test_another_qwen3_is_not(tmp_path: Path, name: str) -> None:
    assert resolve(str(write_qwen3(tmp_path / name))).manifest.family == "qwen3-reranker"


def test_a_setting_names_it(tmp_path: Path) -> None:
    checkpoint = resolve(str(write_qwen3(tmp_path / "mine")), family="erank")
    assert checkpoint.readout.name == "generated 0..10"
    assert checkpoint.family.cacheable_side == "query"


def test_no_loss_on_labels_trains_it(tmp_path: Path) -> None:
    checkpoint = resolve(str(write_qwen3(tmp_path / "erank-4b")))
    with pytest.raises(CheckpointUnusable, match="by the method sft-generated or grpo"):
        trained_readout(checkpoint.manifest, "sft")

    network = checkpoint.decoder.model_class().from_pretrained(checkpoint.folder)
    with pytest.raises(CheckpointUnusable, match="written as text"):
        score_row(network, checkpoint.readout, checkpoint.family.label_ids)
