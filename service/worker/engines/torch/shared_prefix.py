"""A decoder over candidates that share a prefix: it computes the prefix once and returns the hidden
state of each candidate's last position.

Runs the modules of a loaded transformers decoder of the Llama kind in their own order; does not
depend on text, images or calls. Invariant: the result for a candidate equals the plain forward of
prefix + candidate to fp32 rounding, because rows are padded on the right and attend to the prefix
and to themselves alone. On a CPU it is the same to the last bit in every batch whose rows need the
same number of `padded_keys`: kernels add up the incomplete end of a tile in another order, and so
no tensor ends within a tile.

A plain forward also computes the prefix for every candidate, and in the last layer queries and the
MLP of every position, although nothing reads those of any position but the last.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

ROW_TILE = 16
"""The rows of matrix products, and the queries of an attention, are a multiple of this."""
KEY_TILE = 64
"""The keys of an attention are a multiple of this."""

Rotary = tuple[Tensor, Tensor]
"""Cosines and sines of positions, `[rows, tokens, head]` each."""


@dataclass(frozen=True, slots=True)
class Prefix:
    """Keys and values of a prefix, `[1, key heads, tokens, head]` a layer."""

    layers: list[tuple[Tensor, Tensor]]

    @property
    def tokens(self) -> int:
        return self.layers[0][0].shape[2]


@dataclass(frozen=True, slots=True)
class Deepstack:
    """Maps of images that are added to hidden states, one map after each of the first layers."""

    mask: Tensor
    """The positions of image tokens, `[rows, tokens]`."""
    maps: Sequence[Tensor]
    """A map for each layer, `[image tokens of all rows, hidden]`."""

    def added(self, hidden: Tensor, layer: int) -> Tensor:
        """The hidden states after a layer, with its map in place; hidden is `[rows, tokens,
        hidden]`."""
        if layer < len(self.maps):
            hidden[self.mask] += self.maps[layer]
        return hidden


def padded_keys(prefix: int, suffix: int) -> int:
    """Keys that a candidate's attention is computed over, padding included.

    `prefix` and `suffix` are numbers of tokens.
    """
    own = suffix + -suffix % ROW_TILE
    return prefix + own + -(prefix + own) % KEY_TILE


class SharedPrefixDecoder:
    """Runs a decoder with `layers`, `norm` and grouped-query attention.

    `rotary` maps (decoder, embeddings, positions) to cosines and sines, as `Architecture.rotary`.
    """

    def __init__(self, model: Any, rotary: Callable[[Any, Tensor, Tensor], Rotary]) -> None:
        self._model, self._rotary = model, rotary

    def prefix(
        self, embeddings: Tensor, positions: Tensor, deepstack: Deepstack | None = None
    ) -> Prefix:
        """Read a prefix: embeddings `[1, tokens, hidden]`, positions `[axes, 1, tokens]`."""
        rotary = self._rotary(self._model, embeddings, positions)
        layers: list[tuple[Tensor, Tensor]] = []
        hidden = embeddings
        for number, layer in enumerate(self._model.layers):
            normed = layer.input_layernorm(hidden)
            key, value = keys_and_values(layer, normed, rotary)
            layers.append((key, value))

            # nothing reads the last layer's output for a prefix
            if len(layers) < len(self._model.layers):
                query = queries(layer, normed, rotary)
                attended = attend(query, key, value, mask=None, causal=True)
                hidden = finish(layer, hidden, attended)
                if deepstack:
                    hidden = deepstack.added(hidden, number)
        return Prefix(layers)

    def last_hidden(
        self,
        prefix: Prefix,
        embeddings: Tensor,
        positions: Tensor,
        lengths: Tensor,
        deepstack: Deepstack | None = None,
    ) -> Tensor:
        """Final hidden state at each row's last position, `[rows, hidden]`.

        Takes rows padded on the right to a multiple of `ROW_TILE`: embeddings `[rows, longest,
        hidden]`, positions `[axes, rows, longest]`, lengths `[rows]`. No row ends in an image.
        """
        rotary = self._rotary(self._model, embeddings, positions)
        rows, longest, _ = embeddings.shape
        all_keys = padded_keys(prefix.tokens, int(lengths.max()))
        padding = all_keys - prefix.tokens - longest
        mask = torch.ones(longest, all_keys, dtype=torch.bool, device=embeddings.device)
        mask = mask.tril(prefix.tokens)

        hidden = embeddings
        *early, final = zip(self._model.layers, prefix.layers, strict=True)
        for number, (layer, shared) in enumerate(early):
            normed = layer.input_layernorm(hidden)
            key, value = joined(shared, keys_and_values(layer, normed, rotary), padding)
            attended = attend(queries(layer, normed, rotary), key, value, mask=mask)
            hidden = finish(layer, hidden, attended)
            if deepstack:
                hidden = deepstack.added(hidden, number)

        layer, shared = final
        normed = layer.input_layernorm(hidden)
        key, value = joined(shared, keys_and_values(layer, normed, rotary), padding)

        # one row per candidate, then the first ones again, up to a whole tile
        row = torch.arange(rows + -rows % ROW_TILE, device=lengths.device) % rows
        last = lengths[row] - 1
        rotary_last = (rotary[0][row, last][:, None], rotary[1][row, last][:, None])
        query = queries(layer, normed[row, last][:, None], rotary_last)

        # with a single query, threads would split the keys by the number of rows
        twice = query.expand(-1, -1, 2, -1)
        attended = attend(twice, key[row], value[row], mask=mask[last][:, None, None])[:, :1]
        hidden = finish(layer, hidden[row, last][:, None], attended)
        normed_last: Tensor = self._model.norm(hidden)[:rows, 0]
        return normed_last


def queries(layer: Any, normed: Tensor, rotary: Rotary) -> Tensor:
    """A layer's queries, `[rows, heads, tokens, head]`."""
    attention = layer.self_attn
    query = attention.q_proj(normed).unflatten(-1, (-1, attention.head_dim))
    if hasattr(attention, "q_norm"):
        query = attention.q_norm(query)
    return _rotated(query.transpose(1, 2), rotary)


