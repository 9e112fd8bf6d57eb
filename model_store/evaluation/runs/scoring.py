"""The scoring of one dataset's queries, several at a time.

Depends on a scorer as a protocol, and on a journal. Items are read by one thread in the background:
readers of tasks need not be safe for several. Invariant: a query has one line in the journal for
each time that it was asked for and answered, and is never counted before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from model_store.evaluation.runs.identity import RunIdentity
from model_store.evaluation.runs.journal import Journal
from model_store.evaluation.runs.query_result import QueryResult
from model_store.evaluation.runs.scorer import (
    ModelChanged,
    QueryFailed,
    Scored,
    Scorer,
    ScoringStopped,
)
from model_store.evaluation.tasks.dataset import Dataset, Item

MAX_FAILURES_IN_A_ROW = 50
"""Queries that may fail one after the other: after that, the service is taken to be at fault."""


@dataclass(slots=True)
class DatasetScoring:
    """The scoring of one dataset; `scored` is called with each result that is in the journal."""

    dataset: Dataset
    candidates: Mapping[str, Sequence[str]]
    identity: RunIdentity
    scorer: Scorer
    journal: Journal
    scored: Callable[[QueryResult], None]
    _reading: ThreadPoolExecutor = field(init=False)
    _in_a_row: int = field(default=0, init=False)

    async def score(self, queries: Sequence[str], *, concurrency: int) -> None:
        """Score queries. Raises `TaskUnusable`, `ScoringStopped` and `OSError`."""
        waiting = iter(queries)
        with ThreadPoolExecutor(1, "items") as self._reading:
            try:
                async with asyncio.TaskGroup() as tasks:
                    for _ in range(concurrency):
                        tasks.create_task(self._work(waiting))
            except* Exception as failures:
                raise failures.exceptions[0] from None

    async def _work(self, waiting: Iterator[str]) -> None:
        """Score query after query."""
        for query in waiting:
            result = await self._result(query)
            self.journal.append(result)
            self.scored(result)
            self._in_a_row = self._in_a_row + 1 if result.error else 0
            if self._in_a_row >= MAX_FAILURES_IN_A_ROW:
                raise ScoringStopped(
                    f"{MAX_FAILURES_IN_A_ROW} queries failed one after the other, the last one"
                    f" with: {result.error}"
                )

    async def _result(self, query: str) -> QueryResult:
        """The result of a query: its scores, or its failure."""
        documents = self.candidates[query]
        if not documents:
            return self._success(query, Scored([], self.identity.model_digest), [])

        loop = asyncio.get_running_loop()
        read = await loop.run_in_executor(
            self._reading, _read_items, self.dataset, query, documents
        )
        try:
            scored = await self.scorer.score(self._instruction_of(query), read.query, read.distinct)
        except QueryFailed as failure:
            return self._failed(query, str(failure))

        if scored.model_digest != self.identity.model_digest:
            raise ModelChanged(
                f"The service's model has changed from {self.identity.model_digest[:19]} to"
                f" {scored.model_digest[:19]}: a run has the scores of one model. Continue it with"
                " the one before, or give another folder."
            )
        if scored.scores.count(None) == len(scored.scores):
            reason = next(iter(scored.refusals.values()), "no reason is given")
            return self._failed(query, f"All documents were refused: {reason}")
        return self._success(query, scored, read.positions)

    def _success(self, query: str, scored: Scored, positions: Sequence[int]) -> QueryResult:
        scores = [scored.scores[position] for position in positions]
        return self._of(
            query,
            scores,
            refusal=next(iter(scored.refusals.values()), ""),
            prompt_tokens=scored.prompt_tokens,
            cached_pairs=scored.cached_pairs,
        )

    def _failed(self, query: str, error: str) -> QueryResult:
        return self._of(query, [None] * len(self.candidates[query]), error=error)

    def _of(
        self,
        query: str,
        scores: list[float | None],
        *,
        error: str = "",
        refusal: str = "",
        prompt_tokens: int = 0,
        cached_pairs: int = 0,
    ) -> QueryResult:
        judged = self.dataset.judgements[query]
        documents = list(self.candidates[query])
        return QueryResult(
            self.dataset.name,
            query,
            documents,
            scores,
            [judged.get(document, 0) for document in documents],
            sorted((grade for grade in judged.values() if grade > 0), reverse=True),
            error=error,
            prompt_tokens=prompt_tokens,
            cached_pairs=cached_pairs,
            refusal=refusal,
            instruction=self._instruction_of(query),
        )

    def _instruction_of(self, query: str) -> str | None:
        return self.identity.instruction or self.dataset.instruction_of(query)


@dataclass(frozen=True, slots=True)
class _Read:
    """A query and its distinct documents; `positions` are those of all candidates among them."""

    query: Item
    distinct: list[Item]
    positions: list[int]


def _read_items(dataset: Dataset, query: str, documents: Sequence[str]) -> _Read:
    """Read a query's items; documents of equal content are one."""
    known: dict[tuple[str | None, bytes | None], int] = {}
    distinct: list[Item] = []
    positions: list[int] = []
    for document in documents:
        item = dataset.documents[document]
        position = known.setdefault((item.text, item.image), len(distinct))
        if position == len(distinct):
            distinct.append(item)
        positions.append(position)
    return _Read(dataset.queries[query], distinct, positions)
