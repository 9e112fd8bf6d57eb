"""A LoRA adapter's folder, as peft writes it: whether it fits a base and an engine, and the base with it on.

Knows peft, no prompts. Invariant: what an adapter holds is all put to use, or it is refused; nothing is unpickled.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peft
import torch
from safetensors import SafetensorError, safe_open
from transformers import Qwen2_5_VLForConditionalGeneration as Network

from model_store.manifest import CheckpointUnusable
from model_store.registry import ADAPTER_CONFIG, ADAPTER_WEIGHTS, Checkpoint
from model_store.training.publish.pairs import PublishRefused

MAX_RANK = 512
_MAX_CONFIG_BYTES = 2**20
_LANGUAGE = "base_model.model.model.language_model.layers."
_UNSERVED = ("use_dora", "modules_to_save", "lora_bias", "rank_pattern", "alpha_pattern")


@dataclass(frozen=True, slots=True)
class LoraFolder:
    """An adapter that was looked at, not loaded."""

    folder: Path
    config: dict[str, Any]
    names: frozenset[str]

    @property
    def rank(self) -> int:
        return int(self.config["r"])


def look_at(folder: Path) -> LoraFolder:
    """An adapter's folder; raises `PublishRefused` where it is none, or not LoRA, or not in safetensors."""
    try:
        with (folder / ADAPTER_CONFIG).open("rb") as file:
            config = json.loads(file.read(_MAX_CONFIG_BYTES))
        with safe_open(folder / ADAPTER_WEIGHTS, framework="pt") as weights:
            names = frozenset(weights.keys())
    except (OSError, ValueError, SafetensorError):
        raise PublishRefused(f"{folder.name} is no LoRA adapter ({ADAPTER_CONFIG} and {ADAPTER_WEIGHTS}).") from None
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise PublishRefused(f"{folder.name}/{ADAPTER_CONFIG} is not that of a LoRA adapter.")
    rank = config.get("r")
    if not isinstance(rank, int) or not 1 <= rank <= MAX_RANK:
        raise PublishRefused(f"{folder.name}/{ADAPTER_CONFIG}: the rank is {rank!r}, not 1 to {MAX_RANK}.")
    return LoraFolder(folder, config, names)


def refuse_unless_served(adapter: LoraFolder) -> None:
    """Raises `PublishRefused` for what vLLM does not serve unmerged: anything but plain LoRA on the language model's layers."""
    strange = sorted(name for name in adapter.names if not name.startswith(_LANGUAGE))
    if strange:
        raise PublishRefused(f"{adapter.folder.name} cannot be served unmerged: vLLM has no place for {strange[0]}.")
    used = [name for name in _UNSERVED if adapter.config.get(name)] + ["bias"] * (adapter.config.get("bias", "none") != "none")
    if used:
        raise PublishRefused(f"{adapter.folder.name} cannot be served unmerged: vLLM has no {used[0]}.")


def load_base(checkpoint: Checkpoint, device: str) -> Network:
    """A checkpoint's network in fp32; raises `PublishRefused`."""
    try:
        network = Network.from_pretrained(checkpoint.folder, dtype=torch.float32, local_files_only=True, use_safetensors=True)
    except CheckpointUnusable:
        raise
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise PublishRefused(f"{checkpoint.name}: the weights cannot be loaded ({type(error).__name__}).") from None
    return network.to(device).eval()


def wear(network: Network, adapter: LoraFolder) -> peft.PeftModel:
    """The network with the adapter on; raises `PublishRefused` where some of either does not find its place."""
    try:
        worn = peft.PeftModel.from_pretrained(network, str(adapter.folder)).eval()
    except Exception as error:  # peft and torch raise many kinds
        raise PublishRefused(f"{adapter.folder.name} does not fit the base ({type(error).__name__}).") from None
    wanted = frozenset(peft.get_peft_model_state_dict(worn, save_embedding_layers=False))  # left to choose, it asks a hub
    if wanted != adapter.names:
        first = min(wanted ^ adapter.names)
        where = "the base has no place for" if first in adapter.names else "the adapter lacks"
        raise PublishRefused(f"{adapter.folder.name} does not fit the base: {where} {first}.")
    return worn
