"""Embedders of random weights with gmr-tiny's tokenizer: one of texts, and one as GME is one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tokenizers import Tokenizer
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

from tests.conftest import TINY


def write_sentence_model(folder: Path, dimensions: int = 32) -> Path:
    """A sentence-transformers model of random word vectors."""
    torch.manual_seed(0)
    tokenizer = Tokenizer.from_file(str(TINY / "tokenizer.json"))
    words = StaticEmbedding(tokenizer, embedding_dim=dimensions)
    SentenceTransformer(modules=[words], device="cpu").save(str(folder))
    return folder


def write_gme(folder: Path) -> Path:
    """A Qwen2-VL of random weights, as GME is one."""
    small = json.loads((TINY / "config.json").read_text(encoding="utf-8"))
    text = {
        name: value
        for name, value in small["text_config"].items()
        if name not in ("model_type", "num_hidden_layers", "layer_types")
    }
    vision = {
        "depth": 2,
        "embed_dim": 64,
        "num_heads": 2,
        "mlp_ratio": 2,
        "hidden_size": 256,
        "model_type": "qwen2_vl_vision",
    }
    names = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    config = Qwen2VLConfig(
        text_config={
            **text,
            "num_hidden_layers": 2,
            "model_type": "qwen2_vl_text",
            "initializer_range": 0.2,
        },
        vision_config=vision,
        tie_word_embeddings=True,
        **{name: small[name] for name in names},
    )
    torch.manual_seed(0)
    Qwen2VLForConditionalGeneration(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(TINY / name, folder / name)
    processor = json.loads((TINY / "preprocessor_config.json").read_text(encoding="utf-8")) | {
        "processor_class": "Qwen2VLProcessor"
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor), encoding="utf-8")
    return folder
