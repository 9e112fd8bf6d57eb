"""Places in fixed text where the texts before and after can be encoded apart.

Depends on a tokenizer's pre-tokenizer, not on templates. Invariant: what is encoded apart at a
joint gets the ids that it would get as one text.
"""

from __future__ import annotations

from model_store.families.tokens import LiteralTokenizer

_NEIGHBOURS = (
    *("", " ", "  ", "\n", "\r\n", "a", "Z\u00e9", "7", "'s", ".", "...\n", "<", "_", "\u4e2d"),
    *("\u0301", "\u200d", "\u00a0", "\U0001f642"),
)
"""Texts of each class of characters that pre-tokenizers tell apart."""


def ends_piece(tokenizer: LiteralTokenizer, left: str, right: str) -> bool:
    """True where texts can be encoded apart between `left` and `right`, whatever is around them.

    Only borders between a line break and a character that is no blank are looked at. There the
    pre-tokenizers of the GPT-2 family end a piece whatever comes before and after, since they split
    by classes of characters; this tokenizer's own is asked with texts of each class.
    """
    if not left.endswith("\n") or not right or right[0].isspace():
        return False

    for before in _NEIGHBOURS:
        for after in _NEIGHBOURS:
            apart = tokenizer.pieces(before + left) + tokenizer.pieces(right + after)
            if tokenizer.pieces(before + left + right + after) != apart:
                return False
    return True


def prepends_once(tokenizer: LiteralTokenizer) -> bool:
    """True where the first text of a prompt gets a blank before it that the others do not get, as
    with some splitters of SentencePiece."""
    splitter = tokenizer.pre_tokenizer
    if splitter is None:
        return False
    parts = splitter.get("pretokenizers", [splitter])
    return any(part.get("prepend_scheme") == "first" for part in parts)
