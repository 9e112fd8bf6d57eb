"""The folder of a LoRA adapter, as peft writes it: settings, tensors' names and shapes, metadata.

Depends on peft's files and on the network's names of tensors, and loads no weights. Invariant: an
adapter that was read is LoRA in safetensors; nothing is unpickled.
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
from model_store.networks.architecture import DecoderArchitecture

MAX_RANK = 512
MAX_TENSORS = 100_000
MAX_CONFIG_BYTES = 2**20
READ_OUT, ROWS, TEMPLATE = "gmr.read_out", "gmr.head", "gmr.template"
"""Keys in the metadata of the weights: the read-out, the origin of its rows, and the template."""
FROZEN_ROWS = "tokens"
"""The value of `ROWS` where the read-out's rows are the vocabulary's own."""

WRAPPED = "base_model.model."
"""The beginning of every name of a tensor that peft writes."""
_DTYPES = ("F32", "F16", "BF16")

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class LoraFolder:
    """An adapter whose settings and headers were read, without its weights."""

    folder: Path
    config: Mapping[str, Any]
    shapes: Mapping[str, Shape]
    """By the tensors' names in the file."""
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

    @property
    def template(self) -> str:
        """The template that the adapter was trained with; empty where it does not state one."""
        return self.metadata.get(TEMPLATE, "")

    def dated(self, architecture: DecoderArchitecture) -> bool:
        """True where a tensor has an older name than the one that today's transformers gives."""
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

    file_name = f"{folder.name}/{ADAPTER_CONFIG}"
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise CheckpointUnusable(f"{file_name} is not that of a LoRA adapter.")

    rank, alpha = config.get("r"), config.get("lora_alpha")
    if not isinstance(rank, int) or isinstance(rank, bool) or not 1 <= rank <= MAX_RANK:
        raise CheckpointUnusable(f"{file_name}: the rank r must be from 1 to {MAX_RANK}.")
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not math.isfinite(alpha):
        raise CheckpointUnusable(f"{file_name}: lora_alpha must be a finite number.")
    return LoraFolder(folder, config, shapes, metadata, other_dtype)


def canonical(name: str, architecture: DecoderArchitecture) -> str | None:
    """The name that peft gives a tensor of today's network; None where the network has none."""
    if not name.startswith(WRAPPED):
        return None
    inner = architecture.current_name(name.removeprefix(WRAPPED))
    tower = architecture.vision.prefix if architecture.vision else architecture.language_prefix
    if inner.startswith((architecture.language_prefix, tower, "lm_head.")):
        return f"{WRAPPED}{inner}"
    return None


def with_sorted_metadata(content: bytes) -> bytes:
    """The bytes of a safetensors file with its metadata sorted by key.

    The library writes metadata in an order that varies from one run to the next.
    """
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
        other_dtype: str | None = None
        for name in names:
            tensor = weights.get_slice(name)
            shapes[name] = tuple(tensor.get_shape())
            if other_dtype is None and tensor.get_dtype() not in _DTYPES:
                other_dtype = name

        return shapes, dict(weights.metadata() or {}), other_dtype
