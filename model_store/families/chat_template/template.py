"""A folder's chat template: the file that it is in, its variables, and its rendering.

Depends on files and on the process that renders, not on tokens. Invariant: a template can neither
hang nor crash its caller: it gives prompts or one clause, within a bound of processor time.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from model_store.json_files import read_json, read_text
from model_store.manifest import CheckpointUnusable

TEMPLATE_FILE, LEGACY_FILE = "chat_template.jinja", "chat_template.json"
TOKENIZER_SETTINGS = "tokenizer_config.json"
MAX_SOURCE = 2**20
_SPECIAL_TOKENS = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
)
"""Tokens that transformers gives to templates by these names."""
_STRUCTURED = ("content[0]", ".type", "'type'", '"type"', "message.content[")
"""Texts of templates by which sentence-transformers tells that content is a list of parts."""
_FLAT_MODELS = ("apertus", "deepseek_v3", "gpt_oss", "seed_oss")
"""Kinds of network whose messages are texts for sentence-transformers, whatever the template."""
_PACKAGE_ROOT = Path(__file__).parents[3]
_PROGRAM = (
    "import sys; sys.path.insert(0, sys.argv[1]);"
    " from model_store.families.chat_template.process import main; main()"
)
CPU_SECONDS = 2
"""Processor time for all prompts of one question to the process that renders."""
_WALL_SECONDS = 120
"""Far more than the processor time, for a machine that is busy."""
_ENDED_BY_LIMIT = (-signal.SIGKILL, -signal.SIGXCPU)

Content = str | Sequence[str | None]
"""A text, or texts and images (None) in order."""
Conversation = Sequence[tuple[str, Content]]
"""(role, content) of each message."""


class TemplateFailed(ValueError):
    """The template gives no prompt; the text is a clause that says why."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """A prompt as text, and the operations of the template that depended on the pair's texts."""

    text: str
    reads: Sequence[str]
    replaces: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class ChatTemplate:
    """A template with the variables that sentence-transformers gives it beside the messages."""

    file: str
    """The name of its file, for messages."""
    source: str
    structured: bool
    """False where a message's content is a text, not a list of parts."""
    variables: Mapping[str, Any] = field(default_factory=dict)

    def render(self, conversations: Sequence[Conversation]) -> list[Rendered | TemplateFailed]:
        """The prompt of each conversation; raises `TemplateFailed` where the template as a whole
        cannot be rendered."""
        variables = {
            "tools": None,
            "documents": None,
            "add_generation_prompt": False,
            **self.variables,
        }
        jobs = [{"messages": messages, "variables": variables} for messages in conversations]
        answer = _asked({"template": self.source, "jobs": jobs})
        if "error" in answer:
            raise TemplateFailed(answer["error"])

        results: list[Rendered | TemplateFailed] = []
        for result in answer["results"]:
            if "error" in result:
                results.append(TemplateFailed(result["error"]))
            else:
                pairs = [(old, new) for old, new in result["replaces"]]
                results.append(Rendered(result["text"], result["reads"], pairs))
        return results


def read_template(
    name: str, folder: Path, *, message_format: str, model_type: str, variables: dict[str, Any]
) -> ChatTemplate:
    """The template of a folder, from the first of the places where transformers looks for it.

    `message_format` is that of `sentence_bert_config.json`: `structured`, `flat` or `auto`.
    `variables` are those that the folder's settings add. Raises `CheckpointUnusable`.
    """
    file, source = _source(name, folder)
    if len(source) > MAX_SOURCE:
        raise CheckpointUnusable(f"{name}: {file} has more than {MAX_SOURCE} characters.")

    structured = message_format == "structured"
    if message_format == "auto":
        structured = model_type not in _FLAT_MODELS and any(text in source for text in _STRUCTURED)

    special = _special_tokens(name, folder, file, source)
    return ChatTemplate(file, source, structured, special | variables)


def _source(name: str, folder: Path) -> tuple[str, str]:
    """The name of the file that has the template, and the template."""
    source = read_text(name, folder, TEMPLATE_FILE)
    if source is not None:
        return TEMPLATE_FILE, source

    for file in (LEGACY_FILE, TOKENIZER_SETTINGS):
        stated = (read_json(name, folder, file) or {}).get("chat_template")
        if isinstance(stated, str):
            return file, stated
        if stated is not None:
            raise CheckpointUnusable(
                f"{name}: chat_template of {file} is no text: of several templates none is chosen"
                " here."
            )
    raise CheckpointUnusable(f"{name}: there is no {TEMPLATE_FILE}.")


def _special_tokens(name: str, folder: Path, file: str, source: str) -> dict[str, Any]:
    """The special tokens that a template uses; raises `CheckpointUnusable` where a class of
    transformers could add one that no file states."""
    settings = dict(read_json(name, folder, "special_tokens_map.json") or {})
    settings |= read_json(name, folder, TOKENIZER_SETTINGS) or {}

    tokens: dict[str, Any] = {}
    for token in _SPECIAL_TOKENS:
        if not re.search(rf"\b{token}\b", source):
            continue
        stated = settings.get(token)
        text = stated.get("content") if isinstance(stated, dict) else stated
        if token not in settings or not isinstance(text, str | None):
            raise CheckpointUnusable(
                f"{name}: {file} uses {token}, which {TOKENIZER_SETTINGS} does not state."
            )
        if text is not None:
            tokens[token] = text
    return tokens


def _asked(question: Mapping[str, Any]) -> dict[str, Any]:
    """The answer of the process that renders; raises `TemplateFailed` where it was ended."""
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-c", _PROGRAM, str(_PACKAGE_ROOT)],
            input=json.dumps({"cpu_seconds": CPU_SECONDS, **question}).encode(),
            capture_output=True,
            check=False,
            env={},
            timeout=_WALL_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise TemplateFailed(f"it does not end within {_WALL_SECONDS} seconds") from None
    if done.returncode in _ENDED_BY_LIMIT:
        raise TemplateFailed(f"it does not end within {CPU_SECONDS} seconds of processor time")

    try:
        answer: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2][:200]
        raise TemplateFailed(
            f"the process that renders it ended without an answer ({last})"
        ) from None
    return answer
