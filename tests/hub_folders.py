"""A small checkpoint of every family in the forms that hubs have of such a model.

`WRITERS` makes a folder of each family as its authors publish it. `as_of_2024` and
`as_of_transformers_5` change a folder into the forms of two times, in every choice at once;
`quantised` and `as_adapter` make of it what other tools publish. Which scores a folder has is known
from the folder that it was made of.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import CONFIG_MAPPING, AutoConfig

from model_store.networks.catalogue import ARCHITECTURES, DECODERS
from tests import chat_rerankers, erank, layouts, pair_networks
from tests.qwen2_vl import write_qwen2_vl
from tests.qwen3_vl import write_qwen3_vl
from tests.text_decoders import RERANKERS, write_reranker

SHARDS = 3
WEIGHTS = "model.safetensors"
EXECUTED = "executed"
"""A file that appears where code or a pickle of the folder was executed."""
_QWENS = ("qwen2", "qwen3", "qwen2_vl", "qwen2_5_vl", "qwen3_vl")
"""Networks whose tokenizer hubs have in two files."""
FLAT = ("qwen2_vl", "qwen2_5_vl")
"""Networks whose `config.json` had no `text_config` in 2024."""

Write = Callable[[Path], Path]
"""From a folder for models to the folder of one."""


def _small(family: str) -> Write:
    return lambda root: write_reranker(root, family)


def _nemotron(root: Path) -> Path:
    folder = pair_networks.write_pair_network(root / "llama-nemotron-rerank-1b-v2", "Llama")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        content = (folder / name).read_text(encoding="utf-8")
        renamed = content.replace("<|begin|>", "<|begin_of_text|>")
        (folder / name).write_text(renamed, encoding="utf-8")
    own = {
        "architectures": ["LlamaBidirectionalForSequenceClassification"],
        "model_type": "llama_bidirec",
        "pooling": "avg",
        "temperature": 1.0,
    }
    layouts.put(folder, "config.json", read(folder, "config.json") | own)
    return folder


WRITERS: Mapping[str, Write] = {family: _small(family) for family in RERANKERS} | {
    "gmr": lambda root: layouts.write_layout(root / "gmr-small", layouts.Layout()),
    "qwen3-vl-reranker": lambda root: write_qwen3_vl(root / "Qwen3-VL-Reranker-2B"),
    "jina-reranker-m0": lambda root: write_qwen2_vl(root / "jina-reranker-m0", ranking=True),
    "mono-qwen2-vl": lambda root: write_qwen2_vl(root / "MonoQwen2-VL-v0.1"),
    "erank": lambda root: erank.write_erank(root / "ERank-4B"),
    "text-pair": lambda root: pair_networks.write_pair_network(root / "mine", "XLMRoberta"),
    "nemotron-rerank": _nemotron,
    "sentence-transformers": lambda root: chat_rerankers.write_text(root / "mine"),
}


def read(folder: Path, name: str) -> dict[str, Any]:
    """A JSON file of a folder; empty where there is none."""
    path = folder / name
    if not path.exists():
        return {}
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def as_of_2024(folder: Path) -> Path:
    """Shards, older names and fields, a tokenizer in two files, and pickles beside the weights."""
    config = read(folder, "config.json")
    architecture = ARCHITECTURES[config["architectures"][0]]
    tensors = load_file(folder / WEIGHTS)
    if architecture.is_tied(config) and architecture.head not in tensors:
        # as trainers of the time saved it
        tensors[architecture.head] = tensors[_stored(tensors, architecture.embeddings)].clone()

    decoder, named = DECODERS.get(architecture.name), {}
    for name, tensor in tensors.items():
        current = architecture.current_name(name)
        named[decoder.oldest_name(current) if decoder else current] = tensor
    _write_shards(folder, named)
    layouts.put(folder, "config.json", _older_config(config))
    _move_template(folder)
    if config["model_type"] in _QWENS:
        _split_tokenizer(folder)
    _beside(folder)
    return folder


def as_of_transformers_5(folder: Path) -> Path:
    """One file in float32, today's names and fields, an untied head, and code of the folder's own.

    The head is twice the embeddings, so that scores of labels are twice those of the tied folder.
    """
    config = read(folder, "config.json")
    architecture = ARCHITECTURES[config["architectures"][0]]
    tensors: dict[str, torch.Tensor] = {}
    for name, tensor in load_file(folder / WEIGHTS).items():
        tensors[architecture.current_name(name)] = tensor.float()

    if config["model_type"] in CONFIG_MAPPING:
        AutoConfig.from_pretrained(folder).save_pretrained(folder)
    config = read(folder, "config.json") | {"dtype": "float32"}
    if is_untied(folder, config):
        tensors[architecture.head] = 2 * tensors[architecture.embeddings]
        for level in (config, config.get("text_config", {})):
            level["tie_word_embeddings"] = False
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})

    own = {"AutoConfig": "modeling.Evil", "AutoModelForCausalLM": "modeling.Evil"}
    layouts.put(folder, "config.json", config | {"auto_map": own})
    code = f"import pathlib\npathlib.Path({str(folder / EXECUTED)!r}).touch()\nclass Evil: pass\n"
    (folder / "modeling.py").write_text(code, encoding="utf-8")
    _nest_processor(folder)
    return folder


def is_untied(folder: Path, config: Mapping[str, Any]) -> bool:
    """True where `as_of_transformers_5` gives a folder a head of its own.

    jina-reranker-m0 has no head of a vocabulary.
    """
    (architecture,) = config["architectures"]
    return ARCHITECTURES[architecture].is_tied(config) and architecture != "JinaVLForRanking"


def quantised(folder: Path, method: str) -> Path:
    """The folder as a quantising tool saves it: every projection of the decoder in its form."""
    tensors: dict[str, torch.Tensor] = {}
    for name, tensor in load_file(folder / WEIGHTS).items():
        module, _, kind = name.rpartition(".")
        is_projection = kind == "weight" and ".layers." in name and module.endswith("_proj")
        if is_projection:
            for suffix, part in _QUANTISE[method](tensor).items():
                tensors[f"{module}.{suffix}"] = part
        else:
            tensors[name] = tensor

    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    layouts.put(
        folder,
        "config.json",
        read(folder, "config.json") | {"quantization_config": QUANTISATIONS[method]},
    )
    return folder


def as_adapter(folder: Path) -> Path:
    """The folder of a LoRA adapter of the model, as peft saves it."""
    for path in folder.iterdir():
        if path.is_file() and not path.name.startswith("tokenizer"):
            path.unlink()
    layouts.put(
        folder,
        "adapter_config.json",
        {"peft_type": "LORA", "base_model_name_or_path": "somebody/base", "r": 8},
    )
    down = torch.zeros(8, 16)
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    save_file({name: down}, folder / "adapter_model.safetensors")
    return folder


QUANTISATIONS: Mapping[str, Mapping[str, Any]] = {
    "awq": {
        "quant_method": "awq",
        "bits": 4,
        "group_size": 32,
        "version": "gemm",
        "zero_point": True,
    },
    "gptq": {"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": False, "sym": True},
    "compressed-tensors": {
        "quant_method": "compressed-tensors",
        "format": "float-quantized",
        "quantization_status": "compressed",
        "ignore": ["lm_head"],
        "config_groups": {
            "group_0": {
                "targets": ["Linear"],
                "weights": {
                    "num_bits": 8,
                    "type": "float",
                    "strategy": "channel",
                    "dynamic": False,
                    "symmetric": True,
                },
                "input_activations": {
                    "num_bits": 8,
                    "type": "float",
                    "strategy": "token",
                    "dynamic": True,
                    "symmetric": True,
                },
            }
        },
    },
}


def _integers(weight: torch.Tensor) -> dict[str, torch.Tensor]:
    rows, columns = weight.shape
    groups = max(columns // 32, 1)
    return {
        "qweight": torch.zeros(columns, rows // 8, dtype=torch.int32),
        "qzeros": torch.zeros(groups, rows // 8, dtype=torch.int32),
        "scales": torch.ones(groups, rows, dtype=torch.float16),
    }


def _with_order(weight: torch.Tensor) -> dict[str, torch.Tensor]:
    order = torch.arange(weight.shape[1], dtype=torch.int32) // 32
    return _integers(weight) | {"g_idx": order}


def _floats(weight: torch.Tensor) -> dict[str, torch.Tensor]:
    scale = weight.float().abs().amax(1, keepdim=True).clamp(min=1e-6) / 448
    eight_bits = (weight.float() / scale).to(torch.float8_e4m3fn)
    return {"weight": eight_bits, "weight_scale": scale.to(torch.bfloat16)}


_QUANTISE: Mapping[str, Callable[[torch.Tensor], dict[str, torch.Tensor]]] = {
    "awq": _integers,
    "gptq": _with_order,
    "compressed-tensors": _floats,
}


def _stored(tensors: Mapping[str, Any], current: str) -> str:
    """The name of a tensor in a file whose names may be older."""
    return current if current in tensors else current.replace("model.language_model.", "model.")


def _write_shards(folder: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    (folder / WEIGHTS).unlink()
    files: dict[str, str] = {}
    for index, name in enumerate(sorted(tensors)):
        files[name] = f"model-{1 + index % SHARDS:05}-of-{SHARDS:05}.safetensors"
    for file in set(files.values()):
        part = {name: tensor for name, tensor in tensors.items() if files[name] == file}
        save_file(part, folder / file, metadata={"format": "pt"})
    layouts.put(folder, f"{WEIGHTS}.index.json", {"metadata": {}, "weight_map": files})


def _older_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """`config.json` with the fields of transformers 4."""
    older = _older_level(config)
    text = older.get("text_config")
    if text is None:
        return older

    text = _older_level(text)
    if older["model_type"] not in FLAT:
        return older | {"text_config": text}
    del older["text_config"]
    for name in ("model_type", "layer_types", "architectures"):
        text.pop(name, None)
    return text | older


def _older_level(config: Mapping[str, Any]) -> dict[str, Any]:
    older = dict(config)
    if "dtype" in older:
        older["torch_dtype"] = older.pop("dtype")
    rope = older.pop("rope_parameters", None)
    if rope:
        rope = dict(rope)
        older["rope_theta"] = rope.pop("rope_theta")
        is_default = rope == {"rope_type": "default"}
        older["rope_scaling"] = None if is_default else rope | {"type": rope["rope_type"]}
    if older.get("model_type") == "gemma":
        older |= {"hidden_act": "gelu", "hidden_activation": None}
    return older


def _move_template(folder: Path) -> None:
    """The chat template in the tokenizer's settings."""
    template = folder / "chat_template.jinja"
    if template.exists() and not (folder / "modules.json").exists():
        settings = read(folder, "tokenizer_config.json")
        settings["chat_template"] = template.read_text(encoding="utf-8")
        template.unlink()
        layouts.put(folder, "tokenizer_config.json", settings)


