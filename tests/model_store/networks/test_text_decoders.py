"""The expected tensors of a decoder of text are those that transformers creates, and configurations
with other arithmetic are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model_store.checkpoint import resolve
from model_store.manifest import CheckpointUnusable, PixelBounds, write_manifest
from model_store.networks.text_decoders import TEXT_DECODERS, TextDecoder
from tests.qwen3 import write_qwen3

shapes = st.fixed_dictionaries(
    {
        "vocab_size": st.integers(1, 50),
        "hidden_size": st.sampled_from([8, 16]),
        "intermediate_size": st.integers(1, 20),
        "num_hidden_layers": st.integers(1, 2),
        "num_attention_heads": st.sampled_from([2, 4]),
    },
    optional={
        "num_key_value_heads": st.sampled_from([1, 2]),
        "head_dim": st.sampled_from([2, 4, 16]),
        "tie_word_embeddings": st.booleans(),
    },
)


def stated_defaults(decoder: TextDecoder, shape: dict[str, Any]) -> dict[str, Any]:
    """The counts that a small network needs stated: the authors' are those of a large one."""
    small = {"num_key_value_heads": 2, "head_dim": 4}
    return {name: small[name] for name in small if decoder.defaults.get(name)} | shape


@pytest.mark.parametrize("decoder", TEXT_DECODERS, ids=lambda decoder: decoder.model_type)
@settings(deadline=None, max_examples=25)
@given(shape=shapes)
def test_tensors_are_those_of_transformers(decoder: TextDecoder, shape: dict[str, Any]) -> None:
    config = stated_defaults(decoder, shape)
    kind = decoder.model_class()
    with torch.device("meta"):
        model = kind(kind.config_class(**config, pad_token_id=None))
    expected = {name: tuple(tensor.shape) for name, tensor in model.named_parameters()}
    assert decoder.tensor_shapes(config) == expected


@pytest.mark.parametrize("decoder", TEXT_DECODERS, ids=lambda decoder: decoder.model_type)
def test_what_a_configuration_does_not_state_is_transformers_default(decoder: TextDecoder) -> None:
    kind = decoder.model_class()
    with torch.device("meta"):
        model = kind(kind.config_class(num_hidden_layers=1))
    expected = {name: tuple(tensor.shape) for name, tensor in model.named_parameters()}
    assert decoder.tensor_shapes({"num_hidden_layers": 1}) == expected
    assert decoder.decoder_sizes({}).layers == kind.config_class().num_hidden_layers


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"use_sliding_window": True, "sliding_window": 4096}, "a sliding window of 4096 tokens"),
        ({"attention_bias": True}, "attention_bias"),
        (
            {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e6}},
            "rotary embeddings of the kind dynamic",
        ),
        ({"rope_parameters": 5}, "rope_parameters of config.json is no object"),
        ({"head_dim": None}, "head_dim is None, not a whole number"),
        ({"num_hidden_layers": 2}, "layers.2"),
    ],
)
def test_what_is_computed_differently_is_refused(
    tmp_path: Path, changes: dict[str, object], sentence: str
) -> None:
    folder = write_qwen3(tmp_path / "qwen3-small")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(config | changes), encoding="utf-8")
    with pytest.raises(CheckpointUnusable) as refused:
        resolve(str(folder))

    assert sentence in str(refused.value)


def test_a_manifest_of_another_family_is_refused(tmp_path: Path) -> None:
    """A Qwen3 folder whose manifest names GMR would be read with prompts of images."""
    folder = write_qwen3(tmp_path / "qwen3-small")
    manifest = resolve(str(folder)).manifest.model_copy(
        update={
            "family": "gmr",
            "template": "code",
            "pixels": PixelBounds(min_pixels=3136, max_pixels=50176),
        }
    )
    write_manifest(folder, manifest)
    with pytest.raises(CheckpointUnusable, match="the family gmr runs on Qwen2_5_VL"):
        resolve(str(folder))
