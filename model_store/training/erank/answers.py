"""Generated answers: a thought and a number for pairs of training rows, in a file beside them.

One JSON object a line names a row by its `id` and one of its documents by its number: the positives
first, then the negatives, from 0. Depends on rows, not on tokens or networks. Invariant: an answer
that is read has a number within the read-out's bounds and a thought within its own, and no pair has
two.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec

from model_store.errors import DataError
from model_store.families.readout import GeneratedScore
from model_store.output_files import json_line, output_file
from model_store.training.data.decoding import decode
from model_store.training.data.identity import content_key
from model_store.training.data.rows import (
    MAX_ID_CHARS,
    MAX_SIDES,
    Example,
    Side,
    read_examples,
    read_lines,
)

MAX_THOUGHT_CHARS = 20_000
"""Of a thought: 2,048 tokens, the paper's bound, are about 8,000 characters of English."""
MAX_ANSWERS = 20_000_000
SHOWN = 20
"""Problems of a file that are named."""
_TAGS = ("<think>", "</think>", "<answer>", "</answer>")


@dataclass(frozen=True, slots=True)
class GeneratedAnswer:
    """The answer that is taught for one pair; `location` is `file:line`.

    `pair` identifies the contents of query and document; empty where the file does not state it.
    """

    id: str
    document: int
    thought: str
    score: int
    pair: str = ""
    location: str = ""

    @property
    def text(self) -> str:
        """The answer as a model is to write it."""
        return f"<think>{self.thought}</think><answer>{self.score}</answer>"


class _Row(msgspec.Struct, forbid_unknown_fields=True):
    id: str
    document: int
    thought: str
    score: int
    pair: str = ""


_decoder = msgspec.json.Decoder(_Row)
_FIELDS = {"": ("id", "document", "thought", "score", "pair")}


def pair_key(query: Side, document: Side) -> str:
    """32 hexadecimal digits that identify the contents of a pair."""
    return blake2b(content_key(query) + content_key(document), digest_size=16).hexdigest()


def read_answers(path: Path, readout: GeneratedScore) -> Iterator[GeneratedAnswer]:
    """The answers of a `.jsonl` or `.jsonl.gz` file, each checked by itself; raises `DataError` at
    the first that is wrong."""
    for count, (number, line) in enumerate(read_lines(path), start=1):
        if count > MAX_ANSWERS:
            raise DataError(f"{path}:{number}: a file has at most {MAX_ANSWERS:,} answers.")
        yield parse_answer(line, path, number, readout)


def parse_answer(line: bytes, path: Path, number: int, readout: GeneratedScore) -> GeneratedAnswer:
    """One line of `path` as an answer; raises `DataError`."""
    location = f"{path}:{number}"
    try:
        row = decode(_decoder, line, location, _FIELDS)
    except ValueError as error:
        raise DataError(str(error)) from None

    check_pair(row.id, row.document, location)
    problem = _problem(row, readout)
    if problem:
        raise DataError(f"{location}: {problem}.")
    return GeneratedAnswer(row.id, row.document, row.thought, row.score, row.pair, location)


def check_pair(identity: str, document: int, location: str) -> None:
    """Raise `DataError` where a line cannot name a pair of any row."""
    if not 1 <= len(identity) <= MAX_ID_CHARS:
        raise DataError(f"{location}: the id must have 1 to {MAX_ID_CHARS} characters.")
    if not 0 <= document < 2 * MAX_SIDES:
        raise DataError(f"{location}: document must be a number from 0 to {2 * MAX_SIDES - 1}.")


def _problem(row: _Row, readout: GeneratedScore) -> str | None:
    """The problem of thought or number, as a sentence without its full stop."""
    if not readout.lowest <= row.score <= readout.highest:
        return (
            f"score is {row.score}, and a number from {readout.lowest} to {readout.highest} is"
            " asked for"
        )
    if len(row.thought) > MAX_THOUGHT_CHARS:
        return f"thought has {len(row.thought)} characters, and {MAX_THOUGHT_CHARS} are allowed"
    tag = tag_in(row.thought)
    if tag:
        return f"thought has {tag}, which would end it: give the text between the tags alone"
    return None


def tag_in(thought: str) -> str | None:
    """The first of the answer's tags in a thought, where it would change the answer's form."""
    for tag in _TAGS:
        if tag in thought:
            return tag
    return None


def write_answers(path: Path, answers: Iterable[GeneratedAnswer]) -> int:
    """Write a file of answers atomically; returns their number."""
    count = 0
    with output_file(path) as write:
        for answer in answers:
            row: dict[str, Any] = {"id": answer.id, "document": answer.document}
            row |= {"thought": answer.thought, "score": answer.score}
            if answer.pair:
                row["pair"] = answer.pair
            write(json_line(row))
            count += 1
    return count


def matched(
    rows: Path, answers: Iterable[GeneratedAnswer]
) -> Iterator[tuple[Example, list[GeneratedAnswer]]]:
    """Each row with its answers, in the order of the rows; rows without answers are left out.

    Holds the answers in memory. Raises `DataError` with a line for each of the first problems:
    answers to pairs that the rows have not, second answers to a pair, and pairs of other contents.
    """
    by_row: dict[str, list[GeneratedAnswer]] = {}
    for answer in answers:
        by_row.setdefault(answer.id, []).append(answer)

    problems: list[str] = []
    for example in read_examples(rows):
        own = by_row.pop(example.id, None)
        if own is None:
            continue
        problems += _misplaced(example, own)
        if not problems:
            yield example, sorted(own, key=lambda answer: answer.document)
        if len(problems) >= SHOWN:
            break

    if len(problems) < SHOWN:
        for left in by_row.values():
            problems.append(f"{left[0].location}: {rows.name} has no row {left[0].id!r}.")
    if problems:
        raise DataError("\n".join(problems[:SHOWN]))


def _misplaced(example: Example, answers: list[GeneratedAnswer]) -> Iterator[str]:
    """A sentence for each answer that fits no pair of the row."""
    documents = example.documents
    lines: dict[int, str] = {}
    for answer in answers:
        if answer.document >= len(documents):
            yield (
                f"{answer.location}: row {example.id!r} has {len(documents)} documents, and no"
                f" number {answer.document}."
            )
            continue
        first = lines.setdefault(answer.document, answer.location)
        if first != answer.location:
            yield f"{answer.location}: {first} has an answer to this pair already."
        elif answer.pair and answer.pair != pair_key(example.query, documents[answer.document]):
            yield (
                f"{answer.location}: the answer is to another query or document than the row at"
                f" {example.location} has."
            )
