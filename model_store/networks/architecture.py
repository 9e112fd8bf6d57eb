"""The network seam: the tensors, positions and modules of an architecture.

A family names the architecture that it runs on, and each architecture has one adapter, which
engines, trainer and folder checks use. A causal decoder's adapter states more than others. Does not
depend on torch: adapters load transformers' classes when a network is loaded. Invariant: all users
of one architecture read the same tensors at the same positions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from model_store.families.prompt import Image, Segment
from model_store.networks.decoder import DecoderSizes

if TYPE_CHECKING:
    from torch import Tensor

Shapes = dict[str, tuple[int, ...]]
"""Tensors' shapes by name."""
Positions = npt.NDArray[np.int64]
"""`[axes, tokens]`."""
Pixels = npt.NDArray[np.uint8]
"""`[height, width, 3]`, RGB."""


@dataclass(frozen=True, slots=True)
class VisionSizes:
    """The counts that a vision tower's work follows from."""

    layers: int
    full_layers: int
    """Layers whose attention is over the whole image."""
    window: int
    """Patches that attend to each other in the other layers."""
    width: int
    inner: int
    """Width inside the MLP."""
    patch: int
    """Pixels of a patch's side."""
    patch_values: int
    """Numbers of a patch: its pixels, colours and frames."""
    merged: int
    """Patches that become one token."""
    mlp_matrices: int = 3
    """Matrices of a layer's MLP: three where it is gated, else two."""
    deepstack: int = 0
    """Layers of the language model after which further maps of the images are added to the hidden
    states of their tokens: each has a merger of its own."""

    @property
    def token_pixels(self) -> int:
        """Pixels of an image that become one token."""
        return self.merged * self.patch**2


class VisionTower(Protocol):
    """The image half of an architecture: the arithmetic of its processor, and its patches."""

    prefix: str
    """Prefix of the names of its tensors and modules."""
    processor: Mapping[str, Any]
    """Settings of an image processor that has this arithmetic, under transformers' names."""
    preprocessor: Mapping[str, Any]
    """A `preprocessor_config.json` for a new folder, without pixel bounds."""
    patches_input: str
    grids_input: str
    """Names under which transformers and vLLM take patches and grids."""

    def sizes(self, config: Mapping[str, Any]) -> VisionSizes:
        """Counts of the tower that a `config.json` describes; raises `ValueError`."""
        ...

    def patches(self, rgb: Pixels) -> npt.NDArray[np.float32]:
        """Normalised patches of an image, `[patches, values]`, ready for `pixel_values`."""
        ...

    def grid(self, image: Image) -> tuple[int, int, int]:
        """(frames, rows, columns) of an image's patches, as `image_grid_thw`."""
        ...

    def embed(self, module: Any, patches: Tensor, grids: Tensor) -> Tensor:
        """Embeddings of images as a prompt takes them, `[tokens of all, values]`.

        A token's values are its embedding, and then its maps for the first layers where the network
        has a deepstack, `hidden` values each. `patches` has those of all images in order, and
        `grids` is `[images, 3]`.
        """
        ...


class Architecture(Protocol):
    """One entry of the field `architectures` in a checkpoint's `config.json`."""

    name: str
    model_type: str
    embeddings: str
    """Name of the tensor of input embeddings, `[vocabulary, hidden]`."""
    head: str
    """Name of the output head's tensor; absent from the weights where it is tied."""
    stated_tokens: Mapping[str, tuple[int, str]]
    """Fields of `config.json` that name a token: transformers' default, and the token's text."""

    @property
    def vision(self) -> VisionTower | None:
        """None: the network reads text only."""
        ...

    def refuse_other_arithmetic(
        self, name: str, config: Mapping[str, Any], max_tokens: int
    ) -> None:
        """Raise `CheckpointUnusable` for a configuration that is computed differently here."""
        ...

    def is_tied(self, config: Mapping[str, Any]) -> bool:
        """True where the output head is the input embeddings."""
        ...

    def tensor_shapes(self, config: Mapping[str, Any]) -> Shapes:
        """Every tensor of the network under its current name, without a tied head.

        Raises `ValueError` with the name of a field that is no count.
        """
        ...

    def current_name(self, tensor: str) -> str:
        """The name in current transformers of a tensor or module that has this or an older name."""
        ...

    def vllm_overrides(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """`hf_overrides` with which vLLM builds the same network as transformers."""
        ...

    def model_class(self) -> Any:
        """The class of transformers; its `from_pretrained` loads a checkpoint."""
        ...


class DecoderArchitecture(Architecture, Protocol):
    """A causal decoder: what trainer, sizing and adapters ask beside, and shared prefixes."""

    language_prefix: str
    """Prefix of the names of the language model's tensors and modules."""

    def decoder_sizes(self, config: Mapping[str, Any]) -> DecoderSizes:
        """Counts of the decoder that a `config.json` describes; raises `ValueError`."""
        ...

    def oldest_name(self, module: str) -> str:
        """The oldest name of a module in published checkpoints and adapters."""
        ...

    def positions(
        self, segment: Segment, image_token_id: int | None, start: int = 0
    ) -> tuple[Positions, int]:
        """Positions of a segment that begins at `start`, and the position of the next segment."""
        ...

    def language_model(self, model: Any) -> Any:
        """The decoder of a loaded model: `embed_tokens`, `layers`, `norm`, `rotary_emb`."""
        ...

    def vision_model(self, model: Any) -> Any:
        """The vision tower of a loaded model; None where it has none."""
        ...

    def position_ids(self, positions: Tensor) -> Tensor:
        """`[axes, rows, tokens]` positions as the decoder takes its `position_ids`."""
        ...

    def rotary(self, decoder: Any, embeddings: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines of `[axes, rows, tokens]` positions, `[rows, tokens, head]` each."""
        ...


class PairArchitecture(Architecture, Protocol):
    """A network that reads both sides of a pair at once, so that prompts share nothing."""

    def token_types(self, config: Mapping[str, Any]) -> int:
        """Types of tokens that it tells apart; 0 where it takes none."""
        ...

    def positions(self, config: Mapping[str, Any]) -> int:
        """The tokens that it has positions for."""
        ...

    def prepare(self, model: Any, config: Mapping[str, Any]) -> None:
        """Set on a loaded model what its class in transformers does not read of `config.json`."""
        ...

    def scores(self, model: Any, ids: Tensor, mask: Tensor, types: Tensor | None) -> Tensor:
        """Raw scores `[rows]` of ids `[rows, tokens]`.

        `mask` is 1 at tokens and 0 at padding; `types` are the tokens' types, None where all are 0.
        """
        ...
