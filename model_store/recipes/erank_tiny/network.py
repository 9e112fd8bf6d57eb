"""The base's network: a Qwen3 of a few million parameters, and its initial weights.

Depends on transformers' configuration and on texts, not on training. Invariant: a tokenizer and a
seed decide all weights. Priors stand for the pre-training of a real backbone, which reads a prompt
and matches words from the start:

- A token's embedding is a sum of n-gram vectors, as in gmr-tiny's, and single components say
  whether it is the prompt's first token, begins a section ("Here is the query"), or is frequent: a
  stop word, or a word of the prompt's fixed text.
- The first layer tells whether a token is of the query or of the document, by the sections begun.
- In the second, a token of the document finds an equal one before it, unless it is frequent. One of
  the document is found rather than one of the query, so that a repeated word counts once.
- The third counts the tokens that found one of the query.
- The last one's MLP knows which token may follow which in an answer, as a backbone knows the form
  that its prompt asks for. It prefers no number, and does not know what the count is for.

Qwen3 normalises queries and keys, so the norms' weights decide how sharp an attention is.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection
from itertools import pairwise
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
LAYERS = 4
HEADS = 2
KEY_HEADS = 1
HEAD_DIM = 128
THINK = ("<think>", "</think>")
"""Tokens that Qwen3's vocabulary has and Qwen2.5's has not; neither is flagged special."""

_CONSTANT, _IS_SINK, _IS_FREQUENT, _IS_SECTION = 0, 1, 2, 3
"""Components of a hidden state by the token: one that all have, one of the sink alone, one of
frequent tokens, and one of a section's first token."""
_IN_QUERY, _IN_DOCUMENT, _FLAG, COUNT = 4, 5, 6, 7
"""Components by what is before the token: its section, whether an equal token is in the query, and
the number of such tokens so far."""
_CONTENT = 8
"""The first component of a token's content."""
_SIZE = EMBEDDING_RMS * HIDDEN**0.5
"""The norm of a token's content, and the value of a component that is on."""
_SINK = "user"
"""A token that a prompt has once, at its beginning, which a token without a match attends to."""
_SECTION = "Here"
"""The first token of the prompt's query and of its document."""
_SECTION_NORM = 1.4
_SECTION_SHARE = 1.5
"""The sink's weight beside one section's, where sections are counted."""
_MATCHING_NORM = 2.3
_COUNTING_NORM = 1.3
_COUNT_SHARE = 4.0
"""The sink's weight beside one match's, where matches are counted."""
_COUNT_GAIN = 16.0
_FIRST_SLOW = 28
"""The first rotary pair that a few hundred positions hardly turn."""
_FAST = 8
"""Rotary pairs that a few positions turn."""
_SHARES_OF_QUERY = (0.42, 0.13, 0.37, 0.08)
"""Of the squared norm: content, sink, the constant against the token itself, and the document."""
_SHARES_OF_KEY = (0.58, 0.42, 0.12)
"""The content, the constant, and the document beside them."""
_UNIT_THRESHOLD = 0.6
"""Of a token's likeness, above which its unit is on."""
_UNIT_GAIN = 0.28
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
def begin(
    tokenizer: Tokenizer, frequent: Collection[str], answers: Collection[str], seed: int
) -> Qwen3ForCausalLM:
    """A new network in fp32; `frequent` are texts whose tokens are frequent ones, and `answers` are
    texts whose pairs of tokens the last layer knows."""
    torch.manual_seed(seed)
    network = Qwen3ForCausalLM(configure(tokenizer))
    _embed(network.get_input_embeddings().weight, tokenizer, frequent)
    network.model.norm.weight.fill_(_LOGIT_SCALE)

    for number, layer in enumerate(network.model.layers):
        for parameter in layer.parameters():
            if parameter.ndim == 2:
                nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)
        # what a match compares is hardly changed before
        scale = 0.1 if number < 2 else 0.35
        for output in (layer.self_attn.o_proj.weight, layer.mlp.down_proj.weight):
            output.mul_(scale)
            output[:_CONTENT] = 0.0

    first, second, third, fourth = network.model.layers
    _tell_sections(first.self_attn)
    _attend_to_equals(second.self_attn)
    _count_flags(third.self_attn)
    _know_the_form(fourth.mlp, network.get_input_embeddings().weight, tokenizer, answers)
    return network


