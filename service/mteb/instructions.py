"""The instruction of each query of a task of mteb.

Does not depend on the service. Invariant: an instruction that mteb has appended to a query's text
is not also sent as the instruction.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from model_store.evaluation.tasks.catalogue import NAMES, instruction_of, read_table
from service.mteb.pairs import Instruct, Row

Override = str | Mapping[str, str] | None
"""An instruction for every task, or instructions by the names of tasks."""


def instruct(task: Any, override: Override, *, takes_instruction: bool) -> Instruct:
    """The instruction of a query's row, for a task's metadata.

    It is the caller's own; or the row's, where the data set has instructions of single queries; or
    that with which `gmr eval` evaluates the same data (table 13 of the paper, for MRB); or mteb's
    for the task; or None for the model's own. `takes_instruction` is False for a model that has no
    place for one.
    """
    given = override.get(task.name) if isinstance(override, Mapping) else override
    of_task = given or _of_catalogue(task.name) or _of_mteb(task.prompt)

    def of_row(row: Row) -> tuple[str | None, str]:
        own = row.get("instruction")
        if not takes_instruction:
            return None, "text"
        if own and not given and "query" in row:
            return str(own), "query"
        return of_task, "text"

    return of_row


def _of_catalogue(task: str) -> str | None:
    """The instruction with which `gmr eval` evaluates a data set of mteb."""
    for name in NAMES:
        for row in read_table(name).tasks:
            if any(dataset.task == task for dataset in row.datasets):
                return instruction_of(row)
    return None


def _of_mteb(prompt: Any) -> str | None:
    """mteb's instruction of a task: a text, or texts for queries and documents."""
    if isinstance(prompt, Mapping):
        prompt = prompt.get("query")
    return str(prompt) if prompt else None
