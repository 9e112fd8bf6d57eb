"""The cost of a network: parameters, floating point operations, and bytes a token.

Depends on the counts that network adapters read from a `config.json`, not on hardware. Invariant:
counts are of the work of a rerank request whose query is read once and each document once, which
is what both engines do.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model_store.families.catalogue import published_configs
from model_store.manifest import CheckpointUnusable
from model_store.networks.architecture import Architecture, VisionSizes
from model_store.networks.catalogue import decoder_of_config
from model_store.networks.decoder import DecoderSizes

KEPT_SPARE = 1.5
"""Blocks of a cache for each block of documents that it is to keep: with as many, vLLM's block
manager had 97 % of 1,000 documents when they were drawn at random (`docs/sizing.md`)."""
_BYTES = 2  # of a bf16 number
_CONFIG_BYTES = 1 << 20


class UnknownNetwork(Exception):
    """A model that is neither published by a known family nor a folder with a known network."""


class ImagesNotRead(Exception):
    """A load with images for a network that reads text only."""


@dataclass(frozen=True, slots=True)
class VisionCost:
    """The work of a vision tower, whose tokens have width `out`."""

    sizes: VisionSizes
    out: int

    def operations(self, tokens: int) -> float:
        """Floating point operations for an image of so many tokens."""
        sizes = self.sizes
        patches = tokens * sizes.merged
        windowed_layers = sizes.layers - sizes.full_layers
        attended = windowed_layers * min(sizes.window, patches) + sizes.full_layers * patches

        linear = 2 * (sizes.patch_values * sizes.width + sizes.layers * self._layer_weights())
        attention = 4 * sizes.width * attended
        mergers = (1 + sizes.deepstack) * self._merger_weights()
        return patches * (linear + attention) + tokens * 2 * mergers

    def step_values(self, tokens: int) -> int:
        """Numbers that a layer holds at once for so many tokens."""
        inner = self.sizes.mlp_matrices * self.sizes.inner
        return self.sizes.merged * tokens * (inner + 4 * self.sizes.width)

    def _layer_weights(self) -> int:
        sizes = self.sizes
        return 4 * sizes.width**2 + sizes.mlp_matrices * sizes.width * sizes.inner

    def _merger_weights(self) -> int:
        """Weights of the MLP that turns merged patches into a token."""
        merged = self.sizes.merged * self.sizes.width
        return merged**2 + merged * self.out


@dataclass(frozen=True, slots=True)
class NetworkCost:
    """The work and memory of a language model and, where it has one, its vision tower."""

    name: str
    parameters: int
    """Of all matrices; norms and biases are below a thousandth of a model that is in use."""
    decoder: DecoderSizes
    vision: VisionCost | None
    """None: the network reads text only."""

    @property
    def weight_bytes(self) -> int:
        """Bytes of the weights in bf16."""
        return self.parameters * _BYTES

    @property
    def kv_bytes(self) -> int:
        """Bytes that one token keeps in the KV cache, in bf16."""
        return 2 * self.decoder.layers * self.decoder.key_heads * self.decoder.head * _BYTES

    @property
    def image_bytes(self) -> int:
        """Bytes of the embedding of one token of an image, in bf16: what the tower hands to the
        decoder, its further maps for deeper layers included. Raises `ImagesNotRead`."""
        return (1 + self.tower().sizes.deepstack) * self.decoder.width * _BYTES

    def kept_bytes(self, documents: int, tokens: int, block: int = 16) -> int:
        """Bytes of KV cache that keep so many documents, of `tokens` each with the template before
        them, under new queries.

        A cache keeps whole blocks. `KEPT_SPARE` is room for the blocks of queries, those of
        earlier requests included.
        """
        blocks = documents * (tokens // block)
        return round(KEPT_SPARE * blocks) * block * self.kv_bytes

    @property
    def token_pixels(self) -> int:
        """Pixels of an image that become one token; raises `ImagesNotRead`."""
        return self.tower().sizes.token_pixels

    def tower(self) -> VisionCost:
        """The vision tower; raises `ImagesNotRead` where the network has none."""
        if self.vision is None:
            raise ImagesNotRead(f"{self.name} reads text only: no load with images fits it.")
        return self.vision

    def step_bytes(self, tokens: int) -> int:
        """Bytes that a layer holds at once for a step of so many tokens.

        The larger of the decoder's and of the tower's, were they all tokens of images.
        """
        values = tokens * (3 * self.decoder.inner + 4 * self.decoder.width)
        if self.vision is not None:
            values = max(values, self.vision.step_values(tokens))
        return _BYTES * values

    def operations(self, query: int, document: int, documents: int) -> float:
        """Floating point operations of a request.

        The query's tokens are read once, and then `documents` of `document` tokens each, which
        attend to the query.
        """
        attended = query * query / 2 + documents * document * (query + document / 2)
        tokens = query + documents * document
        return tokens * self.token_operations + attended * self.attention_operations

    @property
    def token_operations(self) -> int:
        """Floating point operations of a token in all linear maps of the decoder."""
        return 2 * self.decoder.layers * self._layer_weights()

    @property
    def attention_operations(self) -> int:
        """Floating point operations of a token's attention to one token."""
        return 4 * self.decoder.layers * self.decoder.heads * self.decoder.head

    def adapter_parameters(self, rank: int) -> int:
        """Parameters of low-rank maps beside every linear map of the decoder's layers."""
        sizes = self.decoder
        queries, keys = sizes.heads * sizes.head, sizes.key_heads * sizes.head
        attention = 2 * (sizes.width + queries) + 2 * (sizes.width + keys)
        return sizes.layers * rank * (attention + 3 * (sizes.width + sizes.inner))

    def _layer_weights(self) -> int:
        sizes = self.decoder
        attention = sizes.width * sizes.head * (2 * sizes.heads + 2 * sizes.key_heads)
        return attention + 3 * sizes.width * sizes.inner


