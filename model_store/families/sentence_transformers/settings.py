"""The settings of a CrossEncoder with a chat template: labels, messages, limits and variables.

Depends on the files of sentence-transformers, not on templates. Invariant: a setting that would
change a score and is not applied here is refused, by its file and name.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from model_store.families.recognition import NetworkFacts
from model_store.families.sentence_transformers.modules import (
    CROSS_ENCODER,
    MODULES,
    SETTINGS,
    TRANSFORMER_SETTINGS,
    CrossEncoderFiles,
)
from model_store.json_files import read_json
from model_store.manifest import CheckpointUnusable

LOGIT_CHAIN, HEAD_CHAIN = ("Transformer", "LogitScore"), ("Transformer",)
CHAINS = (LOGIT_CHAIN, HEAD_CHAIN)
"""Modules whose score is a logit of the next token, and those of a network with a score head."""
MAX_TOKENS = 8192
"""Tokens of a pair where the folder states no lower limit."""
MIN_TOKENS = 64
_TASKS = {LOGIT_CHAIN: ("text-generation", "any-to-any"), HEAD_CHAIN: ("sequence-classification",)}
_HEAD = "ForSequenceClassification"
_FORMATS = ("structured", "flat", "auto")
_LOGITS = "causal_logits"
_NO_EFFECT = frozenset(
    (
        "padding",
        "padding_side",
        "pad_to_multiple_of",
        "return_tensors",
        "truncation",
        "max_length",
        "logits_to_keep",
    )
)
"""Options of a tokenizer's call that change no score here: each pair is computed alone, and one
that is too long is cut by this service's rule."""
_NO_EFFECT_ON_NETWORK = frozenset(("dtype", "torch_dtype", "attn_implementation", "device_map"))
_NO_VARIABLES = frozenset(
    (
        "chat_template",
        "tools",
        "documents",
        "continue_final_message",
        "return_assistant_tokens_mask",
        "tokenize",
        "return_dict",
    )
)
"""Options of `apply_chat_template` that are no variables of the template."""


@dataclass(frozen=True)
class ChatSettings:
    """The checked settings of a folder beside its template."""

    label_ids: tuple[int, ...]
    """The label of relevance, and the other one where the score is a difference; empty where the
    network has a score head."""
    message_format: str
    reads_images: bool
    """True where the folder says that the network gets images."""
    max_tokens: int
    variables: Mapping[str, Any]
    """Variables that the folder gives to its template."""


def chat_settings(files: CrossEncoderFiles, network: NetworkFacts) -> ChatSettings:
    """The settings of a folder whose chain is one of `CHAINS`; raises `CheckpointUnusable`."""
    name = files.name
    if not files.is_cross_encoder:
        stated = files.settings.get("model_type")
        raise CheckpointUnusable(
            f"{name}: model_type of {SETTINGS} is {stated!r:.40}, not {CROSS_ENCODER}."
        )

    transformer = files.transformer_settings()
    modalities = _modalities(files, transformer)
    message_format = modalities["message"].get("format", "auto")
    if message_format not in _FORMATS:
        raise _refusal(
            name, "the format of messages", message_format, "one of sentence-transformers'"
        )

    if not network.causal:
        raise CheckpointUnusable(
            f"{name}: a chat template is served for causal decoders, and the network is"
            f" {network.architecture}."
        )
    has_head = network.architecture.endswith(_HEAD)
    if has_head != (files.chain == HEAD_CHAIN):
        raise CheckpointUnusable(
            f"{name}: {MODULES} lists {', '.join(files.chain)}, and the network is"
            f" {network.architecture}."
        )
    processing = _object(name, transformer, "processing_kwargs")
    chat = _object(name, processing, "chat_template")
    refuse_applied(name, transformer)
    return ChatSettings(
        () if has_head else _labels(files, transformer, network),
        message_format,
        any("image" in modality.split("+") for modality in modalities),
        _max_tokens(files, transformer, chat),
        {key: value for key, value in chat.items() if key not in (*_NO_EFFECT, "restore_suffix")},
    )


def reads_messages(files: CrossEncoderFiles) -> bool:
    """True where sentence-transformers writes a pair with the folder's chat template."""
    transformer = read_json(files.name, files.folder, TRANSFORMER_SETTINGS) or {}
    modalities = transformer.get("modality_config")
    return isinstance(modalities, Mapping) and "message" in modalities


def _modalities(
    files: CrossEncoderFiles, transformer: Mapping[str, Any]
) -> Mapping[str, Mapping[str, Any]]:
    """`modality_config`, with an entry for messages."""
    name, task, tasks = files.name, transformer.get("transformer_task"), _TASKS[files.chain]
    if task not in tasks:
        raise _refusal(name, "transformer_task", task, " or ".join(tasks))

    modalities = _object(name, transformer, "modality_config")
    message = modalities.get("message")
    if not isinstance(message, Mapping):
        raise CheckpointUnusable(
            f"{name}: modality_config of {TRANSFORMER_SETTINGS} has no message, so that pairs would"
            " be read without the chat template."
        )
    read = (message.get("method"), message.get("method_output_name"))
    if read != ("forward", "logits"):
        raise _refusal(name, "modality_config.message", read, "forward and logits")
    return modalities


