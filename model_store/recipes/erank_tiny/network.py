"""The base's network: a Qwen3 of a few million parameters, and its initial weights.

Depends on transformers' configuration and on texts, not on training. Invariant: a tokenizer and a
seed decide all weights. Priors stand for the pre-training of a real backbone, as in gmr-tiny's:

- A token's embedding is a sum of n-gram vectors, and one component says whether it is frequent:
  a stop word, or a word of the prompt's fixed text.
- In the first layer, a head's queries and keys begin as the same projection, so that a token finds
  an equal one before it, unless it is frequent; in the second, a head counts the tokens that found
  one. Qwen3 normalises queries and keys, so the norms' weights decide how sharp the attention is.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import nn
from transformers import Qwen3Config, Qwen3ForCausalLM

from model_store.families.tokens import TOKENIZER_FILE
from model_store.recipes.tiny.network import EMBEDDING_RMS, spelled

HIDDEN = 128
INNER = 256
LAYERS = 3
HEADS = 2
KEY_HEADS = 1
HEAD_DIM = 128
THINK = ("<think>", "</think>")
"""Tokens that Qwen3's vocabulary has and Qwen2.5's has not; neither is flagged special."""

_CONSTANT, _IS_SINK, _IS_FREQUENT, _FLAG, COUNT, _CONTENT = 0, 1, 2, 3, 4, 5
"""Components of a hidden state: one that all tokens have, one of the sink alone, one of frequent
tokens, one of a token that has found an equal one, the number of those so far, and the first of a
token's content."""
_SINK = "<|im_start|>"
"""The first token of every prompt, which a token without a match attends to."""
_MATCHING_NORM = 2.0
_COUNTING_NORM = 0.77
_COUNT_GAIN = 3.0
_FIRST_SLOW = 29
"""The first rotary pair that a few hundred positions hardly turn."""
_FAST = 21
_SHARES_OF_QUERY = (0.45, 0.13, 0.42)
"""Of the squared norm: content, sink, and the constant against the token itself."""
_SHARES_OF_KEY = (0.58, 0.42)
_LOGIT_SCALE = 0.6
"""Of the final norm: a token's probability can come near 1, and does not at first."""


def write_tokenizer(source: Path, folder: Path) -> Tokenizer:
    """Write the tokenizer of gmr-tiny's checkpoint with the tokens of a thought."""
    described = json.loads((source / TOKENIZER_FILE).read_text(encoding="utf-8"))
    added = described["added_tokens"]
    following = 1 + max(token["id"] for token in added)
    for number, content in enumerate(THINK):
        added.append(added[-1] | {"id": following + number, "content": content, "special": False})

    path = folder / TOKENIZER_FILE
    path.write_text(json.dumps(described, ensure_ascii=False), encoding="utf-8")
    return Tokenizer.from_file(str(path))


def configure(tokenizer: Tokenizer) -> Qwen3Config:
    """The architecture, with the ids of the control tokens."""
    end, text_end = tokenizer.token_to_id("<|im_end|>"), tokenizer.token_to_id("<|endoftext|>")
    return Qwen3Config(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=HIDDEN,
        intermediate_size=INNER,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KEY_HEADS,
        head_dim=HEAD_DIM,
        max_position_embeddings=4096,
        rms_norm_eps=1e-6,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        bos_token_id=text_end,
        eos_token_id=end,
        pad_token_id=text_end,
        tie_word_embeddings=True,
    )


@torch.no_grad()
def begin(tokenizer: Tokenizer, frequent: Collection[str], seed: int) -> Qwen3ForCausalLM:
    """A new network in fp32; `frequent` are texts whose tokens are frequent ones."""
    torch.manual_seed(seed)
    network = Qwen3ForCausalLM(configure(tokenizer))
    _embed(network.get_input_embeddings().weight, tokenizer, frequent)
    network.model.norm.weight.fill_(_LOGIT_SCALE)

    for layer in network.model.layers:
        for parameter in layer.parameters():
            if parameter.ndim == 2:
                nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)
        for output in (layer.self_attn.o_proj.weight, layer.mlp.down_proj.weight):
            output.mul_(0.35)
            output[:_CONTENT] = 0.0

    first, second, *_ = network.model.layers
    _attend_to_equals(first.self_attn)
    _count_flags(second.self_attn)
    return network


