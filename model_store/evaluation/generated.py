"""A checkpoint of about 40 M parameters with random weights, for timing only: so large that arithmetic rules over overhead."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

_COPIED = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
_MAX_IMAGE_TOKENS = 256


def generate_checkpoint(tokenizer_from: Path, folder: Path) -> None:
    """Write a random Qwen2.5-VL with the tokenizer of another checkpoint. The same seed, the same weights."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in _COPIED:
        shutil.copy(tokenizer_from / name, folder / name)
    processor = json.loads((tokenizer_from / "preprocessor_config.json").read_text(encoding="utf-8"))
    processor |= {"min_pixels": 4 * 28 * 28, "max_pixels": _MAX_IMAGE_TOKENS * 28 * 28}
    processor.pop("size", None)
    (folder / "preprocessor_config.json").write_text(json.dumps(processor, indent=2), encoding="utf-8")
    small = Qwen2_5_VLConfig.from_pretrained(tokenizer_from)
    config = Qwen2_5_VLConfig(
        text_config=small.text_config.to_dict()
        | {
            "hidden_size": 512,
            "intermediate_size": 1536,
            "num_hidden_layers": 8,
            "num_attention_heads": 8,
            "num_key_value_heads": 2,
            "layer_types": ["full_attention"] * 8,
        },
        vision_config={
            "depth": 6,
            "hidden_size": 320,
            "intermediate_size": 960,
            "num_heads": 5,
            "out_hidden_size": 512,
            "window_size": 112,
            "fullatt_block_indexes": [2, 5],
        },
        image_token_id=small.image_token_id,
        video_token_id=small.video_token_id,
        vision_start_token_id=small.vision_start_token_id,
        vision_end_token_id=small.vision_end_token_id,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    Qwen2_5_VLForConditionalGeneration(config).save_pretrained(folder)
