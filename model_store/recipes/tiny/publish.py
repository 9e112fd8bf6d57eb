"""A trained network as a checkpoint folder, for the service and as a base for the training job.

Depends on files, not on training. Invariant: the manifest is written last, after the golden pairs
were scored with the weights in the folder.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import Qwen2_5_VLForConditionalGeneration as Network

from model_store.evaluation.naive import NaiveReranker
from model_store.families.gmr import DEFAULT_INSTRUCTION, MAX_TOKENS, Gmr
from model_store.golden import write_golden
from model_store.networks.qwen2_5_vl import QWEN2_5_VL
from model_store.recipes.tiny.tokenizer import CHAT_TEMPLATE
from model_store.synthetic.pictures import PIXELS
from model_store.synthetic.questions import golden_questions
from model_store.training.publish.folder import seal
from model_store.training.publish.pairs import model_card_logit

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
    """Write weights in bf16, tokenizer, template and processor: all files that transformers or vLLM
    need to load the model."""
    folder.mkdir(parents=True, exist_ok=True)
    network.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps(_TOKENIZER, indent=2) + "\n", encoding="utf-8"
    )
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
    processor = dict(QWEN2_5_VL.vision.preprocessor) | PIXELS.model_dump()
    (folder / "preprocessor_config.json").write_text(
        json.dumps(processor, indent=2) + "\n", encoding="utf-8"
    )


def finish(folder: Path, name: str, card: str, lineage: dict[str, object]) -> None:
    """Score golden pairs, write the card, then the manifest."""
    reference = NaiveReranker(folder)
    pairs = [replace(pair, logit=model_card_logit(reference, pair)) for pair in golden_questions()]
    golden = write_golden(folder, pairs)
    names = [
        *_WEIGHTS,
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
        "preprocessor_config.json",
    ]
    described = {
        "family": Gmr.name,
        "template": "code",
        "default_instruction": DEFAULT_INSTRUCTION,
        "max_tokens": MAX_TOKENS,
        "pixels": PIXELS,
    }
    seal(
        folder, name=name, described=described, card=card, lineage=lineage, files=[*names, *golden]
    )
