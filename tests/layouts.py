"""gmr-tiny's weights in the layouts that checkpoints on model hubs have: none with a manifest or
golden pairs.

Each layout is one `Layout`, a combination of choices; `write_layout` makes its folder. All have
gmr-tiny's logits, but an untied one: its head is twice the embeddings, so that its logits are twice
gmr-tiny's and show that the head was read.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file

from model_store.networks.qwen2_5_vl import QWEN2_5_VL
from tests.conftest import TINY

SHARDS = 3
_ABOUT_IMAGES = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")


@dataclass(frozen=True)
class Layout:
    """The files of a folder, by their variants; the defaults are gmr-tiny's own."""

    config: Literal["nested", "flat", "nested of 2025"] = "nested"
    tied: Literal["top", "text", "both", "no", "not said"] = "both"
    rope: Literal["rope_parameters", "mrope", "default"] = "rope_parameters"
    architectures: Literal["one", "none", "two"] = "one"
    names: Literal["old", "new"] = "old"
    sharded: bool = False
    dtype: Literal["BF16", "F32", "F16"] = "BF16"
    second_head: bool = False
    tokenizer: Literal["one file", "parts", "parts of 2024"] = "one file"
    template: Literal["jinja", "json", "in the tokenizer", "none"] = "jinja"
    processor: Literal["pixels", "size", "nested", "both", "none"] = "pixels"

    @property
    def factor(self) -> float:
        """Its logits divided by gmr-tiny's."""
        return 2.0 if self.untied else 1.0

    @property
    def untied(self) -> bool:
        return self.tied in ("no", "not said")


def stated(name: str) -> dict[str, Any]:
    """One of gmr-tiny's JSON files."""
    content: dict[str, Any] = json.loads((TINY / name).read_text(encoding="utf-8"))
    return content


