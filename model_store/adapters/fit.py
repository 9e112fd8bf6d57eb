"""Whether an adapter can be served beside a base, judged before any engine starts.

Knows the options of peft, and the shapes of Qwen2.5-VL's language model. Invariant: an adapter that
`refuse_unless_fits` lets through changes the network by every tensor that it holds, the same way in
transformers and in vLLM, and no option of it is ignored.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from model_store.adapters.folder import (
    FROZEN_ROWS,
    LANGUAGE,
    ROWS,
    VISION,
    WRAPPED,
    LoraFolder,
    Shape,
    canonical,
    dated_module,
)
from model_store.folders.covered_files import ADAPTER_CONFIG
from model_store.manifest import CheckpointUnusable

MAX_PATTERN_CHARS = 1024
_VOCABULARY = ("lm_head.", f"{LANGUAGE}embed_tokens.")
_HALVES = (".lora_A.weight", ".lora_B.weight")

_PLAIN = {
    # What says where the maps stand, or how they were begun and trained, and nothing of what they
    # compute.
    "auto_mapping", "base_model_name_or_path", "ensure_weight_tying", "eva_config",
    "exclude_modules", "fan_in_fan_out", "inference_mode", "init_lora_weights", "layers_pattern",
    "layers_to_transform", "lora_alpha", "lora_dropout", "megatron_config", "megatron_core",
    "peft_type", "peft_version", "qalora_group_size", "r", "revision", "runtime_config",
    "target_modules", "task_type", "use_rslora",
}  # fmt: skip
_PLAIN_STARTS = ("gaussian", "eva", "orthogonal", "mica", "lora_ga")
"""Values of `init_lora_weights` that leave the base's own weights alone."""


def refuse_unless_read_alike(adapter: LoraFolder, name: str, read_out: str) -> None:
    """Raise `CheckpointUnusable` where the adapter was trained for another score than is read."""
    head = adapter.metadata.get(ROWS, FROZEN_ROWS)
    if head != FROZEN_ROWS:
        raise CheckpointUnusable(
            f"{name} was trained with a head of its own ({head}), which nothing that is served can"
            " carry."
        )
    if adapter.read_out != read_out:
        raise CheckpointUnusable(
            f"{name} was trained for the score {adapter.read_out}, and the base's score is"
            f" {read_out}: it cannot be served on this base."
        )


def refuse_unless_fits(adapter: LoraFolder, name: str, base: Path) -> None:
    """Raise `CheckpointUnusable` for what an engine would ignore or fail at beside a base.

    `base` is the checkpoint's folder. The sentence names the option or the tensor.
    """
    _refuse_options(adapter.config, name)
    if adapter.other_dtype:
        raise CheckpointUnusable(
            f"{name}: {adapter.other_dtype} holds neither float32 nor float16 nor bfloat16."
        )

    maps = _language_maps(base, name)
    found: dict[str, str] = {}
    for tensor in sorted(adapter.shapes):
        known = _place_of(tensor, adapter, name, maps)
        if known in found:
            raise CheckpointUnusable(f"{name}: {tensor} and {found[known]} are the same tensor.")
        found[known] = tensor

    if not found:
        raise CheckpointUnusable(f"{name} has no tensors.")
    for tensor in found:
        module, half = tensor.rsplit(".lora_", 1)
        other = f"{module}{_HALVES[half.startswith('A')]}"
        if other not in found:
            raise CheckpointUnusable(f"{name} lacks {other}.")
    _refuse_missing(adapter, name, maps, found)


def _refuse_options(config: Mapping[str, Any], name: str) -> None:
    """Refuse an option that is set and that one of the engines would not heed, known or not."""
    started = config.get("init_lora_weights", True)
    if isinstance(started, str) and started.lower() not in _PLAIN_STARTS:
        raise CheckpointUnusable(
            f"{name}: init_lora_weights {started[:40]!r} changes the base's own weights, which is"
            " not done beside a base; merge the adapter with `gmr publish`."
        )

    for option, value in sorted(config.items()):
        neutral = not value or (option == "bias" and value == "none")
        if option not in _PLAIN and not neutral:
            raise CheckpointUnusable(
                f"{name}: the option {option[:40]} in {ADAPTER_CONFIG} is not heeded beside a base;"
                " merge the adapter with `gmr publish`."
            )


