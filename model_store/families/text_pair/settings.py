"""The settings of a folder whose tokenizer joins pairs: limits, and what would change a score.

Depends on JSON, not on tokens or weights. Invariant: a setting that sentence-transformers would
apply to a pair and that is not applied here is refused, by its file and name.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from model_store.families.recognition import FolderFacts
from model_store.families.sentence_transformers.modules import (
    CROSS_ENCODER,
    MODULES,
    SETTINGS,
    TRANSFORMER_SETTINGS,
)
from model_store.families.sentence_transformers.settings import refuse_applied, stated_limits
from model_store.json_files import read_json
from model_store.manifest import CheckpointUnusable

MAX_TOKENS = 8192
"""Tokens of a pair at most, where a network could read more: attention is quadratic in them."""
TILE = 64
"""Engines pad rows to a multiple of this, which must not pass the last position."""
TOKENIZER_CONFIG = "tokenizer_config.json"
_LEAST_TOKENS = 64
_CHAT_TEMPLATES = ("chat_template.jinja", "chat_template.json")
_TASK = "sequence-classification"


def refuse_other_settings(name: str, folder: Path) -> None:
    """Raise `CheckpointUnusable` for a setting of sentence-transformers that is not applied here.

    It reads its settings only where the folder lists modules.
    """
    if not (folder / MODULES).is_file():
        return

    kind = (read_json(name, folder, SETTINGS) or {}).get("model_type", CROSS_ENCODER)
    if kind != CROSS_ENCODER:
        raise CheckpointUnusable(
            f"{name}: model_type of {SETTINGS} is {kind!r:.40}, not {CROSS_ENCODER}."
        )
    module = _module(name, folder)
    task = module.get("transformer_task", _TASK)
    if task != _TASK:
        raise CheckpointUnusable(
            f"{name}: transformer_task of {TRANSFORMER_SETTINGS} is {task!r:.40}, not {_TASK}."
        )
    refuse_applied(name, module)


def stated_max_tokens(facts: FolderFacts, *, listed: bool) -> int:
    """The tokens that tokenizer, network and sentence-transformers' settings all allow.

    `listed` says that there is a `modules.json`, without which those settings are not read.
    """
    settings = read_json(facts.name, facts.folder, TOKENIZER_CONFIG) or {}
    module = _module(facts.name, facts.folder) if listed else {}
    limits = [MAX_TOKENS]
    positions = facts.network.positions
    if facts.network.causal:
        positions = facts.config.get("max_position_embeddings", 0)
    if isinstance(positions, int) and positions > 0:
        # rows of encoders are padded to whole tiles
        limits.append(positions if facts.network.causal else positions - positions % TILE)
    for stated in (settings.get("model_max_length"), *stated_limits(facts.name, module)):
        if isinstance(stated, int | float) and not isinstance(stated, bool):
            limits.append(int(min(stated, MAX_TOKENS)))

    least = min(limits)
    if least < _LEAST_TOKENS:
        raise CheckpointUnusable(
            f"{facts.name}: a pair may have {least} tokens, and the least that is served is"
            f" {_LEAST_TOKENS}."
        )
    return least


def reads_messages(facts: FolderFacts) -> bool:
    """True where sentence-transformers would write a pair with the folder's chat template."""
    modalities = _module(facts.name, facts.folder).get("modality_config")
    return isinstance(modalities, dict) and "message" in modalities


def refuse_silent_template(facts: FolderFacts) -> None:
    """Raise `CheckpointUnusable` for a chat template of which nothing says whether it is used."""
    folder = facts.folder
    settings = read_json(facts.name, folder, TOKENIZER_CONFIG) or {}
    has_template = settings.get("chat_template") or any(
        (folder / file).is_file() for file in _CHAT_TEMPLATES
    )
    told = all((folder / file).is_file() for file in (MODULES, TRANSFORMER_SETTINGS))
    if has_template and not told:
        raise CheckpointUnusable(
            f"{facts.name}: its tokenizer has a chat template, and no {MODULES} with"
            f" {TRANSFORMER_SETTINGS} says whether pairs are written with it: save the model with"
            " sentence-transformers, or remove the template where the tokenizer alone joins pairs."
        )


def _module(name: str, folder: Path) -> Mapping[str, Any]:
    return read_json(name, folder, TRANSFORMER_SETTINGS) or {}
