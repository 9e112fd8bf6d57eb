"""All runs of a plan, one after the other: train, measure, write the result.

Depends on the order of these. Invariant: a result exists only once its run was trained to the end
and measured on every query. An interrupted plan continues where it stopped.
"""

from __future__ import annotations

import fcntl
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TextIO

from model_store.evaluation.nine_cells import CUT
from model_store.evaluation.results import Results
from model_store.manifest import manifest_digest
from model_store.recipes.ablations.data import write_rows
from model_store.recipes.ablations.measure import Benchmark
from model_store.recipes.ablations.plan import DATA_SEED, AblationPlan
from model_store.recipes.ablations.results import Outcome, Summary, course, read, summarise, write
from model_store.recipes.ablations.variants import Variant
from model_store.training.config import TrainingError
from model_store.training.journal import read_metrics
from model_store.training.outcome import refuse_other_run
from model_store.training.train import train

RESULTS = "results"
RUNS = "runs"
DATA = "data"
LOCK = "lock"


def run(
    plan: AblationPlan, report: Callable[[str], None], *, stream: TextIO | None = None
) -> Summary:
    """Run what is missing; returns all results in the folder, also those of other comparisons.

    `report` is called with a line a run; the training job's progress goes to `stream`, or to
    standard error. Raises `TrainingError`, `DataError` and `PublishRefused`, and `loop.Stopped`
    where a signal came.
    """
    with _lock(plan.output):
        _run_missing(plan, report, stream)
        return summarise(plan.output / RESULTS, plan.facts())


def _run_missing(plan: AblationPlan, report: Callable[[str], None], stream: TextIO | None) -> None:
    runs = list(plan.runs())
    missing = [
        (seed, variant) for seed, variant in runs if not _done(plan, _result(plan, variant, seed))
    ]
    report(f"{len(runs)} runs, {len(runs) - len(missing)} of them done.")
    if not missing:
        return

    rows = write_rows(plan.output / DATA, plan.rows, DATA_SEED)
    benchmark, began = Benchmark(plan.base, plan.queries), time.monotonic()
    for number, (seed, variant) in enumerate(missing, start=1):
        outcome = _outcome(plan, variant, seed, rows, benchmark, stream)
        write(_result(plan, variant, seed), outcome)
        # adapters take space, and are not used again
        shutil.rmtree(_folder(plan, variant, seed))

        seconds = (time.monotonic() - began) / number * (len(missing) - number)
        report(
            f"{number}/{len(missing)} {variant.name}, seed {seed}: nDCG@{CUT}"
            f" {outcome.results.score:.4f}, {timedelta(seconds=round(seconds))} left"
        )


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Lock a folder, or raise `TrainingError` where another process has; the system releases the
    lock of a process that ends."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK).open("w")
    except OSError as error:
        raise TrainingError(f"{folder}: it cannot be written ({error.strerror}).") from None

    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TrainingError(f"{folder}: another gmr ablate is at work in it.") from None
        yield


def _result(plan: AblationPlan, variant: Variant, seed: int) -> Path:
    return plan.output / RESULTS / f"{variant.name}-{seed}.json"


def _folder(plan: AblationPlan, variant: Variant, seed: int) -> Path:
    return plan.output / RUNS / f"{variant.name}-{seed}"


def _done(plan: AblationPlan, path: Path) -> bool:
    """True if the result exists; raises `TrainingError` where it is another plan's."""
    if not path.exists():
        return False

    refuse_other_run(read(path, Outcome).facts, plan.facts(), path)
    return True


def _outcome(
    plan: AblationPlan,
    variant: Variant,
    seed: int,
    rows: Path,
    benchmark: Benchmark,
    stream: TextIO | None,
) -> Outcome:
    folder = _folder(plan, variant, seed)
    train(plan.config(variant, seed, rows, folder), stream=stream)
    values = benchmark.measure(folder, variant)
    steps = [row for row in read_metrics(folder) if "positive_weight" in row]
    results = Results(
        benchmark=f"nine-cells-{plan.queries}",
        metric=f"ndcg@{CUT}",
        checkpoint=f"sha256:{manifest_digest(folder)}",
        datasets=values,
    )
    return Outcome(
        variant=variant.name,
        seed=seed,
        facts=plan.facts(),
        results=results,
        positive=course([row["positive_weight"] for row in steps]),
        negative=course([row["negative_weight"] for row in steps]),
    )
