"""From a trained network to a checkpoint folder that the service verifies and serves.

Knows files, not training. Invariant: the manifest is written last, after the golden pairs were scored with the very weights that
lie in the folder.
"""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import torch
from PIL import Image
from tokenizers import Tokenizer
from transformers import Qwen2_5_VLForConditionalGeneration as Network

from model_store.evaluation.naive import NaiveReranker
from model_store.families.gmr import DEFAULT_INSTRUCTION, MAX_TOKENS, Gmr
from model_store.families.qwen2_5_vl import DEVIATION, MEAN
from model_store.golden import GoldenPair, Side, write_golden
from model_store.manifest import Manifest, digest_files, write_manifest
from model_store.training.tiny import cells, examples
from model_store.training.tiny.batches import PIXELS, fitted
from model_store.training.tiny.tokenizer import CHAT_TEMPLATE

NAME = "gmr-tiny"
_WEIGHTS = ("config.json", "generation_config.json", "model.safetensors")
_TOKENIZER = {
    "tokenizer_class": "Qwen2Tokenizer",
    "bos_token": None,
    "eos_token": "<|im_end|>",
    "pad_token": "<|endoftext|>",
    "unk_token": None,
    "model_max_length": 4096,
    "add_prefix_space": False,
}


def write_weights(network: Network, tokenizer: Tokenizer, folder: Path) -> None:
    """Weights in bf16, tokenizer, template and processor: all that transformers or vLLM need to load the model."""
    folder.mkdir(parents=True, exist_ok=True)
    network.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(_TOKENIZER, indent=2) + "\n", encoding="utf-8")
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
    processor = {
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": "Qwen2_5_VLProcessor",
        "min_pixels": PIXELS.min_pixels,
        "max_pixels": PIXELS.max_pixels,
        "patch_size": 14,
        "temporal_patch_size": 2,
        "merge_size": 2,
        # Readers differ in what they take a processor for that does not say these.
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": MEAN.tolist(),
        "image_std": DEVIATION.tolist(),
        "do_convert_rgb": True,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor, indent=2) + "\n", encoding="utf-8")


def finish(folder: Path, card: str, lineage: dict[str, object]) -> None:
    """Score golden pairs, write the card, and, last, the manifest."""
    (folder / "MODEL_CARD.md").write_text(card, encoding="utf-8")
    golden = write_golden(folder, _golden_pairs(folder))
    names = [*_WEIGHTS, "tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "preprocessor_config.json"]
    manifest = Manifest(
        name=NAME,
        family=Gmr.name,
        template="code",
        default_instruction=DEFAULT_INSTRUCTION,
        max_tokens=MAX_TOKENS,
        pixels=PIXELS,
        files=digest_files(folder, [*names, *golden, "MODEL_CARD.md"]),
        lineage=lineage,
    )
    write_manifest(folder, manifest)


def _golden_pairs(folder: Path) -> list[GoldenPair]:
    """A relevant and an irrelevant pair of each cell, scored one at a time by transformers itself."""
    reference = NaiveReranker(folder)
    pairs = []
    for cell in cells.CELLS:
        example = cells.sample(cell, Random(f"golden/{cell}"), "heldout", 1)
        query = _fitted(example.query)
        for document in map(_fitted, example.documents):
            logit = reference.logit(example.instruction, _pictures(query), _pictures(document))
            pairs.append(GoldenPair(cell, example.instruction, query, document, logit))
    return pairs


def _fitted(side: examples.Side) -> Side:
    return tuple(part if isinstance(part, str) else fitted(part) for part in side)


def _pictures(side: Side) -> list[str | Image.Image]:
    return [part if isinstance(part, str) else Image.fromarray(part) for part in side]
