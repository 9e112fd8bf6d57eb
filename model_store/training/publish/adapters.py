"""The base with a LoRA adapter on, by peft, and the adapter's files in today's layout.

Knows peft, no prompts. Invariant: what an adapter holds is all put to use, or it is refused;
nothing is unpickled.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import peft
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from transformers import Qwen2_5_VLForConditionalGeneration as Network

from model_store.adapters.folder import (
    WRAPPED,
    LoraFolder,
    canonical,
    with_sorted_metadata,
)
from model_store.checkpoint import Checkpoint
from model_store.folders.covered_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from model_store.manifest import CheckpointUnusable
from model_store.networks.qwen2_5_vl import QWEN2_5_VL
from model_store.training.publish.pairs import PublishRefused

_OF_2025 = {
    r"^model\.(?!language_model\.|visual\.)": "model.language_model.",
    r"^visual\.": "model.visual.",
}
"""From tensors' names as they were before transformers 4.52 to today's, as `canonical` has it, in
the form that peft takes."""

_SIDES = ("A.weight", "B.weight")


def load_base(checkpoint: Checkpoint, device: str) -> Network:
    """A checkpoint's network in fp32; raises `PublishRefused`."""
    try:
        network = Network.from_pretrained(
            checkpoint.folder, dtype=torch.float32, local_files_only=True, use_safetensors=True
        )
    except CheckpointUnusable:
        raise
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise PublishRefused(
            f"{checkpoint.name}: the weights cannot be loaded ({type(error).__name__})."
        ) from None
    return network.to(device).eval()


def apply_adapter(network: Network, adapter: LoraFolder) -> peft.PeftModel:
    """The network with the adapter on; raises `PublishRefused` where some of either does not find
    its place."""
    name = adapter.folder.name
    _refuse_misfits(network, adapter)
    try:
        settings = peft.PeftConfig.from_pretrained(str(adapter.folder))
        if adapter.dated(QWEN2_5_VL):
            settings.target_modules = _targets(network, adapter)
        worn = peft.PeftModel.from_pretrained(
            network,
            str(adapter.folder),
            config=settings,
            key_mapping=_OF_2025 if adapter.dated(QWEN2_5_VL) else None,
        ).eval()
    except PublishRefused:
        raise
    except Exception as error:  # peft and torch raise many kinds
        raise PublishRefused(f"{name} does not fit the base ({type(error).__name__}).") from None

    # left to choose, it asks a hub
    wanted = frozenset(peft.get_peft_model_state_dict(worn, save_embedding_layers=False))
    held = {str(canonical(tensor, QWEN2_5_VL)): tensor for tensor in adapter.shapes}
    if wanted != held.keys():
        first = min(wanted ^ held.keys())
        where = "the base has no place for" if first in held else "the adapter lacks"
        raise PublishRefused(f"{name} does not fit the base: {where} {held.get(first, first)}.")
    return worn


def _refuse_misfits(network: Network, adapter: LoraFolder) -> None:
    """Raise `PublishRefused` that names the tensor, where peft would say nothing or fail in its own
    words."""
    modules = dict(network.named_modules())
    for tensor in sorted(adapter.shapes):
        known = canonical(tensor, QWEN2_5_VL)
        module, _, half = (known or "").removeprefix(WRAPPED).rpartition(".lora_")
        if known is None or (half in _SIDES and module not in modules):
            raise PublishRefused(
                f"{adapter.folder.name} does not fit the base: the base has no place for {tensor}."
            )

        target, shape = modules.get(module), adapter.shapes[tensor]
        if half not in _SIDES or not isinstance(target, torch.nn.Linear):
            continue
        wanted = target.in_features if half == _SIDES[0] else target.out_features
        if len(shape) != 2 or shape[half == _SIDES[0]] != wanted:
            raise PublishRefused(
                f"{adapter.folder.name} does not fit the base: {tensor} has the shape"
                f" {list(shape)}, and the base's map has {wanted}"
                f" {'inputs' if half == _SIDES[0] else 'outputs'}."
            )


def write_today(adapter: LoraFolder, network: Network, folder: Path, base: str) -> None:
    """Write the adapter's two files, with `base` as the name of what it was trained on, and today's
    names throughout.

    `network` is the base without an adapter. Raises `SafetensorError` and `OSError` where the disk
    refuses.
    """
    stated = dict(adapter.config) | {"base_model_name_or_path": base}
    if adapter.dated(QWEN2_5_VL):
        stated["target_modules"] = _targets(network, adapter)
        tensors = {
            str(canonical(name, QWEN2_5_VL)): tensor
            for name, tensor in load_file(adapter.folder / ADAPTER_WEIGHTS).items()
        }
        content = save(tensors, dict(adapter.metadata) | {"format": "pt"})
        (folder / ADAPTER_WEIGHTS).write_bytes(with_sorted_metadata(content))
    else:
        (folder / ADAPTER_WEIGHTS).write_bytes((adapter.folder / ADAPTER_WEIGHTS).read_bytes())
    (folder / ADAPTER_CONFIG).write_text(
        json.dumps(stated, indent=2, sort_keys=True) + "\n", encoding="utf-8"
    )


def _targets(network: Network, adapter: LoraFolder) -> Any:
    """`target_modules` for today's network: the ends of names as they are, a pattern as the modules
    that it named in 2025."""
    targets = adapter.config.get("target_modules")
    if not isinstance(targets, str) or targets == "all-linear":
        return targets

    try:
        named = [
            name
            for name, _ in network.named_modules()
            if re.fullmatch(targets, QWEN2_5_VL.dated_name(name))
        ]
    except (re.error, RecursionError, OverflowError):
        raise PublishRefused(
            f"{adapter.folder.name}: target_modules is no regular expression."
        ) from None
    return sorted(named)
