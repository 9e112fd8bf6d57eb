"""One run of `gmr bulk`: the parts that are left, scored by a service, and the output at the end.

Depends on a job and a service, not on options. Invariant: the output is written once all parts are
done, and then the parts are removed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from model_store.errors import DataError, WrongUsage
from service.cli.bulk.job import Job, Shard, folder_of, identity_of, kept_identity
from service.cli.bulk.output import check_target, write_output
from service.cli.bulk.progress import rows_progress
from service.cli.bulk.requests import RowContext, RowShape
from service.cli.bulk.scoring import Scorer
from service.cli.bulk.sources import open_source
from service.cli.client.calls import CannotCall, Service
from service.cli.client.run import Target, is_in_process, open_client, with_advice

_PROBE = {"query": "a", "documents": ["a"]}
"""A request whose answer names the digest of the model."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A run: its input and output, and the way in which rows are read and scored."""

    source: Path
    target: Path
    shape: RowShape
    service: Target
    rows_per_part: int
    concurrency: int
    keep_inputs: bool = False
    overwrite: bool = False

    def check(self) -> None:
        """Raise `WrongUsage` for names that cannot be those of this run."""
        check_target(self.target)
        if self.target.resolve() == self.source.resolve():
            raise WrongUsage("The output must be another file than the input.")
        unfinished = folder_of(self.target).exists()
        if self.target.exists() and not unfinished and not self.overwrite:
            raise WrongUsage(f"{self.target} is there: remove it, or give --overwrite.")


@dataclass(frozen=True, slots=True)
class OpenRun:
    """A run that can score: its job, and what scores rows."""

    job: Job
    scorer: Scorer

    async def do(self, number: int) -> int:
        """Do a part; returns its rows. Raises `CannotCall` and `DataError`."""
        await self.job.do(number, self.scorer.score)
        return self.job.source.part_rows[number]


@asynccontextmanager
async def open_run(plan: Plan) -> AsyncIterator[OpenRun]:
    """A run whose input was read once, and whose service has answered.

    Raises `CannotCall`; `DataError` where the parts of another run are there.
    """
    source = open_source(plan.source, plan.rows_per_part)
    async with open_client(plan.service, plan.concurrency) as (client, model):
        service = Service(client)
        try:
            limits = (await service.info())["limits"]
        except CannotCall as error:
            raise with_advice(error, plan.service) from None

        shape = plan.shape.with_model(model)
        answer = await service.rerank({**shape.options, **_PROBE})
        digest = answer["meta"]["model_digest"]
        identity = identity_of(source, digest, shape, plan.rows_per_part)
        put_images = 0 if is_in_process(plan.service) else int(limits.get("max_put_images", 0))
        context = RowContext(
            shape, plan.source.parent, int(limits["max_documents"]), put_images=put_images
        )
        scorer = Scorer(service, context, digest=digest, concurrency=plan.concurrency)
        yield OpenRun(Job(source, plan.target, identity), scorer)


async def score_here(plan: Plan, shard: Shard) -> None:
    """Do the parts of a shard that are left, in this process. Raises as `open_run` does."""
    async with open_run(plan) as run:
        left = run.job.left(shard)
        rows = run.job.source.part_rows
        total = sum(rows[number] for number in shard.parts(len(rows)))
        with rows_progress(total, total - sum(rows[number] for number in left)) as advance:
            for number in left:
                advance(await run.do(number))


def finish(plan: Plan) -> dict[str, int]:
    """Write the output, remove the parts, and return the counts of rows and failures.

    Raises `DataError` where a part is not done, or where the input has changed since.
    """
    source = open_source(plan.source, plan.rows_per_part)
    identity = kept_identity(plan.target)
    if source.digest != identity["input"]:
        raise DataError(
            f"{plan.source}: it has changed while it was scored; remove {folder_of(plan.target)} to"
            " begin anew."
        )
    job = Job(source, plan.target, identity)
    counts = job.counts()
    write_output(job, plan.target, plan.shape, keep_inputs=plan.keep_inputs)
    job.remove()
    return counts
