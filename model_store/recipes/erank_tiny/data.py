"""Rows of generated text queries, and what a teacher would write for their pairs.

Depends on generated texts, not on a model. Invariant: a file is a function of its name, the seed
and its number of rows, and no row has a held-out passage.

The teacher is arithmetic: the number of the query's words that a document has, with noise. So the
right number is known, and the noise is what several generations and their consensus are for.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

from model_store.output_files import output_file
from model_store.synthetic import cells, examples, lexical
from model_store.training.data.row_files import write_examples
from model_store.training.data.rows import Example, Negative, Side, read_examples
from model_store.training.erank.answers import pair_key
from model_store.training.erank.consensus import Generations, generations_line

DOCUMENTS = 20
"""Of a query, as in the paper."""
GENERATIONS = 3
_POINTS = 2.5
"""Of a word that a document has of the query's."""
_DEVIATION = 1.0
"""Of the teacher's numbers, in points."""
_BROKEN = 0.05
"""Share of generations without a number."""


def write_rows(path: Path, count: int, *, seed: int) -> None:
    """Write rows of one relevant passage and 19 others, of which 9 are near misses; half of them
    have the default instruction. Raises `DataError` where the disk refuses."""
    write_examples(path, _rows(path.stem, count, Random(f"erank/{path.stem}/{seed}")))


def _rows(name: str, count: int, rng: Random) -> Iterator[Example]:
    for number in range(count):
        instruction = cells.instruction("T-T", plain=rng.random() < 0.5)
        query, documents = lexical.passages_task(rng, "train", DOCUMENTS - 1)
        drawn = examples.Example("T-T", instruction, query, documents, frozenset())
        yield example_of(f"{name}/{number}", drawn)


def example_of(name: str, drawn: examples.Example) -> Example:
    """A generated example of texts as a row: one positive, and all others as negatives."""
    relevant, *others = [_side(document) for document in drawn.documents]
    return Example(
        id=name,
        instruction=drawn.instruction,
        query=_side(drawn.query),
        positives=(relevant,),
        negatives=tuple(Negative(side, "hard") for side in others),
        location=name,
    )


def _side(side: examples.Side) -> Side:
    (text,) = side
    assert isinstance(text, str)
    return Side(text, None)


def write_generations(rows: Path, path: Path, *, seed: int) -> None:
    """Write what the teacher generates for every pair of the rows; raises `DataError`."""
    rng = Random(f"erank/teacher/{seed}")
    with output_file(path) as write:
        for example in read_examples(rows):
            for document, side in enumerate(example.documents):
                texts = [_generation(example, side, rng) for _ in range(GENERATIONS)]
                key = pair_key(example.query, side)
                write(generations_line(Generations(example.id, document, texts, key)))


def _generation(example: Example, document: Side, rng: Random) -> str:
    asked = _terms(example.query) & _terms(example.positives[0])
    found = asked & _terms(document)
    thought = f"{len(found)} words"
    if rng.random() < _BROKEN:
        return f"<think>{thought}</think><answer>unsure</answer>"
    score = round(_POINTS * len(found) + rng.gauss(0, _DEVIATION))
    return f"<think>{thought}</think><answer>{min(10, max(0, score))}</answer>"


def _terms(side: Side) -> set[str]:
    return set(lexical.content_terms(side.text or ""))
