"""One evaluation from the command line: its benchmark, its service, its run and what it says.

Depends on the runner and the client, not on options. Invariant: a failure that is not a query's own
ends the command with one sentence, and the same command continues the run.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from model_store.evaluation.runs.identity import RunIdentity, RunTask
from model_store.evaluation.runs.runner import Plan, Summary, score_run
from model_store.evaluation.runs.shards import Shard
from model_store.evaluation.tasks.benchmark import Benchmark
from model_store.evaluation.tasks.readers.mteb_source import MtebSource
from service.cli.client.calls import CannotCall, Service
from service.cli.client.ranking import RequestSizes
from service.cli.client.run import Target, is_in_process, open_client, with_advice, within_limits
from service.cli.evaluation.benchmarks import (
    OpenFirstStage,
    OpenTask,
    open_first_stage,
    open_task,
)
from service.cli.evaluation.progress import ShownProgress
from service.cli.evaluation.scorer import PATIENCE, HttpScorer, served_model

_DOCUMENTS = 100
"""Documents of one request, at most: a query's further candidates are in requests of their own."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """An evaluation as the command line asks for it; it can be sent to another process."""

    task: str
    folder: Path
    service: Target
    first_stage: str = "own"
    first_stage_folder: Path | None = None
    """The folder of searches and vectors; None: one in the run's folder."""
    top_k: int = 100
    instruction: str | None = None
    queries: int | None = None
    concurrency: int = 4
    shard: Shard = field(default_factory=Shard)


async def evaluate(asked: Evaluation) -> Summary:
    """Score the queries that are left. Raises `TaskUnusable`, `RunUnusable`, `ScoringStopped`,
    `CannotCall` and `OSError`."""
    task = open_task(asked.task, asked.queries)
    with ShownProgress() as progress:
        folder = asked.first_stage_folder or asked.folder / "first-stage"
        first_stage = open_first_stage(asked.first_stage, asked.top_k, folder, progress)
        async with _served(asked, task, first_stage) as (plan, scorer):
            return await score_run(plan, scorer, progress)


@asynccontextmanager
async def _served(
    asked: Evaluation, task: OpenTask, first_stage: OpenFirstStage
) -> AsyncIterator[tuple[Plan, HttpScorer]]:
    """The plan of a run, once the service has named its model, and the scorer."""
    async with open_client(asked.service, asked.concurrency) as (client, model):
        service = Service(client, PATIENCE)
        try:
            info = await service.info()
        except CannotCall as error:
            raise with_advice(error, asked.service) from None

        served = await served_model(service, model, info)
        identity = RunIdentity(
            task.benchmark.name,
            _table(task.benchmark),
            first_stage.identity,
            asked.top_k,
            served.name,
            served.digest,
            checkpoint=served.version,
            instruction=asked.instruction,
            max_queries=task.max_queries,
        )
        sizes = within_limits(
            RequestSizes(documents=_DOCUMENTS, concurrency=1),
            info,
            in_process=is_in_process(asked.service),
        )
        plan = Plan(
            asked.folder,
            task.benchmark,
            identity,
            first_stage.find,
            asked.shard,
            asked.concurrency,
            is_pinned=_is_pinned(task.benchmark),
        )
        yield plan, HttpScorer(service, model, sizes)


def _is_pinned(benchmark: Benchmark) -> bool:
    """True for data that mteb has at a revision; one's own may change under the same name."""
    sources = chain.from_iterable(task.datasets for task in benchmark.tasks)
    return all(isinstance(source, MtebSource) for source in sources)


def _table(benchmark: Benchmark) -> list[RunTask]:
    return [
        RunTask(task.name, task.cell, task.metric, [source.name for source in task.datasets])
        for task in benchmark.tasks
    ]