def _language_maps(base: Path, name: str) -> dict[str, tuple[int, int]]:
    """The language model's linear maps, (outputs, inputs) by the module's name."""
    from transformers import Qwen2_5_VLConfig

    try:
        config = Qwen2_5_VLConfig.from_pretrained(base, local_files_only=True).text_config
        width, inner, layers = (
            config.hidden_size,
            config.intermediate_size,
            config.num_hidden_layers,
        )
        head = getattr(config, "head_dim", None) or width // config.num_attention_heads
        queries, keys = config.num_attention_heads * head, config.num_key_value_heads * head
    except Exception:  # transformers raises many kinds for a config.json that it cannot read
        raise CheckpointUnusable(f"{name}: the base's config.json cannot be read.") from None

    maps = {
        "self_attn.q_proj": (queries, width),
        "self_attn.k_proj": (keys, width),
        "self_attn.v_proj": (keys, width),
        "self_attn.o_proj": (width, queries),
        "mlp.gate_proj": (inner, width),
        "mlp.up_proj": (inner, width),
        "mlp.down_proj": (width, inner),
    }
    return {
        f"{LANGUAGE}layers.{layer}.{kind}": shape
        for layer in range(layers)
        for kind, shape in maps.items()
    }


def _place_of(
    tensor: str, adapter: LoraFolder, name: str, maps: Mapping[str, tuple[int, int]]
) -> str:
    """A tensor's name in today's network; raises where the network has no place for it."""
    known = canonical(tensor)
    if known is None:
        raise CheckpointUnusable(
            f"{name}: the network has no place for {tensor[:200]}; the names of its language model"
            f" begin with {WRAPPED}{LANGUAGE}layers, or, as in 2025, with {WRAPPED}model.layers."
        )

    inner = known.removeprefix(WRAPPED)
    if inner.startswith((VISION, *_VOCABULARY)):
        part = "vision tower" if inner.startswith(VISION) else "vocabulary"
        raise CheckpointUnusable(
            f"{name}: {tensor[:200]} adapts the {part}, which is not done beside a base; merge the"
            " adapter with `gmr publish`."
        )

    module, half = next(
        ((inner.removesuffix(end), end) for end in _HALVES if inner.endswith(end)), ("", "")
    )
    if module not in maps:
        raise CheckpointUnusable(f"{name}: the network has no place for {tensor[:200]}.")

    outputs, inputs = maps[module]
    wanted = (adapter.rank, inputs) if half == _HALVES[0] else (outputs, adapter.rank)
    if adapter.shapes[tensor] != wanted:
        raise CheckpointUnusable(
            f"{name}: {tensor} has the shape {_text(adapter.shapes[tensor])}, and rank"
            f" {adapter.rank} on this base needs {_text(wanted)}."
        )
    return known


def _refuse_missing(
    adapter: LoraFolder, name: str, maps: Iterable[str], found: Mapping[str, str]
) -> None:
    """Refuse an adapter that lacks a map of the language model that its own settings name."""
    config = adapter.config
    if any(config.get(key) for key in ("exclude_modules", "layers_to_transform", "layers_pattern")):
        return

    targets = config.get("target_modules")
    for module in maps:
        spelt = dated_module(module) if adapter.dated else module
        tensor = f"{WRAPPED}{module}{_HALVES[0]}"
        if _named(spelt, targets, name) and tensor not in found:
            raise CheckpointUnusable(f"{name} lacks {tensor}, which its target_modules name.")


def _named(module: str, targets: object, name: str) -> bool:
    """Whether peft would adapt a module: a text is a pattern for whole names, a list has their
    ends."""
    if isinstance(targets, str):
        try:
            return len(targets) <= MAX_PATTERN_CHARS and bool(re.fullmatch(targets, module))
        except (re.error, RecursionError, OverflowError):
            raise CheckpointUnusable(f"{name}: target_modules is no regular expression.") from None
    if not isinstance(targets, list):
        raise CheckpointUnusable(f"{name}: target_modules must be a list or a regular expression.")
    return any(module == end or module.endswith(f".{end}") for end in targets)


def _text(shape: Shape) -> str:
    return " x ".join(map(str, shape)) or "of one number"
