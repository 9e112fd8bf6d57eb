"""Pixel bounds are those that transformers takes from the same folder, wherever they are stated."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from model_store.families.gmr import MAX_PIXELS, Gmr
from model_store.folders.image_processor import PREPROCESSOR, PROCESSOR, has_processor, pixel_bounds
from model_store.manifest import CheckpointUnusable, PixelBounds
from model_store.networks.qwen2_5_vl import QWEN2_5_VL
from tests.layouts import put, stated

least, most = st.integers(1, 10**6), st.integers(1, 2 * 10**7)
whole_size = st.fixed_dictionaries({"shortest_edge": least, "longest_edge": most})
bounds = st.fixed_dictionaries(
    {},
    optional={"min_pixels": least | st.none(), "max_pixels": most | st.none(), "size": whole_size},
)
processors = st.one_of(
    st.none(),
    st.just({}),
    bounds,
    st.builds(lambda nested: {"image_processor": nested, "min_pixels": 5}, bounds),
)


def bounds_of(folder: Path) -> PixelBounds:
    images = Gmr.image_template
    assert images
    return pixel_bounds("m", folder, QWEN2_5_VL.vision.processor, images.pixels)


@settings(max_examples=80, deadline=None)
@given(preprocessor=st.none() | bounds, processor=processors)
def test_bounds_are_those_of_transformers(
    preprocessor: dict[str, Any] | None, processor: dict[str, Any] | None
) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for name, content in ((PREPROCESSOR, preprocessor), (PROCESSOR, processor)):
            if content is not None:
                put(folder, name, content)
        try:
            size = Qwen2VLImageProcessorPil.from_pretrained(folder).size
        except OSError:
            assert bounds_of(folder).max_pixels == MAX_PIXELS
            return

        shortest, longest = size["shortest_edge"], size["longest_edge"]
        if shortest > min(longest, MAX_PIXELS):
            with pytest.raises(CheckpointUnusable, match="min_pixels is"):
                bounds_of(folder)
        else:
            expected = PixelBounds(min_pixels=shortest, max_pixels=min(longest, MAX_PIXELS))
            assert bounds_of(folder) == expected


@pytest.mark.parametrize(
    ("files", "whole"),
    [
        ({}, False),
        ({PREPROCESSOR: {}}, True),
        ({PROCESSOR: {}}, False),
        ({PROCESSOR: {"image_processor": {}}}, False),
        ({PROCESSOR: {"image_processor": {}, "video_processor": {}}}, True),
        ({PROCESSOR: {"image_processor": {}}, "video_preprocessor_config.json": {}}, True),
    ],
)
def test_a_whole_processor_reads_videos_too(
    tmp_path: Path, files: dict[str, object], whole: bool
) -> None:
    for name, content in files.items():
        put(tmp_path, name, content)
    assert has_processor("m", tmp_path) == whole


@pytest.mark.parametrize("nested", [None, [], "x"])
def test_a_nested_processor_that_is_no_object(tmp_path: Path, nested: object) -> None:
    put(tmp_path, PROCESSOR, {"image_processor": nested})
    put(tmp_path, PREPROCESSOR, stated(PREPROCESSOR))
    with pytest.raises(
        CheckpointUnusable, match=r"^m: image_processor of processor_config\.json is no object\.$"
    ):
        bounds_of(tmp_path)
