"""Run files, as TREC has them: a query, Q0, a document, a rank, a score and the run's name a line.

Does not depend on a retriever. Invariant: a query's documents are known, distinct and in the order
of distinct ranks, which is the order of their scores.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from model_store.evaluation.tasks.dataset import TaskUnusable
from model_store.evaluation.tasks.readers.trec_cells import check_known, parse_integer, read_cells

MAX_LINES = 50_000_000
"""About 2 GB of memory. A hundred candidates of MRB's largest set are 5 million lines."""
MAX_CANDIDATES = 10_000
"""Documents of one query."""
_FORM = "a query, Q0, a document, a rank, a score and the name of the run (TREC)"


@dataclass(slots=True)
class _Ranking:
    """The documents of a query as they come, with the numbers of their lines."""

    documents: list[str] = field(default_factory=list)
    ranks: array[int] = field(default_factory=lambda: array("l"))
    scores: array[float] = field(default_factory=lambda: array("d"))
    lines: array[int] = field(default_factory=lambda: array("L"))


def read_run(
    path: Path, queries: Container[object], documents: Container[object]
) -> dict[str, list[str]]:
    """Documents by query, best first, of a file that may be packed (`.gz`).

    Other queries than `queries` are left out: runs have the queries that nobody judged, too. Raises
    `TaskUnusable` with file and line for unknown documents, for a document or a rank that a query
    has twice, and where ranks and scores are of different orders; and where no query is known.
    """
    rankings: dict[str, _Ranking] = {}
    known: dict[str, str] = {}  # one object for each document, however often it is ranked
    for number, (query, _, document, rank, score, *_) in read_cells(path, (5, 6), _FORM):
        location = f"{path}:{number}"
        if number > MAX_LINES:
            raise TaskUnusable(f"{location}: there are more than {MAX_LINES:,} lines.")
        ranking = rankings.get(query)
        if ranking is None:
            if query not in queries:
                continue
            ranking = rankings[query] = _Ranking()
        if document not in known:
            check_known(document, documents, "document", location)
            known[document] = document
        if len(ranking.documents) == MAX_CANDIDATES:
            raise TaskUnusable(f"{location}: the query has more than {MAX_CANDIDATES:,} documents.")

        ranking.documents.append(known[document])
        ranking.ranks.append(parse_integer(rank, "rank", location))
        ranking.scores.append(_parse_score(score, location))
        ranking.lines.append(number)

    if not rankings:
        raise TaskUnusable(f"{path}: there are no candidates of any judged query.")
    return {query: _in_order(ranking, path) for query, ranking in rankings.items()}


def _parse_score(cell: str, location: str) -> float:
    try:
        score = float(cell)
    except ValueError:
        score = math.nan
    if not math.isfinite(score):
        raise TaskUnusable(f"{location}: the score {cell[:40]!r} is no finite number.")
    return score


def _in_order(ranking: _Ranking, path: Path) -> list[str]:
    """The documents by rank; raises `TaskUnusable`."""
    _refuse_twice(ranking.documents, "document", ranking, path)
    _refuse_twice(ranking.ranks, "rank", ranking, path)
    order = sorted(range(len(ranking.ranks)), key=ranking.ranks.__getitem__)
    for better, worse in pairwise(order):
        if ranking.scores[better] < ranking.scores[worse]:
            raise TaskUnusable(
                f"{path}:{ranking.lines[worse]}: rank {ranking.ranks[worse]} has a larger score"
                f" than rank {ranking.ranks[better]} of the same query."
            )
    return [ranking.documents[index] for index in order]


def _refuse_twice(values: Sequence[object], name: str, ranking: _Ranking, path: Path) -> None:
    if len(set(values)) == len(values):
        return
    seen = set()
    for value, number in zip(values, ranking.lines, strict=True):
        if value in seen:
            raise TaskUnusable(f"{path}:{number}: the query has {name} {value!r} twice.")
        seen.add(value)
