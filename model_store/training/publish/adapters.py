"""A base with a LoRA adapter applied, by peft, and the adapter's files in today's layout.

Depends on peft and an architecture's names, not on prompts. Invariant: every tensor of an adapter
is used, or the adapter is refused. No file is unpickled.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import peft
import torch
from safetensors.torch import load_file, save
from transformers import PreTrainedModel

from model_store.adapters.folder import (
    WRAPPED,
    LoraFolder,
    canonical,
    with_sorted_metadata,
)
from model_store.checkpoint import Checkpoint
from model_store.folders.covered_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from model_store.manifest import CheckpointUnusable
from model_store.networks.architecture import DecoderArchitecture
from model_store.training.publish.pairs import PublishRefused
from model_store.training.reranker import load_network

_HALVES = ("A.weight", "B.weight")


def load_base(checkpoint: Checkpoint, device: str) -> PreTrainedModel:
    """A checkpoint's network in fp32; raises `PublishRefused`."""
    try:
        network = load_network(checkpoint, torch.float32)
    except CheckpointUnusable as error:
        raise PublishRefused(str(error)) from None
    return network.to(device).eval()


def apply_adapter(
    network: PreTrainedModel, adapter: LoraFolder, architecture: DecoderArchitecture
) -> peft.PeftModel:
    """The network with the adapter applied; raises `PublishRefused` where a tensor of the adapter
    has no counterpart in the network, or the reverse."""
    name = adapter.folder.name
    dated = adapter.dated(architecture)
    _refuse_misfits(network, adapter, architecture)

    try:
        settings = peft.PeftConfig.from_pretrained(str(adapter.folder))
        if dated:
            settings.target_modules = _targets(network, adapter, architecture)
        adapted = peft.PeftModel.from_pretrained(
            network,
            str(adapter.folder),
            config=settings,
            key_mapping=_key_mapping(adapter, architecture) if dated else None,
        ).eval()
    except PublishRefused:
        raise
    except Exception as error:  # peft and torch raise many kinds
        raise PublishRefused(f"{name} does not fit the base ({type(error).__name__}).") from None

    # the default of save_embedding_layers sends a request to the hub
    wanted = frozenset(peft.get_peft_model_state_dict(adapted, save_embedding_layers=False))
    held = {str(canonical(tensor, architecture)): tensor for tensor in adapter.shapes}
    if wanted != held.keys():
        first = min(wanted ^ held.keys())
        where = "the base has no place for" if first in held else "the adapter lacks"
        raise PublishRefused(f"{name} does not fit the base: {where} {held.get(first, first)}.")

    return adapted


def _key_mapping(adapter: LoraFolder, architecture: DecoderArchitecture) -> dict[str, str]:
    """Patterns of older names and today's names, as peft takes them: without its own prefix."""
    mapping: dict[str, str] = {}
    for tensor in adapter.shapes:
        known = str(canonical(tensor, architecture))
        pattern = f"^{re.escape(tensor.removeprefix(WRAPPED))}$"
        mapping[pattern] = known.removeprefix(WRAPPED)
    return mapping


def _refuse_misfits(
    network: PreTrainedModel, adapter: LoraFolder, architecture: DecoderArchitecture
) -> None:
    """Raise `PublishRefused` that names the tensor, where peft would ignore it or fail without a
    name."""
    modules = dict(network.named_modules())
    for tensor in sorted(adapter.shapes):
        known = canonical(tensor, architecture)
        module, _, half = (known or "").removeprefix(WRAPPED).rpartition(".lora_")
        if known is None or (half in _HALVES and module not in modules):
            raise PublishRefused(
                f"{adapter.folder.name} does not fit the base: the base has no place for {tensor}."
            )

        target, shape = modules.get(module), adapter.shapes[tensor]
        if half not in _HALVES or not isinstance(target, torch.nn.Linear):
            continue
        if half == _HALVES[0]:
            axis, wanted, kind = 1, target.in_features, "inputs"
        else:
            axis, wanted, kind = 0, target.out_features, "outputs"
        if len(shape) != 2 or shape[axis] != wanted:
            raise PublishRefused(
                f"{adapter.folder.name} does not fit the base: {tensor} has the shape"
                f" {list(shape)}, and the base's map has {wanted} {kind}."
            )


def write_today(
    adapter: LoraFolder, network: PreTrainedModel, folder: Path, base: Checkpoint
) -> None:
    """Write the adapter's two files with today's names of tensors and the name of its base.

    `network` is the base's, without an adapter. Raises `SafetensorError` and `OSError` where the
    disk refuses.
    """
    architecture = base.decoder
    stated = dict(adapter.config) | {"base_model_name_or_path": base.name}
    if adapter.dated(architecture):
        stated["target_modules"] = _targets(network, adapter, architecture)
        tensors = {
            str(canonical(name, architecture)): tensor
            for name, tensor in load_file(adapter.folder / ADAPTER_WEIGHTS).items()
        }
        content = save(tensors, dict(adapter.metadata) | {"format": "pt"})
        (folder / ADAPTER_WEIGHTS).write_bytes(with_sorted_metadata(content))
    else:
        (folder / ADAPTER_WEIGHTS).write_bytes((adapter.folder / ADAPTER_WEIGHTS).read_bytes())
    (folder / ADAPTER_CONFIG).write_text(
        json.dumps(stated, indent=2, sort_keys=True) + "\n", encoding="utf-8"
    )


def _targets(
    network: PreTrainedModel, adapter: LoraFolder, architecture: DecoderArchitecture
) -> Any:
    """`target_modules` for today's network: a list of ends of names unchanged, a pattern as the
    modules whose older names it matches."""
    targets = adapter.config.get("target_modules")
    if not isinstance(targets, str) or targets == "all-linear":
        return targets

    try:
        named = [
            name
            for name, _ in network.named_modules()
            if re.fullmatch(targets, architecture.oldest_name(name))
        ]
    except (re.error, RecursionError, OverflowError):
        raise PublishRefused(
            f"{adapter.folder.name}: target_modules is no regular expression."
        ) from None

    return sorted(named)
