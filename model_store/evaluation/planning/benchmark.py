"""The plan of a whole benchmark: its cells, its sum, and its first stage.

Depends on the tasks' sources, of which mteb's are not loaded. Invariant: a dataset without known
sizes is named, and counts in no sum.
"""

from __future__ import annotations

from dataclasses import dataclass

from model_store.evaluation.planning.plan import (
    Assumptions,
    Machine,
    Part,
    embedding_seconds,
    plan_dataset,
    vector_bytes,
)
from model_store.evaluation.planning.sizes import DatasetSize, size_of
from model_store.evaluation.tasks.benchmark import Benchmark
from model_store.evaluation.tasks.dataset import TaskUnusable


@dataclass(frozen=True, slots=True)
class FirstStagePlan:
    """The work of a first stage."""

    documents: int
    gpu_seconds: float
    processor_seconds: float
    bytes: int
    """Of vectors on a disk; of memory for words, while the largest index is made."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The plan of a benchmark."""

    name: str
    tasks: int
    total: Part
    cells: dict[str, Part]
    first_stage: FirstStagePlan | None
    """None where the dataset's own candidates are used."""
    unknown: list[str]
    """Datasets without known sizes."""
    assumptions: Assumptions

    def hours_of(self, part: Part) -> float:
        """GPU hours of a part, at the share of their time that workers work."""
        return part.gpu_seconds / 3600 / self.assumptions.busy

    @property
    def gpu_hours(self) -> float:
        """Of all pairs."""
        return self.hours_of(self.total)

    @property
    def all_gpu_hours(self) -> float:
        """Of all pairs and the first stage."""
        first = 0.0 if self.first_stage is None else self.first_stage.gpu_seconds
        return self.gpu_hours + first / 3600 / self.assumptions.busy

    @property
    def run_bytes(self) -> int:
        """Of the run's folder."""
        return self.total.pairs * self.assumptions.pair_bytes

    @property
    def cached_bytes(self) -> int:
        """Of Redis, where all scores are kept."""
        return self.total.pairs * self.assumptions.cached_pair_bytes

    def gateway_cores(self, gpus: int) -> float:
        """Processor cores of gateways that keep so many GPUs supplied."""
        seconds = self.gpu_hours * 3600 / gpus
        return self.total.gateway_seconds / seconds if seconds else 0.0


def plan_benchmark(
    benchmark: Benchmark,
    top_k: int,
    first_stage: str,
    machine: Machine,
    assumptions: Assumptions | None = None,
) -> Evaluation:
    """The plan of a benchmark with up to `top_k` candidates of each query.

    `first_stage` is "own", "bm25" or "gme". Raises `TaskUnusable` where no size is known, and
    `ImagesNotRead` for images on a network of text.
    """
    assumptions = assumptions or Assumptions()
    cells: dict[str, Part] = {}
    sizes: list[DatasetSize] = []
    unknown: list[str] = []
    for task in benchmark.tasks:
        for source in task.datasets:
            size = size_of(source)
            if size is None:
                unknown.append(source.name)
                continue
            sizes.append(size)
            part = plan_dataset(size, top_k, machine, assumptions, own=first_stage == "own")
            cells[task.cell] = cells.get(task.cell, Part()).plus(part)
    if not sizes:
        raise TaskUnusable(f"{benchmark.name}: the sizes of none of its datasets are known.")

    total = Part()
    for part in cells.values():
        total = total.plus(part)
    return Evaluation(
        benchmark.name,
        len(benchmark.tasks),
        total,
        cells,
        _first_stage(first_stage, sizes, machine, assumptions),
        unknown,
        assumptions,
    )


def _first_stage(
    name: str, sizes: list[DatasetSize], machine: Machine, assumptions: Assumptions
) -> FirstStagePlan | None:
    documents = sum(size.documents for size in sizes)
    if name == "gme":
        seconds = embedding_seconds(sizes, machine, assumptions)
        return FirstStagePlan(documents, seconds, 0.0, vector_bytes(documents))
    if name == "bm25":
        return _words(sizes, documents, assumptions)
    return None


def _words(sizes: list[DatasetSize], documents: int, assumptions: Assumptions) -> FirstStagePlan:
    """BM25, of one dataset after the other, on one core."""
    seconds = 0.0
    memory = 0.0
    for size in sizes:
        words = size.documents * size.document_characters / assumptions.characters_a_word
        seconds += words * assumptions.index_seconds
        seconds += size.queries * words * assumptions.search_seconds
        memory = max(memory, words * assumptions.index_bytes)
    return FirstStagePlan(documents, 0.0, seconds, round(memory))
