"""The tensors of a decoder of the Llama kind: attention with grouped keys, a gated MLP, RMS norms.

Depends on names and numbers of a `config.json`. Invariant: shapes equal the parameters that
transformers creates for the same configuration (tests hold them equal for each architecture).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

MAX_COUNT = 2**24
MAX_LAYERS = 1024
_LAYER_COUNTS = ("depth", "num_hidden_layers")


@dataclass(frozen=True, slots=True)
class DecoderSizes:
    """The counts that every tensor of a decoder has its shape from."""

    vocabulary: int
    width: int
    inner: int
    """Width inside the MLP."""
    layers: int
    heads: int
    key_heads: int
    head: int
    """Width of one head."""

    @classmethod
    def of_config(cls, config: Mapping[str, Any], defaults: Mapping[str, int]) -> DecoderSizes:
        """Read from a `config.json`, with `defaults` for fields that it does not state.

        Raises `ValueError` that names a field which is no count.
        """
        width = count(config, "hidden_size", defaults)
        heads = count(config, "num_attention_heads", defaults)
        return cls(
            vocabulary=count(config, "vocab_size", defaults),
            width=width,
            inner=count(config, "intermediate_size", defaults),
            layers=count(config, "num_hidden_layers", defaults),
            heads=heads,
            key_heads=_key_heads(config, heads, defaults),
            head=_head_size(config, width // heads, defaults),
        )


def decoder_shapes(
    config: Mapping[str, Any],
    prefix: str,
    defaults: Mapping[str, int],
    *,
    biases: bool,
    head_norms: bool,
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """(name, shape) of every tensor of the decoder under `prefix`, embeddings included.

    `defaults` stand in for fields that `config` does not state. `biases` are those of query, key
    and value; `head_norms` are the RMS norms over each head of query and key.
    """
    sizes = DecoderSizes.of_config(config, defaults)
    width, inner, head = sizes.width, sizes.inner, sizes.head
    queries, keys = sizes.heads * head, sizes.key_heads * head

    yield f"{prefix}embed_tokens.weight", (sizes.vocabulary, width)
    yield f"{prefix}norm.weight", (width,)

    for number in range(sizes.layers):
        layer = f"{prefix}layers.{number}."
        yield f"{layer}input_layernorm.weight", (width,)
        yield f"{layer}post_attention_layernorm.weight", (width,)

        for name, rows in (("q", queries), ("k", keys), ("v", keys)):
            yield f"{layer}self_attn.{name}_proj.weight", (rows, width)
            if biases:
                yield f"{layer}self_attn.{name}_proj.bias", (rows,)
        yield f"{layer}self_attn.o_proj.weight", (width, queries)
        if head_norms:
            yield f"{layer}self_attn.q_norm.weight", (head,)
            yield f"{layer}self_attn.k_norm.weight", (head,)

        yield f"{layer}mlp.gate_proj.weight", (inner, width)
        yield f"{layer}mlp.up_proj.weight", (inner, width)
        yield f"{layer}mlp.down_proj.weight", (width, inner)


def count(config: Mapping[str, Any], name: str, defaults: Mapping[str, int]) -> int:
    """A field that is a count; raises `ValueError` with the field's name where it is none."""
    value = config.get(name, defaults[name])
    most = MAX_LAYERS if name in _LAYER_COUNTS else MAX_COUNT
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise ValueError(f"{name} is {value!r:.40}, not a whole number from 1 to {most}")
    return value


def mapping(value: object, name: str) -> Mapping[str, Any]:
    """A field that is an object; raises `ValueError` with the field's name where it is none."""
    if not isinstance(value, Mapping):
        raise ValueError(f"{name} is no object")  # a value of a file, not of the program
    return value


def _key_heads(config: Mapping[str, Any], heads: int, defaults: Mapping[str, int]) -> int:
    """As many as heads where the field is null, or absent and without a default."""
    if config.get("num_key_value_heads", defaults["num_key_value_heads"] or None) is None:
        return heads
    return count(config, "num_key_value_heads", defaults)


def _head_size(config: Mapping[str, Any], quotient: int, defaults: Mapping[str, int]) -> int:
    """`head_dim` for architectures that have that field, else the width over the heads.

    The quotient is also that of a field that is not stated and has no default.
    """
    if "head_dim" not in defaults:
        return quotient
    if not defaults["head_dim"] and config.get("head_dim") is None:
        return quotient
    return count(config, "head_dim", defaults)
