"""A network's shape, and what it costs to run: parameters, floating point operations, bytes a
token.

Knows Qwen2.5-VL's layers as its `config.json` describes them, no hardware. Invariant: counts are of
the work that a rerank request needs when its query is read once and each document once, which is
what both engines do.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model_store.networks.qwen2_5_vl import QWEN2_5_VL

_BYTES = 2  # of a bf16 number
_PATCH = 3 * 2 * 14 * 14  # colours, frames (an image counts as two), pixels
_CONFIG_BYTES = 1 << 20


class BadShape(Exception):
    """A sentence about a `config.json` that describes no network of ours."""


@dataclass(frozen=True)
class Vision:
    """The vision tower: a patch is 14 x 14 pixels, and four of them become one token."""

    layers: int
    width: int
    inner: int
    window: int
    """Patches that see each other in a layer without full attention."""
    full: int
    """Layers with full attention."""

    def parameters(self, out: int) -> int:
        """Of the tower and of what turns its patches into tokens of width `out`."""
        return _PATCH * self.width + self.layers * self._of_layer() + self._of_merger(out)

    def operations(self, patches: int, out: int) -> float:
        """Floating point operations for one image of `patches`."""
        attended = (self.layers - self.full) * min(self.window, patches) + self.full * patches
        a_patch = (
            2 * (_PATCH * self.width + self.layers * self._of_layer()) + 4 * self.width * attended
        )
        return patches * a_patch + patches / 4 * 2 * self._of_merger(out)

    def _of_layer(self) -> int:
        return 4 * self.width**2 + 3 * self.width * self.inner

    def _of_merger(self, out: int) -> int:
        return (4 * self.width) ** 2 + 4 * self.width * out


@dataclass(frozen=True)
class Shape:
    """The language model, and its vision tower."""

    name: str
    layers: int
    width: int
    inner: int
    heads: int
    kv_heads: int
    head: int
    vocabulary: int
    tied: bool
    vision: Vision

    @property
    def parameters(self) -> int:
        """Of the whole checkpoint."""
        words = self.vocabulary * self.width * (1 if self.tied else 2)
        return self.layers * self._of_layer() + words + self.vision.parameters(self.width)

    @property
    def weight_bytes(self) -> int:
        """Bytes of the weights in bf16."""
        return self.parameters * _BYTES

    @property
    def kv_bytes(self) -> int:
        """Bytes that one token keeps in the KV cache, in bf16."""
        return 2 * self.layers * self.kv_heads * self.head * _BYTES

    def step_bytes(self, tokens: int) -> int:
        """Bytes that a layer fills on the way when `tokens` are read at once, or the tower for as
        many image tokens."""
        language = tokens * (3 * self.inner + 4 * self.width)
        tower = 4 * tokens * (3 * self.vision.inner + 4 * self.vision.width)
        return _BYTES * max(language, tower)

    def operations(self, query: int, document: int, documents: int) -> float:
        """Floating point operations of a request: `query` tokens once, then `documents` of
        `document` tokens that see them."""
        linear = 2 * self.layers * self._of_layer()
        seen = 4 * self.layers * self.heads * self.head  # for each token that a token looks at
        head = query * (linear + seen * query / 2)
        return head + documents * document * (linear + seen * (query + document / 2))

    def _of_layer(self) -> int:
        attention = self.width * self.head * (2 * self.heads + 2 * self.kv_heads)
        return attention + 3 * self.width * self.inner


_TOWER = Vision(layers=32, width=1280, inner=3420, window=64, full=4)
SHAPES = {
    "gmr-3b": Shape("gmr-3b", 36, 2048, 11008, 16, 2, 128, 151_936, True, _TOWER),
    "gmr-7b": Shape("gmr-7b", 28, 3584, 18944, 28, 4, 128, 152_064, False, _TOWER),
}
"""The paper's two models: Qwen2.5-VL-3B and -7B."""


def shape_of(model: str) -> Shape:
    """`gmr-3b`, `gmr-7b`, or what the `config.json` of a folder says; raises `BadShape`."""
    if model in SHAPES:
        return SHAPES[model]
    file = Path(model) / "config.json"
    try:
        with file.open("rb") as opened:
            config = json.loads(opened.read(_CONFIG_BYTES))
        return _shape(Path(model).resolve().name, config)
    except OSError:
        raise BadShape(
            f"{model} is neither {' nor '.join(SHAPES)} nor a folder with a config.json."
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError, RecursionError):
        raise BadShape(f"{file}: this does not describe a Qwen2.5-VL network.") from None


def _shape(name: str, config: dict[str, Any]) -> Shape:
    text, vision = config.get("text_config", config), config["vision_config"]
    if vision["patch_size"] != 14 or vision["spatial_merge_size"] != 2:
        raise ValueError("other patches")
    tower = Vision(
        layers=_count(vision["depth"]),
        width=_count(vision["hidden_size"]),
        inner=_count(vision["intermediate_size"]),
        window=(_count(vision["window_size"]) // 14) ** 2,
        full=len(vision["fullatt_block_indexes"]),
    )
    width, heads = _count(text["hidden_size"]), _count(text["num_attention_heads"])
    return Shape(
        name=name,
        layers=_count(text["num_hidden_layers"]),
        width=width,
        inner=_count(text["intermediate_size"]),
        heads=heads,
        kv_heads=_count(text["num_key_value_heads"]),
        head=_count(text.get("head_dim") or width // heads),
        vocabulary=_count(text["vocab_size"]),
        tied=QWEN2_5_VL.is_tied(config),
        vision=tower,
    )


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 10_000_000:
        raise ValueError("no count")
    return value
