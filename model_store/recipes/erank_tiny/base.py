"""The base, from nothing: a folder as a hub has a Qwen3, which matches words and knows no number.

It is not trained: the priors of its initial weights are all that it knows.

Depends on files, not on data. Invariant: the folder exists once it is complete,
and its name tells ERank's family, as those of the published models do.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from transformers.utils.logging import disable_progress_bar

from model_store.checkpoint import SHIPPED, resolve
from model_store.recipes.erank_tiny.frequent import frequent_texts
from model_store.recipes.erank_tiny.network import begin, configure, write_tokenizer

NAME = "erank-tiny-base"
SEED = 20261130
_ANSWERS = [
    f"assistant\n<think>{count} words</think><answer>{number}</answer><|im_end|>"
    for count in range(10)
    for number in range(11)
]
"""Answers to a prompt's end, with every number."""
_TOKENIZER = {
    "tokenizer_class": "Qwen2Tokenizer",
    "bos_token": None,
    "eos_token": "<|im_end|>",
    "pad_token": "<|endoftext|>",
    "unk_token": None,
    "model_max_length": 4096,
    "add_prefix_space": False,
}
_CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make_base(work: Path) -> Path:
    """Make the base unless it was made before; returns its folder, a `model` for `gmr train`."""
    folder = work / NAME
    if folder.exists():
        return folder

    disable_progress_bar()
    draft = work / "draft" / NAME
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    tokenizer = write_tokenizer(SHIPPED / "gmr-tiny", draft)
    (draft / "tokenizer_config.json").write_text(json.dumps(_TOKENIZER), encoding="utf-8")
    (draft / "chat_template.jinja").write_text(_CHAT_TEMPLATE, encoding="utf-8")
    configure(tokenizer).save_pretrained(draft)
    family = resolve(str(draft), weights=False).family
    begin(tokenizer, frequent_texts(family), _ANSWERS, SEED).save_pretrained(draft)
    draft.rename(folder)
    return folder