def network_cost(model: str) -> NetworkCost:
    """The cost of a published model by its name, or of a folder by its `config.json`.

    Raises `UnknownNetwork`.
    """
    published = published_configs()
    if model in published:
        return _from_config(model, published[model])

    file = Path(model) / "config.json"
    try:
        with file.open("rb") as opened:
            content = opened.read(_CONFIG_BYTES)
    except OSError:
        raise UnknownNetwork(
            f"{model} is no folder with a config.json, nor one of {', '.join(published)}."
        ) from None

    try:
        config = json.loads(content)
    except (ValueError, RecursionError):
        raise UnknownNetwork(f"{file} is not JSON.") from None
    if not isinstance(config, dict):
        raise UnknownNetwork(f"{file} is no JSON object.")
    return _from_config(Path(model).resolve().name, config)


def _from_config(name: str, config: Mapping[str, Any]) -> NetworkCost:
    try:
        architecture = decoder_of_config(name, config)
        architecture.refuse_other_arithmetic(name, config, max_tokens=0)
        decoder = architecture.decoder_sizes(config)
        return NetworkCost(
            name=name,
            parameters=_matrix_parameters(architecture, config),
            decoder=decoder,
            vision=_vision_cost(architecture, config, decoder),
        )
    except CheckpointUnusable as error:
        raise UnknownNetwork(str(error)) from None
    except ValueError as error:
        raise UnknownNetwork(f"{name}: {error} in config.json.") from None


def _vision_cost(
    architecture: Architecture, config: Mapping[str, Any], decoder: DecoderSizes
) -> VisionCost | None:
    tower = architecture.vision
    return None if tower is None else VisionCost(tower.sizes(config), out=decoder.width)


def _matrix_parameters(architecture: Architecture, config: Mapping[str, Any]) -> int:
    """Parameters of every tensor that has more than one axis."""
    shapes = architecture.tensor_shapes(config).values()
    return sum(math.prod(shape) for shape in shapes if len(shape) > 1)