def _labels(
    files: CrossEncoderFiles, transformer: Mapping[str, Any], network: NetworkFacts
) -> tuple[int, ...]:
    """The ids whose logits make the score."""
    file, stated = files.config_of("LogitScore")
    given, taken = transformer.get("module_output_name", _LOGITS), stated.get("module_input_name")
    if taken is not None and taken != given:
        raise CheckpointUnusable(
            f"{files.name}: module_input_name of {file} is {taken!r:.40}, and the network gives"
            f" {given!r:.40}."
        )

    ids: list[int] = []
    for field in ("true_token_id", "false_token_id"):
        number = stated.get(field)
        if number is None and ids:
            continue
        if not isinstance(number, int) or isinstance(number, bool):
            raise CheckpointUnusable(
                f"{files.name}: {field} of {file} is {number!r:.40}, not a token's id."
            )
        if not 0 <= number < network.vocabulary:
            raise CheckpointUnusable(
                f"{files.name}: {field} of {file} is {number}, and the network has"
                f" {network.vocabulary} tokens."
            )
        ids.append(number)

    if len(set(ids)) < len(ids):
        raise CheckpointUnusable(
            f"{files.name}: true_token_id and false_token_id of {file} are both {ids[0]}."
        )
    return tuple(ids)


def refuse_applied(name: str, transformer: Mapping[str, Any]) -> None:
    """Raise `CheckpointUnusable` for a setting of `sentence_bert_config.json` that would change
    scores."""
    processing = _object(name, transformer, "processing_kwargs")
    allowed: dict[str, Collection[str]] = {
        "model_kwargs": _NO_EFFECT_ON_NETWORK,
        "model_args": _NO_EFFECT_ON_NETWORK,
        "processor_kwargs": ("model_max_length", "padding_side"),
        "tokenizer_args": ("model_max_length", "padding_side"),
        "config_kwargs": (),
        "config_args": (),
    }
    for field, harmless in allowed.items():
        _expect_only(name, field, _object(name, transformer, field), harmless)
    for field in ("text", "common", "image"):
        options = _object(name, processing, field)
        _expect_only(name, f"processing_kwargs.{field}", options, _NO_EFFECT)

    chat = _object(name, processing, "chat_template")
    variables = chat.keys() - _NO_VARIABLES
    _expect_only(name, "processing_kwargs.chat_template", chat, variables)
    if transformer.get("do_lower_case"):
        raise _refusal(name, "do_lower_case", True, "false")


def _expect_only(
    name: str, field: str, options: Mapping[str, Any], harmless: Collection[str]
) -> None:
    for option in sorted(options):
        if option not in harmless:
            raise CheckpointUnusable(
                f"{name}: {field} of {TRANSFORMER_SETTINGS} sets {option:.40}, which is not applied"
                " here."
            )


def stated_limits(name: str, transformer: Mapping[str, Any]) -> list[object]:
    """The limits of a pair's tokens that `sentence_bert_config.json` states, unchecked."""
    processing = _object(name, transformer, "processing_kwargs")
    stated: list[object] = [transformer.get("max_seq_length")]
    for field in ("processor_kwargs", "tokenizer_args"):
        stated.append(_object(name, transformer, field).get("model_max_length"))
    for field in ("text", "common"):
        stated.append(_object(name, processing, field).get("max_length"))
    return stated


def _max_tokens(
    files: CrossEncoderFiles,
    transformer: Mapping[str, Any],
    chat: Mapping[str, Any],
) -> int:
    """The lowest of all limits of a pair's tokens that the folder states, or `MAX_TOKENS`."""
    name, folder = files.name, files.folder
    config = read_json(name, folder, "config.json") or {}
    text = config.get("text_config")
    stated: list[object] = [
        *stated_limits(name, transformer),
        (read_json(name, folder, "tokenizer_config.json") or {}).get("model_max_length"),
        config.get("max_position_embeddings"),
        text.get("max_position_embeddings") if isinstance(text, Mapping) else None,
        chat.get("max_length"),
    ]
    limits: list[int] = [MAX_TOKENS]
    for limit in stated:
        if isinstance(limit, int | float) and not isinstance(limit, bool) and limit > 0:
            limits.append(int(min(limit, MAX_TOKENS)))
    if min(limits) < MIN_TOKENS:
        raise CheckpointUnusable(
            f"{name}: its files limit a pair to {min(limits)} tokens, fewer than {MIN_TOKENS}."
        )
    return min(limits)


def _object(name: str, stated: Mapping[str, Any], field: str) -> Mapping[str, Any]:
    """An object of `sentence_bert_config.json`, empty where it is not stated."""
    value = stated.get(field)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise CheckpointUnusable(f"{name}: {field} of {TRANSFORMER_SETTINGS} is no object.")
    return value


def _refusal(name: str, field: str, value: object, due: str) -> CheckpointUnusable:
    return CheckpointUnusable(
        f"{name}: {field} of {TRANSFORMER_SETTINGS} is {value!r:.60}, not {due}."
    )
