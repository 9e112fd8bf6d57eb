"""The fit of an adapter to a base, checked before any engine starts.

Depends on the options of peft, and on the shapes of a language model's linear maps. Invariant: an
adapter that passes `refuse_unless_fits` changes the network by every tensor that it holds, in
transformers as in vLLM, and none of its options is ignored.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from model_store.adapters.folder import (
    FROZEN_ROWS,
    ROWS,
    WRAPPED,
    LoraFolder,
    Shape,
    canonical,
)
from model_store.families.readout import ReadOut
from model_store.folders.covered_files import ADAPTER_CONFIG
from model_store.folders.plain import read_config
from model_store.manifest import CheckpointUnusable
from model_store.networks.architecture import DecoderArchitecture
from model_store.networks.catalogue import decoder_of_config

MAX_PATTERN_CHARS = 1024
_HALVES = (".lora_A.weight", ".lora_B.weight")

_NEUTRAL_OPTIONS = {
    # Options that state where the maps are, or how they were initialised and trained, and do not
    # change what they compute.
    "auto_mapping", "base_model_name_or_path", "ensure_weight_tying", "eva_config",
    "exclude_modules", "fan_in_fan_out", "inference_mode", "init_lora_weights", "layers_pattern",
    "layers_to_transform", "lora_alpha", "lora_dropout", "megatron_config", "megatron_core",
    "peft_type", "peft_version", "qalora_group_size", "r", "revision", "runtime_config",
    "target_modules", "task_type", "use_rslora",
}  # fmt: skip
_NEUTRAL_INITIALISATIONS = ("gaussian", "eva", "orthogonal", "mica", "lora_ga")
"""Values of `init_lora_weights` that leave the base's own weights alone."""


def refuse_unless_read_alike(
    adapter: LoraFolder, name: str, readout: ReadOut, template: str
) -> None:
    """Raise `CheckpointUnusable` where the adapter was trained for a read-out or a template that
    differs from the base's."""
    rows = adapter.metadata.get(ROWS, FROZEN_ROWS)
    if rows != FROZEN_ROWS:
        raise CheckpointUnusable(
            f"{name} was trained with a head of its own ({rows}), which nothing that is served can"
            " carry."
        )
    if adapter.read_out and adapter.read_out != readout.name:
        raise CheckpointUnusable(
            f"{name} was trained for the score {adapter.read_out}, and the base's score is"
            f" {readout.name}: it cannot be served on this base."
        )
    if adapter.template and adapter.template != template:
        raise CheckpointUnusable(
            f"{name} was trained with the template {adapter.template}, and the base's template is"
            f" {template}: it cannot be served on this base."
        )


def refuse_unless_fits(adapter: LoraFolder, name: str, base: Path) -> None:
    """Raise `CheckpointUnusable` for an option or a tensor that an engine would ignore or fail at.

    `base` is the checkpoint's folder. The sentence names the option or the tensor.
    """
    _refuse_options(adapter.config, name)
    if adapter.other_dtype:
        raise CheckpointUnusable(
            f"{name}: {adapter.other_dtype} holds neither float32 nor float16 nor bfloat16."
        )

    config = read_config(base.name, base)
    architecture = decoder_of_config(base.name, config)
    maps = _language_maps(architecture, config, name)

    tensors: dict[str, str] = {}  # today's names to the adapter's own
    for tensor in sorted(adapter.shapes):
        current_name = _current_name(tensor, adapter, name, architecture, maps)
        if current_name in tensors:
            raise CheckpointUnusable(
                f"{name}: {tensor} and {tensors[current_name]} are the same tensor."
            )
        tensors[current_name] = tensor

    if not tensors:
        raise CheckpointUnusable(f"{name} has no tensors.")
    _refuse_single_halves(name, tensors)
    _refuse_missing(adapter, name, architecture, maps, tensors)


def _refuse_options(config: Mapping[str, Any], name: str) -> None:
    """Refuse an option that is set and that an engine would ignore, whether it is known or not."""
    initialisation = config.get("init_lora_weights", True)
    if isinstance(initialisation, str) and initialisation.lower() not in _NEUTRAL_INITIALISATIONS:
        raise CheckpointUnusable(
            f"{name}: init_lora_weights {initialisation[:40]!r} changes the base's own weights,"
            " which is not done beside a base; merge the adapter with `gmr publish`."
        )

    for option, value in sorted(config.items()):
        unset = not value or (option == "bias" and value == "none")
        if option not in _NEUTRAL_OPTIONS and not unset:
            raise CheckpointUnusable(
                f"{name}: the option {option[:40]} in {ADAPTER_CONFIG} is not heeded beside a base;"
                " merge the adapter with `gmr publish`."
            )


