"""The runner: scores the queries of a benchmark's datasets, each once, into a run's folder.

Depends on a scorer and a first stage as protocols. Candidates of all datasets are found before the
first query is scored, so that missing data is known at once. Data is read and candidates are found
in a thread that a cancelled run does not wait for. Invariant: a result is in its journal before it
counts as done, and all results are of the model digest that the run began with.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Protocol, TypeVar

from model_store.evaluation.runs.candidates import (
    FirstStage,
    find_candidates,
    judged_queries,
    read_candidates,
    write_candidates,
)
from model_store.evaluation.runs.folder import (
    DatasetFolder,
    Run,
    begin_run,
    check_identity,
    entry_by_query,
)
from model_store.evaluation.runs.identity import RunIdentity
from model_store.evaluation.runs.journal import Journal, RunUnusable
from model_store.evaluation.runs.lock import preparing_lock, shard_lock
from model_store.evaluation.runs.query_result import QueryResult
from model_store.evaluation.runs.scorer import Scorer
from model_store.evaluation.runs.scoring import DatasetScoring
from model_store.evaluation.runs.shards import Shard
from model_store.evaluation.tasks.benchmark import Benchmark
from model_store.evaluation.tasks.dataset import Dataset, DatasetSource

OnResult = Callable[[QueryResult], None]
_ALL = Shard()
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Plan:
    """A run, and the part of it that this process does."""

    folder: Path
    benchmark: Benchmark
    identity: RunIdentity
    first_stage: FirstStage
    shard: Shard = _ALL
    concurrency: int = 4
    is_pinned: bool = False
    """The data is that of a revision: it is not read once more where all queries have scores."""

    @property
    def sources(self) -> Iterator[DatasetSource]:
        """All datasets, in the order of the table."""
        for task in self.benchmark.tasks:
            yield from task.datasets


class Progress(Protocol):
    """Told about a run while it goes on."""

    def preparing(self, dataset: str) -> None:
        """The data of a dataset is read, and candidates are found."""
        ...

    def notice(self, sentence: str) -> None:
        """A sentence on the data of a dataset."""
        ...

    def waiting(self, dataset: str) -> None:
        """Another process of the run finds candidates."""
        ...

    def begin(self, total: int, done: int) -> None:
        """Queries are scored from now on: `total` of this shard, of which `done` are done."""
        ...

    def scored(self, result: QueryResult) -> None:
        """A query has its result."""
        ...


@dataclass(slots=True)
class Summary:
    """The sums of what one process has done."""

    queries: int = 0
    failed: int = 0
    pairs: int = 0
    refused: int = 0
    prompt_tokens: int = 0
    cached_pairs: int = 0
    first_failure: str = ""
    first_refusal: str = ""

    def add(self, result: QueryResult) -> None:
        """Count a result."""
        self.queries += 1
        self.prompt_tokens += result.prompt_tokens
        self.cached_pairs += result.cached_pairs
        if result.error:
            self.failed += 1
            self.first_failure = self.first_failure or f"{result.query}: {result.error}"
            return
        self.pairs += len(result.scores)
        self.refused += result.scores.count(None)
        self.first_refusal = self.first_refusal or result.refusal

    def add_sums(self, other: Summary) -> None:
        """Add the sums of another process."""
        for each in fields(self):
            own, others = getattr(self, each.name), getattr(other, each.name)
            setattr(self, each.name, own or others if each.type == "str" else own + others)


async def score_run(plan: Plan, scorer: Scorer, progress: Progress) -> Summary:
    """Score all queries of the plan's shard that have no scores yet.

    Queries that failed before are scored again, after all others. Raises `RunUnusable`,
    `TaskUnusable`, `ScoringStopped` and `OSError`; what was scored until then is kept.
    """
    datasets = _Datasets()
    if not plan.folder.exists():  # wrong data must not leave a folder behind
        source = next(plan.sources)
        await _in_thread(lambda: datasets.load(source))
    run = begin_run(plan.folder, plan.identity)
    with shard_lock(plan.folder, plan.shard):
        await _prepare(plan, run, progress, datasets)
        work = [_left(plan, run, source) for source in plan.sources]
        total = sum(part.total for part in work)
        progress.begin(total, total - sum(len(part.queries) for part in work))

        summary = Summary()

        def scored(result: QueryResult) -> None:
            summary.add(result)
            progress.scored(result)

        for part in work:
            if part.queries:
                await _score_dataset(plan, run, part, datasets, scorer, scored)
            elif not plan.is_pinned:
                await _load(plan, run, part, datasets)
    return summary


async def _prepare(plan: Plan, run: Run, progress: Progress, datasets: _Datasets) -> None:
    """Find the candidates of each dataset that has none in the run's folder.

    A run without candidates may be replaced by another one: that is looked for under the lock, and
    once there are candidates. Raises `RunUnusable`.
    """
    for source in plan.sources:
        (folder,) = run.dataset_folders(source.name)
        if folder.header() is None:
            await _prepare_dataset(plan, folder, progress, datasets, source)
    check_identity(plan.folder, plan.identity)


async def _prepare_dataset(
    plan: Plan,
    folder: DatasetFolder,
    progress: Progress,
    datasets: _Datasets,
    source: DatasetSource,
) -> None:
    """Find the candidates of a dataset, unless another process of the run has done so meanwhile."""
    async with preparing_lock(plan.folder, lambda: progress.waiting(source.name)):
        check_identity(plan.folder, plan.identity)
        if folder.header() is None:
            progress.preparing(source.name)
            await _in_thread(lambda: _find(plan, datasets, source, folder, progress))


def _find(
    plan: Plan,
    datasets: _Datasets,
    source: DatasetSource,
    folder: DatasetFolder,
    progress: Progress,
) -> None:
    dataset = datasets.load(source)
    if dataset.missing_documents:
        progress.notice(
            f"{dataset.name}: {dataset.missing_documents:,} judged documents are not in its data,"
            " and count as missed."
        )
    queries = judged_queries(dataset, plan.identity.max_queries)
    candidates = find_candidates(dataset, queries, plan.first_stage, plan.identity.top_k)
    folder.path.mkdir(parents=True, exist_ok=True)
    write_candidates(folder.candidates, dataset, candidates)


async def _in_thread(work: Callable[[], _T]) -> _T:
    """The result of work in a thread that ends with the process.

    Ctrl-C does not wait for a search of hours, as it would for a thread of asyncio's. Files appear
    whole or not at all, so that the work may end anywhere.
    """
    done: Future[_T] = Future()
    done.set_running_or_notify_cancel()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=run, name="preparing", daemon=True).start()
    return await asyncio.wrap_future(done)


@dataclass(frozen=True, slots=True)
class _Part:
    """The queries of a dataset that are left; `total` is the number of all of the shard's."""

    source: DatasetSource
    queries: list[str]
    total: int