def keys_and_values(layer: Any, normed: Tensor, rotary: Rotary) -> tuple[Tensor, Tensor]:
    """A layer's keys and values, `[rows, key heads, tokens, head]` each."""
    attention = layer.self_attn
    key = attention.k_proj(normed).unflatten(-1, (-1, attention.head_dim))
    value = attention.v_proj(normed).unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)
    if hasattr(attention, "k_norm"):
        key = attention.k_norm(key)
    return _rotated(key.transpose(1, 2), rotary), value


def _rotated(heads: Tensor, rotary: Rotary) -> Tensor:
    """Rotary position embedding of `[rows, heads, tokens, head]`."""
    cosines, sines = (angles.unsqueeze(1) for angles in rotary)
    first, second = heads.chunk(2, dim=-1)
    return heads * cosines + torch.cat((-second, first), dim=-1) * sines


def joined(
    shared: tuple[Tensor, Tensor], own: tuple[Tensor, Tensor], padding: int
) -> tuple[Tensor, Tensor]:
    """The prefix's keys and values, each row's own after them, and then `padding` zeros."""
    rows, heads, _, size = own[0].shape
    zeros = own[0].new_zeros(1, 1, 1, 1).expand(rows, heads, padding, size)
    key, value = (
        torch.cat((prefix.expand(rows, -1, -1, -1), row, zeros), dim=2)
        for prefix, row in zip(shared, own, strict=True)
    )
    return key, value


def attend(
    query: Tensor, key: Tensor, value: Tensor, *, mask: Tensor | None, causal: bool = False
) -> Tensor:
    """Grouped-query attention of `[rows, heads, tokens, head]`, as `[rows, tokens, width]`."""
    attended = scaled_dot_product_attention(
        query, key, value, attn_mask=mask, is_causal=causal, enable_gqa=True
    )
    return attended.transpose(1, 2).flatten(2)


def finish(layer: Any, hidden: Tensor, attended: Tensor) -> Tensor:
    """The hidden states after a layer, from those before it and its attention."""
    hidden = hidden + layer.self_attn.o_proj(attended)
    finished: Tensor = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
    return finished
