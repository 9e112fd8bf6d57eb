"""All runs of a plan, one after the other: train by the training job, measure, write down; what is
written is not run again.

Knows the order of things. Invariant: a result is there only once its run was trained to the end and
measured on every query; a plan that was interrupted anywhere goes on where it stopped.
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
from model_store.recipes.ablations.measure import Benchmark, Values
from model_store.recipes.ablations.plan import DATA_SEED, Plan
from model_store.recipes.ablations.results import Outcome, Summary, course, read, summarise, write
from model_store.recipes.ablations.variants import Variant
from model_store.training.config import TrainingError
from model_store.training.journal import read_metrics
from model_store.training.outcome import same_run
from model_store.training.train import train

RESULTS = "results"
RUNS = "runs"
DATA = "data"
LOCK = "lock"


def run(plan: Plan, tell: Callable[[str], None], *, stream: TextIO | None = None) -> Summary:
    """Run what was not run yet; gives all results, also those of groups that this plan leaves out.

    Raises `TrainingError`, `DataError` and `PublishRefused`, and `loop.Stopped` where a signal
    came. `tell` hears a line a run, `stream` (standard error, where none is given) what the
    training job says of its steps.
    """
    with _alone(plan.output):
        _run_missing(plan, tell, stream)
        return summarise(plan.output / RESULTS, plan.facts())


def _run_missing(plan: Plan, tell: Callable[[str], None], stream: TextIO | None) -> None:
    runs = [(seed, variant, _result(plan, variant, seed)) for seed, variant in plan.runs()]
    missing = [each for each in runs if not _done(plan, each[2])]
    tell(f"{len(runs)} runs, {len(runs) - len(missing)} of them done.")
    if missing:
        rows = write_rows(plan.output / DATA, plan.rows, DATA_SEED)
        benchmark, began = Benchmark(plan.base, plan.queries), time.monotonic()
        for number, (seed, variant, path) in enumerate(missing, start=1):
            outcome = _outcome(plan, variant, seed, rows, benchmark, stream)
            write(path, outcome)
            # the adapter is of no use to anyone, and there are many
            shutil.rmtree(_folder(plan, variant, seed))
            left = timedelta(
                seconds=round((time.monotonic() - began) / number * (len(missing) - number))
            )
            tell(
                f"{number}/{len(missing)} {variant.name}, seed {seed}: nDCG@{CUT}"
                f" {outcome.results.score:.4f}, {left} left"
            )


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Refuse to work in a folder that another process works in; the lock ends with its process,
    however that ends."""
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


def _result(plan: Plan, variant: Variant, seed: int) -> Path:
    return plan.output / RESULTS / f"{variant.name}-{seed}.json"


def _folder(plan: Plan, variant: Variant, seed: int) -> Path:
    return plan.output / RUNS / f"{variant.name}-{seed}"


def _done(plan: Plan, path: Path) -> bool:
    """Whether a result is there; raises `TrainingError` where it is another plan's."""
    if not path.exists():
        return False
    same_run(read(path, Outcome).facts, plan.facts(), path)
    return True


def _outcome(
    plan: Plan, variant: Variant, seed: int, rows: Path, benchmark: Benchmark, stream: TextIO | None
) -> Outcome:
    folder = _folder(plan, variant, seed)
    train(plan.config(variant, seed, rows, folder), stream=stream)
    values: Values = benchmark.measure(folder, variant)
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