def _language_maps(
    architecture: DecoderArchitecture, config: Mapping[str, Any], name: str
) -> dict[str, Shape]:
    """The language model's linear maps, (outputs, inputs) by the module's name."""
    try:
        shapes = architecture.tensor_shapes(config)
    except ValueError as error:
        raise CheckpointUnusable(f"{name}: the base's config.json is wrong: {error}.") from None

    layers = f"{architecture.language_prefix}layers."
    maps: dict[str, Shape] = {}
    for tensor, shape in shapes.items():
        if tensor.startswith(layers) and tensor.endswith("_proj.weight"):
            maps[tensor.removesuffix(".weight")] = shape
    return maps


def _current_name(
    tensor: str,
    adapter: LoraFolder,
    name: str,
    architecture: DecoderArchitecture,
    maps: Mapping[str, Shape],
) -> str:
    """A tensor's name in today's network; raises where the network has no such map."""
    current_name = canonical(tensor, architecture)
    if current_name is None:
        raise CheckpointUnusable(
            f"{name}: the network has no place for {tensor[:200]}; the names of its language model"
            f" begin with {_beginnings(architecture)}."
        )

    inner = current_name.removeprefix(WRAPPED)
    part = _part_not_adapted(inner, architecture)
    if part:
        raise CheckpointUnusable(
            f"{name}: {tensor[:200]} adapts the {part}, which is not done beside a base; merge the"
            " adapter with `gmr publish`."
        )

    module, half = _split_half(inner)
    if module not in maps:
        raise CheckpointUnusable(f"{name}: the network has no place for {tensor[:200]}.")

    outputs, inputs = maps[module]
    expected = (adapter.rank, inputs) if half == _HALVES[0] else (outputs, adapter.rank)
    if adapter.shapes[tensor] != expected:
        raise CheckpointUnusable(
            f"{name}: {tensor} has the shape {_text(adapter.shapes[tensor])}, and rank"
            f" {adapter.rank} on this base needs {_text(expected)}."
        )
    return current_name


def _beginnings(architecture: DecoderArchitecture) -> str:
    """The beginnings of names of adapted maps, in today's layout and in an older one."""
    today = f"{architecture.language_prefix}layers"
    dated = architecture.oldest_name(today)
    if dated == today:
        return f"{WRAPPED}{today}"
    return f"{WRAPPED}{today}, or, as in 2025, with {WRAPPED}{dated}"


def _part_not_adapted(module: str, architecture: DecoderArchitecture) -> str:
    """The part of the network that a tensor adapts and that engines leave alone, or empty."""
    if architecture.vision and module.startswith(architecture.vision.prefix):
        return "vision tower"
    vocabulary = ("lm_head.", f"{architecture.language_prefix}embed_tokens.")
    return "vocabulary" if module.startswith(vocabulary) else ""


def _split_half(tensor: str) -> tuple[str, str]:
    """A tensor's module, and the ending of its low-rank map; both empty for any other tensor."""
    for half in _HALVES:
        if tensor.endswith(half):
            return tensor.removesuffix(half), half
    return "", ""


def _refuse_single_halves(name: str, tensors: Collection[str]) -> None:
    """Refuse a low-rank map without its counterpart."""
    for tensor in tensors:
        module, half = _split_half(tensor)
        counterpart = module + (_HALVES[1] if half == _HALVES[0] else _HALVES[0])
        if counterpart not in tensors:
            raise CheckpointUnusable(f"{name} lacks {counterpart}.")


def _refuse_missing(
    adapter: LoraFolder,
    name: str,
    architecture: DecoderArchitecture,
    maps: Iterable[str],
    tensors: Collection[str],
) -> None:
    """Refuse an adapter that lacks a map of the language model that its own settings name."""
    config = adapter.config
    if any(config.get(key) for key in ("exclude_modules", "layers_to_transform", "layers_pattern")):
        return

    targets = config.get("target_modules")
    dated = adapter.dated(architecture)
    for module in maps:
        own_name = architecture.oldest_name(module) if dated else module
        tensor = f"{WRAPPED}{module}{_HALVES[0]}"
        if _is_target(own_name, targets, name) and tensor not in tensors:
            raise CheckpointUnusable(f"{name} lacks {tensor}, which its target_modules name.")


def _is_target(module: str, targets: object, name: str) -> bool:
    """True where peft would adapt a module.

    `targets` is a regular expression for whole names, or a list of the ends of names.
    """
    if isinstance(targets, str):
        try:
            return len(targets) <= MAX_PATTERN_CHARS and bool(re.fullmatch(targets, module))
        except (re.error, RecursionError, OverflowError):
            raise CheckpointUnusable(f"{name}: target_modules is no regular expression.") from None

    if not isinstance(targets, list):
        raise CheckpointUnusable(f"{name}: target_modules must be a list or a regular expression.")
    return any(module == end or module.endswith(f".{end}") for end in targets)


def _text(shape: Shape) -> str:
    """A shape as a sentence has it."""
    return " x ".join(map(str, shape)) or "of one number"
