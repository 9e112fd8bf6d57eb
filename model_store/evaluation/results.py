"""The results of an evaluation: a checkpoint's value for every query of a benchmark, in one small
JSON file.

Does not depend on models or on how a metric is defined. Invariant: results that were read are
finite, bounded, and name their checkpoint.
"""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from model_store.files import write_atomically

MAX_RESULT_BYTES = 2**26
MAX_QUERIES = 100_000
_Id = Annotated[str, Field(min_length=1, max_length=512)]
_Value = Annotated[float, Field(allow_inf_nan=False, ge=-1e9, le=1e9)]


class ResultsUnusable(Exception):
    """Results that cannot be read or compared; its text is one sentence."""


class Results(BaseModel):
    """The values of one checkpoint on one benchmark; larger values are better."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = Field(1, ge=1, le=1)
    benchmark: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
        description="The name of these very queries and candidates.",
    )
    metric: str = Field(min_length=1, max_length=64, description="Such as ndcg@10.")
    checkpoint: str = Field(
        pattern="^sha256:[0-9a-f]{64}$", description="The SHA-256 of the checkpoint's manifest."
    )
    datasets: dict[_Id, dict[_Id, _Value]] = Field(
        min_length=1, max_length=1000, description="Values by dataset, then by query."
    )

    @model_validator(mode="after")
    def _bounded(self) -> Results:
        if not all(self.datasets.values()):
            raise ValueError("a dataset has no queries")
        if sum(map(len, self.datasets.values())) > MAX_QUERIES:
            raise ValueError(f"there are more than {MAX_QUERIES} queries")
        return self

    @property
    def score(self) -> float:
        """The mean of the datasets' means."""
        return fmean(fmean(values.values()) for values in self.datasets.values())


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
    """Write a file, whole or not at all; raises `ResultsUnusable` where it cannot be written."""
    try:
        write_atomically(path, results.model_dump_json(indent=1).encode() + b"\n")
    except OSError as error:
        raise ResultsUnusable(f"{path.name} cannot be written ({error.strerror}).") from None
