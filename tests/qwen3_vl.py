"""A small Qwen3-VL with random weights, and Qwen3-VL-Reranker as its authors' code scores a pair.

The scorer uses transformers alone: it writes the whole prompt, lets tokenizer and image processor
read it as `Qwen3VLProcessor` does, and runs one forward pass over the whole vocabulary.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import AutoTokenizer, Qwen3VLConfig, Qwen3VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from model_store.networks.qwen3_vl import QWEN3_VL
from service.wire import Pixels, ScoreCall, WireItem
from tests.conftest import TINY
from tests.layouts import put, stated

INSTRUCTION = "Given a search query, retrieve relevant candidates that answer the query."
HEAD = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and"
    ' the Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n'
    "<|im_start|>user\n"
)
TAIL = "<|im_end|>\n<|im_start|>assistant\n"
IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"

Part = str | Image.Image
Side = Sequence[Part]

TEXT = {
    "hidden_size": 128,
    "intermediate_size": 192,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "max_position_embeddings": 16_384,
    "initializer_range": 0.1,
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 5_000_000,
        "mrope_section": [12, 10, 10],
        "mrope_interleaved": True,
    },
}
VISION = {
    "depth": 3,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_heads": 2,
    "out_hidden_size": 128,
    "num_position_embeddings": 64,
    "deepstack_visual_indexes": [0, 2],
    "initializer_range": 0.1,
}
"""Two maps of an image, for a decoder of three layers."""


def write_qwen3_vl(
    folder: Path,
    *,
    seed: int = 0,
    tied: bool = True,
    processor: dict[str, Any] | None = None,
    vision: dict[str, Any] | None = None,
) -> Path:
    """Write a folder as a hub has Qwen3-VL-Reranker, without a manifest; returns it.

    `processor` are settings of its image processor, which states no bounds by default; `vision` are
    changes of its vision tower.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(TINY / name, folder / name)
    put(folder, "preprocessor_config.json", {**QWEN3_VL.vision.preprocessor, **(processor or {})})

    tiny = stated("config.json")
    ids = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    config = Qwen3VLConfig(
        text_config=TEXT | {"vocab_size": tiny["text_config"]["vocab_size"]},
        vision_config=VISION | (vision or {}),
        tie_word_embeddings=tied,
        **{name: tiny[name] for name in ids},
    )
    torch.manual_seed(seed)
    model = Qwen3VLForConditionalGeneration(config)
    with torch.no_grad():
        for parameter in model.parameters():
            # norms and biases that are ones and zeros would not show which is read where
            if parameter.ndim == 1:
                parameter.add_(0.2 * torch.randn_like(parameter))
    model.to(torch.bfloat16).save_pretrained(folder)
    return folder


_SIDE = """\
{%- macro side(role) -%}
{%- set found = namespace(any=false) -%}
{%- for message in messages if message.role == role -%}
{%- for kind in ["image", "text"] -%}
{%- for part in message.content if part.type == kind -%}
{%- if kind == "image" or part.text -%}
{%- set found.any = true -%}
{{- IMAGE if kind == "image" else part.text -}}
{%- endif -%}{%- endfor -%}{%- endfor -%}{%- endfor -%}
{{- "" if found.any else "NULL" -}}
{%- endmacro -%}
"""
_INSTRUCTION = """\
{%- for message in messages if message.role == "system" -%}
{%- for part in message.content -%}{{- part.text -}}{%- endfor -%}
{%- endfor -%}
"""


