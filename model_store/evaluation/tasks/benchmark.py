"""A benchmark: the rows of its table, each a mean over one dataset or several.

Does not depend on models or services.
"""

from __future__ import annotations

from dataclasses import dataclass

from model_store.evaluation.tasks.dataset import DatasetSource


@dataclass(frozen=True, slots=True)
class Task:
    """A row of a benchmark's table.

    `cell` groups rows, such as T-I of MRB or a domain of ViDoRe. `metric` is named as the reports
    name it, such as "ndcg@10". The row's score is the mean over its datasets of the mean over their
    queries.
    """

    name: str
    cell: str
    metric: str
    datasets: tuple[DatasetSource, ...]


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A table. Its score is the plain mean over the rows, as in the paper's table 4."""

    name: str
    tasks: tuple[Task, ...]
