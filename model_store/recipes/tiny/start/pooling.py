"""Initial weights with which the network compares the mean embeddings of a query and a document.

Depends on transformers' modules and on meanings made elsewhere. Invariant: before any training, a
text pair's score rises with the cosine of the weighted mean embeddings of the two texts. This
replaces the pre-training of a real backbone, and all of it is trained further:

- The first layer marks the tokens behind `<Query` and behind `<Document`: two heads attend to these
  two tokens, and to the prompt's first token where there are none.
- In the last layer but one, each token reads the mean of the part that it is in, weighted by
  inverse frequency (Arora et al., 2017, "A simple but tough-to-beat baseline for sentence
  embeddings"): the token `<Document`, at which the query is complete, that of the query, and the
  last token that of the document.
- The norm before the last layer makes both means equally long. Two heads of the last token read
  the query's at `<Document`, and two the document's at the last token itself. The SwiGLU computes
  their inner product exactly: silu(x) y - silu(-x) y is x y.
- The layers between add nothing at first, and are free to learn. What they add to a token's score
  is pooled with the means.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

HIDDEN = 256
SEMANTIC = 224
"""Dimensions of meaning; the last token's are the document's mean, then the query's."""
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
NO_WEIGHT = -10.0
"""The log weight of a token that no mean includes."""
_SLOTS = (31, 30, 29, 28)  # dimensions of a head that turn least with distance
_STRENGTH = 24.0  # logit of a token that bears the mark that is looked for
_FAST = 8  # dimensions of a head that turn most with distance, all of an image's first axis
_PARTS = 2  # heads of keys and values, each of which carries a part of a mean

BEFORE, AFTER = 1, 2
"""Layers at either end whose initial weights compute the first scores."""

_POOLED = 4.0  # means in the last layer but one, by the size of a normalised embedding
_CARRIED = 6.0  # normalised means in the last layer
_FINAL = (_CARRIED + 1) * 2**0.5  # root mean square of the last token's state, about


@torch.no_grad()
def begin_pooling(network: Any, *, threshold: float = 0.35, gain: float = 20.0) -> None:
    """Set the weights of a network whose embeddings have the dimensions above.

    A pair scores about `gain` times the cosine of its means less `threshold`.
    """
    language = network.model.language_model
    for layer in language.layers:
        layer.self_attn.o_proj.weight.zero_()
        layer.mlp.down_proj.weight.zero_()

    _mark_sides(language.layers[0].self_attn)
    _pool_parts(language.layers[-2].self_attn)
    _carry_means(language.layers[-1].self_attn)
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
    key[0], query[:2], bias[:2], value[0] = 0, 0, 0, 0
    for slot, mark in zip(_SLOTS, marks, strict=False):
        key[0, slot, mark] = 1.0

    mark_size = MARK / SIZE
    strength = _STRENGTH * size**0.5 / mark_size
    for head, slot in enumerate(_SLOTS[:2]):
        bias[head, slot] = strength
        bias[head, _SLOTS[2]] = strength / 2
        value[0, head, marks[head]] = 1.0
        output[IN_DOCUMENT + head, head, head] = 2 * SIZE / mark_size


