"""Images of prompts as vLLM takes them: embeddings under the digests of this project.

vLLM's multimodal cache keeps what was sent, by digest and bounded by bytes
(`mm_processor_cache_gb`), and its sending half reports what the engine still holds. The items are
embeddings, so an image that was sent before costs neither encoding nor transport. Depends on vLLM's
cache and a vision tower's arithmetic, not on an engine. Invariant: both halves of the cache see the
same images in the same order, because everything up to sending happens without a pause.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from vllm.multimodal.inputs import MultiModalFieldConfig, MultiModalKwargsItems, PlaceholderRange

from model_store.families.family import ImageRules
from model_store.families.prompt import Image, Prompt
from model_store.networks.architecture import VisionTower


class EngineImages:
    """The images of one engine.

    `cache` is the sending half of vLLM's multimodal cache, or None where it is switched off;
    `cache_bytes` is its size, `token_bytes` the size of one token's embedding.
    """

    def __init__(
        self,
        tower: VisionTower,
        rules: ImageRules,
        cache: Any,
        *,
        cache_bytes: float,
        token_bytes: int,
    ) -> None:
        self._tower, self._rules, self._cache = tower, rules, cache
        self._cache_tokens = cache_bytes / token_bytes

    def lacks(self, images: Sequence[Image]) -> set[Image]:
        """The images of one prompt whose embeddings are needed to send it.

        They are the images that the engine does not hold. Where a prompt's images nearly fill the
        cache they are all its images, since sending one may evict another.
        """
        missing = {image for image in images if not self._holds(image)}
        crowded = 2 * sum(map(self._rules.tokens, images)) > self._cache_tokens
        return set(images) if missing and crowded else missing

    def split(self, images: Sequence[Image], embeddings: Tensor) -> dict[Image, Tensor]:
        """Embeddings by image, from those of all images in one tensor, `[tokens, values]`."""
        parts = embeddings.split([self._rules.tokens(image) for image in images])
        return dict(zip(images, parts, strict=True))

    def inputs(
        self, prompt: Prompt, ids: Sequence[int], embeddings: Mapping[Image, Tensor]
    ) -> dict[str, Any]:
        """The multimodal part of a prompt, in the form that vLLM's own renderer gives it.

        `embeddings` has those of the prompt's images that the engine lacks.
        """
        if self._cache is not None:
            # the receiving half also touches all images first, so that both evict the same ones
            for image in prompt.images:
                self._cache.touch_sender_cache_item(_name(image))

        placeholders: list[PlaceholderRange] = []
        for start, image in zip(self._starts(prompt, ids), prompt.images, strict=True):
            placeholders.append(PlaceholderRange(offset=start, length=self._rules.tokens(image)))

        return {
            "mm_kwargs": {"image": [self._item(image, embeddings) for image in prompt.images]},
            "mm_hashes": {"image": [_name(image) for image in prompt.images]},
            "mm_placeholders": {"image": placeholders},
        }

    def _holds(self, image: Image) -> bool:
        return self._cache is not None and bool(self._cache.is_cached_item(_name(image)))

    def _starts(self, prompt: Prompt, ids: Sequence[int]) -> list[int]:
        """The index at which each image's placeholders begin."""
        placeholders = np.flatnonzero(np.asarray(ids) == self._rules.token_id)
        lengths = [self._rules.tokens(image) for image in prompt.images]
        return [int(placeholders[used]) for used in itertools.accumulate([0, *lengths[:-1]])]

    def _item(self, image: Image, embeddings: Mapping[Image, Tensor]) -> Any:
        """The embeddings of an image, or None where the engine still holds them."""
        item = None if self._holds(image) else self._embedded(image, embeddings[image])
        if self._cache is None:
            return item
        return self._cache.get_and_update_item((item, []) if item else None, _name(image))[0]

    def _embedded(self, image: Image, rows: Tensor) -> Any:
        grids = self._tower.grids_input
        fields = {"image_embeds": rows, grids: torch.tensor([self._tower.grid(image)])}
        sizes = torch.tensor([len(rows)])
        layout = {
            "image_embeds": MultiModalFieldConfig.flat_from_sizes("image", sizes),
            grids: MultiModalFieldConfig.batched("image", keep_on_cpu=True),
        }
        return MultiModalKwargsItems.from_hf_inputs(fields, layout)["image"][0]


def _name(image: Image) -> str:
    """The key of an image in vLLM's caches."""
    return f"{image.key.hex()}-{image.width}x{image.height}"
