"""The results of an evaluation: a model's value for every query of a benchmark, in one JSON file.

Does not depend on models or on how a metric is defined. Invariant: results that were read are
finite, bounded, and name their model by a digest.
"""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from model_store.files import write_atomically

MAX_RESULT_BYTES = 2**27
MAX_QUERIES = 500_000
"""MRB has 226,023 queries, which take 10 MB as a file and 60 MB while they are read."""
MAX_DATASETS = 1_000
_Id = Annotated[str, Field(min_length=1, max_length=512)]
_Value = Annotated[float, Field(allow_inf_nan=False, ge=-1e9, le=1e9)]
_Digest = Annotated[str, Field(pattern="^sha256:[0-9a-f]{64}$")]


class ResultsUnusable(Exception):
    """Results that cannot be read or compared; its text is one sentence."""


class Row(BaseModel):
    """A row of a benchmark's table: the mean over some datasets."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cell: str = Field(max_length=512, description="The group of the row, such as T-I.")
    metric: str = Field(min_length=1, max_length=64)
    datasets: list[_Id] = Field(min_length=1, max_length=MAX_DATASETS)


class Results(BaseModel):
    """The values of one model on one benchmark; larger values are better."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = Field(1, ge=1, le=1)
    benchmark: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
        description="The name of these very queries and candidates.",
    )
    metric: str = Field(min_length=1, max_length=64, description="Such as ndcg@10.")
    checkpoint: _Digest = Field(
        description=(
            "The SHA-256 of the checkpoint's manifest, or the digest that the service names for a"
            " model without one."
        )
    )
    datasets: dict[_Id, dict[_Id, _Value]] = Field(
        min_length=1, max_length=MAX_DATASETS, description="Values by dataset, then by query."
    )
    model: str | None = Field(None, max_length=512, description="The model's name, to be shown.")
    rows: dict[_Id, Row] | None = Field(
        None, description="The benchmark's table by row; without it, each dataset is a row."
    )
    candidates: dict[_Id, _Digest] | None = Field(
        None,
        description="Digests of each dataset's data, queries, candidates and judgements.",
    )
    failed: int | None = Field(
        None, ge=0, description="Queries without scores, which have the first stage's order."
    )
    instruction: str | None = Field(
        None, max_length=100_000, description="The instruction of every query, if there is one."
    )
    unfinished: bool | None = Field(
        None, description="True where queries of the run have no results yet."
    )

    @model_validator(mode="after")
    def _bounded(self) -> Results:
        if not all(self.datasets.values()):
            raise ValueError("a dataset has no queries")
        if sum(map(len, self.datasets.values())) > MAX_QUERIES:
            raise ValueError(f"there are more than {MAX_QUERIES} queries")
        named = [name for datasets in self.table.values() for name in datasets]
        if sorted(named) != sorted(self.datasets):
            raise ValueError("the rows do not have each dataset once")
        if self.candidates is not None and self.candidates.keys() != self.datasets.keys():
            raise ValueError("the candidates are not those of the datasets")
        return self

    @property
    def table(self) -> dict[str, list[str]]:
        """The datasets of each row."""
        if self.rows is None:
            return {name: [name] for name in self.datasets}
        return {name: row.datasets for name, row in self.rows.items()}

    @property
    def score(self) -> float:
        """The mean over the rows; a row is the mean of its datasets' means."""
        means = {name: fmean(values.values()) for name, values in self.datasets.items()}
        return fmean(fmean(means[name] for name in datasets) for datasets in self.table.values())

    def encode(self, *, indent: int | None = None) -> bytes:
        """The results as JSON, without the fields that they do not have."""
        return self.model_dump_json(indent=indent, exclude_none=True).encode()


def parse_results(content: bytes, name: str) -> Results:
    """Results from a file's bytes; raises `ResultsUnusable` that names the file and the field."""
    if len(content) > MAX_RESULT_BYTES:
        raise ResultsUnusable(f"{name} is larger than {MAX_RESULT_BYTES} bytes.")
    try:
        return Results.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        field = "/".join(str(part)[:80] for part in first["loc"]) or "it"
        raise ResultsUnusable(f"{name} holds no results: {field}: {first['msg']}.") from None


def read_results(path: Path) -> Results:
    """Results from a file; raises `ResultsUnusable`."""
    try:
        with path.open("rb") as file:
            return parse_results(file.read(MAX_RESULT_BYTES + 1), path.name)
    except OSError as error:
        raise ResultsUnusable(f"{path.name} cannot be read ({error.strerror}).") from None


def write_results(path: Path, results: Results) -> None:
    """Write a file, whole or not at all; raises `ResultsUnusable` where it cannot be written, or
    would be too large to be read."""
    content = results.encode(indent=1) + b"\n"
    if len(content) > MAX_RESULT_BYTES:
        raise ResultsUnusable(f"{path.name} would be larger than {MAX_RESULT_BYTES} bytes.")
    try:
        write_atomically(path, content)
    except OSError as error:
        raise ResultsUnusable(f"{path.name} cannot be written ({error.strerror}).") from None
