"""Low-rank maps stand on the language model, and what is written is read back by peft."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from transformers import Qwen2_5_VLForConditionalGeneration as Network

from model_store.checkpoint import resolve_adapter
from model_store.networks.architecture import DecoderArchitecture
from model_store.networks.qwen2_5_vl import QWEN2_5_VL
from model_store.networks.text_decoders import QWEN3
from model_store.training.config import LoraConfig, TrainingError
from model_store.training.lora import add_lora, target_of, write_adapter
from tests.conftest import TINY

ARCHITECTURE = QWEN2_5_VL


def network() -> Network:
    return Network.from_pretrained(TINY, dtype=torch.float32)


def adapted(model: PeftModel) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, LoraLayer)]


def test_the_language_model_and_nothing_else_is_adapted() -> None:
    model = add_lora(network(), LoraConfig(), ARCHITECTURE)
    assert len(adapted(model)) == 4 * 7
    assert all(".language_model.layers." in name for name in adapted(model))
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert len(trained) == 2 * 28
    assert not [
        name for name in trained if "visual" in name or "lm_head" in name or "embed" in name
    ]


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        # a name that peft would look for everywhere is no whole name here
        (r"gate_proj", "matches none"),
        (r".*\.(gate|up|down)_proj", "in the vision tower; lora.vision"),
        (r".*\.language_model\.layers\.\d+\.(mlp|self_attn\.q_proj)", "no linear map"),
        (r"lm_head", "lora.lm_head: true allows"),
        (r"(", "not a regular expression"),
        (r".*\.language_model\.layer\.\d+\.mlp\.up_proj", "matches none"),
    ],
)
def test_a_pattern_that_misses_is_refused(target: str, sentence: str) -> None:
    with pytest.raises(TrainingError, match=sentence):
        add_lora(network(), LoraConfig(target=target), ARCHITECTURE)


def test_the_vision_tower_is_adapted_where_it_was_asked_for() -> None:
    model = add_lora(
        network(), LoraConfig(target=r".*\.(gate|up|down)_proj", vision=True), ARCHITECTURE
    )
    assert sum(".visual." in name for name in adapted(model)) == 4 * 3


def test_a_written_adapter_is_read_back_and_known_to_the_registry(tmp_path: Path) -> None:
    model = add_lora(network(), LoraConfig(rank=4, alpha=8), ARCHITECTURE)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(
                parameter, std=0.1, generator=torch.Generator().manual_seed(len(name))
            )
    weights = {name: value for name, value in model.state_dict().items() if "lora_" in name}
    write_adapter(tmp_path, model, weights, "gmr-tiny")
    ids = torch.arange(20)[None]
    again = PeftModel.from_pretrained(network(), tmp_path)
    plain = network()(input_ids=ids).logits
    assert torch.equal(again(input_ids=ids).logits, model(input_ids=ids).logits)
    assert not torch.allclose(plain, model(input_ids=ids).logits, atol=1e-2)
    assert resolve_adapter("mine", tmp_path).rank == 4
    settings = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (settings["base_model_name_or_path"], settings["inference_mode"]) == ("gmr-tiny", True)


@pytest.mark.parametrize("architecture", [QWEN2_5_VL, QWEN3], ids=lambda found: found.model_type)
def test_the_default_pattern_names_the_language_models_maps(
    architecture: DecoderArchitecture,
) -> None:
    pattern = target_of(LoraConfig(), architecture)
    layer = f"{architecture.language_prefix}layers.3."
    for module in ("self_attn.q_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.down_proj"):
        assert re.fullmatch(pattern, layer + module)
    assert not re.fullmatch(pattern, "model.visual.blocks.3.mlp.gate_proj")
    assert not re.fullmatch(pattern, "lm_head")
    assert target_of(LoraConfig(target="a"), architecture) == "a"


def test_the_default_pattern_is_the_one_of_published_configurations() -> None:
    assert target_of(LoraConfig(), QWEN2_5_VL) == (
        r".*\.language_model\.layers\.\d+\.(self_attn\.(q|k|v|o)_proj|mlp\.(gate|up|down)_proj)"
    )
