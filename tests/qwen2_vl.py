"""Small Qwen2-VLs with random weights, and the scores that the authors of jina-reranker-m0 and of
MonoQwen2-VL give a pair: prompts as texts through transformers' tokenizer and image processor, and
one forward pass.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image as Pil
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoTokenizer, Qwen2VLConfig, Qwen2VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from model_store.checkpoint import Checkpoint
from model_store.families.prompt import Image, Item, Prompt
from tests.conftest import TINY

IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
CELL = 28
SCORE_ID = 100
CHAT_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ message['role'] }}\n{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif 'text' in part %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Qwen2-VL's own, without its branches for videos and numbered images."""

Side = tuple[str | Pil.Image, ...]
"""At most one image and one text."""


def write_qwen2_vl(
    folder: Path,
    *,
    seed: int = 0,
    tied: bool = True,
    ranking: bool = False,
    names: str = "old",
    **changes: Any,
) -> Path:
    """Write a folder as a hub has it; with `ranking` it is jina-reranker-m0's network.

    `names` are those of transformers before 4.52 or the new ones; `changes` are fields of
    `config.json`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(TINY / file, folder / file)
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
    processor = _read(TINY / "preprocessor_config.json") | {
        "processor_class": "Qwen2VLProcessor",
        "min_pixels": 3_136,
        "max_pixels": 12_845_056,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor), encoding="utf-8")

    config = _config(tied=tied, ranking=ranking) | changes
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    torch.manual_seed(seed)
    network = Qwen2VLForConditionalGeneration(Qwen2VLConfig.from_pretrained(folder))
    save_file(
        _stored(network, tied=tied, ranking=ranking, names=names),
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    return folder


def _config(*, tied: bool, ranking: bool) -> dict[str, Any]:
    """A flat `config.json`, as of 2024."""
    kind = "JinaVLForRanking" if ranking else "Qwen2VLForConditionalGeneration"
    config = {
        "architectures": [kind],
        "model_type": "qwen2_vl",
        "torch_dtype": "bfloat16",
        "vocab_size": 16_384,
        "hidden_size": 128,
        "intermediate_size": 192,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 32_768,
        "max_window_layers": 3,
        "use_sliding_window": False,
        "sliding_window": 32_768,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1_000_000.0,
        "rope_scaling": {"type": "mrope", "mrope_section": [8, 12, 12]},
        "initializer_range": 0.1,
        "tie_word_embeddings": tied,
        "vision_config": {
            "depth": 2,
            "embed_dim": 64,
            "hidden_size": 128,
            "num_heads": 2,
            "mlp_ratio": 2,
            "in_chans": 3,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "spatial_patch_size": 14,
            "temporal_patch_size": 2,
            "initializer_range": 0.1,
        },
    }
    own = _read(TINY / "config.json")
    for field in ("image_token_id", "video_token_id", "vision_start_token_id"):
        config[field] = own[field]
    config["vision_end_token_id"] = own["vision_end_token_id"]
    config |= {"bos_token_id": None, "eos_token_id": None}
    if ranking:
        config["auto_map"] = {"AutoModel": "modeling.JinaVLForRanking"}
    return config


def _stored(network: Any, *, tied: bool, ranking: bool, names: str) -> dict[str, torch.Tensor]:
    """The network's tensors as its file has them: in bf16, without a tied or useless head."""
    tensors = dict(network.state_dict())
    if tied or ranking:
        del tensors["lm_head.weight"]
    if ranking:
        for name, tensor in score_layers(128).state_dict().items():
            tensors[f"score.{name}"] = 8 * tensor  # so that scores differ
    if names == "old":
        tensors = {
            name.replace("model.language_model.", "model.").replace(
                "model.visual.", "visual."
            ): each
            for name, each in tensors.items()
        }
    return {name: tensor.to(torch.bfloat16).contiguous() for name, tensor in tensors.items()}


def score_layers(width: int) -> nn.Sequential:
    """The head of `JinaVLForRanking`."""
    return nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


SIDES = ("text", "image", "fused")


def side(kind: str, seed: int) -> Side:
    """A side of a pair of the kinds that cells are named by."""
    text = f"What is number {seed}, and how red is it?"
    return {
        "text": (text,),
        "image": (picture(seed),),
        "fused": (picture(seed, 3, 2), text),
    }[kind]


def picture(seed: int, width: int = 2, height: int = 3) -> Pil.Image:
    """An image of random pixels that needs no resizing; sides are in cells."""
    draw = np.random.default_rng(seed)
    pixels = draw.integers(0, 256, (height * CELL, width * CELL, 3), dtype=np.uint8)
    return Pil.fromarray(pixels)


def as_item(side: Side) -> Item:
    """A side as families take it."""
    item: list[str | Image] = []
    for part in side:
        if isinstance(part, str):
            item.append(part)
        else:
            key = hashlib.sha256(repr(part.size).encode() + part.tobytes()).digest()
            item.append(Image(key, *part.size))
    return tuple(item)


