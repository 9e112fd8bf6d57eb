"""Tensors, patches and positions equal those of transformers, and configurations with other
arithmetic are refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pil
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from model_store.checkpoint import resolve
from model_store.families.prompt import Image, Segment
from model_store.manifest import CheckpointUnusable
from model_store.networks.qwen3_vl import QWEN3_VL
from tests.layouts import put
from tests.qwen3_vl import TEXT, VISION, config_of, write_qwen3_vl

PAD = 9
CELL = 32
tower = QWEN3_VL.vision
sides = st.integers(1, 6).map(lambda cells: cells * CELL)


@settings(max_examples=40, deadline=None)
@given(width=sides, height=sides, seed=st.integers(0, 2**31))
def test_patches_are_the_processors_bit_for_bit(width: int, height: int, seed: int) -> None:
    rgb = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    processor = Qwen2VLImageProcessorPil(**tower.preprocessor, min_pixels=CELL * CELL)
    expected = processor(images=[Pil.fromarray(rgb)], return_tensors="np")
    assert np.array_equal(tower.patches(rgb), expected["pixel_values"])
    assert [list(tower.grid(Image(b"", width, height)))] == expected["image_grid_thw"].tolist()


text_shapes = st.fixed_dictionaries(
    {
        "vocab_size": st.integers(1, 50),
        "hidden_size": st.sampled_from([8, 16]),
        "intermediate_size": st.integers(1, 20),
        "num_hidden_layers": st.integers(1, 3),
        "num_attention_heads": st.sampled_from([2, 4]),
        "num_key_value_heads": st.sampled_from([1, 2]),
        "head_dim": st.sampled_from([4, 16]),
        "rope_parameters": st.just(TEXT["rope_parameters"]),
    }
)
vision_shapes = st.fixed_dictionaries(
    {
        "depth": st.just(4),
        "hidden_size": st.sampled_from([8, 16]),
        "intermediate_size": st.integers(1, 20),
        "num_heads": st.just(2),
        "num_position_embeddings": st.sampled_from([4, 9, 30]),
        "deepstack_visual_indexes": st.lists(st.integers(0, 3), unique=True, max_size=4),
    }
)


@settings(deadline=None)
@given(text=text_shapes, vision=vision_shapes, tied=st.booleans())
def test_tensors_are_those_of_transformers(
    text: dict[str, Any], vision: dict[str, Any], tied: bool
) -> None:
    shape = {
        "text_config": text,
        "vision_config": vision | {"out_hidden_size": text["hidden_size"]},
        "tie_word_embeddings": tied,
    }
    with torch.device("meta"):
        model = Qwen3VLForConditionalGeneration(Qwen3VLConfig(**shape))
    expected = {name: tuple(tensor.shape) for name, tensor in model.named_parameters()}
    assert QWEN3_VL.tensor_shapes(shape) == expected
    assert tower.sizes(shape).deepstack == len(vision["deepstack_visual_indexes"])


@pytest.fixture(scope="module")
def network() -> Qwen3VLForConditionalGeneration:
    with torch.device("meta"):
        return Qwen3VLForConditionalGeneration(
            Qwen3VLConfig(text_config=TEXT, vision_config=VISION)
        )


pictures = st.builds(Image, st.just(b""), sides, sides)
parts = st.lists(st.integers(1, 5) | pictures, max_size=5)


def segment(parts: list[int | Image]) -> Segment:
    """Numbers are that many text tokens; each image stands between two."""
    ids: list[int] = []
    for part in parts:
        if isinstance(part, int):
            ids += [1] * part
        else:
            ids += [2, *[PAD] * (part.width // CELL * (part.height // CELL)), 3]
    return Segment((*ids, 1), tuple(part for part in parts if isinstance(part, Image)))


@settings(max_examples=80, deadline=None)
@given(first=parts, second=parts)
def test_positions_are_those_of_get_rope_index(
    network: Qwen3VLForConditionalGeneration, first: list[int | Image], second: list[int | Image]
) -> None:
    prefix, suffix = segment(first), segment(second)
    ids = torch.tensor([prefix.ids + suffix.ids])
    grids = [tower.grid(image) for image in prefix.images + suffix.images]
    expected, _ = network.model.get_rope_index(
        ids,
        mm_token_type_ids=(ids == PAD).int(),
        image_grid_thw=torch.tensor(grids) if grids else None,
    )
    before, start = QWEN3_VL.positions(prefix, PAD)
    after, _ = QWEN3_VL.positions(suffix, PAD, start)

    assert np.concatenate([before, after], axis=1).tolist() == expected[:, 0].tolist()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_qwen3_vl(tmp_path_factory.mktemp("models") / "qwen3-vl-reranker-small")


ROPE = TEXT["rope_parameters"]
OLD_ROPE = {"rope_scaling": ROPE, "rope_theta": 5_000_000, "rope_parameters": None}


@pytest.mark.parametrize(
    ("level", "changes", "sentence"),
    [
        ("text_config", {"attention_bias": True}, "attention_bias"),
        ("text_config", {"rope_parameters": 5}, "rope_parameters of config.json is no object"),
        (
            "text_config",
            {"rope_parameters": ROPE | {"rope_type": "yarn"}},
            "rotary embeddings of the kind 'yarn'",
        ),
        (
            "text_config",
            {"rope_parameters": ROPE | {"mrope_interleaved": False}},
            "do not state mrope_interleaved",
        ),
        ("text_config", {"rope_parameters": None}, "do not state mrope_section"),
        ("text_config", {"num_hidden_layers": 2}, "layers.2"),
        ("vision_config", {"patch_size": 14}, "patch_size of config.json is 14, and only 16"),
        ("vision_config", {"out_hidden_size": 64}, "out_hidden_size is 64, and hidden_size"),
        ("vision_config", {"deepstack_visual_indexes": [0]}, "deepstack_merger_list.1"),
        ("vision_config", {"deepstack_visual_indexes": [0, 3]}, "of the 3 that the vision tower"),
        ("vision_config", {"deepstack_visual_indexes": [2, 2]}, "not a list of different layers"),
        ("vision_config", {"deepstack_visual_indexes": None}, "deepstack_visual_indexes is None"),
        ("vision_config", {"depth": "3"}, "depth is '3', not a whole number"),
    ],
)
def test_what_is_computed_differently_is_refused(
    folder: Path, level: str, changes: dict[str, object], sentence: str
) -> None:
    config = config_of(folder)
    try:
        put(folder, "config.json", config | {level: config[level] | changes})
        with pytest.raises(CheckpointUnusable) as refused:
            resolve(str(folder))
    finally:
        put(folder, "config.json", config)

    assert sentence in str(refused.value)


def test_the_rotary_embeddings_of_2025_are_read(folder: Path, tmp_path: Path) -> None:
    """As the hub's folders state them; transformers makes the same of both."""
    other = Path(shutil.copytree(folder, tmp_path / folder.name))
    config = config_of(folder)
    old = config["text_config"] | OLD_ROPE
    del old["rope_parameters"]
    put(other, "config.json", config | {"text_config": old})

    assert resolve(str(other)).manifest.family == "qwen3-vl-reranker"
    read = Qwen3VLConfig.from_pretrained(other).text_config.rope_parameters
    assert read == Qwen3VLConfig.from_pretrained(folder).text_config.rope_parameters


@pytest.mark.parametrize(
    "settings",
    [{"image_mean": [0.48145466, 0.4578275, 0.40821073]}, {"patch_size": 14}, {"resample": 2}],
)
def test_a_processor_with_other_arithmetic_is_refused(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    folder = write_qwen3_vl(tmp_path / "qwen3-vl-reranker-small", processor=settings)
    (name,) = settings
    with pytest.raises(CheckpointUnusable, match=f"{name} of preprocessor_config.json is"):
        resolve(str(folder))