def _split_tokenizer(folder: Path) -> None:
    """`vocab.json` and `merges.txt`, with the added tokens in the tokenizer's settings."""
    whole, settings = read(folder, "tokenizer.json"), read(folder, "tokenizer_config.json")
    layouts.put(folder, "vocab.json", whole["model"]["vocab"])
    merges = []
    for merge in whole["model"]["merges"]:
        merges.append(merge if isinstance(merge, str) else " ".join(merge))
    lines = "\n".join(["#version: 0.2", *merges, ""])
    (folder / "merges.txt").write_text(lines, encoding="utf-8")

    settings["added_tokens_decoder"] = decoder = {}
    for token in whole["added_tokens"]:
        decoder[str(token.pop("id"))] = token
    layouts.put(folder, "tokenizer_config.json", settings)
    (folder / "tokenizer.json").unlink()


class _Trap:
    """A pickle that leaves a mark where it is loaded."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self._mark,)


def _beside(folder: Path) -> None:
    """Files of other formats, which nothing here may open."""
    for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt"):
        (folder / name).write_bytes(pickle.dumps(_Trap(folder / EXECUTED)))
    (folder / "onnx").mkdir()
    (folder / "onnx" / "model.onnx").write_bytes(b"\x08\x08")
    (folder / "README.md").write_text("---\nlicense: other\n---\n", encoding="utf-8")
    (folder / ".gitattributes").write_text("*.bin filter=lfs\n", encoding="utf-8")


def _nest_processor(folder: Path) -> None:
    """Bounds of pixels as a size, in `processor_config.json`."""
    own = read(folder, "preprocessor_config.json")
    if not own:
        return

    (folder / "preprocessor_config.json").unlink()
    bounds = [own.pop(name, None) for name in ("min_pixels", "max_pixels")]
    if None not in bounds:
        own["size"] = {"shortest_edge": bounds[0], "longest_edge": bounds[1]}
    video = own | {"video_processor_type": "Qwen2VLVideoProcessor"}
    layouts.put(
        folder,
        "processor_config.json",
        {
            "image_processor": own,
            "video_processor": video,
            "processor_class": own.get("processor_class"),
        },
    )
