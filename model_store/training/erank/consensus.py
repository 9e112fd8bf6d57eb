"""A teacher's several generations for a pair, and the one that is taught: the nearest to the mean.

Depends on texts and a tokenizer's counts, not on a network. Invariant: a generation that is kept is
whole, within the bound of tokens, and no other of its pair is nearer to the mean of all such.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

import msgspec

from model_store.errors import DataError
from model_store.families.generated_answer import number_in
from model_store.families.readout import GeneratedScore
from model_store.output_files import json_line
from model_store.training.data.decoding import decode
from model_store.training.data.rows import read_lines
from model_store.training.erank.answers import (
    MAX_THOUGHT_CHARS,
    GeneratedAnswer,
    check_pair,
    tag_in,
)

MAX_GENERATIONS = 64
MAX_GENERATION_CHARS = 4 * MAX_THOUGHT_CHARS
_THOUGHT = re.compile(r"\s*<think>(.*?)</think>", re.DOTALL)

CountTokens = Callable[[str], int]


@dataclass(frozen=True, slots=True)
class Generations:
    """The texts that a teacher wrote for one pair."""

    id: str
    document: int
    texts: Sequence[str]
    pair: str = ""
    location: str = ""


@dataclass(slots=True)
class Chosen:
    """Counts of a choice over many pairs; `unscored` are generations without a number, `too_long`
    those above the bound, `lost` pairs without any that is left."""

    pairs: int = 0
    generations: int = 0
    unscored: int = 0
    too_long: int = 0
    lost: int = 0
    scores: dict[int, int] = field(default_factory=dict)
    """Answers that are kept, by their number."""


class _Row(msgspec.Struct, forbid_unknown_fields=True):
    id: str
    document: int
    generations: list[str]
    pair: str = ""


_decoder = msgspec.json.Decoder(_Row)
_FIELDS = {"": ("id", "document", "generations", "pair")}


def read_generations(path: Path) -> Iterator[Generations]:
    """The generations of a `.jsonl` or `.jsonl.gz` file, a pair a line; raises `DataError` at the
    first line that is wrong, or names a pair again."""
    seen: dict[tuple[str, int], int] = {}
    for number, line in read_lines(path):
        location = f"{path}:{number}"
        try:
            row = decode(_decoder, line, location, _FIELDS)
        except ValueError as error:
            raise DataError(str(error)) from None

        check_pair(row.id, row.document, location)
        if not 1 <= len(row.generations) <= MAX_GENERATIONS:
            raise DataError(
                f"{location}: there are {len(row.generations)} generations, and there must be 1 to"
                f" {MAX_GENERATIONS}."
            )
        longest = max(map(len, row.generations))
        if longest > MAX_GENERATION_CHARS:
            raise DataError(
                f"{location}: a generation has {longest} characters, and {MAX_GENERATION_CHARS} are"
                " allowed."
            )
        first = seen.setdefault((row.id, row.document), number)
        if first != number:
            raise DataError(f"{location}: line {first} has this pair's generations already.")
        yield Generations(row.id, row.document, row.generations, row.pair, location)


def generations_line(generations: Generations) -> bytes:
    """A pair's generations as a line of a file."""
    row: dict[str, object] = {"id": generations.id, "document": generations.document}
    row["generations"] = list(generations.texts)
    if generations.pair:
        row["pair"] = generations.pair
    return json_line(row)


def choose(
    pairs: Iterable[Generations],
    readout: GeneratedScore,
    count_tokens: CountTokens,
    max_tokens: int,
    counts: Chosen,
) -> Iterator[GeneratedAnswer]:
    """The answer of each pair, and none of a pair that has no usable generation; adds to
    `counts`."""
    for pair in pairs:
        counts.pairs += 1
        counts.generations += len(pair.texts)
        usable: list[tuple[str, int]] = []
        for text in pair.texts:
            parsed = _parsed(text, readout)
            if parsed is None:
                counts.unscored += 1
            elif count_tokens(text) > max_tokens:
                counts.too_long += 1
            else:
                usable.append(parsed)

        if not usable:
            counts.lost += 1
            continue
        thought, score = nearest(usable)
        counts.scores[score] = counts.scores.get(score, 0) + 1
        yield GeneratedAnswer(pair.id, pair.document, thought, score, pair.pair, pair.location)


def nearest(generations: Sequence[tuple[str, int]]) -> tuple[str, int]:
    """Of (thought, number), the one whose number is nearest to the mean; the first of several."""
    consensus = fmean(score for _, score in generations)
    return min(generations, key=lambda each: abs(each[1] - consensus))


def _parsed(text: str, readout: GeneratedScore) -> tuple[str, int] | None:
    """Thought and number of a generation; None where one is missing, or out of bounds."""
    thought, number = _THOUGHT.match(text), number_in(text)
    if thought is None or number is None or len(thought[1]) > MAX_THOUGHT_CHARS:
        return None
    if not readout.lowest <= number.value <= readout.highest or tag_in(thought[1]):
        return None
    return thought[1], number.value
