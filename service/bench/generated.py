"""Checkpoints for timing only: random weights, or a large model's sizes without weights.

The random one has about 40 M parameters, enough that arithmetic outweighs overhead. Depends on
configurations and files. Invariant: all have another checkpoint's tokenizer, so that a text has the
same ids in each.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from model_store.families.gmr import CELL, MAX_PIXELS, MIN_PIXELS, Gmr

_COPIED = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
_MAX_IMAGE_TOKENS = 256
_TEXT = {
    "hidden_size": 512,
    "intermediate_size": 1536,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
}
_VISION = {
    "depth": 6,
    "hidden_size": 320,
    "intermediate_size": 960,
    "num_heads": 5,
    "out_hidden_size": 512,
    "window_size": 112,
    "fullatt_block_indexes": [2, 5],
}
_LARGE_MROPE = {"rope_type": "default", "rope_theta": 1_000_000.0, "mrope_section": [16, 24, 24]}


def generate_checkpoint(tokenizer_from: Path, folder: Path) -> None:
    """Write a Qwen2.5-VL with another checkpoint's tokenizer and random weights of a fixed seed."""
    _copy_tokenizer(tokenizer_from, folder)
    _write_preprocessor(tokenizer_from, folder, _MAX_IMAGE_TOKENS * CELL**2)

    config = _config(tokenizer_from, _TEXT, _VISION, tied=True)
    torch.manual_seed(0)
    Qwen2_5_VLForConditionalGeneration(config).save_pretrained(folder)


def write_shapes(tokenizer_from: Path, folder: Path, size: str) -> None:
    """Write all files of a GMR of `size`, "3b" or "7b", but its weights.

    The size "generated" is that of `generate_checkpoint`. The tokenizer is another checkpoint's,
    whose vocabulary is padded to the model's.
    """
    _copy_tokenizer(tokenizer_from, folder)
    _write_preprocessor(tokenizer_from, folder, MAX_PIXELS)
    if size == "generated":
        config = _config(tokenizer_from, _TEXT, _VISION, tied=True)
        config.dtype = "bfloat16"
        config.save_pretrained(folder)
        return

    published = Gmr.published[f"gmr-{size}"]
    text = {field: published[field] for field in ("vocab_size", *_TEXT)}
    text |= {"max_position_embeddings": 32_768, "rope_parameters": _LARGE_MROPE}
    config = _config(
        tokenizer_from, text, published["vision_config"], tied=published["tie_word_embeddings"]
    )
    config.architectures = published["architectures"]
    config.dtype = "bfloat16"
    config.save_pretrained(folder)


def _config(
    tokenizer_from: Path, text: Mapping[str, Any], vision: Mapping[str, Any], *, tied: bool
) -> Any:
    """Another checkpoint's configuration with the layers of `text` and `vision`."""
    small = Qwen2_5_VLConfig.from_pretrained(tokenizer_from)
    layers = {
        "layer_types": ["full_attention"] * text["num_hidden_layers"],
        "tie_word_embeddings": tied,
    }
    return Qwen2_5_VLConfig(
        text_config=small.text_config.to_dict() | text | layers,
        vision_config=dict(vision),
        image_token_id=small.image_token_id,
        video_token_id=small.video_token_id,
        vision_start_token_id=small.vision_start_token_id,
        vision_end_token_id=small.vision_end_token_id,
        tie_word_embeddings=tied,
    )


def _copy_tokenizer(tokenizer_from: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in _COPIED:
        shutil.copy(tokenizer_from / name, folder / name)


def _write_preprocessor(tokenizer_from: Path, folder: Path, max_pixels: int) -> None:
    """Write another checkpoint's image processor with the bounds of this one."""
    content = (tokenizer_from / "preprocessor_config.json").read_text(encoding="utf-8")
    processor = json.loads(content)
    processor |= {"min_pixels": MIN_PIXELS, "max_pixels": max_pixels}
    processor.pop("size", None)

    text = json.dumps(processor, indent=2)
    (folder / "preprocessor_config.json").write_text(text, encoding="utf-8")
