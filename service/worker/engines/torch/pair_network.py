"""A network that reads both sides of a pair at once, behind the torch engine's network seam.

Runs transformers' own forward over rows of whole pairs; does not depend on calls or threads.
Invariant: on a CPU a row's score is the same to the last bit in every batch whose rows have one
padded length. Rows end in padding that no token attends to, and no matrix product ends within a
tile of rows: kernels add up the incomplete end of a tile in another order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import Linear

from model_store.checkpoint import Checkpoint
from model_store.families.prompt import Segment
from model_store.folders.plain import read_config
from model_store.networks.architecture import PairArchitecture
from service.wire import Pixels
from service.worker.engines.torch.shared_prefix import ROW_TILE, padded_keys
from service.worker.engines.torch.weights import load_model


@dataclass(frozen=True, slots=True)
class KeptPrefix:
    """A prefix's ids, which are read anew with every suffix."""

    segment: Segment

    @property
    def tokens(self) -> int:
        """The number of the prefix's tokens."""
        return len(self.segment.ids)


class PairNetwork:
    """A checkpoint's weights on a device. The head computes in fp32, whatever `dtype` is."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        architecture: PairArchitecture,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self._architecture, self._device = architecture, device
        model = load_model(checkpoint, dtype)
        for child in model.children():
            if child is not model.base_model:
                child.float()
        for module in model.modules():
            if isinstance(module, Linear):
                _in_tiles(module)

        architecture.prepare(model, read_config(checkpoint.name, checkpoint.folder))
        self._model: Any = model.to(device).eval()
        padding = getattr(model.config, "pad_token_id", None)
        self._padding = 0 if padding is None else int(padding)

    def encode(self, images: Sequence[Pixels]) -> list[Tensor]:
        """Refuse images, which no prompt of such a network has."""
        raise ValueError("this network reads text only")

    def read_prefix(self, segment: Segment, images: Mapping[bytes, Tensor]) -> KeptPrefix:
        """The prefix as it is: a network that reads a whole pair has no state of its beginning."""
        return KeptPrefix(segment)

    @torch.inference_mode()
    def score(
        self, prefix: KeptPrefix, suffixes: Sequence[Segment], images: Mapping[bytes, Tensor]
    ) -> list[float]:
        """The raw score of the prefix with each suffix."""
        longest = padded_keys(prefix.tokens, max(len(suffix.ids) for suffix in suffixes))
        ids = torch.full((len(suffixes), longest), self._padding, dtype=torch.long)
        mask, types = torch.zeros_like(ids), torch.zeros_like(ids)

        for row, suffix in enumerate(suffixes):
            length = prefix.tokens + len(suffix.ids)
            ids[row, :length] = torch.tensor(prefix.segment.ids + suffix.ids)
            mask[row, :length] = 1
            _fill(types[row], prefix.segment, 0)
            _fill(types[row], suffix, prefix.tokens)

        scores = self._architecture.scores(
            self._model,
            ids.to(self._device),
            mask.to(self._device),
            types.to(self._device) if types.any() else None,
        )
        found: list[float] = scores.float().tolist()
        return found

    def release_memory(self) -> None:
        """Free the memory that failed passes have left on a GPU."""
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


def _fill(row: Tensor, segment: Segment, start: int) -> None:
    """Write a segment's token types into a row, from `start`."""
    if segment.types:
        row[start : start + len(segment.types)] = torch.tensor(segment.types)


def _in_tiles(linear: Linear) -> None:
    """Have a layer compute single vectors, one for each pair, in whole tiles of rows.

    Rows of tokens are whole tiles by their length. Vectors are read in the dtype of the weights,
    which are fp32 in the head.
    """
    product = linear.forward

    def forward(rows: Tensor) -> Tensor:
        if rows.dim() != 2:
            return product(rows)
        count = len(rows)
        index = torch.arange(count + -count % ROW_TILE, device=rows.device) % count
        return product(rows[index].to(linear.weight.dtype))[:count]

    linear.forward = forward  # type: ignore[method-assign, assignment]