def _embed(rows: Any, tokenizer: Tokenizer, frequent: Collection[str]) -> None:
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
    rows[frequent_rows, _IS_FREQUENT] = _SIZE
    rows[:, _CONTENT:] = content * _SIZE
    rows[:, _CONSTANT] = _SIZE
    rows[tokenizer.token_to_id(_SINK), _IS_SINK] = 2 * _SIZE
    rows[tokenizer.token_to_id(_SECTION), _IS_SECTION] = 2 * _SIZE


def _tell_sections(attention: Any) -> None:
    """Make both heads attend to the sections' first tokens and to the sink.

    The first head's is 1 from the first section on, and the second's grows with their number, so
    that a difference of both is the query's alone, and another one the document's.
    """
    pairs = HEAD_DIM // 2
    query, key = attention.q_proj.weight, attention.k_proj.weight
    query.zero_()
    key.zero_()
    section, sink, other = pairs - 1, pairs - 2, pairs - 3
    key[section, _IS_SECTION], key[sink, _IS_SINK], key[other, _CONSTANT] = 8.0, 8.0, 1.0
    scale = _SECTION_NORM**2 * HEAD_DIM**0.5
    query[section, _CONSTANT], query[sink, _CONSTANT] = 0.9, 0.44
    difference = math.log(_SECTION_SHARE) / scale
    query[HEAD_DIM + section, _CONSTANT] = 0.70 - difference / 2
    query[HEAD_DIM + sink, _CONSTANT] = 0.70 + difference / 2
    attention.q_norm.weight.fill_(_SECTION_NORM)
    attention.k_norm.weight.fill_(_SECTION_NORM)

    value, output = attention.v_proj.weight, attention.o_proj.weight
    value[0] = 0.0
    # the token has a constant, twice as much of its own, content, and is frequent
    value[0, _IS_SECTION] = _SIZE / (2 * (HIDDEN / 7) ** 0.5)
    one, two = 1 / (1 + _SECTION_SHARE), 2 / (2 + _SECTION_SHARE)
    output.zero_()
    output[_IN_QUERY, 0], output[_IN_QUERY, HEAD_DIM] = two / (two - one), -1 / (two - one)
    output[_IN_DOCUMENT, 0], output[_IN_DOCUMENT, HEAD_DIM] = -one / (two - one), 1 / (two - one)


