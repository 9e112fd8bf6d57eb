"""The description of a cascade: its stages, the rule that keeps documents between them, and the
evidence that it was published with.

Depends on names and numbers, not on networks or a service. Invariant: a description has two to four
stages; every stage but the last has a keep rule, and the last one is a model as it is served alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

MAX_STAGES = 4
MAX_DOCUMENTS = 100_000
_DIGEST = "^sha256:[0-9a-f]{64}$"

ModelName = Annotated[str, Field(min_length=1, max_length=128)]
Share = Annotated[float, Field(ge=0, le=1)]
Ndcg = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Difference = Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False)]
Saving = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]
Tokens = Annotated[int, Field(ge=0, le=2**60)]


class _Described(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class KeepRule(_Described):
    """The documents of a stage that the next stage scores.

    A `share` keeps the best part of them. A `margin` (in log-odds) keeps those within it of the
    `rank`-th best score, which makes easy queries cheap.
    """

    share: float | None = Field(None, gt=0, lt=1, allow_inf_nan=False)
    margin: float | None = Field(None, ge=0, le=1e4, allow_inf_nan=False)
    rank: int | None = Field(None, ge=1, le=MAX_DOCUMENTS)
    at_least: int = Field(10, ge=1, le=MAX_DOCUMENTS, description="Documents kept in any case.")

    @model_validator(mode="after")
    def _is_one_rule(self) -> Self:
        by_margin = self.margin is not None and self.rank is not None
        by_share = self.share is not None and self.margin is None and self.rank is None
        if by_share == by_margin or (by_margin and self.share is not None):
            raise ValueError("keep has either share, or margin and rank")
        return self


class Stage(_Described):
    """One scoring of documents by a model, the name of which is that of workers."""

    model: ModelName
    version: str = Field(pattern=_DIGEST, description="The SHA-256 of the model's manifest.")
    max_pixels: int | None = Field(
        None,
        ge=1,
        le=2**31,
        description="Area that images are reduced to, if smaller.",
    )
    keep: KeepRule | None = None


class CellEvidence(_Described):
    """The measurement on one cell of a benchmark."""

    queries: int = Field(ge=1, le=MAX_DOCUMENTS)
    cascade: Ndcg
    last_stage: Ndcg
    difference: Difference
    low: Difference
    high: Difference
    saving: Saving


class Evidence(_Described):
    """The measurement that a cascade was published with.

    `difference` is the cascade's score minus that of its last stage alone, with the interval of a
    paired bootstrap. `tokens` are those that an engine computes for all queries in each stage, its
    prefix once a query; `saving` is the work of the last stage alone divided by the cascade's, in
    tokens weighted by the operations of each stage's network. `scored` is the mean share of
    documents that each stage scores.
    """

    benchmark: str = Field(min_length=1, max_length=64)
    benchmark_digest: str = Field(pattern=_DIGEST)
    metric: str = Field(min_length=1, max_length=64)
    queries: int = Field(ge=1, le=MAX_DOCUMENTS)
    cascade: Ndcg
    last_stage: Ndcg
    difference: Difference
    low: Difference
    high: Difference
    level: float = Field(gt=0, lt=1)
    max_loss: Share
    tokens: list[Tokens] = Field(min_length=2, max_length=MAX_STAGES)
    last_stage_tokens: Tokens
    saving: Saving
    scored: list[Share] = Field(min_length=2, max_length=MAX_STAGES)
    discordance: Share = Field(description="Mean share of pairs that are ordered otherwise.")
    overlap: Share = Field(description="Mean overlap of the best ten documents.")
    cells: dict[str, CellEvidence] = Field(min_length=1, max_length=1000)


class Cascade(_Described):
    """A served model that is made of stages."""

    schema_version: int = Field(1, ge=1, le=1)
    name: ModelName
    stages: list[Stage] = Field(min_length=2, max_length=MAX_STAGES)
    evidence: Evidence

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        expect_consistent(self.name, self.stages)
        evidence = self.evidence
        if not len(evidence.scored) == len(evidence.tokens) == len(self.stages):
            raise ValueError("the evidence has not one figure for each stage")
        return self


def expect_consistent(name: str, stages: Sequence[Stage]) -> None:
    """Raise `ValueError` where stages do not make a cascade of this name."""
    *earlier, last = stages
    for number, stage in enumerate(earlier, 1):
        if stage.keep is None:
            raise ValueError(f"stage {number} has no keep rule")
    if last.keep is not None or last.max_pixels is not None:
        raise ValueError("the last stage has neither keep nor max_pixels: it is a model as served")

    if name in {stage.model for stage in stages}:
        raise ValueError("a cascade has another name than its stages")
    for before, after in pairwise(stages):
        if before.model_copy(update={"keep": None}) == after.model_copy(update={"keep": None}):
            raise ValueError("two stages in a row are the same")
