"""Checkpoints for timing only: one of about 40 M random weights, in which arithmetic rules over
overhead, and large ones' shapes.

Knows configs and files. Invariant: all have another checkpoint's tokenizer, so that a text has the
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

_COPIED = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
_MAX_IMAGE_TOKENS = 256
_LARGE_MAX_IMAGE_TOKENS = 1280


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
_LARGE_VISION = {
    "depth": 32,
    "hidden_size": 1280,
    "intermediate_size": 3420,
    "num_heads": 16,
    "window_size": 112,
    "fullatt_block_indexes": [7, 15, 23, 31],
}
# Qwen2.5-VL's own shapes; the tokenizer's vocabulary is padded to theirs.
_LARGE_TEXT = {
    "3b": {
        "hidden_size": 2048,
        "intermediate_size": 11008,
        "num_hidden_layers": 36,
        "num_attention_heads": 16,
        "num_key_value_heads": 2,
        "vocab_size": 151_936,
    },
    "7b": {
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "vocab_size": 152_064,
    },
}
_LARGE_MROPE = {"rope_type": "default", "rope_theta": 1_000_000.0, "mrope_section": [16, 24, 24]}


def generate_checkpoint(tokenizer_from: Path, folder: Path) -> None:
    """Write a random Qwen2.5-VL with the tokenizer of another checkpoint. The same seed, the same
    weights."""
    _copy_tokenizer(tokenizer_from, folder)
    _write_preprocessor(tokenizer_from, folder, _MAX_IMAGE_TOKENS * 28 * 28)
    config = _config(tokenizer_from, _TEXT, _VISION, tied=True)
    torch.manual_seed(0)
    Qwen2_5_VLForConditionalGeneration(config).save_pretrained(folder)


def write_shapes(tokenizer_from: Path, folder: Path, size: str) -> None:
    """Write all of a Qwen2.5-VL of `size`, "3b" or "7b", but its weights."""
    _copy_tokenizer(tokenizer_from, folder)
    _write_preprocessor(tokenizer_from, folder, _LARGE_MAX_IMAGE_TOKENS * 28 * 28)
    text = _LARGE_TEXT[size] | {"max_position_embeddings": 32_768, "rope_parameters": _LARGE_MROPE}
    vision = _LARGE_VISION | {"out_hidden_size": text["hidden_size"]}
    config = _config(tokenizer_from, text, vision, tied=size == "3b")
    config.architectures = ["Qwen2_5_VLForConditionalGeneration"]
    config.dtype = "bfloat16"
    config.save_pretrained(folder)


def _config(
    tokenizer_from: Path, text: Mapping[str, Any], vision: Mapping[str, Any], *, tied: bool
) -> Any:
    """Another checkpoint's config with other layers."""
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
    processor = json.loads(
        (tokenizer_from / "preprocessor_config.json").read_text(encoding="utf-8")
    )
    processor |= {"min_pixels": 4 * 28 * 28, "max_pixels": max_pixels}
    processor.pop("size", None)
    (folder / "preprocessor_config.json").write_text(
        json.dumps(processor, indent=2), encoding="utf-8"
    )
