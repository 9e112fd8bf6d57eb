"""The benchmarks that are known by name, as the package's tables have them.

Does not depend on mteb, models or services. Invariant: a name stands for the same data wherever it
is used, since every data set is pinned to a revision.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files

import msgspec

from model_store.evaluation.tasks.benchmark import Benchmark, Task
from model_store.evaluation.tasks.dataset import DatasetSource, TaskUnusable
from model_store.evaluation.tasks.instructions import EVALUATION
from model_store.evaluation.tasks.readers.mteb_source import MtebSource

NAMES = ("mrb", "vidore-v3", "beir", "bright", "bright-long")
"""The benchmarks; `NAME:PART` is one cell or task of one, such as `beir:scifact`."""


class CatalogueDataset(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A data set of mteb: a task of it at a revision, one split, and its subsets."""

    task: str
    revision: str
    split: str
    subsets: list[str] = msgspec.field(default_factory=lambda: ["default"])
    excludes_the_query: bool = False
    candidates_exclude: bool = False
    """The candidates that come with the data are all documents but those that a query excludes."""


class CatalogueTask(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A row of a table, as its file has it."""

    name: str
    cell: str
    metric: str
    datasets: list[CatalogueDataset]
    instruction: str | None = None
    instruction_of: str | None = None
    """The row of the paper's table 13 that has the instruction, such as "T-T/ArguAna"."""
    queries: int | None = None
    documents: int | None = None
    private: bool = False
    """The data is not public."""


class CatalogueTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A benchmark, as its file has it."""

    name: str
    title: str
    source: str
    """The origin of the table's contents."""
    tasks: list[CatalogueTask]


@cache
def read_table(name: str) -> CatalogueTable:
    """The table of one of `NAMES`."""
    path = files(__package__).joinpath(f"tables/{name.replace('-', '_')}.json")
    return msgspec.json.decode(path.read_bytes(), type=CatalogueTable)


def named_benchmark(name: str) -> Benchmark:
    """One of `NAMES`, or a cell or a task of it, such as `mrb:T-I` and `beir:scifact`.

    Case does not matter. Raises `TaskUnusable` with a similar name.
    """
    table, part, rows = named_rows(name)
    opened = f"{table.name}:{part}" if part else table.name
    return Benchmark(opened, tuple(_task(row) for row in rows))


def named_rows(name: str) -> tuple[CatalogueTable, str, Sequence[CatalogueTask]]:
    """The table of a name, the part of it that is named ("" for all), and the part's rows.

    Raises `TaskUnusable`.
    """
    table_name, _, part = name.partition(":")
    if table_name.lower() not in NAMES:
        raise TaskUnusable(f"There is no benchmark {name[:80]!r}: known are {', '.join(NAMES)}.")
    table = read_table(table_name.lower())
    return (table, *_part(table, part)) if part else (table, "", table.tasks)


def instruction_of(row: CatalogueTask) -> str | None:
    """The instruction of a row; None for the model's own."""
    if row.instruction_of is None:
        return row.instruction
    task, _, dataset = row.instruction_of.partition("/")
    return EVALUATION[task, dataset]


def _part(table: CatalogueTable, part: str) -> tuple[str, list[CatalogueTask]]:
    """A cell with its rows, or a row by its name, with or without its cell; raises
    `TaskUnusable`."""
    for name_of in (_cell, _name, _last_name):
        rows = [row for row in table.tasks if _plain(name_of(row)) == _plain(part)]
        if rows:
            return name_of(rows[0]), rows

    known = [*{row.cell: row for row in table.tasks}, *map(_last_name, table.tasks)]
    similar = difflib.get_close_matches(part.lower(), known, 1, 0.4) or [known[0]]
    raise TaskUnusable(
        f"{table.name} has no cell or task {part[:80]!r}: is it {table.name}:{similar[0]}?"
    )


def _cell(row: CatalogueTask) -> str:
    return row.cell


def _name(row: CatalogueTask) -> str:
    return row.name


def _last_name(row: CatalogueTask) -> str:
    """The name without the cell; several rows may share it."""
    return row.name.rpartition("/")[2]


def _plain(name: str) -> str:
    """A name without case, and without the signs between words."""
    return re.sub("[^a-z0-9/]", "", name.lower())


def _task(row: CatalogueTask) -> Task:
    sources: list[DatasetSource] = []
    for dataset in row.datasets:
        sources.extend(
            MtebSource(
                task=dataset.task,
                revision=dataset.revision,
                split=dataset.split,
                subset=subset,
                instruction=instruction_of(row),
                excludes_the_query=dataset.excludes_the_query,
                candidates_exclude=dataset.candidates_exclude,
                private=row.private,
            )
            for subset in dataset.subsets
        )
    return Task(row.name, row.cell, row.metric, tuple(sources))
