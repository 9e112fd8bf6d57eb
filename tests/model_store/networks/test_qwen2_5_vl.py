"""Patches and positions equal those of transformers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pil
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from model_store.families.prompt import Image, Segment
from model_store.networks.qwen2_5_vl_images import CELL, grid, image_tokens, patches, positions
from tests.conftest import TINY

PAD = 9
sides = st.integers(1, 6).map(lambda cells: cells * CELL)


@settings(max_examples=40, deadline=None)
@given(width=sides, height=sides, seed=st.integers(0, 2**31))
def test_patches_are_the_processors_bit_for_bit(width: int, height: int, seed: int) -> None:
    rgb = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    processor = Qwen2VLImageProcessorPil(min_pixels=CELL * CELL)
    expected = processor(images=[Pil.fromarray(rgb)], return_tensors="np")
    assert np.array_equal(patches(rgb), expected["pixel_values"])
    assert [list(grid(Image(b"", width, height)))] == expected["image_grid_thw"].tolist()


@pytest.fixture(scope="module")
def network() -> Qwen2_5_VLForConditionalGeneration:
    return Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig.from_pretrained(TINY))


pictures = st.builds(Image, st.just(b""), sides, sides)
parts = st.lists(st.integers(1, 5) | pictures, max_size=5)


def segment(parts: list[int | Image]) -> Segment:
    """Numbers are that many text tokens; each image stands between two."""
    ids: list[int] = []
    for part in parts:
        ids += [1] * part if isinstance(part, int) else [2, *[PAD] * image_tokens(part), 3]
    return Segment((*ids, 1), tuple(part for part in parts if isinstance(part, Image)))


@settings(max_examples=80, deadline=None)
@given(first=parts, second=parts)
def test_positions_are_those_of_get_rope_index(
    network: Qwen2_5_VLForConditionalGeneration, first: list[int | Image], second: list[int | Image]
) -> None:
    prefix, suffix = segment(first), segment(second)
    ids = torch.tensor([prefix.ids + suffix.ids])
    grids = [grid(image) for image in prefix.images + suffix.images]
    expected, _ = network.model.get_rope_index(
        ids,
        mm_token_type_ids=(ids == PAD).int(),
        image_grid_thw=torch.tensor(grids) if grids else None,
    )
    before, start = positions(prefix, PAD)
    after, _ = positions(suffix, PAD, start)

    assert np.concatenate([before, after], axis=1).tolist() == expected[:, 0].tolist()
