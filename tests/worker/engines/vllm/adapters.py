"""LoRA adapters of random weights, as peft writes them, and the same deltas merged into a
checkpoint by hand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from tests.conftest import TINY

WEIGHTS = "model.safetensors"
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def make_adapter(folder: Path, rank: int, seed: int) -> None:
    """An adapter of the language model's projections that changes scores by several units."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, weight in load_file(TINY / WEIGHTS).items():
        if _adapted(name):
            module = "base_model.model." + name.removesuffix(".weight").replace(
                "model.", "model.language_model.", 1
            )
            rows, columns = weight.shape
            tensors[f"{module}.lora_A.weight"] = (
                torch.randn(rank, columns, generator=generator) / columns**0.5
            )
            tensors[f"{module}.lora_B.weight"] = torch.randn(rows, rank, generator=generator) * 0.02

    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": TINY.name,
        "r": rank,
        "lora_alpha": 2 * rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": list(TARGETS),
    }
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")


def dated(adapter: Path, folder: Path) -> Path:
    """A copy of an adapter whose tensors have the names of 2025."""
    shutil.copytree(adapter, folder)
    tensors = load_file(folder / "adapter_model.safetensors")
    renamed = {name.replace(".language_model.", "."): tensor for name, tensor in tensors.items()}
    save_file(renamed, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    return folder


def merge(adapter: Path, folder: Path) -> Path:
    """The shipped checkpoint with an adapter's deltas added to its weights, in fp32."""
    shutil.copytree(TINY, folder)
    config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    deltas = load_file(adapter / "adapter_model.safetensors")
    weights = {name: weight.float() for name, weight in load_file(TINY / WEIGHTS).items()}
    for name in filter(_adapted, weights):
        module = "base_model.model." + name.removesuffix(".weight").replace(
            "model.", "model.language_model.", 1
        )
        delta = deltas[f"{module}.lora_B.weight"] @ deltas[f"{module}.lora_A.weight"]
        weights[name] += config["lora_alpha"] / config["r"] * delta

    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    return folder


def _adapted(name: str) -> bool:
    return name.startswith("model.layers.") and name.endswith(
        tuple(f"{target}.weight" for target in TARGETS)
    )
