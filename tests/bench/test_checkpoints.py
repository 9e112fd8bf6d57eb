"""All contenders read one checkpoint, which states all of its settings; a large one has the layer
shapes of Qwen2.5-VL, and no weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from model_store.checkpoint import resolve
from model_store.folders.image_processor import PREPROCESSOR
from model_store.manifest import CheckpointUnusable
from model_store.sizing.network import network_cost
from service.bench.checkpoints import make_checkpoint
from service.bench.comparison.roofline import layer_matrices
from tests.bench.test_plan import plan
from tests.conftest import TINY


def test_the_shipped_checkpoint_states_its_normalisation() -> None:
    """vLLM's own server does not normalise for a processor that does not state it, and scores
    pictures wrongly."""
    stated = json.loads((TINY / PREPROCESSOR).read_text(encoding="utf-8"))
    meant = Qwen2VLImageProcessorPil().to_dict()
    for name in (
        "do_rescale",
        "rescale_factor",
        "do_normalize",
        "image_mean",
        "image_std",
        "do_convert_rgb",
    ):
        assert stated[name] == pytest.approx(meant[name])


def test_a_model_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointUnusable):
        make_checkpoint(plan(model="gmr-huge"), tmp_path)


@pytest.mark.parametrize(("size", "billions", "layers"), [("3b", 3.75, 36), ("7b", 8.29, 28)])
def test_large_checkpoints_have_the_layers_of_qwens_own(
    tmp_path: Path, size: str, billions: float, layers: int
) -> None:
    checkpoint = make_checkpoint(plan(model=size, contenders="ours"), tmp_path)
    assert not list(checkpoint.folder.rglob("*.safetensors"))
    assert checkpoint.family.label_ids == resolve("gmr-tiny").family.label_ids

    with torch.device("meta"):
        network = Qwen2_5_VLForConditionalGeneration(AutoConfig.from_pretrained(checkpoint.folder))
    assert network.num_parameters() / 1e9 == pytest.approx(billions, abs=0.01)

    matrices = layer_matrices(network_cost(str(checkpoint.folder)))
    layer = sum(inputs * outputs for inputs, outputs in matrices)
    counted = 0
    for name, parameter in network.model.language_model.layers.named_parameters():
        if name.endswith("proj.weight"):
            counted += parameter.numel()

    assert layers * layer == counted
