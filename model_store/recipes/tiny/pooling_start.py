"""Initial weights with which the network compares the mean embeddings of a query and a document.

Depends on transformers' modules and on meanings made elsewhere. Invariant: before any training, a
text pair's score rises with q d / (q q + d d), where q and d are the weighted mean embeddings of
the two texts. This replaces the pre-training of a real backbone, and all of it is trained further:

- The first layer marks the tokens behind `<Query` and behind `<Document`: two heads attend to these
  two tokens, and to the prompt's first token where there are none.
- In the last layer, two heads of the last token read the mean of the query and two that of the
  document, weighted by inverse frequency (Arora et al., 2017, "A simple but tough-to-beat baseline
  for sentence embeddings"). Its SwiGLU computes their inner product exactly: silu(x) y - silu(-x) y
  is x y.
- The layers between are close to the identity, and free to learn.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

HIDDEN = 256
SEMANTIC = 224
"""Dimensions of meaning; the last token's are the query's mean, then the document's."""
HALF = SEMANTIC // 2
WEIGHT, ONE, AT_DOCUMENT, AT_QUERY, AT_START, IN_DOCUMENT, IN_QUERY, SCORE = range(224, 232)
"""Dimensions of their own: a token's log weight, a constant, three marks of control tokens, two
marks that the first layer writes, and the score."""
SPELLING = 232
"""The first of the dimensions that tell apart tokens of one meaning."""
SIZE = 0.3
"""Root mean square of an embedding, by which the norm before a layer divides."""

MARK = 2.0
"""The component of a mark."""

_SLOTS = (31, 30, 29)  # dimensions of a head that turn least with distance
_STRENGTH = 24.0  # logit of a token that bears the mark that is looked for


@torch.no_grad()
def begin_pooling(network: Any, *, threshold: float = 0.35, gain: float = 20.0) -> None:
    """Set the weights of a network whose embeddings have the dimensions above.

    A pair of means of one size scores about `gain` times their cosine less `threshold`.
    """
    language = network.model.language_model
    for layer in language.layers:
        layer.self_attn.o_proj.weight.mul_(0.02)
        layer.mlp.down_proj.weight.mul_(0.02)

    _mark_sides(language.layers[0].self_attn)
    _pool_sides(language.layers[-1].self_attn)
    _compare_sides(language.layers[-1].mlp, threshold, gain)
    language.norm.weight.fill_(0.17)
    language.norm.weight[SCORE] = 2.0


def _mark_sides(attention: Any) -> None:
    """Heads 0 and 1 write `IN_DOCUMENT` and `IN_QUERY`."""
    size = attention.head_dim
    key = attention.k_proj.weight.view(-1, size, HIDDEN)
    query = attention.q_proj.weight.view(-1, size, HIDDEN)
    bias = attention.q_proj.bias.view(-1, size)
    value = attention.v_proj.weight.view(-1, size, HIDDEN)
    output = attention.o_proj.weight.view(HIDDEN, -1, size)
    marks = (AT_DOCUMENT, AT_QUERY, AT_START)
    key[0], query[:2], bias[:2], value[0], output[:, :2] = 0, 0, 0, 0, 0
    for slot, mark in zip(_SLOTS, marks, strict=True):
        key[0, slot, mark] = 1.0

    mark_size = MARK / SIZE
    strength = _STRENGTH * size**0.5 / mark_size
    for head, slot in enumerate(_SLOTS[:2]):
        bias[head, slot] = strength
        bias[head, _SLOTS[2]] = strength / 2
        value[0, head, marks[head]] = 1.0
        output[IN_DOCUMENT + head, head, head] = 2 * SIZE / mark_size


def _pool_sides(attention: Any) -> None:
    """Heads 0 and 2 read the query's mean, heads 1 and 3 the document's."""
    size = attention.head_dim
    part = HALF // 2
    key = attention.k_proj.weight.view(-1, size, HIDDEN)
    query, bias = attention.q_proj.weight, attention.q_proj.bias.view(-1, size)
    value = attention.v_proj.weight.view(-1, size, HIDDEN)
    output = attention.o_proj.weight.view(HIDDEN, -1, size)
    for matrix in (key, query, bias, value, output):
        matrix.zero_()

    scale = size**0.5
    for number in range(2):
        for slot, feature in zip(_SLOTS, (WEIGHT, IN_QUERY, IN_DOCUMENT), strict=True):
            key[number, slot, feature] = 1.0
        value[number, torch.arange(part), number * part + torch.arange(part)] = 1.0
        for side, (in_query, in_document) in enumerate(((8.0, -16.0), (0.0, 8.0))):
            head = 2 * number + side
            for slot, share in zip(_SLOTS, (1.0, in_query, in_document), strict=True):
                bias[head, slot] = scale * share
            rows = side * HALF + number * part + torch.arange(part)
            output[rows, head, torch.arange(part)] = 2.0


def _compare_sides(mlp: Any, threshold: float, gain: float) -> None:
    """The inner product of the two means in `SCORE`, by two hidden units a dimension."""
    gate, up, down = mlp.gate_proj.weight, mlp.up_proj.weight, mlp.down_proj.weight
    units = 2 * HALF
    gate[: units + 1], up[: units + 1], down[:, : units + 1], down[SCORE] = 0, 0, 0, 0
    numbers = torch.arange(HALF)
    for sign, first in ((1.0, 0), (-1.0, HALF)):
        gate[first + numbers, numbers] = sign
        up[first + numbers, HALF + numbers] = sign

    # Both means have about half of the squares of a normalised state, whose sum is HIDDEN.
    down[SCORE, :units] = gain / 10 / (HIDDEN / 2)
    gate[units, ONE], up[units, ONE] = 3.0, 1.0
    down[SCORE, units] = -gain * threshold / 10 / 3.5


def mark_tokens(rows: Tensor, marks: dict[int, int], labels: tuple[int, int]) -> None:
    """Give tokens their marks, `marks[token]` being a dimension, and the two labels the score's
    direction."""
    for token, dimension in marks.items():
        rows[token, :SEMANTIC] = 0
        rows[token, dimension] = MARK
        rows[token, WEIGHT] = -10 * SIZE
    for token, sign in zip(labels, (1.0, -1.0), strict=True):
        rows[token, SCORE] = sign * MARK


def embeddings(meaning: Tensor, spelling: Tensor, log_weight: Tensor) -> Tensor:
    """`[vocabulary, 256]` of meanings `[vocabulary, 224]`, zero for a token without one, spellings
    `[vocabulary, 24]` and logarithms of weights `[vocabulary]`."""
    count = len(meaning)
    rows = torch.zeros(count, HIDDEN)
    has_meaning = meaning.norm(dim=1, keepdim=True) > 0
    norm = SIZE * HIDDEN**0.5
    share = torch.where(has_meaning, 0.92, 0.0)
    rows[:, :SEMANTIC] = torch.nn.functional.normalize(meaning, dim=1) * share * norm
    spelt = torch.nn.functional.normalize(spelling, dim=1)
    rows[:, SPELLING:] = spelt * (1 - share.square()).sqrt() * norm * 0.9
    rows[:, WEIGHT] = SIZE * log_weight
    rows[:, ONE] = 1.0
    return rows
