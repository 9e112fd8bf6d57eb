"""A loaded Qwen2.5-VL and the three things an engine asks of it: encode images, read a prefix,
score suffixes.

Knows tensors and prompts, no calls or threads. Invariant: weights are used in the dtype asked for,
the yes/no head always in fp32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import Qwen2_5_VLForConditionalGeneration
from transformers.utils.logging import disable_progress_bar

from model_store.checkpoint import Checkpoint
from model_store.families.prompt import Image, Segment
from model_store.families.qwen2_5_vl import grid, image_tokens, patches, positions
from model_store.folders.plain import refuse_quantised
from model_store.manifest import CheckpointUnusable
from service.wire import Pixels
from service.worker.engines.torch.shared_prefix import ROW_TILE, Prefix, SharedPrefixDecoder

_SENT_ON = (
    "which the torch engine does not run: set RERANK_ENGINE=vllm, or serve the checkpoint that they"
    " were made from"
)


class Network:
    """A checkpoint's weights on a device."""

    def __init__(self, checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype) -> None:
        disable_progress_bar()
        refuse_quantised(checkpoint.name, checkpoint.folder, _SENT_ON)
        model, report = Qwen2_5_VLForConditionalGeneration.from_pretrained(
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
            # transformers has its own mind for weights that are stored in some formats
            if parameter.dtype != dtype:
                raise CheckpointUnusable(
                    f"{checkpoint.name}: {name} was loaded as {parameter.dtype}, not as {dtype}."
                )
        model = model.to(device).eval()
        self._device = device
        self._pad = checkpoint.family.image_token_id
        self._visual = model.model.visual
        self._embed = model.get_input_embeddings()
        self._decoder = SharedPrefixDecoder(model.model.language_model)
        yes, no = model.get_output_embeddings().weight[list(checkpoint.family.label_ids)].float()
        self._head = yes - no

    @torch.inference_mode()
    def encode(self, images: Sequence[Pixels]) -> list[Tensor]:
        """Each image's embeddings, `[tokens, hidden]`, as they stand in a prompt."""
        arrays = [
            np.frombuffer(image.rgb, np.uint8).reshape(image.height, image.width, 3)
            for image in images
        ]
        shapes = [Image(b"", image.width, image.height) for image in images]
        pixels = torch.from_numpy(np.concatenate([patches(array) for array in arrays]))
        encoded = self._visual(
            pixels.to(self._device, self._visual.dtype),
            grid_thw=torch.tensor([grid(shape) for shape in shapes], device=self._device),
        )
        return list(encoded.pooler_output.split([image_tokens(shape) for shape in shapes]))

    @torch.inference_mode()
    def read_prefix(self, segment: Segment, images: Mapping[bytes, Tensor]) -> tuple[Prefix, int]:
        """The prefix's keys and values, and the position at which a suffix begins."""
        places, after = positions(segment, self._pad)
        embeddings, _ = self._embedded([segment], images)
        return (
            self._decoder.prefix(embeddings, torch.from_numpy(places)[:, None].to(self._device)),
            after,
        )

    @torch.inference_mode()
    def score(
        self,
        prefix: Prefix,
        start: int,
        suffixes: Sequence[Segment],
        images: Mapping[bytes, Tensor],
    ) -> list[float]:
        """logit(yes) - logit(no) at the end of each suffix, read after the prefix, whose last
        position is `start` - 1."""
        embeddings, lengths = self._embedded(suffixes, images, ROW_TILE)
        places = torch.zeros(3, *embeddings.shape[:2], dtype=torch.long)
        for row, suffix in enumerate(suffixes):
            places[:, row, : len(suffix.ids)] = torch.from_numpy(
                positions(suffix, self._pad, start)[0]
            )
        hidden = self._decoder.last_hidden(prefix, embeddings, places.to(self._device), lengths)
        # as a product, its last bits would depend on how many rows there are
        read_out = (hidden.float() * self._head).sum(-1)
        logits: list[float] = read_out.tolist()
        return logits

    def release_memory(self) -> None:
        """Give back what failed passes have left on a GPU."""
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

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
        pictures = [images[image.key] for segment in segments for image in segment.images]
        if pictures:
            embeddings[ids == self._pad] = torch.cat(pictures).to(embeddings.dtype)
        return embeddings, torch.tensor(lengths, device=self._device)
