"""Control tokens in a template's text, found as the checkpoint's own tokenizer finds them.

Depends on `tokenizers` and the control tokens' flags, not on templates. Invariant: spans are those
of the checkpoint's tokenizer for the same text: the leftmost match, the longest of those, with the
blanks that a token's flags `lstrip` and `rstrip` take.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from tokenizers import AddedToken, Tokenizer

from model_store.families.tokens import LiteralTokenizer

_TEXT = "\ue010"
"""The one word of the vocabulary, which stands for all that is between control tokens."""


@dataclass(frozen=True, slots=True)
class ControlSpan:
    """A control token in a text, from `start` to `end`."""

    start: int
    end: int
    id: int
    takes_left: bool
    """True where the token takes blanks before it."""
    takes_right: bool
    single_word: bool
    """True where the token is none beside a letter."""


class ControlFinder:
    """Finds a tokenizer's control tokens in texts, with its normalizer and without its words."""

    def __init__(self, tokenizer: LiteralTokenizer) -> None:
        self._entries = {str(entry["content"]): entry for entry in tokenizer.control_entries}
        spec: dict[str, Any] = {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [],
            "normalizer": tokenizer.normalizer,
            "pre_tokenizer": None,
            "post_processor": None,
            "decoder": None,
            "model": {"type": "WordLevel", "vocab": {_TEXT: 0}, "unk_token": _TEXT},
        }
        self._finder = Tokenizer.from_str(json.dumps(spec))
        tokens: list[AddedToken] = []
        for content, entry in self._entries.items():
            flags = {
                flag: bool(entry.get(flag))
                for flag in ("single_word", "lstrip", "rstrip", "normalized")
            }
            tokens.append(AddedToken(content, special=False, **flags))
        self._finder.add_tokens(tokens)

    def spans(self, text: str) -> list[ControlSpan]:
        """The control tokens of a text, in order."""
        encoding = self._finder.encode(text, add_special_tokens=False)
        spans: list[ControlSpan] = []
        for content, (start, end) in zip(encoding.tokens, encoding.offsets, strict=True):
            entry = self._entries.get(content)
            if entry is None:
                continue
            span = ControlSpan(
                start,
                end,
                int(entry["id"]),
                takes_left=bool(entry.get("lstrip")),
                takes_right=bool(entry.get("rstrip")),
                single_word=bool(entry.get("single_word")),
            )
            spans.append(span)
        return spans
