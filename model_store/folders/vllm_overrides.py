"""Overrides of a checkpoint's `config.json`, the same wherever this project starts vLLM.

Knows vLLM's `hf_overrides`, not vLLM. Invariant: with these, one folder gives the same network and
read-out in all layouts of `config.json` that hubs have.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from model_store.families.gmr import LABELS
from model_store.families.qwen2_5_vl_tensors import ARCHITECTURE, is_tied
from model_store.folders.plain import read_config


def vllm_overrides(name: str, folder: Path) -> dict[str, Any]:
    """`hf_overrides` of a folder; raises `CheckpointUnusable` where its `config.json` cannot be
    read.

    vLLM's loader of two-token classifiers reads `tie_word_embeddings` of the text's configuration.
    transformers since 5.4 knows that field at the top alone, where checkpoints of 2025 have it. Of
    a list of architectures vLLM takes the first it knows.
    """
    tied = is_tied(read_config(name, folder))
    yes, no = LABELS
    return {
        "architectures": [ARCHITECTURE],
        "method": "from_2_way_softmax",
        "classifier_from_token": [no, yes],
        "tie_word_embeddings": tied,
        "text_config": {"tie_word_embeddings": tied},
    }