def _pool_parts(attention: Any) -> None:
    """The first head of each key reads a part of the mean: of the document in it, of the query
    at `<Document` and before."""
    size = attention.head_dim
    group = attention.q_proj.out_features // size // _PARTS
    key = attention.k_proj.weight.view(-1, size, HIDDEN)
    query = attention.q_proj.weight.view(-1, size, HIDDEN)
    bias = attention.q_proj.bias.view(-1, size)
    value = attention.v_proj.weight.view(-1, size, HIDDEN)
    output = attention.o_proj.weight.view(HIDDEN, -1, size)
    key.zero_()
    value.zero_()

    # A mark of the first layer is 2 in a normalised state, one of a control token about 7.
    shares = {WEIGHT: 1.0, IN_QUERY: 6.0, IN_DOCUMENT: 6.0, AT_DOCUMENT: -6.0}
    columns = torch.arange(HALF // _PARTS)
    for part in range(_PARTS):
        head = part * group
        query[head], bias[head] = 0, 0
        for slot, (feature, share) in zip(_SLOTS, shares.items(), strict=True):
            key[part, slot, feature] = 1.0
            bias[head, slot] = size**0.5 * share
        rows = part * len(columns) + columns
        value[part, columns, rows] = 1.0
        output[rows, head, columns] = _POOLED

    # The mean of the tokens' own scores, which are 0 until the layers between write them.
    value[0, len(columns), SCORE] = 1.0
    output[SCORE, 0, len(columns)] = _POOLED


def _carry_means(attention: Any) -> None:
    """The first head of each key reads a part of the query's mean at `<Document`, the second that
    of the token itself, whose rotary encoding is the only one to fit."""
    size = attention.head_dim
    group = attention.q_proj.out_features // size // _PARTS
    key = attention.k_proj.weight.view(-1, size, HIDDEN)
    key_bias = attention.k_proj.bias.view(-1, size)
    query = attention.q_proj.weight.view(-1, size, HIDDEN)
    bias = attention.q_proj.bias.view(-1, size)
    value = attention.v_proj.weight.view(-1, size, HIDDEN)
    output = attention.o_proj.weight.view(HIDDEN, -1, size)
    for matrix in (key, key_bias, query, bias, value):
        matrix.zero_()

    columns = torch.arange(HALF // _PARTS)
    for part in range(_PARTS):
        of_query, of_itself = part * group, part * group + 1
        key[part, _SLOTS[0], AT_DOCUMENT] = 1.0
        bias[of_query, _SLOTS[0]] = size**0.5 * _STRENGTH / 2
        key_bias[part, :_FAST] = 1.0
        bias[of_itself, :_FAST] = size**0.5 * _STRENGTH

        rows = part * len(columns) + columns
        value[part, columns, rows] = 1.0
        output[rows, of_itself, columns] = _CARRIED
        output[HALF + rows, of_query, columns] = _CARRIED


def _compare_sides(mlp: Any, threshold: float, gain: float) -> None:
    """The inner product of the two means in `SCORE`, by two hidden units a dimension."""
    gate, up, down = mlp.gate_proj.weight, mlp.up_proj.weight, mlp.down_proj.weight
    units = 2 * HALF
    gate[: units + 1], up[: units + 1] = 0, 0
    numbers = torch.arange(HALF)
    for sign, first in ((1.0, 0), (-1.0, HALF)):
        gate[first + numbers, numbers] = sign
        up[first + numbers, HALF + numbers] = sign

    # The score is divided by the final norm, and has its weight and the two labels' marks. Both
    # means have about half of the squares of a normalised state, whose sum is HIDDEN.
    unit = gain * _FINAL / (2.0 * 2 * MARK)
    down[SCORE, :units] = unit / (HIDDEN / 2)
    gate[units, ONE], up[units, ONE] = 3.0 * _FINAL, _FINAL
    down[SCORE, units] = -threshold * unit / float(torch.nn.functional.silu(torch.tensor(3.0)))


def mark_tokens(
    rows: Tensor, marks: dict[int, int], labels: Sequence[int], bare: Iterable[int] = ()
) -> None:
    """Give tokens their marks, `marks[token]` being a dimension, and the two labels the score's
    direction, in which alone they differ; the tokens in `bare`, which are of no text, have neither
    meaning nor spelling nor weight."""
    for token in (*marks, *bare):
        rows[token] = 0
        rows[token, ONE] = 1.0
        rows[token, WEIGHT] = NO_WEIGHT * SIZE
    for token, dimension in marks.items():
        rows[token, dimension] = MARK
    rows[list(labels)] = rows[list(labels)].mean(0)
    for token, sign in zip(labels, (1.0, -1.0), strict=True):
        rows[token, SCORE] = sign * MARK


def embeddings(meaning: Tensor, spelling: Tensor, log_weight: Tensor) -> Tensor:
    """`[vocabulary, 256]` of meanings `[vocabulary, 224]`, zero for a token without one, spellings
    `[vocabulary, 24]` and logarithms of weights `[vocabulary]`; nearly all of one length."""
    count = len(meaning)
    rows = torch.zeros(count, HIDDEN)
    has_meaning = meaning.norm(dim=1, keepdim=True) > 0
    norm = SIZE * HIDDEN**0.5
    share = torch.where(has_meaning, 0.92, 0.0)
    rows[:, :SEMANTIC] = torch.nn.functional.normalize(meaning, dim=1) * share * norm
    rows[:, WEIGHT] = SIZE * log_weight
    rows[:, ONE] = 1.0
    left = (norm**2 - rows.square().sum(1, keepdim=True)).clamp(min=0.1).sqrt()
    rows[:, SPELLING:] = torch.nn.functional.normalize(spelling, dim=1) * left
    return rows
