"""How much arithmetic a request needs at least, in floating-point operations.

Counted from unique tokens: the prefix once, each document that was not asked about before once,
each distinct picture once. A multiplication and an addition are two operations. With T unique
tokens, L language layers of hidden size h, q query and k key-value heads of size d, and
intermediate size i:

    linear     2 T L (h q d + 2 h k d + q d h + 3 h i) attention  4 L q d (sum over tokens of how
    many tokens each attends to, itself included) vision     2 n (patch embedding + V layers of 4
    v^2 + 3 v j) + 4 v n (w windowed + n full layers) + 2 n/4 (merger)

with n patches, hidden size v, intermediate size j, and w patches a window. Softmax, norms, rotary
encoding, embeddings and the two-row head are left out: all together below one percent. Knows a
checkpoint's config and its prompts, no engine.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model_store.checkpoint import Checkpoint
from model_store.families.prompt import Image, Prompt
from model_store.networks.qwen2_5_vl_images import PATCH, TEMPORAL, image_tokens
from service.bench.comparison.vllm_server import model_size
from service.bench.workloads import INSTRUCTION, Part, Request

_MERGED = 4
_CHANNELS = 3


@dataclass(frozen=True, slots=True)
class Work:
    """What some requests need at least: unique tokens, and operations."""

    tokens: int
    operations: float


class Network:
    """A checkpoint's layer shapes, read from its `config.json`."""

    def __init__(self, folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        text, vision = config.get("text_config", config), config["vision_config"]
        self._layers, hidden = text["num_hidden_layers"], text["hidden_size"]
        head = text.get("head_dim") or hidden // text["num_attention_heads"]
        self._attended, keys = (
            text["num_attention_heads"] * head,
            text["num_key_value_heads"] * head,
        )
        # Inputs and outputs of a layer's products as engines make them: keys, queries and values in
        # one, gate and up in one.
        self.matrices = [
            (hidden, self._attended + 2 * keys),
            (self._attended, hidden),
            (hidden, 2 * text["intermediate_size"]),
            (text["intermediate_size"], hidden),
        ]
        self._vision: dict[str, Any] = vision | {"text_hidden": hidden}

    def text(self, prefix: int, suffixes: Sequence[int]) -> float:
        """Operations for a prefix that is computed once, and the suffixes that follow it, in
        tokens."""
        tokens = prefix + sum(suffixes)
        attended = _triangle(prefix) + sum(
            prefix * suffix + _triangle(suffix) for suffix in suffixes
        )
        linear = sum(rows * columns for rows, columns in self.matrices)
        operations: float = self._layers * (2.0 * tokens * linear + 4.0 * self._attended * attended)
        return operations

    def picture(self, image: Image) -> float:
        """Operations for one picture, at the size that the model reads."""
        shape = self._vision
        patches = image_tokens(image) * _MERGED
        hidden, full = shape["hidden_size"], len(shape["fullatt_block_indexes"])
        layer = 4 * hidden**2 + 3 * hidden * shape["intermediate_size"]
        embedding = _CHANNELS * TEMPORAL * PATCH**2 * hidden
        window = min((shape["window_size"] // PATCH) ** 2, patches)
        attended = full * patches + (shape["depth"] - full) * window
        merger = (_MERGED * hidden) ** 2 + _MERGED * hidden * shape["text_hidden"]
        linear = embedding + shape["depth"] * layer + merger / _MERGED
        operations: float = 2.0 * patches * linear + 4.0 * hidden * patches * attended
        return operations


def work(requests: Sequence[Request], checkpoint: Checkpoint, network: Network) -> Work:
    """What the new pairs of some requests need at least; what was asked about before needs
    nothing."""
    tokens, operations = 0, 0.0
    for request in requests:
        new = [_read(part, checkpoint) for part in request.documents[request.repeated :]]
        rendered = checkpoint.family.render(
            (INSTRUCTION,), (_read(request.query, checkpoint),), [(item,) for item in new]
        )
        prompts = [prompt for prompt in rendered if isinstance(prompt, Prompt)]
        prefixes = {prompt.prefix for prompt in prompts}
        suffixes = {
            prefix: [len(prompt.suffix.ids) for prompt in prompts if prompt.prefix == prefix]
            for prefix in prefixes
        }
        pictures = {image for prompt in prompts for image in prompt.images}
        tokens += sum(len(prefix.ids) + sum(lengths) for prefix, lengths in suffixes.items())
        operations += sum(
            network.text(len(prefix.ids), lengths) for prefix, lengths in suffixes.items()
        )
        operations += sum(map(network.picture, pictures))
    return Work(tokens, operations)


def _read(part: Part, checkpoint: Checkpoint) -> str | Image:
    """A text as it is; a picture as the model sees it."""
    if isinstance(part, str):
        return part
    rules = checkpoint.family.images
    assert rules is not None, "the workload has pictures"
    return Image(hashlib.sha256(part.tobytes()).digest(), *model_size(part.size, rules))


def _triangle(tokens: int) -> int:
    return tokens * (tokens + 1) // 2