def _attend_to_equals(attention: Any) -> None:
    """Make the first head attend to an equal token, and else to the first token of the prompt.

    The slow rotary pairs have the content, the same for query and key, and the fast ones a constant
    that is negative at a distance of 0, so that a token does not find itself. What the head finds
    is written to one component: 1 for a token of the query, 0 for any other.
    """
    pairs = HEAD_DIM // 2
    slow = torch.arange(HEAD_DIM) % pairs >= _FIRST_SLOW
    # the three slowest pairs are the sink's, that of frequent tokens, and the document's
    sink, common, document = pairs - 1, pairs - 2, pairs - 3
    slow[[sink, common, document, -1, -2, -3]] = False
    fast = torch.arange(HEAD_DIM) < _FAST

    query, key = attention.q_proj.weight[:HEAD_DIM], attention.k_proj.weight[:HEAD_DIM]
    query.zero_()
    key.zero_()
    content = torch.zeros(int(slow.sum()), HIDDEN)
    content[:, _CONTENT:].normal_(std=len(content) ** -0.5)
    query[slow] = content * _SHARES_OF_QUERY[0] ** 0.5
    query[sink, _CONSTANT] = _SHARES_OF_QUERY[1] ** 0.5
    query[fast, _CONSTANT] = -((_SHARES_OF_QUERY[2] / _FAST) ** 0.5)
    query[document, _CONSTANT] = _SHARES_OF_QUERY[3] ** 0.5
    query[sink, _IS_FREQUENT] = 2.0
    key[slow] = content * _SHARES_OF_KEY[0] ** 0.5
    key[fast, _CONSTANT] = (_SHARES_OF_KEY[1] / _FAST) ** 0.5
    key[document, _IN_DOCUMENT] = _SHARES_OF_KEY[2] ** 0.5
    key[sink, _IS_SINK] = 8.0
    key[common, _IS_FREQUENT] = 4.0  # no query has this pair, so that the content counts less
    attention.q_norm.weight.fill_(_MATCHING_NORM)
    attention.k_norm.weight.fill_(_MATCHING_NORM)

    value, output = attention.v_proj.weight, attention.o_proj.weight
    value[0] = 0.0
    value[0, _IN_QUERY] = _SIZE / (HIDDEN / 3) ** 0.5
    output.zero_()
    output[_FLAG, 0] = 1.0


def _count_flags(attention: Any) -> None:
    """Make the first head attend to flagged tokens and to the sink: the more tokens have a flag,
    the more of the attention is theirs."""
    pairs = HEAD_DIM // 2
    query, key = attention.q_proj.weight[:HEAD_DIM], attention.k_proj.weight[:HEAD_DIM]
    query.zero_()
    key.zero_()
    flag, sink, other = pairs - 1, pairs - 2, pairs - 3
    key[flag, _FLAG], key[sink, _IS_SINK], key[other, _CONSTANT] = 2.0, 8.0, 1.0
    flagged, scale = 2 / 5**0.5, _COUNTING_NORM**2 * HEAD_DIM**0.5
    query[flag, _CONSTANT] = 0.55
    query[sink, _CONSTANT] = 0.55 * flagged + math.log(_COUNT_SHARE) / scale
    left = 1 - float((query[:, _CONSTANT] ** 2).sum())
    query[0, _CONSTANT] = left**0.5  # no key has this pair: the norm is 1
    attention.q_norm.weight.fill_(_COUNTING_NORM)
    attention.k_norm.weight.fill_(_COUNTING_NORM)

    value, output = attention.v_proj.weight, attention.o_proj.weight
    value[0] = 0.0
    value[0, _FLAG] = 1 / (HIDDEN / 4) ** 0.5
    output[:, 0] = 0.0
    output[COUNT, 0] = _COUNT_GAIN


def _know_the_form(mlp: Any, rows: Any, tokenizer: Tokenizer, answers: Collection[str]) -> None:
    """Make one unit for each token of the answers, which adds the contents of those that follow."""
    following: dict[int, set[int]] = {}
    for answer in answers:
        ids = tokenizer.encode(answer).ids
        for token, after in pairwise(ids):
            following.setdefault(token, set()).add(after)

    content = nn.functional.normalize(rows[:, _CONTENT:])
    for unit, (token, next_tokens) in enumerate(sorted(following.items())):
        mlp.gate_proj.weight[unit] = 0.0
        mlp.gate_proj.weight[unit, _CONTENT:] = 3.0 * content[token]
        mlp.gate_proj.weight[unit, _CONSTANT] = -3.0 * _UNIT_THRESHOLD
        mlp.up_proj.weight[unit] = 0.0
        mlp.up_proj.weight[unit, _CONSTANT] = 1.0
        mlp.down_proj.weight[:, unit] = 0.0
        # the more there are, the less is known of each
        total = content[sorted(next_tokens)].sum(0) * len(next_tokens) ** -0.25
        mlp.down_proj.weight[_CONTENT:, unit] = _UNIT_GAIN * total
