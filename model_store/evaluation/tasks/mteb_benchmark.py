"""Any retrieval or reranking task of mteb as a benchmark of one row.

Depends on mteb, which is an extra. Loads no data.
"""

from __future__ import annotations

from itertools import product

from model_store.evaluation.tasks.benchmark import Benchmark, Task
from model_store.evaluation.tasks.readers.mteb_source import MtebSource
from model_store.evaluation.tasks.readers.mteb_task import metric_of, open_task, task_instruction


def mteb_benchmark(name: str) -> Benchmark:
    """All splits and subsets of a task, by mteb's name, with its own metric and instruction.

    Raises `TaskUnusable`.
    """
    task = open_task(name)
    sources = tuple(
        MtebSource(
            task=name,
            revision=task.metadata.dataset["revision"],
            split=split,
            subset=subset,
            instruction=task_instruction(task),
            excludes_the_query=bool(task.ignore_identical_ids),
            # With a task of retrieval they are all documents that a query allows, as BRIGHT has it.
            candidates_exclude=not str(task.metadata.type).endswith("Reranking"),
        )
        for split, subset in product(task.eval_splits, task.hf_subsets)
    )
    return Benchmark(f"mteb:{name}", (Task(name, name, metric_of(task), sources),))