def _left(plan: Plan, run: Run, source: DatasetSource) -> _Part:
    (folder,) = run.dataset_folders(source.name)
    entries = entry_by_query([folder])
    of_shard = [
        query for query in read_candidates(folder.candidates) if plan.shard.has(source.name, query)
    ]
    fresh = [query for query in of_shard if query not in entries]
    failed = [query for query in of_shard if query in entries and entries[query].failed]
    return _Part(source, [*fresh, *failed], len(of_shard))


class _Datasets:
    """The dataset that was loaded last: a benchmark's corpora do not fit in memory together."""

    def __init__(self) -> None:
        self._last: tuple[DatasetSource, Dataset] | None = None

    def load(self, source: DatasetSource) -> Dataset:
        """Load a dataset. Raises `TaskUnusable`."""
        if self._last is None or self._last[0] is not source:
            self._last = None  # its memory is needed
            self._last = source, source.load()
        return self._last[1]


async def _load(plan: Plan, run: Run, part: _Part, datasets: _Datasets) -> Dataset:
    """The data of a dataset. Raises `RunUnusable` where it has changed since the run began."""
    (folder,) = run.dataset_folders(part.source.name)
    dataset = await _in_thread(lambda: datasets.load(part.source))
    header = folder.header()
    if header is None or header.digest != dataset.digest:
        raise RunUnusable(
            f"{plan.folder}: the data of {dataset.name} has changed since the run began; give"
            " another folder."
        )
    return dataset


async def _score_dataset(
    plan: Plan, run: Run, part: _Part, datasets: _Datasets, scorer: Scorer, scored: OnResult
) -> None:
    """Score the queries of one dataset that are left."""
    (folder,) = run.dataset_folders(part.source.name)
    dataset = await _load(plan, run, part, datasets)
    candidates = read_candidates(folder.candidates)
    with Journal(folder.journal(plan.shard.index, plan.shard.count)) as journal:
        scoring = DatasetScoring(dataset, candidates, plan.identity, scorer, journal, scored)
        await scoring.score(part.queries, concurrency=plan.concurrency)
