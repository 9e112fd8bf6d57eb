"""The benchmark of the nine generated cells: held-out queries, each with 20 candidates of which one
is relevant.

Does not depend on networks: a caller gives the scores. Invariant: the relevant document of a query
was in no training data. Scenes, facts, headlines (as ordered pairs of words), changes and passages
are held out by the digest of their content; irrelevant pictures may have been seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from statistics import fmean

from model_store.checkpoint import Checkpoint
from model_store.evaluation.metrics import expected_ndcg_of_chance, ndcg, ranked
from model_store.evaluation.results import Results
from model_store.manifest import CheckpointUnusable, manifest_digest
from model_store.synthetic import cells, lexical
from model_store.synthetic.examples import Example
from model_store.synthetic.texts import passages

CANDIDATES = 20
CUT = 10
_QUERIES_AT_ONCE = 4

ScoreExamples = Callable[[list[Example]], list[list[float]]]
"""Examples to the scores of their documents."""


@dataclass(frozen=True, slots=True)
class CellMeans:
    """Means over the queries of one cell; `bm25` is None where BM25 has no text to score."""

    cell: str
    queries: int
    ndcg: float
    first: float
    chance: float
    bm25: float | None


def question(cell: str, number: int) -> Example:
    """One of the benchmark's queries of a cell, whose instruction is that of `instruction`."""
    return cells.sample(
        cell,
        Random(f"heldout/{cell}/{number}"),
        "heldout",
        CANDIDATES - 1,
        plain=_is_plain(number),
    )


def questions(cell: str, count: int) -> Iterator[Example]:
    """The first of the benchmark's queries of a cell."""
    return (question(cell, number) for number in range(count))


def instruction(cell: str, number: int) -> str:
    """The instruction of a query: every second one has the default instruction."""
    return cells.instruction(cell, plain=_is_plain(number))


def refuse_text_only(checkpoint: Checkpoint) -> None:
    """Raise `CheckpointUnusable` where the checkpoint's family does not read images."""
    if checkpoint.family.images is None:
        raise CheckpointUnusable(
            f"{checkpoint.name} reads text only, and generated queries have images: measure it on"
            " --rows of your own."
        )


def evaluate_cells(
    checkpoint: Checkpoint,
    score: ScoreExamples,
    queries: int,
    progress: Callable[[int], None] = lambda cells: None,
) -> Results:
    """nDCG@10 of a checkpoint's scores for every query; `progress` is called for each cell.

    `queries` is part of the benchmark's name: the first 50 of 200 queries are another benchmark
    than all of them. Raises `CheckpointUnusable` where the checkpoint has no manifest.
    """
    datasets = {}
    for cell in cells.CELLS:
        orders = _orders(score, list(questions(cell, queries)))
        datasets[cell] = {
            f"{cell}/{number}": ndcg(order, CUT) for number, order in enumerate(orders)
        }
        progress(1)

    return Results(
        benchmark=f"nine-cells-{queries}",
        metric=f"ndcg@{CUT}",
        checkpoint=f"sha256:{manifest_digest(checkpoint.folder)}",
        datasets=datasets,
    )


def cell_means(results: Results) -> list[CellMeans]:
    """The means of each cell in results of `evaluate_cells`."""
    return [_means(cell, list(values.values())) for cell, values in results.datasets.items()]


def _is_plain(number: int) -> bool:
    return number % 2 == 1


def _means(cell: str, values: Sequence[float]) -> CellMeans:
    bm25 = None
    if cell == "T-T":
        orders = [_order(_bm25_scores(example)) for example in questions(cell, len(values))]
        bm25 = fmean(ndcg(order, CUT) for order in orders)
    return CellMeans(
        cell=cell,
        queries=len(values),
        ndcg=fmean(values),
        first=fmean(value == 1.0 for value in values),  # the one relevant document is first
        chance=expected_ndcg_of_chance(CANDIDATES, CUT),
        bm25=bm25,
    )


def _orders(score: ScoreExamples, examples: list[Example]) -> list[list[float]]:
    """Relevances in ranked order, a list a query."""
    orders = []
    for start in range(0, len(examples), _QUERIES_AT_ONCE):
        scores = score(examples[start : start + _QUERIES_AT_ONCE])
        orders += [_order(documents) for documents in scores]
    return orders


def _order(scores: list[float]) -> list[float]:
    """Relevances by falling score; the relevant document, the first of the scores, loses ties."""
    relevances = [0.0] * (len(scores) - 1) + [1.0]
    return ranked([*scores[1:], scores[0]], relevances)


def _bm25_scores(example: Example) -> list[float]:
    """BM25's scores over the held-out passages, for a query of T-T."""
    numbers = {text: number for number, text in enumerate(passages("heldout"))}
    query = " ".join(lexical.content_terms(str(example.query[0])))
    scores = lexical.index("heldout").scores(query)
    return [scores.get(numbers[str(document[0])], 0.0) for document in example.documents]
