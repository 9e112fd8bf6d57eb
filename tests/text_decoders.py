"""Small text decoders with random weights, in the folders that hubs have of rerankers on them.

The vocabulary is gmr-tiny's with the tokens that the families need besides: those of a think block,
`<bos>`, and "Yes" in one token.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from model_store.families.prompt import Item
from tests.conftest import TINY
from tests.model_store.families.formats import FORMATS

THINK = ("<think>", "</think>")
BOS = "<bos>"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""Qwen's chat template, for turns of text."""
_SMALL = {
    "hidden_size": 128,
    "intermediate_size": 192,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 8448,
    "initializer_range": 0.1,
    "eos_token_id": None,
    "bos_token_id": None,
    "pad_token_id": None,
}


@dataclass(frozen=True)
class SmallReranker:
    """A published reranker, by the name of its folder: its family and its network, made small."""

    folder: str
    family: str
    architecture: str
    labels: tuple[str, ...]
    """The words whose logits the authors' code reads: the first less the second, if any."""
    config: Mapping[str, Any]


RERANKERS: Mapping[str, SmallReranker] = {
    small.family: small
    for small in (
        SmallReranker(
            "Qwen3-Reranker-0.6B",
            "qwen3-reranker",
            "Qwen3ForCausalLM",
            ("yes", "no"),
            {"head_dim": 64, "tie_word_embeddings": True},
        ),
        SmallReranker(
            "zerank-2",
            "zerank",
            "Qwen3ForCausalLM",
            ("Yes",),
            {"head_dim": 64, "tie_word_embeddings": True},
        ),
        SmallReranker(
            "mxbai-rerank-base-v2",
            "mxbai-rerank-v2",
            "Qwen2ForCausalLM",
            ("1", "0"),
            {"tie_word_embeddings": True},
        ),
        SmallReranker(
            "bge-reranker-v2-gemma",
            "bge-reranker-v2-gemma",
            "GemmaForCausalLM",
            ("Yes",),
            {"head_dim": 64, "num_key_value_heads": 1, "tie_word_embeddings": True},
        ),
    )
}


def write_tokenizer(folder: Path) -> int:
    """Write the tokenizer; returns the size of its vocabulary."""
    tokenizer = json.loads((TINY / "tokenizer.json").read_text(encoding="utf-8"))
    model, added = tokenizer["model"], tokenizer["added_tokens"]
    merge = ["Y", "es"]
    model["merges"].append(merge if isinstance(model["merges"][0], list) else " ".join(merge))
    size = len(model["vocab"])
    model["vocab"]["Yes"] = size

    # transformers numbers added tokens after the vocabulary, in their order
    for content in (*THINK, BOS):
        added.append(added[-1] | {"content": content, "special": content == BOS})
    for token in added:
        size += 1
        token["id"] = size

    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")

    settings = json.loads((TINY / "tokenizer_config.json").read_text(encoding="utf-8"))
    put(folder, "tokenizer_config.json", settings | {"bos_token": BOS})
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
    return size + 1


def put(folder: Path, name: str, content: object) -> None:
    (folder / name).write_text(json.dumps(content, indent=2), encoding="utf-8")


def write_reranker(root: Path, family: str, *, seed: int = 0, **changes: object) -> Path:
    """Write the folder of a family's reranker under its published name, without a manifest."""
    small = RERANKERS[family]
    folder = root / small.folder
    folder.mkdir(parents=True)
    kind = getattr(transformers, small.architecture)
    settings = _SMALL | dict(small.config) | {"vocab_size": write_tokenizer(folder)} | changes

    torch.manual_seed(seed)
    model = kind(kind.config_class(**settings))
    _vary_norms(model)
    model.to(torch.bfloat16).save_pretrained(folder)
    return folder


def convert(folder: Path, family: str) -> Path:
    """Make of a reranker what conversions for classifiers publish: the difference of its labels'
    rows as a head of one score. Returns its folder."""
    small, tokenizer = RERANKERS[family], AutoTokenizer.from_pretrained(folder)
    tensors = load_file(folder / "model.safetensors")
    embeddings = tensors["model.embed_tokens.weight"].float()
    first, second = (tokenizer.encode(word, add_special_tokens=False) for word in small.labels)
    tensors["score.weight"] = embeddings[first] - embeddings[second]

    converted = folder.rename(folder.parent / f"{folder.name}-seq-cls")
    save_file(tensors, converted / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((converted / "config.json").read_text(encoding="utf-8"))
    architecture = small.architecture.replace("CausalLM", "SequenceClassification")
    labels = {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}
    put(converted, "config.json", config | {"architectures": [architecture]} | labels)
    return converted


def _vary_norms(model: Any) -> None:
    """Change norms and biases, which transformers makes constant, so that scores depend on them."""
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            with torch.no_grad():
                parameter.add_(0.1 * torch.randn_like(parameter))
            assert "norm" in name or "bias" in name


class AuthorsScorer:
    """A reranker's raw scores in fp32 by its authors' formatting and a plain forward pass."""

    def __init__(self, folder: Path, family: str, template: str = "official") -> None:
        small = RERANKERS[family]
        self._format = FORMATS[family, template]
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        kind = getattr(transformers, small.architecture)
        self._model = kind.from_pretrained(folder, dtype=torch.float32).eval()
        self._labels = [
            self._tokenizer.encode(word, add_special_tokens=False) for word in small.labels
        ]

    def ids(self, instruction: str, query: Item, document: Item) -> list[int]:
        """The prompt's token ids."""
        return self._format(self._tokenizer, (instruction,), query, document)

    @torch.inference_mode()
    def score(self, instruction: str, query: str, document: str) -> float:
        """The raw score of a pair of texts."""
        ids = torch.tensor([self.ids(instruction, (query,), (document,))])
        last = self._model(ids).logits[0, -1]
        first, *rest = (float(last[label]) for (label,) in self._labels)
        return first - sum(rest)

    def scores(self, instruction: str, query: str, documents: Sequence[str]) -> list[float]:
        """The raw score of each of some documents."""
        return [self.score(instruction, query, document) for document in documents]
