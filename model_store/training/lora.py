"""Low-rank maps (LoRA) beside the base's linear maps, by peft.

Depends on names of modules, not on data. Invariant: the trained parameters are those of the maps
that the pattern names, all of them and no others. The vision tower and the vocabulary's head have
none unless the configuration allows it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import peft
from peft.tuners.lora import LoraLayer
from safetensors.torch import save
from torch import Tensor, nn
from transformers import PreTrainedModel

from model_store.adapters.folder import with_sorted_metadata
from model_store.folders.covered_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from model_store.networks.architecture import DecoderArchitecture
from model_store.training.config import LoraConfig, TrainingError

_MAPS = r"layers\.\d+\.(self_attn\.(q|k|v|o)_proj|mlp\.(gate|up|down)_proj)"


def target_of(config: LoraConfig, architecture: DecoderArchitecture) -> str:
    """The pattern of adapted modules: the configured one, or every linear map of the language
    model's layers.

    The default names the language model: a vision tower may have an `mlp.gate_proj`, too.
    """
    if config.target is not None:
        return config.target

    outer, _, inner = architecture.language_prefix.removesuffix(".").rpartition(".")
    prefix = r".*\." if outer else ""
    return rf"{prefix}{re.escape(inner)}\.{_MAPS}"


def add_lora(
    network: PreTrainedModel, config: LoraConfig, architecture: DecoderArchitecture
) -> peft.PeftModel:
    """Add low-rank maps to `network` in place and freeze all else; raises `TrainingError` where the
    pattern names no linear map, or more than those."""
    wanted = _targets(network, config, target_of(config, architecture), architecture)
    model = peft.get_peft_model(network, checked_settings(network, config, architecture))

    made = {
        name.removeprefix("base_model.model.")
        for name, module in model.named_modules()
        if isinstance(module, LoraLayer)
    }
    if made != wanted:
        raise TrainingError(
            f"lora.target: {len(wanted)} modules match, and peft adapted {len(made)}."
        )

    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    strangers = [name for name in trained if ".lora_A." not in name and ".lora_B." not in name]
    if strangers or len(trained) != 2 * len(wanted):
        raise TrainingError(
            f"lora.target: of {len(trained)} trained tensors {len(strangers)} are no low-rank maps."
        )

    return model


def checked_settings(
    network: PreTrainedModel, config: LoraConfig, architecture: DecoderArchitecture
) -> peft.LoraConfig:
    """peft's own configuration, for a trainer that adds the maps; raises `TrainingError` as
    `add_lora` does."""
    pattern = target_of(config, architecture)
    _targets(network, config, pattern, architecture)
    return peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=pattern,
        bias="none",
        task_type="CAUSAL_LM",
    )


def write_adapter(
    folder: Path,
    model: peft.PeftModel,
    weights: dict[str, Tensor],
    base: str,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write peft's folder, as `PeftModel.from_pretrained` and vLLM read it.

    `weights` are by their names in `model`. `base` is the base's name as the configuration has it,
    not the path of its files. `metadata` goes into the header of the weights' file, which stays
    with them wherever they are copied.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # the default, "auto", sends a request to the hub; embeddings are never trained here
    tensors = peft.get_peft_model_state_dict(model, state_dict=weights, save_embedding_layers=False)
    content = save(
        {name: tensor.contiguous() for name, tensor in tensors.items()},
        {"format": "pt", **(metadata or {})},
    )
    (folder / ADAPTER_WEIGHTS).write_bytes(with_sorted_metadata(content))

    settings = {
        key: sorted(value) if isinstance(value, set) else value
        for key, value in model.peft_config["default"].to_dict().items()
    }
    settings |= {"base_model_name_or_path": base, "inference_mode": True}
    (folder / ADAPTER_CONFIG).write_text(
        json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8"
    )


def _targets(
    network: PreTrainedModel, config: LoraConfig, target: str, architecture: DecoderArchitecture
) -> set[str]:
    """Names of the linear maps that the pattern matches, checked before the network is changed."""
    try:
        pattern = re.compile(target)
    except (re.error, RecursionError, OverflowError):
        raise TrainingError("lora.target is not a regular expression.") from None
    linear = {name for name, module in network.named_modules() if isinstance(module, nn.Linear)}
    wanted = {name for name in linear if pattern.fullmatch(name)}
    if not wanted:
        raise TrainingError(
            f"lora.target matches none of the base's linear maps, such as {min(linear)}."
        )

    for name, _ in network.named_modules():
        if pattern.fullmatch(name) and name not in linear:
            raise TrainingError(f"lora.target matches {name}, which is no linear map.")

    tower = architecture.vision.prefix if architecture.vision else None
    vision = [name for name in wanted if tower is not None and name.startswith(tower)]
    if vision and not config.vision:
        raise TrainingError(
            f"lora.target matches {min(vision)} in the vision tower; lora.vision: true allows that."
        )
    if architecture.head.removesuffix(".weight") in wanted and not config.lm_head:
        raise TrainingError("lora.target matches lm_head; lora.lm_head: true allows that.")

    return wanted
