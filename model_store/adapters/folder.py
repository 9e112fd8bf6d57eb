"""A LoRA adapter's folder, as peft writes it: its settings, its tensors' names and shapes, what its
header says.

Knows peft's files and the two layouts of tensors' names. Loads no weights.
Invariant: an adapter that was read is LoRA in safetensors; nothing is unpickled.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from model_store.folders.covered_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from model_store.manifest import CheckpointUnusable
from model_store.networks.architecture import Architecture

MAX_RANK = 512
MAX_TENSORS = 100_000
MAX_CONFIG_BYTES = 2**20
READ_OUT, ROWS = "gmr.read_out", "gmr.head"
"""Keys in the header of the weights: how the score is read, and whose rows read it."""
FROZEN_ROWS = "tokens"
"""The value of `ROWS` where the vocabulary's own rows of yes and no read the score."""

WRAPPED = "base_model.model."
_DTYPES = ("F32", "F16", "BF16")

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class LoraFolder:
    """An adapter that was looked at, not loaded. `shapes` are by the tensors' names in the file."""

    folder: Path
    config: Mapping[str, Any]
    shapes: Mapping[str, Shape]
    metadata: Mapping[str, str]
    other_dtype: str | None = None
    """The first tensor that holds other numbers than float32, float16 or bfloat16."""

    @property
    def rank(self) -> int:
        return int(self.config["r"])

    @property
    def read_out(self) -> str:
        """The read-out that the adapter was trained for; empty where it does not state one."""
        return self.metadata.get(READ_OUT, "")

    def dated(self, architecture: Architecture) -> bool:
        """Whether some of its tensors have older names than today's transformers gives them."""
        return any(canonical(name, architecture) not in (name, None) for name in self.shapes)


def read_adapter(folder: Path) -> LoraFolder:
    """Read an adapter's settings and the header of its weights.

    Raises `CheckpointUnusable` where it is no LoRA adapter in safetensors.
    """
    try:
        with (folder / ADAPTER_CONFIG).open("rb") as file:
            content = file.read(MAX_CONFIG_BYTES + 1)
        if len(content) > MAX_CONFIG_BYTES:
            raise ValueError
        config = json.loads(content)
        shapes, metadata, other_dtype = _header(folder / ADAPTER_WEIGHTS)
    except (OSError, ValueError, RecursionError, SafetensorError):
        raise CheckpointUnusable(
            f"{folder.name} is no LoRA adapter ({ADAPTER_CONFIG} and {ADAPTER_WEIGHTS})."
        ) from None

    place = f"{folder.name}/{ADAPTER_CONFIG}"
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise CheckpointUnusable(f"{place} is not that of a LoRA adapter.")

    rank, alpha = config.get("r"), config.get("lora_alpha")
    if not isinstance(rank, int) or isinstance(rank, bool) or not 1 <= rank <= MAX_RANK:
        raise CheckpointUnusable(f"{place}: the rank r must be from 1 to {MAX_RANK}.")
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not math.isfinite(alpha):
        raise CheckpointUnusable(f"{place}: lora_alpha must be a finite number.")
    return LoraFolder(folder, config, shapes, metadata, other_dtype)


def canonical(name: str, architecture: Architecture) -> str | None:
    """A tensor's name as peft writes it for today's network; None where the network has no such
    name."""
    if not name.startswith(WRAPPED):
        return None
    inner = architecture.current_name(name.removeprefix(WRAPPED))
    tower = architecture.vision.prefix if architecture.vision else architecture.language_prefix
    if inner.startswith((architecture.language_prefix, tower, "lm_head.")):
        return f"{WRAPPED}{inner}"
    return None


def with_sorted_metadata(content: bytes) -> bytes:
    """A safetensors file's bytes with its metadata in the order of its keys: the library's own
    order is another each time."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header.get("__metadata__", {}).items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[8 + length :]


def _header(path: Path) -> tuple[dict[str, Shape], dict[str, str], str | None]:
    """Shapes by name, the metadata, and the first tensor of another dtype than adapters have."""
    with safe_open(path, framework="np") as weights:
        names = list(weights.keys())
        if len(names) > MAX_TENSORS:
            raise ValueError

        shapes: dict[str, Shape] = {}
        other: str | None = None
        for name in names:
            tensor = weights.get_slice(name)
            shapes[name] = tuple(tensor.get_shape())
            if other is None and tensor.get_dtype() not in _DTYPES:
                other = name
        return shapes, dict(weights.metadata() or {}), other
