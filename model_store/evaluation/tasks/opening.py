"""A benchmark by its name, or from a folder.

Does not depend on models or services. Invariant: nothing is loaded; what a name or a folder lacks
is said before any dataset is.
"""

from __future__ import annotations

from pathlib import Path

from model_store.evaluation.tasks.benchmark import Benchmark, Task
from model_store.evaluation.tasks.catalogue import NAMES, named_benchmark
from model_store.evaluation.tasks.dataset import TaskUnusable
from model_store.evaluation.tasks.mteb_benchmark import mteb_benchmark
from model_store.evaluation.tasks.nine_cells import DEFAULT_QUERIES, NINE_CELLS, nine_cells
from model_store.evaluation.tasks.readers.folder import is_dataset, open_folder
from model_store.evaluation.tasks.readers.judged_folder import JUDGEMENTS, JudgedSource

METRIC = "ndcg@10"
"""The metric of a folder."""
MAX_FOLDERS = 1_000


def open_benchmark(name: str) -> Benchmark:
    """A benchmark of the catalogue, a part of it, a task of mteb, or one of one's own.

    Names are those of the catalogue (`mrb`, `beir:scifact`), `mteb:TASK` and `nine-cells`. One's
    own is a folder in BEIR's layout, a folder of such folders, the file of judgements of one, or a
    folder of judged queries. A name of the catalogue is not taken for a folder; `./mrb` is one.
    Raises `TaskUnusable`.
    """
    if name == NINE_CELLS:
        return nine_cells(DEFAULT_QUERIES)
    kind, _, part = name.partition(":")
    if kind.lower() == "mteb" and part:
        return mteb_benchmark(part)
    if kind.lower() in NAMES:
        return named_benchmark(name)

    path = Path(name)
    try:
        if path.is_dir():
            return _open_folder(path)
        if path.is_file():
            return _open_judgements(path)
    except OSError as error:
        raise TaskUnusable(f"{name[:200]}: it cannot be read ({error.strerror}).") from None
    raise TaskUnusable(
        f"There is no benchmark and no folder {name[:200]!r}: known are {NINE_CELLS},"
        f" {', '.join(NAMES)}, mteb:TASK and folders in BEIR's layout."
    )


def _open_folder(folder: Path) -> Benchmark:
    name = folder.resolve().name
    if (folder / JUDGEMENTS).is_file():
        return Benchmark(name, (Task(name, name, METRIC, (JudgedSource(name, folder),)),))
    if is_dataset(folder):
        return Benchmark(name, (_task(name, folder),))

    parts = sorted(path for path in folder.iterdir() if path.is_dir() and is_dataset(path))
    if not parts:
        raise TaskUnusable(f"{folder}: there is no corpus.jsonl, and no folder that has one.")
    if len(parts) > MAX_FOLDERS:
        raise TaskUnusable(f"{folder}: there are more than {MAX_FOLDERS} folders of datasets.")
    return Benchmark(name, tuple(_task(part.name, part) for part in parts))


def _open_judgements(path: Path) -> Benchmark:
    """A file of judgements, and the corpus beside it or above it."""
    for folder in (path.parent, path.parent.parent):
        if is_dataset(folder):
            name = f"{folder.resolve().name}-{path.name.partition('.')[0]}"
            return Benchmark(name, (_task(name, folder, path),))
    raise TaskUnusable(f"{path}: there is no corpus.jsonl beside this file.")


def _task(name: str, folder: Path, qrels: Path | None = None) -> Task:
    return Task(name, name, METRIC, (open_folder(folder, name, qrels),))
