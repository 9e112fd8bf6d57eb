"""Greedy decoding: the tokens that a decoder writes after prompts which share a prefix.

Runs the same modules as the decoder of shared prefixes; does not depend on text or calls.
Invariant: the tokens of a row and their probabilities equal those of a plain forward over the row
to fp32 rounding. On a CPU they are the same to the last bit in every batch whose rows need the same
number of `padded_keys`: rows write in step, so that their attention has the same number of keys,
and no matrix product ends within a tile.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from service.worker.engines.torch.shared_prefix import (
    KEY_TILE,
    ROW_TILE,
    Prefix,
    SharedPrefixDecoder,
    attend,
    finish,
    joined,
    keys_and_values,
    padded_keys,
    queries,
)


@dataclass(slots=True)
class RowKeys:
    """Keys and values of rows, `[rows, key heads, keys, head]` a layer."""

    layers: list[tuple[Tensor, Tensor]]
    allowed: Tensor
    """The keys that a row attends to, `[rows, keys]`; the others are padding."""
    used: int
    """Keys that are written or padding of the prompt; the next token's key comes after them."""

    def grow(self) -> None:
        """Make room for a tile of further keys."""
        more = (0, 0, 0, KEY_TILE)
        self.layers = [
            (torch.nn.functional.pad(key, more), torch.nn.functional.pad(value, more))
            for key, value in self.layers
        ]
        self.allowed = torch.nn.functional.pad(self.allowed, (0, KEY_TILE))


def tiled_rows(rows: int, device: torch.device) -> Tensor:
    """Indexes of rows, then of the first ones again, up to a whole tile."""
    return torch.arange(rows + -rows % ROW_TILE, device=device) % rows


class GreedyDecoder(SharedPrefixDecoder):
    """A decoder that goes on after its prompts."""

    def read(
        self, prefix: Prefix, embeddings: Tensor, positions: Tensor, lengths: Tensor
    ) -> tuple[Tensor, RowKeys]:
        """Final hidden state at each row's last position, `[rows, hidden]`, and the rows' keys.

        Takes rows as `last_hidden` does.
        """
        rotary = self._rotary(self._model, embeddings, positions)
        rows, longest, _ = embeddings.shape
        all_keys = padded_keys(prefix.tokens, int(lengths.max()))
        padding = all_keys - prefix.tokens - longest
        mask = torch.ones(longest, all_keys, dtype=torch.bool, device=embeddings.device)
        mask = mask.tril(prefix.tokens)

        hidden = embeddings
        kept: list[tuple[Tensor, Tensor]] = []
        for layer, shared in zip(self._model.layers, prefix.layers, strict=True):
            normed = layer.input_layernorm(hidden)
            key, value = joined(shared, keys_and_values(layer, normed, rotary), padding)
            kept.append((key, value))
            attended = attend(queries(layer, normed, rotary), key, value, mask=mask)
            hidden = finish(layer, hidden, attended)

        last = lengths - 1
        each = torch.arange(rows, device=embeddings.device)
        normed_last: Tensor = self._model.norm(hidden[each, last])
        return normed_last, RowKeys(kept, mask[last], all_keys)

    def next_hidden(self, rows: RowKeys, embeddings: Tensor, positions: Tensor) -> Tensor:
        """Final hidden state after one more token of each row, `[rows, hidden]`.

        Takes its embeddings, `[rows, hidden]`, and positions, `[axes, rows]`; adds its keys.
        """
        count = len(embeddings)
        if rows.used == rows.allowed.shape[1]:
            rows.grow()
        slot = rows.used
        rows.allowed[:, slot] = True
        rows.used += 1

        tiled = tiled_rows(count, embeddings.device)
        hidden = embeddings[tiled][:, None]
        rotary = self._rotary(self._model, hidden, positions[:, tiled, None])
        for layer, (keys, values) in zip(self._model.layers, rows.layers, strict=True):
            normed = layer.input_layernorm(hidden)
            key, value = keys_and_values(layer, normed, rotary)
            keys[:, :, slot], values[:, :, slot] = key[:count, :, 0], value[:count, :, 0]

            # with a single query, threads would split the keys by the number of rows
            twice = queries(layer, normed, rotary)[:count].expand(-1, -1, 2, -1)
            attended = attend(twice, keys, values, mask=rows.allowed[:, None, None])[:, :1]
            hidden = finish(layer, hidden, attended[tiled])
        normed_last: Tensor = self._model.norm(hidden)[:count, 0]
        return normed_last
