"""An evaluation on a cluster, by Ray Data.

Depends on Ray and on the shards of a run. Each actor scores shards into the run's folder, on a file
system that all actors share; Ray moves shards' numbers and sums alone, so that a lost actor costs
the queries that it was asking for. Invariant: the results are those of a single process.
"""

from __future__ import annotations

import asyncio
from dataclasses import asdict, replace
from typing import Any

import ray
import ray.data
from ray.exceptions import RayTaskError, UserCodeException

from model_store.evaluation.runs.journal import RunUnusable
from model_store.evaluation.runs.runner import Summary
from model_store.evaluation.runs.scorer import ScoringStopped
from model_store.evaluation.runs.shards import Shard
from model_store.evaluation.tasks.dataset import TaskUnusable
from service.cli.bulk.progress import rows_progress
from service.cli.client.calls import CannotCall
from service.cli.evaluation.evaluating import Evaluation, evaluate

_OWN = (TaskUnusable, RunUnusable, ScoringStopped, CannotCall)


class _Scoring:
    """An actor that scores shards."""

    def __init__(self, asked: Evaluation, shards: int) -> None:
        self._asked = asked
        self._shards = shards

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        summaries: list[dict[str, Any]] = []
        for index in batch["shard"]:
            shard = Shard(int(index), self._shards)
            summaries.append(asdict(asyncio.run(evaluate(replace(self._asked, shard=shard)))))
        return {name: [each[name] for each in summaries] for name in summaries[0]}


def evaluate_on_cluster(asked: Evaluation, *, actors: int, gpus: float = 0) -> Summary:
    """Score a run in as many shards as there are actors, each of which has a share of `gpus`.

    Joins the cluster that Ray's environment names, or starts one on this machine. Raises as
    `evaluate` does.
    """
    ray.init(ignore_reinit_error=True, logging_level="warning")
    shards = ray.data.from_items(
        [{"shard": index} for index in range(actors)], override_num_blocks=actors
    )
    scored = shards.map_batches(
        _Scoring,
        fn_constructor_args=(asked, actors),
        batch_size=1,
        num_gpus=gpus,
        compute=ray.data.ActorPoolStrategy(size=actors),
    )
    total = Summary()
    with rows_progress(actors, 0, unit="shards") as advance:
        try:
            for row in scored.iter_rows():
                total.add_sums(Summary(**row))
                advance(1)
        except (RayTaskError, UserCodeException) as failure:
            raise _own(failure) from None
    return total


def _own(failure: BaseException) -> BaseException:
    """This package's error that an actor failed with, else Ray's."""
    cause: BaseException | None = failure
    while cause is not None:
        for error in (cause, getattr(cause, "cause", None)):
            for kind in _OWN:
                if isinstance(error, kind):
                    return kind(str(error))
        cause = cause.__cause__
    return failure
