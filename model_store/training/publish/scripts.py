"""What a checkpoint's vocabulary makes of the world's scripts: measured on one sentence in each.

Knows a tokenizer, no network. Invariant: the figures are of the text as the service encodes it. The
sentences are the first of article 1 of the Universal Declaration of Human Rights, as the United
Nations publish it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from model_store.families.tokens import LiteralTokenizer

SENTENCES = Path(__file__).with_name("scripts.json")
BY_BYTES = 0.75
"""Tokens a byte from which a script is read byte by byte: its characters have next to no tokens of
their own, so hardly any text in it was there when the vocabulary was learnt."""

_MEANING = """\
Any text can be encoded. How many tokens a script takes says how much of it was there when the
vocabulary was learnt; the last column is about how many characters fit in {limit} tokens. What is
longer is cut, between characters as readers see them.
"""


@dataclass(frozen=True, slots=True)
class ScriptCost:
    """What a sentence of a script takes, in tokens a character (code point) and a byte of UTF-8."""

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
        f"{_told(unknown)} One sentence of each was measured.",
    ]


def _told(unknown: list[str]) -> str:
    if not unknown:
        return "No script is read byte by byte."
    names = ", ".join(unknown)
    meaning = "without tokens of their own, so that the model can hardly know them"
    return f"Read byte by byte, {meaning}: {names}."
