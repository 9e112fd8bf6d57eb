"""The description of a calibration: for each instruction a map from raw scores to probabilities,
and the evidence that it was fitted with.

Depends on numbers alone, not on networks or arrays. Invariant: every map is non-decreasing with
values from 0 to 1, and a calibration names the model that it was fitted on.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

CALIBRATION = "calibration"
"""The entry of a manifest's lineage that has the calibration."""
MAX_INSTRUCTIONS = 32
MAX_KNOTS = 256
MAX_INSTRUCTION_CHARS = 10_000
BINS = 15

_DIGEST = "^[0-9a-f]{64}$"

Score = Annotated[float, Field(ge=-1e30, le=1e30, allow_inf_nan=False)]
Probability = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Loss = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=2**40)]


class _Described(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PlattMap(_Described):
    """sigmoid(slope * score + intercept) (Platt, 1999); the slope is never negative."""

    kind: Literal["platt"] = "platt"
    slope: float = Field(ge=0, le=1e6, allow_inf_nan=False)
    intercept: float = Field(ge=-1e6, le=1e6, allow_inf_nan=False)


class IsotonicMap(_Described):
    """Straight lines between knots, and constant beyond the first and the last of them."""

    kind: Literal["isotonic"] = "isotonic"
    scores: tuple[Score, ...] = Field(min_length=1, max_length=MAX_KNOTS)
    probabilities: tuple[Probability, ...] = Field(min_length=1, max_length=MAX_KNOTS)

    @model_validator(mode="after")
    def _is_monotone(self) -> Self:
        if len(self.scores) != len(self.probabilities):
            raise ValueError("a knot has a score and a probability")
        if any(left >= right for left, right in pairwise(self.scores)):
            raise ValueError("the scores of knots rise")
        if any(left > right for left, right in pairwise(self.probabilities)):
            raise ValueError("the probabilities of knots never fall")
        return self


ProbabilityMap = Annotated[PlattMap | IsotonicMap, Field(discriminator="kind")]


class Errors(_Described):
    """Errors of probabilities: the mean log loss (in nats), and the expected calibration error
    with its 95 % interval."""

    log_loss: Loss
    ece: Probability
    ece_low: Probability
    ece_high: Probability


class Bin(_Described):
    """One bin of a reliability diagram: the pairs whose probability is in it, their mean
    probability, and the share of them that is relevant."""

    pairs: Count
    probability: Probability
    relevant: Probability


class Evidence(_Described):
    """The judged pairs that a map was fitted to, and its errors on pairs that it was not fitted to.

    Queries are divided into `folds`; the probability of a pair is that of a map fitted to the
    other folds.
    """

    rows: str = Field(pattern=_DIGEST, description="A digest of the rows' contents.")
    queries: Count
    relevant: Count
    irrelevant: Count
    relevant_share: Probability = Field(
        description="The share of relevant pairs among those that the map is fitted to."
    )
    weighted: bool = Field(
        description="True where pairs were weighted, so that the share is another than theirs."
    )
    folds: int = Field(ge=2, le=100)
    platt_log_loss: Loss
    isotonic_log_loss: Loss
    held_out: Errors
    uncalibrated: Errors | None = Field(
        None, description="Of relevance scores as they are; absent where they are no probabilities."
    )
    bins: tuple[Bin, ...] = Field(min_length=BINS, max_length=BINS)


class InstructionMap(_Described):
    """The map of one instruction."""

    instruction: str = Field(max_length=MAX_INSTRUCTION_CHARS)
    map: ProbabilityMap
    evidence: Evidence


class Calibration(_Described):
    """The maps of a model."""

    model: str = Field(
        pattern=_DIGEST, description="The digest of all that decides a score but the engine."
    )
    prompt: str = Field(max_length=1024, description="The fingerprint of the family's prompt.")
    maps: tuple[InstructionMap, ...] = Field(min_length=1, max_length=MAX_INSTRUCTIONS)

    @model_validator(mode="after")
    def _has_one_map_an_instruction(self) -> Self:
        if len({each.instruction for each in self.maps}) != len(self.maps):
            raise ValueError("an instruction has one map")
        return self
