"""The vocabulary of a `tokenizer.json`: its control tokens, and how they are kept from texts.

Depends on the file's content, not on a pipeline. Invariant: taking control tokens out changes the
id of no other token.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

_SPACE = "\u2581"
"""SentencePiece's mark of a space."""


def is_text(token: Mapping[str, Any], vocabulary: object) -> bool:
    """True for an added token that stands for text and controls nothing.

    Such are runs of spaces, line breaks or SentencePiece's spaces, and pieces of the model's own
    vocabulary that are not flagged special, as `<table>` is in Gemma's.
    """
    content = token["content"]
    if content and not content.replace(_SPACE, " ").strip():
        return True
    if token.get("special") or not isinstance(vocabulary, Mapping):
        return False
    return bool(vocabulary.get(content) == token["id"])


def size_of(spec: Mapping[str, Any]) -> int:
    """One more than the largest id of a vocabulary and its added tokens."""
    vocabulary = spec["model"]["vocab"]
    ids = range(len(vocabulary)) if isinstance(vocabulary, list) else vocabulary.values()
    added = [token["id"] for token in spec["added_tokens"]]
    return 1 + max(max(ids, default=-1), max(added, default=-1))


def take_out(spec: dict[str, Any], controls: Mapping[str, int]) -> None:
    """Give control tokens names that no text has, in the vocabulary and among the added tokens.

    Unigram models prefer such pieces, whose score is 0, to every other; BPE models with
    `ignore_merges` take a word that is one. All other tokens keep their ids.
    """
    added, vocabulary = spec["added_tokens"], spec["model"]["vocab"]
    unknown = spec["model"].get("unk_token")
    names = {content: f" {secrets.token_hex(16)}" for content in controls if content != unknown}

    if isinstance(vocabulary, list):
        for piece in vocabulary:
            piece[0] = names.get(piece[0], piece[0])
    else:
        for content in names.keys() & vocabulary.keys():
            vocabulary[names[content]] = vocabulary.pop(content)

    text = [token for token in added if token["content"] not in controls]
    # ids of added tokens follow from those before them, so that none can be left out
    renamed = [token for token in added if token["content"] != unknown] if text else []
    for token in renamed:
        token["content"] = names.get(token["content"], token["content"])
    spec["added_tokens"] = renamed