def write_layout(folder: Path, layout: Layout) -> Path:
    """Make the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    put(folder, "config.json", config_of(layout))
    write_weights(folder, layout)
    write_tokenizer(folder, layout)
    write_template(folder, layout)
    write_processor(folder, layout)
    return folder


def put(folder: Path, name: str, content: object) -> None:
    (folder / name).write_text(json.dumps(content, indent=2), encoding="utf-8")


def config_of(layout: Layout) -> dict[str, Any]:
    """`config.json` in one of three layouts."""
    own = stated("config.json")
    text, vision = dict(own["text_config"]), dict(own["vision_config"])
    rope = text.pop("rope_parameters")
    text.pop("tie_word_embeddings")
    common = {"model_type": "qwen2_5_vl"} | {name: own[name] for name in _ABOUT_IMAGES}

    if layout.rope == "rope_parameters":
        text["rope_parameters"] = rope
    else:
        kind = layout.rope
        scaling = {"type": kind, "mrope_section": rope["mrope_section"]}
        text |= {
            "rope_theta": rope["rope_theta"],
            "rope_scaling": scaling if kind == "mrope" else scaling | {"rope_type": kind},
        }

    if layout.config == "nested":
        config = common | {"dtype": "bfloat16", "text_config": text, "vision_config": vision}
    else:
        for name in ("dtype", "layer_types", "pad_token_id"):
            text.pop(name)
        vision = {
            name: value
            for name, value in vision.items()
            if name not in ("rope_parameters", "dtype", "in_channels")
        }
        vision |= {"in_chans": 3, "spatial_patch_size": 14}
        common |= {"torch_dtype": "bfloat16", "vision_config": vision}
        if layout.config == "flat":
            text.pop("model_type")
            vision["model_type"] = "qwen2_5_vl"
            config = text | common
        else:
            config = text | common | {"text_config": text | {"torch_dtype": "bfloat16"}}

    say_tied(config, layout)
    named = {"one": own["architectures"], "two": ["SomebodysReranker", *own["architectures"]]}
    if layout.architectures != "none":
        config["architectures"] = named[layout.architectures]
    return config


def say_tied(config: dict[str, Any], layout: Layout) -> None:
    nested = config.get("text_config")
    if layout.tied in ("top", "both", "no"):
        config["tie_word_embeddings"] = layout.tied != "no"
    if nested is not None and layout.tied in ("text", "both", "no"):
        nested["tie_word_embeddings"] = layout.tied != "no"


def write_weights(folder: Path, layout: Layout) -> None:
    kind = {"BF16": torch.bfloat16, "F32": torch.float32, "F16": torch.float16}[layout.dtype]
    tensors = {
        QWEN2_5_VL.current_name(name): tensor.to(kind)
        for name, tensor in load_file(TINY / "model.safetensors").items()
    }
    if layout.untied:
        tensors[QWEN2_5_VL.head] = tensors[QWEN2_5_VL.embeddings] * 2
    elif layout.second_head:
        tensors[QWEN2_5_VL.head] = tensors[QWEN2_5_VL.embeddings].clone()

    if layout.names == "old":
        tensors = {old_name(name): tensor for name, tensor in tensors.items()}
    if not layout.sharded:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return

    files = {
        name: f"model-{1 + index % SHARDS:05}-of-{SHARDS:05}.safetensors"
        for index, name in enumerate(sorted(tensors))
    }
    for file in set(files.values()):
        part = {name: tensor for name, tensor in tensors.items() if files[name] == file}
        save_file(part, folder / file, metadata={"format": "pt"})
    put(folder, "model.safetensors.index.json", {"metadata": {}, "weight_map": files})


def old_name(name: str) -> str:
    """As transformers wrote it before 4.52, and as hubs have Qwen2.5-VL."""
    return name.replace("model.language_model.", "model.").replace("model.visual.", "visual.")


def write_tokenizer(folder: Path, layout: Layout) -> None:
    config = stated("tokenizer_config.json")
    if layout.tokenizer == "one file":
        shutil.copy(TINY / "tokenizer.json", folder)
    else:
        whole = stated("tokenizer.json")
        put(folder, "vocab.json", whole["model"]["vocab"])

        merges = [
            merge if isinstance(merge, str) else " ".join(merge)
            for merge in whole["model"]["merges"]
        ]
        (folder / "merges.txt").write_text(
            "#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8"
        )
        added = whole["added_tokens"]
        if layout.tokenizer == "parts":
            config["added_tokens_decoder"] = decoder = {}
            for token in added:
                number = token.pop("id")
                decoder[str(number)] = token
        else:
            numbers = {token["content"]: token["id"] for token in added}
            put(folder, "added_tokens.json", numbers)
    if layout.template == "in the tokenizer":
        config["chat_template"] = template()
    put(folder, "tokenizer_config.json", config)


def template() -> str:
    return (TINY / "chat_template.jinja").read_text(encoding="utf-8")


def write_template(folder: Path, layout: Layout) -> None:
    if layout.template == "jinja":
        (folder / "chat_template.jinja").write_text(template(), encoding="utf-8")
    elif layout.template == "json":
        put(folder, "chat_template.json", {"chat_template": template()})


def write_processor(folder: Path, layout: Layout) -> None:
    """Pixel bounds: gmr-tiny's, in one of the places that transformers reads; under `both` the
    other file has others."""
    own = stated("preprocessor_config.json")
    least, most = own.pop("min_pixels"), own.pop("max_pixels")
    size = {"shortest_edge": least, "longest_edge": most}
    nested = {
        "image_processor": own | {"size": size},
        "video_processor": own | {"size": size, "video_processor_type": "Qwen2VLVideoProcessor"},
        "processor_class": "Qwen2_5_VLProcessor",
    }
    match layout.processor:
        case "pixels":
            put(folder, "preprocessor_config.json", own | {"min_pixels": least, "max_pixels": most})
        case "size":
            put(folder, "preprocessor_config.json", own | {"size": size})
        case "nested":
            put(folder, "processor_config.json", nested)
        case "both":
            put(folder, "processor_config.json", nested)
            put(
                folder,
                "preprocessor_config.json",
                own | {"min_pixels": 3136, "max_pixels": 12_845_056},
            )
