"""The benchmark that --task names, and the first stage that --first-stage names.

Does not depend on a service. Invariant: a name that is not known is refused before anything is read
or written.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from model_store.evaluation.runs.candidates import FirstStage
from model_store.evaluation.tasks.benchmark import Benchmark
from model_store.evaluation.tasks.dataset import TaskUnusable
from model_store.evaluation.tasks.nine_cells import DEFAULT_QUERIES, NINE_CELLS, nine_cells
from model_store.evaluation.tasks.opening import open_benchmark

_ROWS = (".jsonl", ".jsonl.gz")


@dataclass(frozen=True, slots=True)
class OpenTask:
    """A benchmark, and the number of queries of each of its datasets that are scored, at most."""

    benchmark: Benchmark
    max_queries: int | None


def open_task(name: str, queries: int | None) -> OpenTask:
    """The benchmark of a name, with up to `queries` of each dataset. Raises `TaskUnusable`."""
    if name == NINE_CELLS:
        return OpenTask(nine_cells(queries or DEFAULT_QUERIES), None)

    if name.endswith(_ROWS):
        from model_store.training.rows_benchmark import open_rows

        return OpenTask(open_rows(Path(name)), queries)

    return OpenTask(open_benchmark(name), queries)


def open_first_stage(name: str, top_k: int) -> FirstStage:
    """The first stage of a name. Raises `TaskUnusable`."""
    raise TaskUnusable(f"There is no first stage {name!r}.")
