"""Folders as sentence-transformers saves a CrossEncoder with a chat template: small networks."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import Qwen3Config, Qwen3ForSequenceClassification

from tests.conftest import TINY
from tests.qwen3 import write_qwen3, write_tokenizer

SYSTEM = (
    "Judge whether the Document meets the requirements based on the Query and the Instruct"
    ' provided. Note that the answer can only be "yes" or "no".'
)
INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"
_TRANSFORMER = "sentence_transformers.base.modules.transformer.Transformer"
_LOGIT_SCORE = "sentence_transformers.cross_encoder.modules.logit_score.LogitScore"
SIGMOID = "torch.nn.modules.activation.Sigmoid"
IDENTITY = "torch.nn.modules.linear.Identity"
_FORWARD = {"method": "forward", "method_output_name": "logits"}

GMR_TEMPLATE = (
    """\
{%- macro parts(content) -%}
{%- if content is string -%}{{ content }}{%- else -%}
{%- for part in content -%}
{%- if part.type == 'image' or 'image' in part -%}<|vision_start|><|image_pad|><|vision_end|>
{%- elif 'text' in part -%}{{ part.text }}{%- endif -%}
{%- endfor -%}{%- endif -%}
{%- endmacro -%}
{%- set ns = namespace(instruction='"""
    + INSTRUCTION
    + """', query='', document='') -%}
{%- for message in messages -%}
{%- if message.role == 'system' -%}{%- set ns.instruction = parts(message.content) -%}
{%- elif message.role == 'query' -%}{%- set ns.query = parts(message.content) -%}
{%- elif message.role == 'document' -%}{%- set ns.document = parts(message.content) -%}
{%- endif -%}
{%- endfor -%}
<|im_start|>system
"""
    + SYSTEM
    + """<|im_end|>
<|im_start|>user
<Instruct>: {{ ns.instruction }}<Query>:{{ ns.query }}
<Document>:{{ ns.document }}<|im_end|>
<|im_start|>assistant

"""
)
"""GMR's prompt. Jinja takes the last line break of the file."""
QWEN3_TEMPLATE = (
    """\
{%- set query = messages | selectattr("role", "eq", "query") | map(attribute="content") | first -%}
{%- set document = messages | selectattr("role", "eq", "document") | map(attribute="content") \
| first -%}
{%- set instruction = messages | selectattr("role", "eq", "system") | map(attribute="content") \
| first | default("""
    + json.dumps(INSTRUCTION)
    + """) -%}
<|im_start|>system
"""
    + SYSTEM
    + """<|im_end|>
<|im_start|>user
<Instruct>: {{ instruction }}
<Query>: {{ query }}
<Document>: {{ document }}<|im_end|>
<|im_start|>assistant
<think>

</think>


"""
)
ZERANK_TEMPLATE = (
    "<|im_start|>system\n"
    "{{ (messages | selectattr('role', 'eq', 'query') | first).content }}<|im_end|>\n"
    "<|im_start|>user\n"
    "{{ (messages | selectattr('role', 'eq', 'document') | first).content }}<|im_end|>\n"
    "<|im_start|>assistant\n\n"
)


def put(folder: Path, name: str, content: object) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(content, indent=1), encoding="utf-8")


def stated(folder: Path, name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / name).read_text(encoding="utf-8"))
    return content


def token_id(folder: Path, token: str) -> int:
    tokenizer = stated(folder, "tokenizer.json")
    added = {entry["content"]: entry["id"] for entry in tokenizer["added_tokens"]}
    number = added.get(token, tokenizer["model"]["vocab"].get(token))
    assert isinstance(number, int)
    return number