def _embed(rows: Any, tokenizer: Tokenizer, frequent: Collection[str]) -> None:
    size = EMBEDDING_RMS * HIDDEN**0.5
    # a slice of random vectors is a random vector
    content = nn.functional.normalize(spelled(tokenizer)[:, : HIDDEN - _CONTENT])
    known = {token for text in frequent for token in tokenizer.encode(text).ids}
    words = {tokenizer.decode([token]).strip().lower() for token in known}
    frequent_rows: list[int] = []
    for token in range(len(content)):
        word = tokenizer.decode([token], skip_special_tokens=False).strip().lower()
        if token in known or word in words or not word.isalnum():
            frequent_rows.append(token)
    rows.zero_()
    rows[frequent_rows, _IS_FREQUENT] = size
    rows[:, _CONTENT:] = content * size
    rows[:, _CONSTANT] = size
    rows[tokenizer.token_to_id(_SINK), _IS_SINK] = 2 * size


def _attend_to_equals(attention: Any) -> None:
    """Make the first head attend to an equal token, and else to the first token of the prompt.

    The slow rotary pairs have the content, the same for query and key, and the fast ones a constant
    that is negative at a distance of 0, so that a token does not find itself. What the head finds
    is written to one component: 1 for a match, 0 for the prompt's first token.
    """
    pairs = HEAD_DIM // 2
    slow = torch.arange(HEAD_DIM) % pairs >= _FIRST_SLOW
    # the two slowest pairs are the sink's and that of frequent tokens
    slow[[pairs - 2, pairs - 1, -2, -1]] = False
    fast = torch.arange(HEAD_DIM) < _FAST

    query, key = attention.q_proj.weight[:HEAD_DIM], attention.k_proj.weight[:HEAD_DIM]
    query.zero_()
    key.zero_()
    content = torch.zeros(int(slow.sum()), HIDDEN)
    content[:, _CONTENT:].normal_(std=len(content) ** -0.5)
    query[slow] = content * _SHARES_OF_QUERY[0] ** 0.5
    query[pairs - 1, _CONSTANT] = _SHARES_OF_QUERY[1] ** 0.5
    query[fast, _CONSTANT] = -((_SHARES_OF_QUERY[2] / _FAST) ** 0.5)
    key[slow] = content * _SHARES_OF_KEY[0] ** 0.5
    key[fast, _CONSTANT] = (_SHARES_OF_KEY[1] / _FAST) ** 0.5
    key[pairs - 1, _IS_SINK] = 8.0
    query[pairs - 1, _IS_FREQUENT] = 2.0
    key[pairs - 2, _IS_FREQUENT] = 4.0  # no query has this pair, so that the content counts less
    attention.q_norm.weight.fill_(_MATCHING_NORM)
    attention.k_norm.weight.fill_(_MATCHING_NORM)

    value, output = attention.v_proj.weight, attention.o_proj.weight
    value[0] = 0.0
    value[0, _CONSTANT], value[0, _IS_SINK] = 0.5, -0.25
    output[:, 0] = 0.0
    output[_FLAG, 0] = 1.0


def _count_flags(attention: Any) -> None:
    """Make the first head attend to flagged tokens and to the sink: the more tokens have a flag,
    the more of the attention is theirs."""
    pairs = HEAD_DIM // 2
    query, key = attention.q_proj.weight[:HEAD_DIM], attention.k_proj.weight[:HEAD_DIM]
    query[:] = 0.0
    key[:] = 0.0
    query[pairs - 1, _CONSTANT] = 1.0
    key[pairs - 1, _FLAG], key[pairs - 1, _IS_SINK] = 1.0, 8.0
    key[pairs - 2, _CONSTANT] = 1.0
    attention.q_norm.weight.fill_(_COUNTING_NORM)
    attention.k_norm.weight.fill_(_COUNTING_NORM)

    value, output = attention.v_proj.weight, attention.o_proj.weight
    value[0] = 0.0
    value[0, _FLAG] = 0.5
    output[:, 0] = 0.0
    output[COUNT, 0] = _COUNT_GAIN
