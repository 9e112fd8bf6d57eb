"""A task of mteb by its name: its splits, its metric and its instruction.

mteb is an extra, and is imported where a task is opened. Loads no data. Invariant: names of metrics
are ours.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from model_store.evaluation.tasks.dataset import TaskUnusable

_METRICS = {"ndcg": "ndcg", "map": "map", "mrr": "mrr", "recall": "recall", "hit_rate": "hit"}
_SHOWN = 200


def open_task(name: str, splits: Sequence[str] | None = None, subset: str = "default") -> Any:
    """An `AbsTaskRetrieval`, before its data is loaded; raises `TaskUnusable`."""
    try:
        import mteb
        from mteb.abstasks.retrieval import AbsTaskRetrieval
    except ImportError:
        raise TaskUnusable(
            f"{name} is a task of mteb, which is not installed: pip install 'gmr-rerank[eval]'."
        ) from None
    try:
        subsets = None if subset == "default" else [subset]
        task = mteb.get_task(name, eval_splits=splits, hf_subsets=subsets)
    except (KeyError, ValueError) as error:
        raise TaskUnusable(f"mteb has no such task: {first_line(error)}") from None
    if not isinstance(task, AbsTaskRetrieval):
        raise TaskUnusable(f"{name} is no task of retrieval or reranking.")
    return task


def metric_of(task: Any) -> str:
    """The main metric of a task, such as "ndcg@10"; raises `TaskUnusable` for one of another
    kind."""
    main = str(task.metadata.main_score)
    match = re.fullmatch(r"([a-z_]+)_at_(\d+)", main)
    if match is None or match[1] not in _METRICS:
        raise TaskUnusable(f"{task.metadata.name}: its metric {main} is not one of ours.")
    return f"{_METRICS[match[1]]}@{match[2]}"


def task_instruction(task: Any) -> str | None:
    """The instruction that mteb has for the queries of a task; None where it has none."""
    prompt = task.metadata.prompt
    if isinstance(prompt, dict):
        prompt = prompt.get("query")
    return prompt.strip().rstrip(":") or None if isinstance(prompt, str) else None


def first_line(error: Exception) -> str:
    """The first line of a library's message, as the end of a sentence."""
    text = str(error.args[0] if isinstance(error, KeyError) and error.args else error).strip()
    line = (text.splitlines() or [type(error).__name__])[0][:_SHOWN].removeprefix("KeyError: ")
    return line if line.endswith((".", "?")) else f"{line}."
