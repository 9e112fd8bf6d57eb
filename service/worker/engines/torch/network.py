"""A loaded checkpoint and the three things an engine asks of it: encode images, read a prefix,
score suffixes.

Depends on tensors, prompts and an architecture's adapter, not on calls or threads. Invariant:
weights are used in the dtype asked for, the read-out's row always in fp32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.utils.logging import disable_progress_bar

from model_store.checkpoint import Checkpoint
from model_store.families.prompt import Image, Segment
from model_store.folders.plain import refuse_quantised
from model_store.manifest import CheckpointUnusable
from model_store.networks.score_row import score_row
from service.wire import Pixels
from service.worker.engines.torch.shared_prefix import ROW_TILE, Prefix, SharedPrefixDecoder

_SENT_ON = (
    "which the torch engine does not run: set RERANK_ENGINE=vllm, or serve the checkpoint that they"
    " were made from"
)


class Network:
    """A checkpoint's weights on a device."""

    def __init__(self, checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype) -> None:
        family = checkpoint.family
        self._architecture = checkpoint.architecture
        self._images, self._image_token = family.images, family.image_token_id
        self._device = device

        model = self._load(checkpoint, dtype).to(device).eval()
        self._visual = self._architecture.vision_model(model)
        self._embed: torch.nn.Module = model.get_input_embeddings()
        self._decoder = SharedPrefixDecoder(
            self._architecture.language_model(model), self._architecture.rotary
        )
        self._row = score_row(model, family.readout, family.label_ids)

    @torch.inference_mode()
    def encode(self, images: Sequence[Pixels]) -> list[Tensor]:
        """Embeddings of each image as they stand in a prompt, `[tokens, hidden]`."""
        tower, rules = self._architecture.vision, self._images
        assert tower is not None
        assert rules is not None

        patches: list[np.ndarray] = []
        shapes: list[Image] = []
        for image in images:
            rgb = np.frombuffer(image.rgb, np.uint8).reshape(image.height, image.width, 3)
            patches.append(tower.patches(rgb))
            shapes.append(Image(b"", image.width, image.height))

        embedded = tower.embed(
            self._visual,
            torch.from_numpy(np.concatenate(patches)).to(self._device),
            torch.tensor([tower.grid(shape) for shape in shapes], device=self._device),
        )
        return list(embedded.split([rules.tokens(shape) for shape in shapes]))

    @torch.inference_mode()
    def read_prefix(self, segment: Segment, images: Mapping[bytes, Tensor]) -> tuple[Prefix, int]:
        """The prefix's keys and values, and the position at which a suffix begins."""
        positions, end = self._architecture.positions(segment, self._image_token)
        embeddings, _ = self._embedded([segment], images)
        prefix = self._decoder.prefix(
            embeddings, torch.from_numpy(positions)[:, None].to(self._device)
        )
        return prefix, end

    @torch.inference_mode()
    def score(
        self,
        prefix: Prefix,
        start: int,
        suffixes: Sequence[Segment],
        images: Mapping[bytes, Tensor],
    ) -> list[float]:
        """The raw score at the end of each suffix, read after the prefix, whose last position is
        `start` - 1."""
        embeddings, lengths = self._embedded(suffixes, images, ROW_TILE)
        positions = self._positions(suffixes, start, embeddings.shape[1])
        hidden = self._decoder.last_hidden(prefix, embeddings, positions, lengths)

        # as a product, its last bits would depend on how many rows there are
        scores: list[float] = (hidden.float() * self._row).sum(-1).tolist()
        return scores

    def release_memory(self) -> None:
        """Give back what failed passes have left on a GPU."""
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    @staticmethod
    def _load(checkpoint: Checkpoint, dtype: torch.dtype) -> Any:
        """transformers' model of the folder, with every tensor read and in the dtype asked for."""
        disable_progress_bar()
        refuse_quantised(checkpoint.name, checkpoint.folder, _SENT_ON)
        model, report = checkpoint.architecture.model_class().from_pretrained(
            checkpoint.folder,
            dtype=dtype,
            attn_implementation="sdpa",
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
        )

        if missing := report["missing_keys"]:  # which transformers has filled with random numbers
            raise CheckpointUnusable(
                f"{checkpoint.name}: the weights lack {min(missing)} ({len(missing)} missing in"
                " all)."
            )
        if unread := report["unexpected_keys"]:
            raise CheckpointUnusable(
                f"{checkpoint.name}: nothing reads {min(unread)} of the weights ({len(unread)} in"
                " all)."
            )
        for name, parameter in model.named_parameters():
            # transformers keeps another dtype for weights that are stored in some formats
            if parameter.dtype != dtype:
                raise CheckpointUnusable(
                    f"{checkpoint.name}: {name} was loaded as {parameter.dtype}, not as {dtype}."
                )
        return model

    def _positions(self, suffixes: Sequence[Segment], start: int, longest: int) -> Tensor:
        """Positions of rows padded on the right to `longest`, `[axes, suffixes, longest]`."""
        rows: list[Tensor] = []
        for suffix in suffixes:
            positions, _ = self._architecture.positions(suffix, self._image_token, start)
            row = torch.zeros(len(positions), longest, dtype=torch.long)
            row[:, : len(suffix.ids)] = torch.from_numpy(positions)
            rows.append(row)
        return torch.stack(rows, dim=1).to(self._device)

    def _embedded(
        self, segments: Sequence[Segment], images: Mapping[bytes, Tensor], tile: int = 1
    ) -> tuple[Tensor, Tensor]:
        """Rows of embeddings padded on the right, `[segments, longest, hidden]`, images in their
        places; and the lengths.

        The longest is a multiple of `tile`.
        """
        lengths = [len(segment.ids) for segment in segments]
        longest = max(lengths)
        ids = torch.zeros(len(segments), longest + -longest % tile, dtype=torch.long)
        for row, segment in enumerate(segments):
            ids[row, : lengths[row]] = torch.tensor(segment.ids)
        ids = ids.to(self._device)
        embeddings = self._embed(ids)

        pictures: list[Tensor] = []
        for segment in segments:
            pictures += [images[image.key] for image in segment.images]
        if pictures:
            embeddings[ids == self._image_token] = torch.cat(pictures).to(embeddings.dtype)
        return embeddings, torch.tensor(lengths, device=self._device)
