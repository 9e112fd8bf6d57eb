"""The values of a dataset's queries: of the model, of the first stage, and of a perfect reranker.

Does not depend on files or tables. Invariant: all values of a query are of the same candidates and
judgements, and a query without scores has the first stage's order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice

import msgspec
import numpy as np

from model_store.evaluation.metrics import FloatArray, Metric, ranking
from model_store.evaluation.results import MAX_QUERIES, ResultsUnusable
from model_store.evaluation.runs.query_result import QueryResult

_QUERIES_AT_ONCE = 512
_RECALL = Metric("recall")


class Counts(msgspec.Struct):
    """Sums over queries."""

    queries: int = 0
    failed: int = 0
    """Queries without scores."""
    without_relevant: int = 0
    """Queries without a relevant document: their value is 0 whatever the order."""
    with_refused: int = 0
    """Queries of which some documents were refused."""
    refused: int = 0
    """Documents that were refused, each of one query."""
    pairs: int = 0
    cached_pairs: int = 0
    prompt_tokens: int = 0

    def add(self, other: Counts) -> None:
        """Add the counts of other queries."""
        for name in self.__struct_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass(frozen=True, slots=True)
class Measured:
    """Values of a dataset's queries, `[queries]` each, in the order of `queries`."""

    queries: list[str]
    score: FloatArray
    first_stage: FloatArray
    """The same metric of the first stage's own order."""
    perfect: FloatArray
    """The same metric of the best order of the candidates."""
    recall: FloatArray
    """The share of the relevant documents that are candidates."""
    counts: Counts
    digest: str
    """Changes with the queries, their candidates and their judgements."""


@dataclass(slots=True)
class _Values:
    """The columns of `Measured`, block by block."""

    score: list[FloatArray] = field(default_factory=list)
    first_stage: list[FloatArray] = field(default_factory=list)
    perfect: list[FloatArray] = field(default_factory=list)
    recall: list[FloatArray] = field(default_factory=list)


def measure(results: Iterable[QueryResult], metric: Metric) -> Measured | None:
    """The values of a dataset's queries; None where there are no queries.

    Raises `ResultsUnusable` where lists of a result differ in length, or there are too many.
    """
    queries: list[str] = []
    digests: list[bytes] = []
    counts, values = Counts(), _Values()
    remaining = iter(results)
    while block := list(islice(remaining, _QUERIES_AT_ONCE)):
        for result in block:
            _check(result)
            counts.add(_counts(result))
            queries.append(result.query)
            digests.append(_digest(result))
        if len(queries) > MAX_QUERIES:
            raise ResultsUnusable(f"There are more than {MAX_QUERIES} queries in a dataset.")
        _add_block(values, block, metric)
    if not queries:
        return None

    return Measured(
        queries=queries,
        score=np.concatenate(values.score),
        first_stage=np.concatenate(values.first_stage),
        perfect=np.concatenate(values.perfect),
        recall=np.concatenate(values.recall),
        counts=counts,
        digest=f"sha256:{hashlib.sha256(b''.join(sorted(digests))).hexdigest()}",
    )


def _add_block(values: _Values, block: list[QueryResult], metric: Metric) -> None:
    first_stage = _padded([result.grades for result in block])
    ordered = _padded([_ordered(result) for result in block])
    ideal = _padded([result.ideal for result in block])
    values.score.append(metric.values(ordered, ideal))
    values.first_stage.append(metric.values(first_stage, ideal))
    values.perfect.append(metric.values(-np.sort(-first_stage, axis=-1), ideal))
    values.recall.append(_RECALL.values(first_stage, ideal))


def _ordered(result: QueryResult) -> list[int]:
    """Grades by falling score."""
    return [result.grades[place] for place in ranking(result.scores).tolist()]


def _padded(rows: Sequence[Sequence[int]]) -> FloatArray:
    """Lists as rows of a matrix, `[lists, longest]`, with zeros behind their ends."""
    matrix = np.zeros((len(rows), max(map(len, rows))))
    for number, row in enumerate(rows):
        matrix[number, : len(row)] = row
    return matrix


def _check(result: QueryResult) -> None:
    if not len(result.candidates) == len(result.scores) == len(result.grades):
        raise ResultsUnusable(
            f"The query {result.query!r} of {result.dataset!r} has {len(result.candidates)}"
            f" candidates, {len(result.scores)} scores and {len(result.grades)} grades."
        )


def _counts(result: QueryResult) -> Counts:
    has_failed = bool(result.error)
    refused = 0 if has_failed else result.scores.count(None)
    return Counts(
        queries=1,
        failed=has_failed,
        without_relevant=not result.ideal,
        with_refused=bool(refused),
        refused=refused,
        pairs=len(result.candidates),
        cached_pairs=result.cached_pairs,
        prompt_tokens=result.prompt_tokens,
    )


def _digest(result: QueryResult) -> bytes:
    judged = (result.query, result.candidates, result.grades, result.ideal)
    return hashlib.sha256(msgspec.json.encode(judged)).digest()
