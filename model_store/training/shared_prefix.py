"""Pairs packed into one row behind the prefix that they share, and the attention that reads it.

Depends on tensors and on transformers' interface of attention functions, not on prompts or a
family. Invariant: a pair's tokens attend to their prefix and to the pair's own earlier tokens
alone, so that hidden states and gradients equal those of separate rows to rounding.

Only the attention differs from a plain forward pass: all else of a decoder's layer treats tokens
one by one, and runs as transformers wrote it, over each prefix once and without padding. There is
no mask over the whole row: each prefix attends to itself, and then the pairs behind it, as rows, to
its keys and values and their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward

ATTENTION = "gmr_shared_prefix"
"""The name of the attention among those of transformers."""


@dataclass(frozen=True, slots=True)
class SharedPrefix:
    """One prefix of a packed row and the pairs behind it."""

    prefix: int  # tokens
    tokens: int  # of the prefix and of all pairs
    columns: Tensor  # [pairs, longest]: places of own tokens behind the prefix; 0 where padded
    places: Tensor  # [own tokens]: flat indexes into `columns`, without those of padding
    visible: Tensor  # [longest, prefix + longest]: true where an own token attends

    def to(self, device: torch.device) -> SharedPrefix:
        """The same on a device."""
        return replace(
            self,
            columns=self.columns.to(device),
            places=self.places.to(device),
            visible=self.visible.to(device),
        )


@dataclass(frozen=True, slots=True)
class Packing:
    """The prefixes of a row, one after the other with their pairs."""

    groups: tuple[SharedPrefix, ...]

    def to(self, device: torch.device) -> Packing:
        """The same on a device."""
        return Packing(tuple(group.to(device) for group in self.groups))

    def split(self, heads: Tensor) -> Iterator[Tensor]:
        """The part of each prefix of `[1, heads, tokens, head]`."""
        yield from heads.split([group.tokens for group in self.groups], dim=2)


def shared_prefix(prefix: int, lengths: Sequence[int]) -> SharedPrefix:
    """The layout of `prefix` tokens and then pairs with `lengths` tokens of their own each."""
    longest = max(lengths)
    real = torch.arange(longest) < torch.tensor(lengths)[:, None]
    columns = torch.zeros(len(lengths), longest, dtype=torch.long)
    columns[real] = torch.arange(sum(lengths))
    visible = torch.ones(longest, prefix + longest, dtype=torch.bool).tril(prefix)
    places = real.flatten().nonzero()[:, 0]
    return SharedPrefix(prefix, prefix + sum(lengths), columns, places, visible)


def use_shared_prefixes(decoder: Any) -> None:
    """Let a decoder of transformers take `packing` among the arguments of its forward pass.

    Without one, it computes as with the attention `sdpa`.
    """
    AttentionInterface.register(ATTENTION, _attention)
    decoder.set_attn_implementation(ATTENTION)


def packed_arguments(decoder: Any, packing: Packing | None) -> dict[str, Packing]:
    """Further arguments of a decoder's forward pass; raises `ValueError` for a packed row that the
    decoder would read as one text."""
    if packing is None:
        return {}
    if decoder.config._attn_implementation != ATTENTION:
        raise ValueError("a packed row needs a decoder after use_shared_prefixes")
    return {"packing": packing}


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    packing: Packing | None = None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **further: Any,
) -> tuple[Tensor, None]:
    """Attention as transformers calls it: `[rows, heads, tokens, head]` to `[rows, tokens, heads,
    head]`."""
    if packing is None:
        attended, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **further
        )
        return attended, None

    repeats = int(getattr(module, "num_key_value_groups", 1))
    parts: list[Tensor] = []
    split = zip(packing.split(query), packing.split(key), packing.split(value), strict=True)
    for group, (queries, keys, values) in zip(packing.groups, split, strict=True):
        parts += _attended(
            group, queries, keys, values, repeats=repeats, dropout=dropout, scaling=scaling
        )
    return torch.cat(parts, dim=2).transpose(1, 2).contiguous(), None


def _attended(
    group: SharedPrefix,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    repeats: int,
    dropout: float,
    scaling: float | None,
) -> tuple[Tensor, Tensor]:
    """The attention of a prefix's tokens, and of those behind it, `[1, heads, tokens, head]`."""
    shared_key, shared_value = key[:, :, : group.prefix], value[:, :, : group.prefix]
    of_prefix = scaled_dot_product_attention(
        query[:, :, : group.prefix],
        _repeated(shared_key, repeats),
        _repeated(shared_value, repeats),
        dropout_p=dropout,
        is_causal=True,
        scale=scaling,
    )
    rows = scaled_dot_product_attention(
        _rows(group, query),
        _repeated(_behind(shared_key, _rows(group, key)), repeats),
        _repeated(_behind(shared_value, _rows(group, value)), repeats),
        attn_mask=group.visible,
        dropout_p=dropout,
        scale=scaling,
    )
    of_pairs = rows.transpose(0, 1).flatten(1, 2)[:, group.places]
    return of_prefix, of_pairs[None]


def _behind(prefix: Tensor, own: Tensor) -> Tensor:
    """The keys or values of a prefix, and then each pair's own: `[pairs, heads, tokens, head]`."""
    return torch.cat((prefix.expand(len(own), -1, -1, -1), own), dim=2)


def _repeated(heads: Tensor, repeats: int) -> Tensor:
    """Keys or values for every query head of their group."""
    repeated: Tensor = repeat_kv(heads, repeats)
    return repeated


def _rows(group: SharedPrefix, heads: Tensor) -> Tensor:
    """The tokens behind a prefix as a padded row for each pair, `[pairs, heads, longest, head]`."""
    return heads[0, :, group.prefix :][:, group.columns].transpose(0, 1)
