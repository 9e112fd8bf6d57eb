"""gmr-tiny's network: a Qwen2.5-VL of a few million parameters, and its initial weights.

Depends on transformers' configuration, not on data. Invariant: a tokenizer and a seed decide all
weights. Three priors replace the pre-training of a real backbone:

- A token's embedding is the sum of its character n-grams' vectors (Bojanowski et al., 2017,
  "Enriching Word Vectors with Subword Information"): "word", " word" and "Word" are near each other
  from the start, and so are the parts of a rare word.
- One layer's queries and keys begin as the same projection (Trockman and Kolter, 2023, "Mimetic
  Initialization of Self-Attention Layers"), so that equal tokens attend to each other.
- The vision tower's attention begins as a convolution, in which each head attends to one neighbour
  (d'Ascoli et al., 2021, "ConViT"), here through the rotary position encoding.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import nn
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

HIDDEN = 256
HEADS = 4
LAYERS = 4
VISION = 128
VISION_HEADS = 4
EMBEDDING_RMS = 0.3
"""Root mean square of an embedding's components, also the target for image tokens."""

_MATCHING_LAYER = 1
# of the final norm: the head is tied to large embeddings, and 1.0 would make the first logits large
_READOUT_SCALE = 0.17
_NEIGHBOURS = (
    ((0, 1), (0, -1), (1, 0), (-1, 0)),
    ((1, 1), (-1, -1), (1, -1), (-1, 1)),
    ((0, 2), (0, -2), (2, 0), (-2, 0)),
)
"""(rows, columns) from a patch to its neighbour, for each head of the first three vision layers."""


@dataclass(frozen=True, slots=True)
class LanguageSizes:
    """Sizes of the language model; by default, those of gmr-tiny."""

    hidden: int = HIDDEN
    heads: int = HEADS
    layers: int = LAYERS


def configure(tokenizer: Tokenizer, sizes: LanguageSizes = LanguageSizes()) -> Qwen2_5_VLConfig:
    """The architecture, with the ids of the control tokens."""
    end, text_end = tokenizer.token_to_id("<|im_end|>"), tokenizer.token_to_id("<|endoftext|>")
    return Qwen2_5_VLConfig(
        text_config={
            "vocab_size": tokenizer.get_vocab_size(),
            "hidden_size": sizes.hidden,
            "intermediate_size": 2 * sizes.hidden,
            "num_hidden_layers": sizes.layers,
            "num_attention_heads": sizes.heads,
            "num_key_value_heads": 1,
            "max_position_embeddings": 4096,
            "rms_norm_eps": 1e-6,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e6,
                "mrope_section": [8, 12, 12],
            },
            "bos_token_id": text_end,
            "eos_token_id": end,
            "pad_token_id": text_end,
            "tie_word_embeddings": True,
        },
        vision_config={
            "depth": 4,
            "hidden_size": VISION,
            "intermediate_size": 3 * VISION,
            "num_heads": VISION_HEADS,
            "out_hidden_size": sizes.hidden,
            "window_size": 112,
            "fullatt_block_indexes": [1, 3],
        },
        image_token_id=tokenizer.token_to_id("<|image_pad|>"),
        video_token_id=tokenizer.token_to_id("<|video_pad|>"),
        vision_start_token_id=tokenizer.token_to_id("<|vision_start|>"),
        vision_end_token_id=tokenizer.token_to_id("<|vision_end|>"),
        tie_word_embeddings=True,
    )


@torch.no_grad()
def begin(tokenizer: Tokenizer, seed: int) -> Qwen2_5_VLForConditionalGeneration:
    """A new network in fp32."""
    torch.manual_seed(seed)
    network = Qwen2_5_VLForConditionalGeneration(configure(tokenizer))
    language, visual = network.model.language_model, network.model.visual
    network.get_input_embeddings().weight.copy_(spelled(tokenizer))
    language.norm.weight.fill_(_READOUT_SCALE)

    for layer in language.layers:
        layer.self_attn.o_proj.weight.mul_(0.5)
        layer.mlp.down_proj.weight.mul_(0.35)

    attend_to_equals(language.layers[_MATCHING_LAYER].self_attn)

    for parameter in visual.parameters():
        if parameter.ndim >= 2:
            parameter.normal_(std=parameter[0].numel() ** -0.5)

    for block, neighbours in zip(visual.blocks, _NEIGHBOURS, strict=False):
        _attend_to_neighbours(block.attn, neighbours, visual.rotary_pos_emb.inv_freq)

    return network


def spelled(tokenizer: Tokenizer) -> torch.Tensor:
    """`[vocabulary, HIDDEN]` embeddings, each made of its lower-case character n-grams' fixed
    random vectors."""
    rows = torch.empty(tokenizer.get_vocab_size(), HIDDEN)
    for token in range(len(rows)):
        text = tokenizer.decode([token], skip_special_tokens=False)
        word = text.strip().lower() or text
        # The whole word weighs as much as all its parts together; a part of its own distinguishes
        # "Word" from "word".
        row = _vector(word) + 0.25 * _vector(f"own {text}")
        parts = [_vector(f"#{part}") for part in _ngrams(word)]
        if parts:
            row += torch.stack(parts).sum(0) / len(parts) ** 0.5
        rows[token] = row / row.norm()
    return rows.mul_(EMBEDDING_RMS).mul_(HIDDEN**0.5)


def _ngrams(word: str) -> list[str]:
    """Strings of 2 to 4 characters inside a word, without the word itself."""
    parts: list[str] = []
    for size in (2, 3, 4):
        if size < len(word):
            parts += [word[start : start + size] for start in range(len(word) - size + 1)]
    return parts


def _vector(text: str) -> torch.Tensor:
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")
    return torch.randn(HIDDEN, generator=torch.Generator().manual_seed(seed))


def attend_to_equals(attention: Any) -> None:
    """Make queries equal keys in the slow rotary dimensions: content decides, not distance."""
    head = attention.head_dim
    key = attention.k_proj.weight.view(-1, head, HIDDEN)
    nn.init.normal_(key, std=1.5 * HIDDEN**-0.5)
    key[:, torch.arange(head) % (head // 2) < head // 4] *= 0.1
    query = attention.q_proj.weight.view(-1, head, HIDDEN)
    query.copy_(key.repeat_interleave(len(query) // len(key), dim=0))


def _attend_to_neighbours(
    attention: Any,
    neighbours: tuple[tuple[int, int], ...],
    frequencies: torch.Tensor,
    strength: float = 4.0,
) -> None:
    """Make each head attend to one neighbour: constant queries and keys, which the rotary encoding
    turns into a peak at that distance."""
    size = attention.head_dim
    weight = attention.qkv.weight.view(3, attention.num_heads, size, VISION)
    bias = attention.qkv.bias.view(3, attention.num_heads, size)
    weight[:2] *= 0.2
    bias[:2] = 0
    for head, neighbour in enumerate(neighbours):
        for axis, distance in enumerate(neighbour):
            for number in range(3):  # the three fastest frequencies of the axis
                column = axis * len(frequencies) + number
                angle = torch.tensor(-float(frequencies[number]) * distance)
                bias[0, head, column] = strength
                bias[1, head, column] = strength * torch.cos(angle)
                bias[1, head, column + size // 2] = strength * torch.sin(angle)
