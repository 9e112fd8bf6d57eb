"""One evaluation from the command line: its benchmark, its service, its run and what it says.

Depends on the runner and the client, not on options. Invariant: a failure that is not a query's own
ends the command with one sentence, and the same command continues the run.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import typer

from model_store.evaluation.runs.candidates import OWN, FirstStage, own_candidates
from model_store.evaluation.runs.identity import RunIdentity, RunTask
from model_store.evaluation.runs.query_result import QueryResult
from model_store.evaluation.runs.runner import Plan, Summary, score_run
from model_store.evaluation.runs.shards import Shard
from model_store.evaluation.tasks.benchmark import Benchmark
from service.cli.bulk.progress import rows_progress
from service.cli.client.calls import CannotCall, Service
from service.cli.client.ranking import RequestSizes
from service.cli.client.run import Target, is_in_process, open_client, with_advice, within_limits
from service.cli.evaluation.benchmarks import open_first_stage, open_task
from service.cli.evaluation.scorer import PATIENCE, HttpScorer, served_model

_DOCUMENTS = 100
"""Documents of one request, at most: a query's further candidates are in requests of their own."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What the command line asks for. It can be sent to another process."""

    task: str
    folder: Path
    service: Target
    first_stage: str = OWN
    top_k: int = 100
    instruction: str | None = None
    queries: int | None = None
    concurrency: int = 4
    shard: Shard = field(default_factory=Shard)


async def evaluate(asked: Evaluation) -> Summary:
    """Score the queries that are left. Raises `TaskUnusable`, `RunUnusable`, `ScoringStopped`,
    `CannotCall` and `OSError`."""
    task = open_task(asked.task, asked.queries)
    async with _served(asked, task.benchmark, task.max_queries) as (plan, scorer):
        with _Shown() as shown:
            return await score_run(plan, scorer, shown)


@asynccontextmanager
async def _served(
    asked: Evaluation, benchmark: Benchmark, max_queries: int | None
) -> AsyncIterator[tuple[Plan, HttpScorer]]:
    """The plan of a run, once the service has named its model, and the scorer."""
    first_stage: FirstStage = own_candidates
    if asked.first_stage != OWN:
        first_stage = open_first_stage(asked.first_stage, asked.top_k)
    async with open_client(asked.service, asked.concurrency) as (client, model):
        service = Service(client, PATIENCE)
        try:
            info = await service.info()
        except CannotCall as error:
            raise with_advice(error, asked.service) from None

        served = await served_model(service, model, info)
        identity = RunIdentity(
            benchmark.name,
            [
                RunTask(
                    task.name, task.cell, task.metric, [source.name for source in task.datasets]
                )
                for task in benchmark.tasks
            ],
            asked.first_stage,
            asked.top_k,
            served.name,
            served.digest,
            checkpoint=served.version,
            instruction=asked.instruction,
            max_queries=max_queries,
        )
        sizes = within_limits(
            RequestSizes(documents=_DOCUMENTS, concurrency=1),
            info,
            in_process=is_in_process(asked.service),
        )
        plan = Plan(asked.folder, benchmark, identity, first_stage, asked.shard, asked.concurrency)
        yield plan, HttpScorer(service, model, sizes)


class _Shown:
    """The progress of a run on the terminal."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._advance: Callable[[int], None] = lambda queries: None

    def __enter__(self) -> _Shown:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def preparing(self, dataset: str) -> None:
        typer.echo(f"{dataset}: its data is read, and candidates are found.", err=True)

    def begin(self, total: int, done: int) -> None:
        self._advance = self._stack.enter_context(rows_progress(total, done, unit="queries"))

    def scored(self, result: QueryResult) -> None:
        self._advance(1)
        if result.error:
            typer.echo(f"{result.query} failed: {result.error}", err=True)
