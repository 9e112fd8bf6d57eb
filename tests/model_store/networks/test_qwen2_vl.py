"""The expected tensors of a Qwen2-VL are those that transformers creates, and so are positions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

from model_store.families.prompt import Image, Segment
from model_store.networks.jina_vl import JINA_VL
from model_store.networks.qwen2_vl import QWEN2_VL

PAD = 9
shapes = st.fixed_dictionaries(
    {
        "vocab_size": st.integers(10, 50),
        "hidden_size": st.sampled_from([8, 16]),
        "intermediate_size": st.integers(1, 20),
        "num_hidden_layers": st.integers(1, 3),
        "num_attention_heads": st.sampled_from([2, 4]),
        "num_key_value_heads": st.sampled_from([1, 2]),
        "tie_word_embeddings": st.booleans(),
        "vision_config": st.fixed_dictionaries(
            {
                "depth": st.integers(1, 2),
                "embed_dim": st.sampled_from([8, 16]),
                "hidden_size": st.sampled_from([8, 24]),
                "mlp_ratio": st.integers(1, 4),
                "num_heads": st.just(2),
            }
        ),
    }
)


@settings(max_examples=30, deadline=None)
@given(shapes)
def test_tensors_are_those_of_transformers(shape: dict[str, Any]) -> None:
    with torch.device("meta"):
        model = Qwen2VLForConditionalGeneration(Qwen2VLConfig(**shape))
    model.tie_weights()
    expected = {name: tuple(tensor.shape) for name, tensor in model.named_parameters()}
    assert QWEN2_VL.tensor_shapes(shape) == expected


def test_jinas_network_has_a_head_of_two_layers_and_no_other() -> None:
    shape = {"hidden_size": 8, "num_attention_heads": 2, "num_key_value_heads": 1}
    config = shape | {"num_hidden_layers": 1, "vision_config": {"depth": 1, "hidden_size": 8}}
    with torch.device("meta"):
        model = JINA_VL.model_class()(Qwen2VLConfig(**config))
    expected = {name: tuple(tensor.shape) for name, tensor in model.named_parameters()}

    for tied in (True, False):
        assert JINA_VL.tensor_shapes(config | {"tie_word_embeddings": tied}) == expected
    assert expected["score.2.weight"] == (1, 8)


@pytest.fixture(scope="module")
def network() -> Qwen2VLForConditionalGeneration:
    config = {"vocab_size": 10, "hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1}
    vision = {"depth": 1, "embed_dim": 8, "num_heads": 2, "hidden_size": 8}
    with torch.device("meta"):
        return Qwen2VLForConditionalGeneration(Qwen2VLConfig(**config, vision_config=vision))


def test_positions_are_those_of_get_rope_index(network: Qwen2VLForConditionalGeneration) -> None:
    images = (Image(b"", 56, 84), Image(b"", 140, 28))
    ids = (1, 1, *[PAD] * 6, 1, 1, 1, *[PAD] * 5, 1)
    expected, _ = network.model.get_rope_index(
        torch.tensor([ids]),
        mm_token_type_ids=(torch.tensor([ids]) == PAD).int(),
        image_grid_thw=torch.tensor([QWEN2_VL.vision.grid(image) for image in images]),
    )
    found, _ = QWEN2_VL.positions(Segment(ids, images), PAD)
    assert np.array_equal(found, expected[:, 0].numpy())
