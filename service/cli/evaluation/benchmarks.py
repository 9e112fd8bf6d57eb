"""The benchmark that --task names, and the first stage that --first-stage names.

Does not depend on a service. Invariant: a name that is not known is refused before anything is read
or written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from model_store.evaluation.first_stages.candidates import candidates_of
from model_store.evaluation.first_stages.naming import parse_name
from model_store.evaluation.runs.candidates import Candidates, FirstStage
from model_store.evaluation.tasks.benchmark import Benchmark
from model_store.evaluation.tasks.dataset import Dataset
from model_store.evaluation.tasks.nine_cells import DEFAULT_QUERIES, NINE_CELLS, nine_cells
from model_store.evaluation.tasks.opening import open_benchmark
from model_store.files import sha256

_ROWS = (".jsonl", ".jsonl.gz")


class Searching(Protocol):
    """Told about the search of a first stage."""

    def notice(self, sentence: str) -> None:
        """A sentence on what cannot be found."""
        ...

    def searched(self, unit: str, done: int) -> None:
        """So many more "documents" or "queries" are done."""
        ...


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


@dataclass(frozen=True, slots=True)
class OpenFirstStage:
    """A first stage, and the name that identifies its candidates."""

    identity: str
    find: FirstStage


def open_first_stage(name: str, top_k: int, folder: Path, searching: Searching) -> OpenFirstStage:
    """The first stage of a name, which keeps its searches and vectors in a folder.

    Raises `TaskUnusable`, and `OSError` where a run file cannot be read.
    """
    stage = parse_name(name)

    def find(dataset: Dataset, queries: Sequence[str]) -> Candidates:
        return candidates_of(
            dataset,
            name,
            top_k,
            folder,
            queries=queries,
            notice=searching.notice,
            progress=searching.searched,
        )

    if stage.kind in ("dense", "gme"):
        from model_store.evaluation.first_stages.vectors import files_digest

        digest = files_digest(stage)
        return OpenFirstStage(f"{name} (sha256:{digest[:12]})" if digest else name, find)
    if stage.kind == "run":
        assert stage.source is not None
        file = Path(stage.source)
        return OpenFirstStage(f"run:{file.name} (sha256:{sha256(file)[:12]})", find)
    return OpenFirstStage(name, find)