def write_modules(
    folder: Path,
    template: str,
    *,
    labels: Sequence[str] = ("yes", "no"),
    prompt: str | None = None,
    activation: str | None = SIGMOID,
    message_format: str = "structured",
    modalities: Sequence[str] = ("text",),
    task: str = "text-generation",
    processing: Mapping[str, Any] | None = None,
) -> Path:
    """Put the files of sentence-transformers beside a network; returns the folder."""
    modules = []
    for index, (name, path, kind) in enumerate(
        (("0", "", _TRANSFORMER), ("1", "1_LogitScore", _LOGIT_SCORE))
    ):
        modules.append({"idx": index, "name": name, "path": path, "type": kind})
    put(folder, "modules.json", modules)

    settings = {
        "model_type": "CrossEncoder",
        "activation_fn": activation,
        "prompts": {} if prompt is None else {"search": prompt},
        "default_prompt_name": None if prompt is None else "search",
    }
    put(folder, "config_sentence_transformers.json", settings)
    modality_config: dict[str, Any] = dict.fromkeys(modalities, _FORWARD)
    modality_config["message"] = _FORWARD | {"format": message_format}
    transformer = {
        "transformer_task": task,
        "module_output_name": "causal_logits",
        "modality_config": modality_config,
    }
    if processing:
        transformer["processing_kwargs"] = processing
    put(folder, "sentence_bert_config.json", transformer)
    ids = [token_id(folder, label) for label in labels]
    score = {
        "true_token_id": ids[0],
        "false_token_id": ids[1] if len(ids) > 1 else None,
        "module_input_name": "causal_logits",
    }
    put(folder, "1_LogitScore/config.json", score)
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    return folder


def write_gmr(folder: Path, template: str = GMR_TEMPLATE, **changes: Any) -> Path:
    """gmr-tiny as sentence-transformers would have saved it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "preprocessor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ):
        shutil.copy(TINY / name, folder)
    settings: dict[str, Any] = {"modalities": ("text", "image"), "task": "any-to-any"}
    return write_modules(folder, template, **(settings | changes))


def write_head(folder: Path, template: str = QWEN3_TEMPLATE, **changes: Any) -> Path:
    """A small Qwen3 with a head of one score, which has no module of its own for it."""
    folder.mkdir(parents=True, exist_ok=True)
    size = write_tokenizer(folder)
    torch.manual_seed(6)
    config = Qwen3Config(
        vocab_size=size,
        hidden_size=128,
        intermediate_size=192,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=8192,
        initializer_range=0.1,
        num_labels=1,
        pad_token_id=token_id(folder, "<|endoftext|>"),
        tie_word_embeddings=True,
    )
    Qwen3ForSequenceClassification(config).to(torch.bfloat16).save_pretrained(folder)
    write_modules(folder, template, **({"message_format": "flat"} | changes))
    put(folder, "modules.json", [{"idx": 0, "name": "0", "path": "", "type": _TRANSFORMER}])
    transformer = stated(folder, "sentence_bert_config.json")
    kind = {"transformer_task": "sequence-classification", "module_output_name": "scores"}
    put(folder, "sentence_bert_config.json", transformer | kind)
    return folder


def write_text(
    folder: Path, template: str = QWEN3_TEMPLATE, *, seed: int = 5, **changes: Any
) -> Path:
    """A small Qwen3 as sentence-transformers would have saved it."""
    write_qwen3(folder, seed=seed)
    return write_modules(folder, template, **({"message_format": "flat"} | changes))


_MERGES = 400


def write_small_tokenizer(folder: Path) -> int:
    """The tests' Qwen3 tokenizer with few merges, which is read fast; returns its size."""
    write_tokenizer(folder)
    tokenizer = stated(folder, "tokenizer.json")
    model = tokenizer["model"]
    last = {"yes", "no"}
    merges = []
    for index in range(len(model["merges"]) - 1, -1, -1):
        left, right = model["merges"][index]
        if index < _MERGES or left + right in last:
            merges.append([left, right])
            last |= {left, right}

    model["merges"] = merges[::-1]
    words = {left + right for left, right in merges}
    kept = [word for word in model["vocab"] if len(word) == 1 or word in words]
    model["vocab"] = {word: number for number, word in enumerate(kept)}
    for number, token in enumerate(tokenizer["added_tokens"], len(kept)):
        token["id"] = number
    put(folder, "tokenizer.json", tokenizer)
    return len(kept) + len(tokenizer["added_tokens"])


def write_prompts(folder: Path, template: str, **changes: Any) -> Path:
    """The files that decide prompts, of a network without weights."""
    folder.mkdir(parents=True, exist_ok=True)
    size = write_small_tokenizer(folder)
    config = {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "vocab_size": size,
        "hidden_size": 64,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 32,
    }
    put(folder, "config.json", config)
    return write_modules(folder, template, **({"message_format": "flat"} | changes))