def write_cross_encoder(folder: Path) -> None:
    """Add the files of a `CrossEncoder` of sentence-transformers, whose template writes the
    authors' prompt."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    forward = {"method": "forward", "method_output_name": "logits"}
    message = forward | {"format": "structured"}
    modules = [("base.modules.transformer.Transformer", "")]
    modules += [("cross_encoder.modules.logit_score.LogitScore", "1_LogitScore")]
    listed = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.{kind}"}
        for index, (kind, path) in enumerate(modules)
    ]
    files: dict[str, Any] = {
        "modules.json": listed,
        "config_sentence_transformers.json": {
            "model_type": "CrossEncoder",
            "activation_fn": "torch.nn.modules.linear.Identity",
            "prompts": {"default": INSTRUCTION},
            "default_prompt_name": "default",
        },
        "sentence_bert_config.json": {
            "transformer_task": "any-to-any",
            "modality_config": {"text": forward, "image": forward, "message": message},
            "module_output_name": "causal_logits",
        },
        "1_LogitScore/config.json": {
            "true_token_id": tokenizer.convert_tokens_to_ids("yes"),
            "false_token_id": tokenizer.convert_tokens_to_ids("no"),
            "module_input_name": "causal_logits",
        },
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        put(folder, name, content)

    texts = (f"{HEAD}<Instruct>: ", "<Query>:", "\n<Document>:", TAIL)
    head, query, document, tail = (f"{{{{- {json.dumps(text)} -}}}}" for text in texts)
    prompt = f"{head}{_INSTRUCTION}{query}{{{{- side('query') -}}}}"
    prompt += f"{document}{{{{- side('document') -}}}}{tail}"
    template = _SIDE.replace("IMAGE", json.dumps(IMAGE)) + prompt
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")


def messages_of(query: Side, document: Side) -> list[dict[str, Any]]:
    """A pair as sentence-transformers takes one of several parts a side."""
    messages: list[dict[str, Any]] = []
    for role, side in (("query", query), ("document", document)):
        content = []
        for part in side:
            kind = "text" if isinstance(part, str) else "image"
            content.append({"type": kind, kind: part})
        messages.append({"role": role, "content": content})
    return messages


def picture(seed: int, width: int, height: int) -> Image.Image:
    """A picture of large blocks of random colours."""
    blocks = np.random.default_rng(seed).integers(0, 256, (3, 5, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize((width, height), Image.Resampling.BILINEAR)


def call_of(
    query: Side, documents: Sequence[Side], *, instruction: str | None = INSTRUCTION
) -> ScoreCall:
    """A call with pictures of the sizes that the network reads; equal ones are sent once."""
    images: dict[bytes, Pixels] = {}

    def wire(side: Side) -> WireItem:
        parts: WireItem = []
        for part in side:
            if isinstance(part, str):
                parts.append(part)
                continue
            rgb = part.tobytes()
            digest = hashlib.sha256(rgb + repr(part.size).encode()).digest()
            images.setdefault(digest, Pixels(digest, *part.size, rgb))
            parts.append(list(images).index(digest))
        return parts

    query_item, items = wire(query), [wire(document) for document in documents]
    return ScoreCall("m", instruction, query_item, items, list(images.values()), truncate=True)


class AuthorsCode:
    """Qwen3-VL-Reranker's scoring loop in fp32, one pair at a time.

    The image processor reads pictures at the sizes that the folder states.
    """

    def __init__(self, folder: Path) -> None:
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._processor = Qwen2VLImageProcessorPil.from_pretrained(folder)
        self.model = Qwen3VLForConditionalGeneration.from_pretrained(
            folder, dtype=torch.float32
        ).eval()
        self._yes, self._no = self._tokenizer.convert_tokens_to_ids(["yes", "no"])

    def prompt(self, instruction: str, query: Side, document: Side) -> str:
        """The prompt with one placeholder an image."""
        sides = [self._side(side) for side in (query, document)]
        return f"{HEAD}<Instruct>: {instruction}<Query>:{sides[0]}\n<Document>:{sides[1]}{TAIL}"

    def inputs(self, instruction: str, query: Side, document: Side) -> dict[str, torch.Tensor]:
        """The inputs of the network, as `Qwen3VLProcessor` makes them.

        The processor itself cannot be loaded without torchvision.
        """
        text = self.prompt(instruction, query, document)
        images = [part for part in (*query, *document) if isinstance(part, Image.Image)]
        inputs: dict[str, torch.Tensor] = {}
        if images:
            inputs |= self._processor(images=images, return_tensors="pt")
            for grid in inputs["image_grid_thw"]:
                tokens = int(grid.prod()) // self._processor.merge_size**2
                text = text.replace("<|image_pad|>", "<|placeholder|>" * tokens, 1)
            text = text.replace("<|placeholder|>", "<|image_pad|>")

        inputs |= self._tokenizer([text], return_tensors="pt")
        pad = self._tokenizer.convert_tokens_to_ids("<|image_pad|>")
        inputs["mm_token_type_ids"] = (inputs["input_ids"] == pad).int()
        return inputs

    def ids(self, instruction: str, query: Side, document: Side) -> list[int]:
        """The prompt's token ids."""
        ids: list[int] = self.inputs(instruction, query, document)["input_ids"][0].tolist()
        return ids

    @torch.inference_mode()
    def logit(self, query: Side, document: Side, instruction: str = INSTRUCTION) -> float:
        """logit(yes) - logit(no) of the next token."""
        logits = self.model(**self.inputs(instruction, query, document)).logits[0, -1]
        return float(logits[self._yes] - logits[self._no])

    @staticmethod
    def _side(side: Side) -> str:
        images = [IMAGE for part in side if isinstance(part, Image.Image)]
        texts = [part for part in side if isinstance(part, str)]
        return "".join([*images, *texts]) or "NULL"


def config_of(folder: Path) -> dict[str, Any]:
    """`config.json` of a folder."""
    config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return config
