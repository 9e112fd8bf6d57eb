"""The tokens that a checkpoint's vocabulary takes for the world's scripts, one sentence of each.

Depends on a tokenizer, not on a network. Invariant: the figures are of the text as the service
encodes it. The sentences are the first of article 1 of the Universal Declaration of Human Rights,
as the United Nations publish it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from model_store.families.tokens import LiteralTokenizer

SENTENCES = Path(__file__).with_name("scripts.json")
BY_BYTES = 0.75
"""Tokens a byte from which a script counts as read byte by byte: its characters have almost no
tokens of their own, so the vocabulary was learnt on almost no text in it."""

_MEANING = """\
Any text can be encoded. How many tokens a script takes says how much of it was there when the
vocabulary was learnt; the last column is about how many characters fit in {limit} tokens. What is
longer is cut, between characters as readers see them.
"""


@dataclass(frozen=True, slots=True)
class ScriptCost:
    """The cost of a script in tokens a character (code point) and tokens a byte of UTF-8."""

    script: str
    a_character: float
    a_byte: float


def measure(tokenizer: LiteralTokenizer) -> list[ScriptCost]:
    """The cost of each script, in the order of `scripts.json`."""
    sentences: dict[str, str] = json.loads(SENTENCES.read_text(encoding="utf-8"))
    costs: list[ScriptCost] = []
    encoded = tokenizer.encode(list(sentences.values()))
    for (script, text), ids in zip(sentences.items(), encoded, strict=True):
        costs.append(ScriptCost(script, len(ids) / len(text), len(ids) / len(text.encode())))
    return costs


def section(tokenizer: LiteralTokenizer, max_tokens: int) -> list[str]:
    """The model card's lines on scripts."""
    costs = measure(tokenizer)
    unknown = [cost.script for cost in costs if cost.a_byte >= BY_BYTES]
    rows: list[str] = []
    for cost in costs:
        fit = round(max_tokens / cost.a_character, -2)
        rows.append(f"| {cost.script} | {cost.a_character:.2f} | {cost.a_byte:.2f} | {fit:,.0f} |")

    return [
        "## Scripts",
        "",
        *_MEANING.format(limit=max_tokens).splitlines(),
        "",
        "| script | tokens a character | tokens a byte | characters that fit |",
        "| --- | --- | --- | --- |",
        *rows,
        "",
        f"{_summary(unknown)} One sentence of each was measured.",
    ]


def _summary(unknown: list[str]) -> str:
    if not unknown:
        return "No script is read byte by byte."

    names = ", ".join(unknown)
    meaning = "without tokens of their own, so that the model can hardly know them"
    return f"Read byte by byte, {meaning}: {names}."
