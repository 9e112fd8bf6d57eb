"""A call's documents in chunks for the engine, by estimated lengths.

Depends on a call and the family's image rules, not on an engine. Invariant: every document is in
one chunk, and documents come shortest first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from model_store.families.family import ImageRules
from service.wire import Pixels, ScoreCall, WireItem
from service.worker.engines.prompts import prompt_image

_FIRST_SHARE = 4
"""The first chunk is this many times smaller than the others, so that the engine begins early."""
_CHARACTERS_A_TOKEN = 4
"""An estimate for ASCII text. In other texts each character counts as one token."""


def chunks(call: ScoreCall, chunk_tokens: int, rules: ImageRules | None) -> Iterator[list[int]]:
    """Indexes of documents in runs of about `chunk_tokens`, shortest documents first."""
    tokens: list[int] = []
    for document in call.documents:
        tokens.append(estimated_tokens(document, call.images, rules))

    chunk: list[int] = []
    filled = 0
    limit = chunk_tokens // _FIRST_SHARE
    for index in sorted(range(len(tokens)), key=tokens.__getitem__):
        if chunk and filled + tokens[index] > limit:
            yield chunk
            chunk, filled = [], 0
            limit = chunk_tokens

        chunk.append(index)
        filled += tokens[index]
    if chunk:
        yield chunk


def estimated_tokens(document: WireItem, images: Sequence[Pixels], rules: ImageRules | None) -> int:
    """A document's length in tokens, estimated from its texts' and images' sizes."""
    tokens = 0
    for part in document:
        if isinstance(part, str):
            tokens += len(part) // _CHARACTERS_A_TOKEN if part.isascii() else len(part)
        elif rules:
            tokens += rules.tokens(prompt_image(images[part]))
    return tokens
