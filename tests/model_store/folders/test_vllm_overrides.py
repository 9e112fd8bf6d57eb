"""Overrides of Qwen2-VL's folders for vLLM, and the names of weights that it does not find."""

from __future__ import annotations

from pathlib import Path

import pytest

from model_store.checkpoint import resolve
from model_store.folders.vllm_overrides import vllm_overrides
from model_store.inspection.engines import engine_refusals
from model_store.manifest import CheckpointUnusable
from tests.qwen2_vl import write_qwen2_vl


def test_names_that_vllm_does_not_find_are_refused_for_vllm_alone(tmp_path: Path) -> None:
    folder = write_qwen2_vl(tmp_path / "jina-reranker-m0", ranking=True, names="new")
    checkpoint = resolve(str(folder))
    with pytest.raises(CheckpointUnusable) as refused:
        vllm_overrides(checkpoint.name, folder, checkpoint.readout)

    sentence = str(refused.value)
    assert sentence.startswith("jina-reranker-m0: vLLM does not find model.visual.")
    assert "rename model.visual.* to visual.*, or set RERANK_ENGINE=torch" in sentence
    assert engine_refusals(checkpoint) == {"torch": "", "vllm": sentence}


def test_jinas_output_head_is_said_to_be_tied(tmp_path: Path) -> None:
    """Its files have none, whatever `config.json` says."""
    folder = write_qwen2_vl(tmp_path / "jina-reranker-m0", ranking=True, tied=False)
    assert vllm_overrides("m", folder, resolve(str(folder)).readout) == {
        "architectures": ["JinaVLForRanking"],
        "tie_word_embeddings": True,
        "text_config": {"tie_word_embeddings": True},
    }


@pytest.mark.parametrize("names", ["old", "new"])
def test_monos_classifier_is_made_of_two_words(tmp_path: Path, names: str) -> None:
    folder = write_qwen2_vl(tmp_path / "MonoQwen2-VL-v0.1", tied=False, names=names)
    overrides = vllm_overrides("m", folder, resolve(str(folder)).readout)
    assert overrides["architectures"] == ["Qwen2VLForConditionalGeneration"]
    assert overrides["classifier_from_token"] == ["False", "True"]
    assert overrides["tie_word_embeddings"] is False
