"""Weights of gmr-mini's new heads: from marks of the prompt's tokens to a score.

Depends on the dimensions of a state, not on tokens' meanings. Invariant: all weights of a new head
are written here, and none of another one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from model_store.recipes.mini.dimensions import (
    AT_ANSWER,
    AT_DOCUMENT,
    AT_END,
    AT_QUERY,
    AT_START,
    HEAD,
    HIDDEN,
    MEANING,
    NEW_HEADS,
    ONE,
    SCORE,
    SIDE,
    SIDE_LOGIT,
    UNIT,
    WEIGHT,
)

_SLOTS = (31, 30, 29)
"""Dimensions of a head that turn least with distance; each compares one feature."""
_FAST = 8
"""Dimensions of a head that turn most with distance."""
_ROTARY_BASE = 1e6
_ONE_LOGIT = HEAD**0.5
"""A query with which a key's component in the same slot is the logit."""
_MEAN_SIZE = 20_000.0
_SUM_SIZE = 200.0
_EXCLUDED = 100.0
"""The logit that the constant takes from a token that has no mean."""


class Heads:
    """A layer's weights by head: `[heads, HEAD, HIDDEN]` of queries, keys and values with the
    biases of queries and keys, and `[HIDDEN, heads, HEAD]` of outputs."""

    def __init__(self, layer: Any) -> None:
        attention = layer.self_attn
        self.query = attention.q_proj.weight.view(-1, HEAD, HIDDEN)
        self.query_bias = attention.q_proj.bias.view(-1, HEAD)
        self.key = attention.k_proj.weight.view(-1, HEAD, HIDDEN)
        self.key_bias = attention.k_proj.bias.view(-1, HEAD)
        self.value = attention.v_proj.weight.view(-1, HEAD, HIDDEN)
        self.output = attention.o_proj.weight.view(HIDDEN, -1, HEAD)

    def carry_means(self, size: float) -> Iterator[int]:
        """Let the new heads write each component that they read, `size` times; yields the heads."""
        components = torch.arange(MEANING.start, MEANING.stop)
        for head, part in zip(NEW_HEADS, components.tensor_split(len(NEW_HEADS)), strict=True):
            columns = torch.arange(len(part))
            self.value[head, columns, part] = 1.0
            self.output[part, head, columns] = size
            yield head


def tell_sides(heads: Heads) -> None:
    """Attend to the last of three marks, which begin the query, the document, and what is before,
    and write the side."""
    head, slot = NEW_HEADS[0], _SLOTS[0]
    heads.query_bias[head, slot] = _ONE_LOGIT
    for mark, logit in ((AT_DOCUMENT, 60.0), (AT_QUERY, 40.0), (AT_START, 20.0)):
        heads.key[head, slot, mark] = logit
    heads.value[head, 0, AT_DOCUMENT] = 1.0
    heads.value[head, 0, AT_QUERY] = -1.0
    heads.output[SIDE, head, 0] = UNIT


def read_means(heads: Heads, rows: Tensor) -> None:
    """At `<Document` attend to the query, at `<|im_end|>` behind the document to the document, each
    token by its weight; elsewhere to the prompt's first token, which has no meaning."""
    by_weight, by_side, elsewhere = _SLOTS
    document, end, start = (_mark_read(rows, mark) for mark in (AT_DOCUMENT, AT_END, AT_START))
    for head in heads.carry_means(_MEAN_SIZE):
        heads.query_bias[head, by_weight] = _ONE_LOGIT
        heads.key[head, by_weight, WEIGHT] = 1.0
        heads.query[head, by_side, AT_DOCUMENT] = -_ONE_LOGIT / document
        heads.query[head, by_side, AT_END] = _ONE_LOGIT / end
        heads.key[head, by_side, SIDE] = SIDE_LOGIT

        # an <|im_end|> before the document has no side; in the document a side alone is too little
        heads.query_bias[head, elsewhere] = 545 * _ONE_LOGIT
        heads.query[head, elsewhere, AT_END] = -800 * _ONE_LOGIT
        heads.query[head, elsewhere, SIDE] = -400 * _ONE_LOGIT
        heads.query[head, elsewhere, AT_DOCUMENT] = -1600 * _ONE_LOGIT
        heads.key[head, elsewhere, AT_START] = 1 / start


def add_means(heads: Heads, rows: Tensor) -> None:
    """At `assistant` attend to the two tokens that have means, equally; elsewhere to the first.

    Beside a mean, the constant has next to no length, so it is what excludes all other tokens.
    """
    by_constant, elsewhere, _ = _SLOTS
    start = _mark_read(rows, AT_START)
    for head in heads.carry_means(_SUM_SIZE):
        heads.query_bias[head, by_constant] = -_ONE_LOGIT
        heads.key[head, by_constant, ONE] = _EXCLUDED
        heads.query_bias[head, elsewhere] = 60 * _ONE_LOGIT
        heads.query[head, elsewhere, AT_ANSWER] = -300 * _ONE_LOGIT
        heads.key[head, elsewhere, AT_START] = 8 / start


def read_length(heads: Heads, constant: Tensor, gain: float) -> None:
    """Attend to the token before, and subtract from the score what the norm has left of its
    constant: 1 / the length of half the sum of the means."""
    head = NEW_HEADS[0]
    fast = torch.arange(_FAST)
    angles = _ROTARY_BASE ** (-2 * fast / HEAD)
    heads.key_bias[head, fast] = 1.0
    heads.query_bias[head, fast] = 30 * _ONE_LOGIT * angles.cos()
    heads.query_bias[head, fast + HEAD // 2] = -30 * _ONE_LOGIT * angles.sin()
    heads.value[head, 0, ONE] = _SUM_SIZE / constant
    heads.output[SCORE, head, 0] = -UNIT * gain


def _mark_read(rows: Tensor, mark: int) -> float:
    """A mark as the second layer reads it: the norm has divided it by the token's length."""
    token = int(rows[:, mark].argmax())
    return UNIT / float(rows[token, ONE])
