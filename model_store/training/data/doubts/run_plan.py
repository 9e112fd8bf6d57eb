"""The command that plans the cost of a run on surveyed rows.

Depends on statistics, and on token counts where a model's tokenizer made them. Invariant: what is
printed can be typed, within the bounds of `gmr size --train`.
"""

from __future__ import annotations

from collections.abc import Sequence

from model_store.training.data.doubts.lengths import TokenCounts
from model_store.training.data.doubts.statistics import Statistics

_CHARACTERS_A_TOKEN = 4.3
_TEMPLATE_TOKENS = 90
_TOKEN_PIXELS = 28**2
_MOST_PIXELS = 1_280 * _TOKEN_PIXELS
"""Estimates in place of a model's tokenizer and image rules: English text in Qwen's vocabulary,
GMR's template with an instruction, and its images."""
_MOST_NEGATIVES = 16
"""`data.negatives` of the configuration gmr-3b: a run draws so many of a row's negatives."""
_SIZE_PIXELS = 2_508_800
"""Pixels of an image that `gmr size` takes at most."""


def size_command(
    statistics: Statistics, tokens: TokenCounts | None, sizes: Sequence[tuple[int, int]]
) -> str:
    """`gmr size --train` with the means of the rows."""
    rows = statistics.rows
    documents = statistics.total("positive") + statistics.total("negative")
    if tokens is not None and tokens.prefixes:
        count = len(tokens.prefixes)
        image = sum(tokens.image_tokens) / count
        query = sum(tokens.prefixes) / count
        document = sum(tokens.documents) / count - image
        pixels = image * _TOKEN_PIXELS
    else:
        query = _TEMPLATE_TOKENS + statistics.characters["query"] / rows / _CHARACTERS_A_TOKEN
        characters = statistics.characters["positive"] + statistics.characters["negative"]
        document = characters / documents / _CHARACTERS_A_TOKEN
        pixels = _pixels(sizes) * _pictured(statistics) / documents

    negatives = min(_MOST_NEGATIVES, statistics.total("negative") / rows)
    command = (
        f"gmr size gmr-3b --train --rows {rows} --documents {round(1 + negatives)}"
        f" --query-tokens {_bounded(query)} --document-tokens {_bounded(document)}"
    )
    pixels = min(_SIZE_PIXELS, round(pixels))
    return command + (f" --image-pixels {pixels}" if pixels else "")


def _pictured(statistics: Statistics) -> int:
    """Documents that have a picture."""
    pictured = 0
    for role in ("positive", "negative"):
        pictured += statistics.total(role) - statistics.modalities[role]["text"]
    return pictured


def _pixels(sizes: Sequence[tuple[int, int]]) -> float:
    """Mean pixels of pictures, each within the bound."""
    total = sum(min(_MOST_PIXELS, width * height) for width, height in sizes)
    return total / max(1, len(sizes))


def _bounded(tokens: float) -> int:
    return min(8192, max(1, round(tokens)))
