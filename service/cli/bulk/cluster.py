"""A run on a cluster, by Ray Data.

Depends on Ray and parts. Every actor opens the input and the service (or a model in its process)
once, and writes parts to a file system that all actors share; Ray moves part numbers alone, so a
lost actor costs one part. Invariant: the parts are those of a single process.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import ray
import ray.data
from ray.exceptions import RayTaskError, UserCodeException

from model_store.errors import DataError
from service.cli.bulk.job import Shard, done_parts
from service.cli.bulk.progress import rows_progress
from service.cli.bulk.run import OpenRun, Plan, open_run
from service.cli.bulk.sources import open_source
from service.cli.client.calls import CannotCall


class _Scoring:
    """An actor that does parts, on an event loop of its own that lasts as long as it."""

    def __init__(self, plan: Plan) -> None:
        self._loop = asyncio.Runner()
        self._stack = AsyncExitStack()
        self._run: OpenRun = self._loop.run(self._stack.enter_async_context(open_run(plan)))

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        for part in batch["part"]:
            self._loop.run(self._run.do(int(part)))
        return batch


def score_on_cluster(plan: Plan, shard: Shard, *, actors: int, gpus: float = 0) -> None:
    """Do the parts of a shard that are left; each actor has a share of `gpus`.

    Joins the cluster that Ray's environment names, or starts one on this machine. Raises
    `DataError` and `CannotCall` as `open_run` does.
    """
    rows = open_source(plan.source, plan.rows_per_part).part_rows
    mine = shard.parts(len(rows))
    done = done_parts(plan.target, mine)
    left = [number for number in mine if number not in done]
    if not left:
        return

    ray.init(ignore_reinit_error=True, logging_level="warning")
    numbers = ray.data.from_items([{"part": part} for part in left], override_num_blocks=len(left))
    scored = numbers.map_batches(
        _Scoring,
        fn_constructor_args=(plan,),
        batch_size=1,
        num_gpus=gpus,
        compute=ray.data.ActorPoolStrategy(size=min(actors, len(left))),
    )
    with rows_progress(sum(rows[part] for part in mine), sum(rows[part] for part in done)) as show:
        try:
            for row in scored.iter_rows():
                show(rows[int(row["part"])])
        except (RayTaskError, UserCodeException) as failure:
            raise _own(failure) from None


def _own(failure: BaseException) -> BaseException:
    """This package's error that an actor failed with, else Ray's."""
    cause: BaseException | None = failure
    while cause is not None:
        for error in (cause, getattr(cause, "cause", None)):
            if isinstance(error, DataError):
                return DataError(str(error))
            if isinstance(error, CannotCall):
                return CannotCall(str(error))
        cause = cause.__cause__
    return failure
