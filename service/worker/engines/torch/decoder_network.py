"""A causal decoder behind the torch engine's network seam: a prefix is read once for its suffixes.

Depends on tensors, prompts and an architecture's adapter, not on calls or threads. Invariant:
weights are used in the requested dtype, and the read-out's row always in fp32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from model_store.checkpoint import Checkpoint
from model_store.families.prompt import Segment
from model_store.networks.score_head import score_head
from service.wire import Pixels
from service.worker.engines.prompts import prompt_image
from service.worker.engines.torch.shared_prefix import (
    ROW_TILE,
    Deepstack,
    Prefix,
    SharedPrefixDecoder,
)
from service.worker.engines.torch.weights import load_model


@dataclass(frozen=True, slots=True)
class ReadPrefix:
    """A prefix's keys and values, and the position at which a suffix begins."""

    keys: Prefix
    end: int

    @property
    def tokens(self) -> int:
        """The number of the prefix's tokens."""
        return self.keys.tokens


class CausalDecoder:
    """A checkpoint's weights on a device, which read prompts."""

    def __init__(self, checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype) -> None:
        family = checkpoint.family
        self._architecture = checkpoint.decoder
        self._images, self._image_token = family.images, family.image_token_id
        self._device = device

        self._model = load_model(checkpoint, dtype).to(device).eval()
        self._visual = self._architecture.vision_model(self._model)
        self._embed: torch.nn.Module = self._model.get_input_embeddings()
        self._decoder = SharedPrefixDecoder(
            self._architecture.language_model(self._model), self._architecture.rotary
        )

    @torch.inference_mode()
    def encode(self, images: Sequence[Pixels]) -> list[Tensor]:
        """Embeddings of each image as a prompt takes them, `[tokens, values]`.

        A black image fills the batch up to whole tiles of tokens: without it the last bits of an
        image would depend on the others, where several threads share the rows.
        """
        tower, rules = self._architecture.vision, self._images
        assert tower is not None
        assert rules is not None

        tokens = [rules.tokens(prompt_image(pixels)) for pixels in images]
        missing = -sum(tokens) % ROW_TILE
        if missing:
            width, height = missing * rules.cell, rules.cell
            images = [*images, Pixels(b"", width, height, bytes(3 * width * height))]
            tokens.append(missing)

        patches: list[np.ndarray] = []
        grids: list[tuple[int, int, int]] = []
        for pixels in images:
            rgb = np.frombuffer(pixels.rgb, np.uint8).reshape(pixels.height, pixels.width, 3)
            patches.append(tower.patches(rgb))
            grids.append(tower.grid(prompt_image(pixels)))

        embeddings = tower.embed(
            self._visual,
            torch.from_numpy(np.concatenate(patches)).to(self._device),
            torch.tensor(grids, device=self._device),
        )
        encoded = list(embeddings.split(tokens))
        return encoded[:-1] if missing else encoded

    @torch.inference_mode()
    def read_prefix(self, segment: Segment, images: Mapping[bytes, Tensor]) -> ReadPrefix:
        """The prefix's keys and values, and the position at which a suffix begins.

        `images` has the embeddings of all images of the segment, by key.
        """
        positions, end = self._architecture.positions(segment, self._image_token)
        embeddings, _, deepstack = self._embed_rows([segment], images)
        prefix = self._decoder.prefix(
            embeddings, torch.from_numpy(positions)[:, None].to(self._device), deepstack
        )
        return ReadPrefix(prefix, end)

    def release_memory(self) -> None:
        """Free the memory that failed passes have left on a GPU."""
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _positions(self, suffixes: Sequence[Segment], start: int, longest: int) -> Tensor:
        """Positions of rows padded on the right to `longest`, `[axes, suffixes, longest]`."""
        rows: list[Tensor] = []
        for suffix in suffixes:
            positions, _ = self._architecture.positions(suffix, self._image_token, start)
            row = torch.zeros(len(positions), longest, dtype=torch.long)
            row[:, : len(suffix.ids)] = torch.from_numpy(positions)
            rows.append(row)
        return torch.stack(rows, dim=1).to(self._device)

    def _embed_rows(
        self, segments: Sequence[Segment], images: Mapping[bytes, Tensor], tile: int = 1
    ) -> tuple[Tensor, Tensor, Deepstack | None]:
        """Embeddings of segments, with images in the place of placeholders, and their lengths.

        Returns `[segments, longest, hidden]`, padded on the right to a multiple of `tile`, and
        `[segments]`; and the images' further maps, or None without any.
        """
        lengths = [len(segment.ids) for segment in segments]
        longest = max(lengths)
        ids = torch.zeros(len(segments), longest + -longest % tile, dtype=torch.long)
        for row, segment in enumerate(segments):
            ids[row, : lengths[row]] = torch.tensor(segment.ids)
        ids = ids.to(self._device)
        embeddings = self._embed(ids)

        image_rows: list[Tensor] = []
        for segment in segments:
            image_rows += [images[image.key] for image in segment.images]
        deepstack = None
        if image_rows:
            assert self._image_token is not None
            mask = torch.eq(ids, self._image_token)
            values = torch.cat(image_rows).to(embeddings.dtype)
            embedded, *maps = values.split(embeddings.shape[-1], dim=1)
            embeddings[mask] = embedded
            deepstack = Deepstack(mask, maps) if maps else None
        return embeddings, torch.tensor(lengths, device=self._device), deepstack


class DecoderNetwork(CausalDecoder):
    """A decoder whose last hidden state has the score."""

    def __init__(self, checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__(checkpoint, device, dtype)
        family = checkpoint.family
        self._scores = score_head(self._model, family.readout, family.label_ids)

    @torch.inference_mode()
    def score(
        self,
        prefix: ReadPrefix,
        suffixes: Sequence[Segment],
        images: Mapping[bytes, Tensor],
    ) -> list[float]:
        """The raw score at the end of each suffix.

        `images` has the embeddings of all their images, by key.
        """
        embeddings, lengths, deepstack = self._embed_rows(suffixes, images, ROW_TILE)
        positions = self._positions(suffixes, prefix.end, embeddings.shape[1])
        hidden = self._decoder.last_hidden(prefix.keys, embeddings, positions, lengths, deepstack)
        scores: list[float] = self._scores(hidden).tolist()
        return scores
