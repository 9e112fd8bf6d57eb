"""Which tensors a Qwen2.5-VL network reads, by name and shape, as its `config.json` describes it.

Knows names and numbers, no files and no torch. Invariant: the result equals the parameters of
transformers' `Qwen2_5_VLForConditionalGeneration` for the same configuration; a test holds the two
equal.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

ARCHITECTURE = "Qwen2_5_VLForConditionalGeneration"
MODEL_TYPE = "qwen2_5_vl"
EMBEDDINGS = "model.language_model.embed_tokens.weight"
HEAD = "lm_head.weight"

_MOST = 2**24
_MOST_LAYERS = 1024
_LANGUAGE, _VISION = "model.language_model.", "model.visual."

# What transformers takes where a configuration is silent.
_TEXT_DEFAULTS = {
    "vocab_size": 152_064,
    "hidden_size": 8192,
    "intermediate_size": 29_568,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
}
_VISION_DEFAULTS = {
    "depth": 32,
    "hidden_size": 3584,
    "intermediate_size": 3420,
    "in_channels": 3,
    "patch_size": 14,
    "temporal_patch_size": 2,
    "spatial_merge_size": 2,
    "out_hidden_size": 3584,
}

Shapes = dict[str, tuple[int, ...]]


def is_tied(config: Mapping[str, Any]) -> bool:
    """Whether the output head is the embeddings: transformers 5 takes either level's word for
    it."""
    text = config.get("text_config")
    nested = isinstance(text, Mapping) and text.get("tie_word_embeddings")
    return bool(config.get("tie_word_embeddings") or nested)


def current_name(name: str) -> str:
    """A tensor's name as transformers has written it since 4.52, from that or from the older
    one."""
    if name.startswith("visual."):
        return "model." + name
    if name.startswith("model.") and not name.startswith((_LANGUAGE, _VISION)):
        return _LANGUAGE + name.removeprefix("model.")
    return name


def tensor_shapes(config: Mapping[str, Any]) -> Shapes:
    """Every tensor of the network under its current name; without the head where that is tied.

    Takes a flat configuration as of 2025 or a nested one. Raises `ValueError` that names a field
    which is no count.
    """
    text = config.get("text_config")
    text = config if text is None else _mapping(text, "text_config")
    vision = _mapping(config.get("vision_config") or {}, "vision_config")
    shapes = dict(_language(text)) | dict(_tower(vision))
    if not is_tied(config):
        shapes[HEAD] = shapes[EMBEDDINGS]
    return shapes


def _language(text: Mapping[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    vocabulary, width, inner, layers, heads = (
        _count(text, name, _TEXT_DEFAULTS)
        for name in (
            "vocab_size",
            "hidden_size",
            "intermediate_size",
            "num_hidden_layers",
            "num_attention_heads",
        )
    )
    stated_null = "num_key_value_heads" in text and text["num_key_value_heads"] is None
    kv_heads = heads if stated_null else _count(text, "num_key_value_heads", _TEXT_DEFAULTS)
    head = width // heads

    yield EMBEDDINGS, (vocabulary, width)
    yield f"{_LANGUAGE}norm.weight", (width,)

    for layer in range(layers):
        place = f"{_LANGUAGE}layers.{layer}."
        yield f"{place}input_layernorm.weight", (width,)
        yield f"{place}post_attention_layernorm.weight", (width,)

        for name, rows in (("q", heads * head), ("k", kv_heads * head), ("v", kv_heads * head)):
            yield f"{place}self_attn.{name}_proj.weight", (rows, width)
            yield f"{place}self_attn.{name}_proj.bias", (rows,)
        yield f"{place}self_attn.o_proj.weight", (width, heads * head)

        yield f"{place}mlp.gate_proj.weight", (inner, width)
        yield f"{place}mlp.up_proj.weight", (inner, width)
        yield f"{place}mlp.down_proj.weight", (width, inner)


def _tower(vision: Mapping[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    depth, width, inner, colours, patch, frames, merge, out = (
        _count(vision, name, _VISION_DEFAULTS)
        for name in (
            "depth",
            "hidden_size",
            "intermediate_size",
            "in_channels",
            "patch_size",
            "temporal_patch_size",
            "spatial_merge_size",
            "out_hidden_size",
        )
    )
    merged = width * merge**2

    yield f"{_VISION}patch_embed.proj.weight", (width, colours, frames, patch, patch)
    yield f"{_VISION}merger.ln_q.weight", (width,)
    yield f"{_VISION}merger.mlp.0.weight", (merged, merged)
    yield f"{_VISION}merger.mlp.0.bias", (merged,)
    yield f"{_VISION}merger.mlp.2.weight", (out, merged)
    yield f"{_VISION}merger.mlp.2.bias", (out,)

    linear = {
        "attn.qkv": (3 * width, width),
        "attn.proj": (width, width),
        "mlp.gate_proj": (inner, width),
        "mlp.up_proj": (inner, width),
        "mlp.down_proj": (width, inner),
    }
    for block in range(depth):
        place = f"{_VISION}blocks.{block}."
        yield f"{place}norm1.weight", (width,)
        yield f"{place}norm2.weight", (width,)

        for name, (rows, columns) in linear.items():
            yield f"{place}{name}.weight", (rows, columns)
            yield f"{place}{name}.bias", (rows,)


def _mapping(value: object, name: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{name} is no object")  # a value of a file, not of the program
    return value


def _count(stated: Mapping[str, Any], name: str, defaults: Mapping[str, int]) -> int:
    value = stated.get(name, defaults[name])
    most = _MOST_LAYERS if name in ("depth", "num_hidden_layers") else _MOST
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise ValueError(f"{name} is {value!r:.40}, not a whole number from 1 to {most}")
    return value