def prompt_of(checkpoint: Checkpoint, query: Side, document: Side) -> Prompt:
    """The prompt of a pair."""
    (prompt,) = checkpoint.family.render((), as_item(query), [as_item(document)])
    assert isinstance(prompt, Prompt)
    return prompt


def pictures(*sides: Side) -> list[Pil.Image]:
    """The images of some sides, in order."""
    found: list[Pil.Image] = []
    for side in sides:
        found += [part for part in side if not isinstance(part, str)]
    return found


def as_text(side: Side) -> str:
    """A side's part of a prompt, with one placeholder for an image of any size."""
    return "".join(part if isinstance(part, str) else IMAGE for part in side)


class _Authors:
    """A folder's tokenizer, image processor and network, by transformers alone, in fp32."""

    def __init__(self, folder: Path, **bounds: int) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self._image_processor = Qwen2VLImageProcessorPil.from_pretrained(folder, **bounds)
        config = Qwen2VLConfig.from_pretrained(folder)
        self.network = Qwen2VLForConditionalGeneration(config).float().eval()
        self.tensors = {
            name: tensor.float() for name, tensor in load_file(folder / "model.safetensors").items()
        }
        head = self.tensors.get("lm_head.weight", self.tensors["model.embed_tokens.weight"])
        self.network.model.language_model.load_state_dict(self._part("model."))
        self.network.model.visual.load_state_dict(self._part("visual."))
        self.network.lm_head.load_state_dict({"weight": head})

    def _part(self, prefix: str) -> dict[str, torch.Tensor]:
        return {
            name.removeprefix(prefix): tensor
            for name, tensor in self.tensors.items()
            if name.startswith(prefix)
        }

    def _inputs(self, text: str, images: list[Pil.Image]) -> dict[str, torch.Tensor]:
        """The inputs that `Qwen2VLProcessor` makes, which needs torchvision for videos."""
        inputs: dict[str, torch.Tensor] = {}
        if images:
            inputs |= self._image_processor(images=images, return_tensors="pt")
            for grid in inputs["image_grid_thw"]:
                text = text.replace("<|image_pad|>", "<|placeholder|>" * (int(grid.prod()) // 4), 1)
            text = text.replace("<|placeholder|>", "<|image_pad|>")

        inputs |= self.tokenizer([text], return_tensors="pt")
        pad = self.tokenizer.convert_tokens_to_ids("<|image_pad|>")
        inputs["mm_token_type_ids"] = (inputs["input_ids"] == pad).int()
        return inputs


class JinaAuthors(_Authors):
    """jina-reranker-m0 as its authors' code scores a pair."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, min_pixels=3_136, max_pixels=602_112)
        self.score = score_layers(self.network.config.text_config.hidden_size)
        self.score.load_state_dict(self._part("score."))

    def inputs(self, query: Side, document: Side) -> dict[str, torch.Tensor]:
        """The processor's inputs with the id of the score."""
        text = f"**Document**:\n{as_text(document)}\n**Query**:\n{as_text(query)}"
        inputs = self._inputs(text, pictures(document, query))
        for name, last in (
            ("input_ids", SCORE_ID),
            ("attention_mask", 1),
            ("mm_token_type_ids", 0),
        ):
            inputs[name] = torch.cat((inputs[name], torch.tensor([[last]])), dim=1)
        return inputs

    @torch.inference_mode()
    def raw_score(self, query: Side, document: Side) -> float:
        """The score before the bias of 2.65 and the sigmoid."""
        hidden = self.network.model(**self.inputs(query, document)).last_hidden_state
        return float(self.score(hidden[:, -1]))


class MonoAuthors(_Authors):
    """MonoQwen2-VL as its model card scores a page, and by table 12 of the paper any other pair."""

    def inputs(self, query: Side, document: Side) -> dict[str, torch.Tensor]:
        """The chat template's inputs."""
        page = not pictures(query) and not any(isinstance(part, str) for part in document)
        kind = "image document" if page and document else "document"
        request = (
            f"Assert the relevance of the previous {kind} to the following query, answer True or"
            f" False. The query is: {as_text(query)}"
        )
        request = request if kind == "image document" else f"\n{request}"

        content = [{"type": "image"}] if pictures(document) else []
        text = "".join(part for part in document if isinstance(part, str))
        content.append({"type": "text", "text": text + request})
        prompt = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
        return self._inputs(prompt, pictures(document, query))

    @torch.inference_mode()
    def raw_score(self, query: Side, document: Side) -> float:
        """logit(True) - logit(False) of the next token."""
        logits = self.network(**self.inputs(query, document)).logits[0, -1]
        yes, no = self.tokenizer.convert_tokens_to_ids(["True", "False"])
        return float(logits[yes] - logits[no])
