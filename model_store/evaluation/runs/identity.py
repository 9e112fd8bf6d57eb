"""The identity of a run: all that its scores depend on, and the table that they belong to.

Does not depend on files of a run. Invariant: results of two runs are comparable query by query
where their benchmarks, first stages, `top_k` and `max_queries` are equal.
"""

from __future__ import annotations

from typing import Any

import msgspec

FORMAT = 1
"""The version of the files of a run."""
MAX_DATASETS = 1_000
_NOT_COMPARED = ("model",)
"""Fields that may differ between two starts of one run: the same model under another name."""


class RunTask(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A row of the benchmark's table; `datasets` are the names of its datasets."""

    name: str
    cell: str
    metric: str
    datasets: list[str]


class RunIdentity(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All that identifies a run, as its `run.json` has it."""

    benchmark: str
    tasks: list[RunTask]
    first_stage: str
    """The first stage, such as "bm25"; "own" is that of each dataset."""
    top_k: int
    """Candidates of a query that are scored, at most."""
    model: str
    """The model's name as the service had it."""
    model_digest: str
    """The digest that each answer of the service names."""
    checkpoint: str = ""
    """The SHA-256 of the model's manifest ("sha256:..."); "" for a model without one."""
    instruction: str | None = None
    """The instruction of every query; None: that of each dataset, or the model's own."""
    max_queries: int | None = None
    """Queries of a dataset that are scored, at most; None: all."""
    format: int = FORMAT

    @property
    def datasets(self) -> list[str]:
        """The names of all datasets, in the order of the table."""
        return [name for task in self.tasks for name in task.datasets]


class DatasetHeader(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A dataset that a run has begun with."""

    name: str
    digest: str
    queries: int
    """The number of queries that the run scores, of all shards together."""
    candidates: str
    """The SHA-256 of the candidates of those queries, in their order."""


def differences(
    found: RunIdentity | DatasetHeader, expected: RunIdentity | DatasetHeader
) -> list[str]:
    """The fields that differ, such as "its top_k is 100, not 50"."""
    own = msgspec.to_builtins(found)
    others = msgspec.to_builtins(expected)
    return [
        _difference(name, own[name], others[name])
        for name in own
        if name not in _NOT_COMPARED and own[name] != others[name]
    ]


def _difference(name: str, own: Any, other: Any) -> str:
    if isinstance(own, list):
        return f"its {name} are others"
    return f"its {name} is {str(own)[:80]}, not {str(other)[:80]}"
