"""Results of runs, one file each, and the summary of all, from which tables and plots are made.

Depends on numbers and files, not on networks. Invariant: a file is complete; values that were read
are bounded, finite, and of one plan.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from model_store.evaluation.results import Results
from model_store.output_files import output_file
from model_store.training.config import TrainingError
from model_store.training.outcome import refuse_other_run

MAX_BYTES = 2**24
MAX_RUNS = 10_000
MAX_BESIDE = 8
BINS = 20
"""Parts of equal length into which the course of a run is averaged."""
_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,128}$")]
_Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
_Course = Annotated[
    tuple[Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)], ...],
    Field(min_length=1, max_length=BINS),
]
_Facts = Annotated[dict[str, str | int | float], Field(max_length=64)]
_Model = TypeVar("_Model", bound=BaseModel)


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Outcome(_Frozen):
    """One run: its values query by query, and the course of its W+ and W-."""

    variant: _Name
    seed: int = Field(ge=0, lt=2**32)
    facts: _Facts
    results: Results
    positive: _Course
    negative: _Course


class RunSummary(_Frozen):
    """One run with the mean of each cell instead of the values of its queries."""

    variant: _Name
    seed: int = Field(ge=0, lt=2**32)
    cells: dict[str, _Share] = Field(min_length=1, max_length=64)
    positive: _Course
    negative: _Course

    @property
    def score(self) -> float:
        """Mean of the cells' means, in per cent as the paper has it."""
        return 100 * fmean(self.cells.values())


class Summary(_Frozen):
    """All runs of one plan; `beside` are plans with other facts, which one page shows too."""

    facts: _Facts
    runs: tuple[RunSummary, ...] = Field(max_length=MAX_RUNS)
    beside: tuple[Summary, ...] = Field((), max_length=MAX_BESIDE)

    def with_beside(self, other: Summary) -> Summary:
        """This summary with another plan's beside it, which replaces that of the same facts."""
        others = [each for each in self.beside if each.facts != other.facts]
        return self.model_copy(update={"beside": (*others, other)})

    def of(self, variant: str) -> dict[int, RunSummary]:
        """A variant's runs by seed, in order."""
        runs = [run for run in self.runs if run.variant == variant]
        return {run.seed: run for run in sorted(runs, key=lambda run: run.seed)}


def course(values: Sequence[float]) -> tuple[float, ...]:
    """One value a step, reduced to at most `BINS` means of consecutive values."""
    count = min(BINS, len(values))
    edges = [round(number * len(values) / count) for number in range(count + 1)]
    return tuple(round(fmean(values[start:end]), 5) for start, end in pairwise(edges))


def summarise(folder: Path, facts: Mapping[str, Any]) -> Summary:
    """All outcomes in a folder; raises `TrainingError` where one is damaged or of another plan."""
    paths = sorted(folder.glob("*.json"))
    if len(paths) > MAX_RUNS:
        raise TrainingError(f"{folder}: there are more than {MAX_RUNS} results.")

    runs: list[RunSummary] = []
    for path in paths:
        outcome = read(path, Outcome)
        refuse_other_run(outcome.facts, facts, path)
        cells: dict[str, float] = {}
        for cell, values in outcome.results.datasets.items():
            cells[cell] = round(fmean(values.values()), 5)
        runs.append(
            RunSummary(
                variant=outcome.variant,
                seed=outcome.seed,
                cells=cells,
                positive=outcome.positive,
                negative=outcome.negative,
            )
        )

    return Summary(facts=dict(facts), runs=tuple(runs))


def read(path: Path, kind: type[_Model]) -> _Model:
    """Read a file as `Outcome` or `Summary`; raises `TrainingError` that names the file."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise TrainingError(f"{path}: it cannot be read ({error.strerror}).") from None
    if len(content) > MAX_BYTES:
        raise TrainingError(f"{path}: it is larger than {MAX_BYTES} bytes.")

    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        field = "/".join(str(part)[:80] for part in first["loc"]) or "it"
        raise TrainingError(
            f"{path}: this is no {kind.__name__.lower()} of ablations: {field}: {first['msg']}."
        ) from None


def write(path: Path, value: BaseModel) -> None:
    """Write a file atomically; raises `DataError` where the disk refuses."""
    with output_file(path) as put:
        put(value.model_dump_json(indent=1).encode() + b"\n")
